package transfer_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/ledger"
	"rotatord/internal/ledger/transfer"
	"rotatord/internal/racedetector"
	"rotatord/internal/rotation"
)

var at = time.Date(2026, 11, 29, 2, 0, 0, 0, time.UTC)

// full returns a record of an idle token in which every field has a value: a field that a later version adds
// has one too, so it cannot be forgotten in a move.
func full(token string) rotation.Record {
	var r rotation.Record
	fill(reflect.ValueOf(&r).Elem(), 1)
	r.Format, r.Token, r.Revision = rotation.RecordFormat, token, 17
	r.Step, r.Work, r.Doubt = rotation.StepIdle, nil, nil
	return r
}

// fill gives every field a value other than the zero value.
func fill(v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth+1)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(at.Add(time.Duration(depth) * time.Nanosecond)))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i), depth+i+1)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), depth+1)
		fill(v.Index(1), depth+2)
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, depth+1)
		fill(value, depth+1)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.String:
		v.SetString(fmt.Sprintf("text <%d> \"ü\"", depth))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(depth))
	case reflect.Uint64:
		v.SetUint(uint64(depth))
	default:
		panic("a field of kind " + v.Kind().String())
	}
}

func pauses() map[string]rotation.Pause {
	return map[string]rotation.Pause{
		rotation.AllTokens: {Since: at, Reason: "the mill moves", By: "root"}, "ci": {Since: at, Until: at.Add(time.Hour)},
	}
}

func content(names ...string) transfer.Content {
	var all []rotation.Record
	for _, name := range names {
		all = append(all, full(name))
	}
	return transfer.Of("/var/lib/rotatord/journal.db", "1.2.3", at, all, pauses())
}

func TestFileKeepsAll(t *testing.T) {
	want := content("grid", "ci")
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	if err := want.Save(path); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info.Mode(), err)
	}
	got, err := transfer.Read(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("read back:\n%s", diff)
	}
	if got.Records[0].Token != "ci" || got.Records[0].Revision != 0 || got.Records[0].Hold != nil {
		t.Errorf("the first record is %s at revision %d", got.Records[0].Token, got.Records[0].Revision)
	}
	if err := want.Save(path); err == nil || !strings.Contains(err.Error(), "name another one with --out") {
		t.Errorf("a second save to the same file: %v", err)
	}
}

// TestEmptyFileKeepsAll moves a ledger that has nothing: a daemon that was never started.
func TestEmptyFileKeepsAll(t *testing.T) {
	b, err := transfer.Of("x", "1", at, nil, nil).Encode()
	if err != nil {
		t.Fatal(err)
	}
	if c, err := transfer.Decode(b); err != nil || len(c.Records)+len(c.Pauses) != 0 {
		t.Errorf("%v, %v", c, err)
	}
}

func TestBadFiles(t *testing.T) {
	good, err := content("ci", "grid").Encode()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(good), "\n")
	lines = lines[:len(lines)-1]
	if len(lines) != 5 { // the header, two records, the pauses, the end
		t.Fatalf("%d lines", len(lines))
	}
	replaced := func(old, now string) string { return strings.Replace(string(good), old, now, 1) }
	for name, test := range map[string]struct{ file, want string }{
		"empty":                {"", "it is empty"},
		"foreign":              {"hello\n", "not a file that rotatord ledger export wrote"},
		"foreign JSON":         {`{"records":[]}` + "\n", "not a file that rotatord ledger export wrote"},
		"binary":               {"\x00\x01\x02\n", "rotatord ledger export --state-dir DIR reads it"},
		"newer format":         {replaced(`"format":1`, `"format":2`), "has format 2 and this rotatord reads 1: import it with the version that wrote it (1.2.3)"},
		"newer record":         {replaced(`{"format":3,`, `{"format":4,`), "the record of ci has format version 4"},
		"newer field":          {replaced(`"anchor":`, `"herald":1,"anchor":`), `the record of ci has the field "herald", which this rotatord does not know and would lose`},
		"a record of no name":  {replaced(`"token":"ci"`, `"token":""`), `"" cannot be the name of a token`},
		"a path as a name":     {replaced(`"token":"ci"`, `"token":"../ci"`), `cannot be the name of a token`},
		"without format":       {replaced(`{"format":3,`, `{"format":0,`), "the record of ci has no format version"},
		"changed":              {replaced(`"account":"text`, `"account":"next`), "its checksum is wrong"},
		"a line changed":       {replaced(`{"pauses"`, `{"causes"`), "line 4 cannot be read"},
		"a record twice":       {strings.Join(slices.Concat(lines[:2], lines[1:]), ""), "it has two records of ci"},
		"a record is missing":  {strings.Join(slices.Concat(lines[:1], lines[2:]), ""), "its checksum is wrong"},
		"no end":               {strings.Join(lines[:4], ""), "its end is missing"},
		"cut in a line":        {string(good[:len(good)/2]), "cannot be read"},
		"cut at the last byte": {string(good[:len(good)-1]), "line 5 cannot be read"},
		"only the header":      {lines[0], "its end is missing"},
		"more follows":         {string(good) + lines[1], "more follows after its last line"},
		"two on a line":        {strings.Replace(string(good), "}\n{\"pauses\"", "}{\"pauses\"", 1), "line 3 cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			if test.file == string(good) {
				t.Fatal("the case changes nothing")
			}
			_, err := transfer.Decode([]byte(test.file))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v\nwant: %s", err, test.want)
			}
		})
	}
	// Whatever is cut off, a part is not taken for a whole.
	step := 1
	if racedetector.On {
		step = 7
	}
	for n := 0; n < len(good); n += step {
		if _, err := transfer.Decode(good[:n]); err == nil {
			t.Errorf("the first %d of %d bytes are taken for a whole file", n, len(good))
		}
	}
}

func FuzzDecode(f *testing.F) {
	good, err := content("ci").Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := transfer.Decode(b)
		if err != nil {
			return
		}
		again, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := transfer.Decode(again); err != nil || !cmp.Equal(c, back) {
			t.Errorf("it changed on the way: %v\n%s", err, cmp.Diff(c, back))
		}
	})
}

func TestHugeFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "huge")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(300<<20), f.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := transfer.Read(t.Context(), path); err == nil || !strings.Contains(err.Error(), "check that the path names the right file") {
		t.Error(err)
	}
}

// memory is a ledger in memory, as a key-value store has it: SaveAll stops in the middle.
type memory struct {
	records map[string]rotation.Record
	pauses  map[string]rotation.Pause
	saves   int
	// failAt is the save that fails, counted from 1; 0: none does. lost: it is done, and its answer is lost.
	failAt int
	lost   bool
}

func newMemory() *memory { return &memory{records: map[string]rotation.Record{}} }

var errFull = errors.New("the store is full")

func (m *memory) Load(_ context.Context, token string) (rotation.Record, error) {
	return m.records[token], nil
}

func (m *memory) Save(_ context.Context, r rotation.Record) (rotation.Record, error) {
	m.saves++
	fails := m.saves == m.failAt
	if fails && !m.lost {
		return rotation.Record{}, errFull
	}
	if m.records[r.Token].Revision != r.Revision {
		return rotation.Record{}, rotation.ErrConflict
	}
	r.Revision++
	m.records[r.Token] = r
	if fails {
		return rotation.Record{}, errFull
	}
	return r, nil
}

func (m *memory) SaveAll(ctx context.Context, all []rotation.Record) ([]rotation.Record, error) {
	saved := make([]rotation.Record, len(all))
	for i, r := range all {
		one, err := m.Save(ctx, r)
		if err != nil {
			return saved, err
		}
		saved[i] = one
	}
	return saved, nil
}

func (m *memory) All(context.Context) ([]rotation.Record, error) {
	return slices.Collect(maps.Values(m.records)), nil
}

func (m *memory) LoadPauses(context.Context) (map[string]rotation.Pause, error) { return m.pauses, nil }

func (m *memory) SavePauses(_ context.Context, all map[string]rotation.Pause) error {
	m.saves++
	if m.saves == m.failAt {
		return errFull
	}
	m.pauses = all
	return nil
}

func move(t *testing.T, c transfer.Content, target transfer.Ledger) (int, error) {
	t.Helper()
	p, err := transfer.Compare(t.Context(), c, ends(target))
	if err != nil {
		return 0, err
	}
	return p.Write(t.Context(), func(int, int) {})
}

func ends(target transfer.Ledger) transfer.Ends {
	return transfer.Ends{File: "the file", Target: target, Where: "the target"}
}

// held returns what a ledger holds, as it would be exported.
func held(t *testing.T, l transfer.Ledger) transfer.Content {
	t.Helper()
	all, err := l.All(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p, err := l.LoadPauses(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return transfer.Of("/var/lib/rotatord/journal.db", "1.2.3", at, all, p)
}

// TestInterrupted stops an import at each save, in both ways, and repeats it.
func TestInterrupted(t *testing.T) {
	want := content("a", "b", "ci", "d", "e")
	for _, lost := range []bool{false, true} {
		for failAt := 1; ; failAt++ {
			target := newMemory()
			target.failAt, target.lost = failAt, lost
			done, err := move(t, want, target)
			if err == nil {
				if failAt != len(want.Records)+2 { // the pauses, the records
					t.Errorf("it went well with a failure of save %d", failAt)
				}
				break
			}
			if !errors.Is(err, errFull) || done != len(target.records) {
				t.Errorf("save %d (lost: %t): %v; %d said, and %d written", failAt, lost, err, done, len(target.records))
			}
			if _, err := move(t, want, target); err != nil {
				t.Errorf("save %d (lost: %t): repeated: %v", failAt, lost, err)
			}
			if diff := cmp.Diff(want, held(t, target)); diff != "" {
				t.Errorf("save %d (lost: %t): after it was repeated:\n%s", failAt, lost, diff)
			}
			saves := target.saves
			if _, err := move(t, want, target); err != nil || target.saves != saves {
				t.Errorf("a third time: %v, %d saves", err, target.saves-saves)
			}
		}
	}
}

func TestLocalLedger(t *testing.T) {
	want := content("ci", "grid")
	l, err := ledger.OpenLocal(filepath.Join(t.TempDir(), "journal.db"), ledger.LocalOptions{New: true, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p, err := transfer.Compare(t.Context(), want, transfer.Ends{File: "the file", Target: l, Where: "the target", AtOnce: true})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := p.Write(t.Context(), func(int, int) {}); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	if diff := cmp.Diff(want, held(t, l)); diff != "" {
		t.Error(diff)
	}
}

func TestRefusals(t *testing.T) {
	busy := func(step rotation.Step) rotation.Record {
		r := full("grid")
		r.Step, r.Work = step, &rotation.Work{RotationID: "R"}
		if step == rotation.StepInDoubt {
			r.Doubt = &rotation.Doubt{Reason: rotation.ReasonOutcomeUnknown}
		}
		return r
	}
	overtaken := busy(rotation.StepSealed)
	overtaken.Work.Overtaken = &rotation.Overtaken{}
	other := full("ci")
	other.Anchor = at.Add(time.Hour)
	for name, test := range map[string]struct {
		file   []rotation.Record
		target []rotation.Record
		pauses map[string]rotation.Pause
		want   []string
	}{
		"in doubt in the file": {file: []rotation.Record{full("ci"), busy(rotation.StepInDoubt)},
			want: []string{"the file has 1 rotation(s) in progress", "grid: in_doubt: ", "rotatord resolve grid"}},
		"overtaken in the file": {file: []rotation.Record{overtaken}, want: []string{"grid: sealed: ", "rotatord resolve grid --drop, --deliver or --rotate-now"}},
		"in progress in the target": {file: []rotation.Record{full("ci")}, target: []rotation.Record{busy(rotation.StepIntent)},
			want: []string{"the target has 1 rotation(s) in progress", "grid: intent: ", "wait until rotatord status grid shows idle"}},
		"stored":         {file: []rotation.Record{busy(rotation.StepStored)}, want: []string{"grid: stored: "}},
		"another record": {file: []rotation.Record{full("ci"), full("new")}, target: []rotation.Record{other}, want: []string{"the target holds other records of ci than the file: nothing was written"}},
		"another pause": {file: []rotation.Record{full("ci")}, pauses: map[string]rotation.Pause{rotation.AllTokens: {Since: at.Add(time.Minute)}},
			want: []string{"another pause of all tokens", "rotatord resume --all"}},
	} {
		t.Run(name, func(t *testing.T) {
			target := newMemory()
			for _, r := range test.target {
				target.records[r.Token] = r
			}
			target.pauses = test.pauses
			_, err := move(t, transfer.Of("x", "1", at, test.file, pauses()), target)
			if err == nil || target.saves > 0 {
				t.Fatalf("%v, after %d saves", err, target.saves)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nwant: %s", err, want)
				}
			}
		})
	}
}

// TestEnrolledOnly: a daemon that was started too early on the target has enrolled the tokens, and that says nothing.
func TestEnrolledOnly(t *testing.T) {
	target := newMemory()
	target.records["ci"] = rotation.Record{Format: rotation.RecordFormat, Revision: 3, Token: "ci", Anchor: at, Facts: rotation.TokenFacts{ID: "x"}}
	target.records["beside"] = full("beside")
	target.pauses = map[string]rotation.Pause{"beside": {Since: at}, "ci": {Since: at, Until: time.Now().Add(-time.Hour), Reason: "it has ended"}}
	p, err := transfer.Compare(t.Context(), content("ci"), ends(target))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(p.Begun, []string{"ci"}) || !slices.Equal(p.Beside, []string{"beside"}) || p.New > 0 || p.Same > 0 {
		t.Errorf("%+v", p)
	}
	if _, err := p.Write(t.Context(), func(int, int) {}); err != nil {
		t.Fatal(err)
	}
	if r := target.records["ci"]; r.Revision != 4 || r.Last == nil {
		t.Errorf("ci: %+v", r)
	}
	if len(target.pauses) != 3 || target.pauses["ci"].Reason != "" {
		t.Errorf("pauses: %v", target.pauses)
	}
}

// TestOutOfUse: a target that was exported gets what the file has, also where it held something else, and after
// an interruption.
func TestOutOfUse(t *testing.T) {
	want := content("ci", "grid")
	target := newMemory()
	for i, name := range []string{"ci", "grid"} {
		r := full(name)
		r.Revision, r.Anchor = uint64(i+1), at.Add(time.Hour)
		target.records[name] = r
	}
	target.pauses = map[string]rotation.Pause{"ci": {Since: at.Add(time.Hour)}, "grid": {Since: at}}
	target.failAt = 3
	e := ends(target)
	e.OutOfUse = true
	for _, fails := range []bool{true, false} {
		p, err := transfer.Compare(t.Context(), want, e)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = p.Write(t.Context(), func(int, int) {}); (err != nil) != fails {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, held(t, target)); diff != "" {
		t.Error(diff)
	}
}
