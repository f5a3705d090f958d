package audit_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"rotatord/internal/audit"
	"rotatord/internal/event"
	"rotatord/internal/secret"
	"rotatord/internal/status"
)

var now = time.Date(2026, 11, 29, 7, 0, 0, 0, time.UTC)

// at returns where a test has its record.
func at(t testing.TB) string { return filepath.Join(t.TempDir(), "audit", "audit.jsonl") }

func open(t testing.TB, o audit.Options) *audit.Recorder {
	t.Helper()
	if o.Now == nil {
		o.Now = func() time.Time { return now }
	}
	r, err := audit.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// leaving returns the event of the n-th request.
func leaving(n int) event.Event {
	return event.New(now.Add(time.Duration(n)*time.Second), "ci", event.Actor{Cause: event.BySchedule},
		event.RequestLeaving{Operation: "rotate", RotationID: fmt.Sprint("R", n), Trigger: "schedule", TokenID: "T", Slot: now, Grace: time.Hour})
}

func record(t testing.TB, r *audit.Recorder, from, to int) {
	t.Helper()
	for n := from; n <= to; n++ {
		if err := r.Record(t.Context(), leaving(n)); err != nil {
			t.Fatal(err)
		}
	}
}

// written returns a closed record. Its lines are: the beginning, ten requests, and the end of the daemon.
func written(t testing.TB) (path string) {
	t.Helper()
	path = at(t)
	r := open(t, audit.Options{File: path})
	record(t, r, 2, 11)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func verify(t testing.TB, o audit.VerifyOptions) audit.Verified {
	t.Helper()
	v, err := audit.Verify(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func lines(t testing.TB, path string) [][]byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	all := bytes.SplitAfter(text, []byte("\n"))
	return all[:len(all)-1]
}

func put(t testing.TB, path string, all [][]byte) {
	t.Helper()
	if err := os.WriteFile(path, bytes.Join(all, nil), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestVerify changes a record in each way, and wants each line that is not as it was written to be named. It logs
// the table that docs/audit.md has.
func TestVerify(t *testing.T) {
	rehashed := func(line []byte) []byte { // as one does who knows how hashes are computed
		body := regexp.MustCompile(`,"hash":"[0-9a-f-]{65}"}\n$`).ReplaceAll(line, []byte("}"))
		return audit.Rehash(body)
	}
	edit := func(line []byte) []byte { return bytes.Replace(line, []byte(`"schedule"`), []byte(`"operator"`), 1) }
	for _, c := range []struct {
		what   string
		change func(all [][]byte) [][]byte
		want   []string // line in the file and kind; 0 for the whole file
	}{
		{"nothing", func(all [][]byte) [][]byte { return all }, nil},
		{"line 5 was changed", func(all [][]byte) [][]byte { all[4] = edit(all[4]); return all }, []string{"5 changed"}},
		{"one bit of line 5 was changed", func(all [][]byte) [][]byte { all[4][20] ^= 1; return all }, []string{"5 changed"}},
		{"line 5 was changed, and its hash computed again", func(all [][]byte) [][]byte { all[4] = rehashed(edit(all[4])); return all }, []string{"6 broken"}},
		{"all lines from 5 on were changed, and all hashes computed again", func(all [][]byte) [][]byte {
			return audit.Rechain(all, 4, edit)
		}, []string{"12 head"}},
		{"line 5 was removed", func(all [][]byte) [][]byte { return slices.Delete(all, 4, 5) }, []string{"5 missing"}},
		{"lines 5 to 7 were removed", func(all [][]byte) [][]byte { return slices.Delete(all, 4, 7) }, []string{"5 missing"}},
		{"the first line was removed", func(all [][]byte) [][]byte { return all[1:] }, []string{"1 missing"}},
		{"lines 5 and 6 were exchanged", func(all [][]byte) [][]byte { all[4], all[5] = all[5], all[4]; return all }, []string{"6 reordered"}},
		{"line 9 was moved before line 5", func(all [][]byte) [][]byte {
			line := all[8]
			return slices.Insert(slices.Delete(all, 8, 9), 4, line)
		}, []string{"6 reordered", "7 reordered", "8 reordered", "9 reordered"}},
		{"line 5 is there twice", func(all [][]byte) [][]byte { return slices.Insert(all, 5, all[4]) }, []string{"6 duplicated"}},
		{"line 5 is there again at the end", func(all [][]byte) [][]byte { return append(all, all[4]) }, []string{"13 duplicated"}},
		{"something was inserted after line 5", func(all [][]byte) [][]byte { return slices.Insert(all, 5, []byte("hello\n")) }, []string{"6 unreadable"}},
		{"an empty line was inserted after line 5", func(all [][]byte) [][]byte { return slices.Insert(all, 5, []byte("\n")) }, []string{"6 unreadable"}},
		{"the last three lines were removed", func(all [][]byte) [][]byte { return all[:9] }, []string{"0 truncated"}},
		{"the last line was cut in its middle", func(all [][]byte) [][]byte { all[11] = all[11][:40]; return all }, []string{"12 truncated", "0 truncated"}},
		{"everything was removed", func([][]byte) [][]byte { return nil }, []string{"0 truncated"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			path := written(t)
			put(t, path, c.change(lines(t, path)))
			v := verify(t, audit.VerifyOptions{File: path})
			var got, told []string
			for _, p := range v.Problems {
				got = append(got, fmt.Sprintf("%d %s", p.Line, p.Kind))
				told = append(told, strings.TrimPrefix(p.String(), filepath.Dir(path)+"/"))
			}
			if !slices.Equal(got, c.want) || v.OK != (len(c.want) == 0) {
				t.Errorf("%v, want %v\n%s", got, c.want, strings.Join(told, "\n"))
			}
			t.Logf("| %s | %s |", c.what, strings.Join(told, "<br>"))
		})
	}
}

// TestVerifyComparesHeads: who replaces the record and the head beside it is found out by a head that was kept elsewhere.
func TestVerifyComparesHeads(t *testing.T) {
	path := written(t)
	all := lines(t, path)
	head, err := audit.ReadHead(path)
	if err != nil || head.Seq != 12 {
		t.Fatalf("%v, %v", head, err)
	}
	headPath := strings.TrimSuffix(path, ".jsonl") + ".head"
	put(t, path, audit.Rechain(slices.Clone(all), 4, func(line []byte) []byte { return bytes.Replace(line, []byte(`"schedule"`), []byte(`"operator"`), 1) }))
	if err := os.WriteFile(headPath, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if v := verify(t, audit.VerifyOptions{File: path}); !v.OK { // what docs/audit.md says cannot be found out
		t.Errorf("%v", v.Problems)
	}
	if v := verify(t, audit.VerifyOptions{File: path, Head: head}); len(v.Problems) != 1 || v.Problems[0].Kind != audit.ProblemHead {
		t.Errorf("%v", v.Problems)
	}
	put(t, path, all[:9])
	for _, head := range []audit.Head{head, {Seq: 12}} {
		if v := verify(t, audit.VerifyOptions{File: path, Head: head}); len(v.Problems) != 1 || v.Problems[0].Kind != audit.ProblemTruncated {
			t.Errorf("%v", v.Problems)
		}
	}
	if err := os.WriteFile(headPath, []byte("12:ab"), 0o600); err != nil {
		t.Fatal(err)
	}
	put(t, path, all)
	if v := verify(t, audit.VerifyOptions{File: path}); len(v.Problems) != 1 || v.Problems[0].Kind != audit.ProblemHead {
		t.Errorf("with a damaged head: %v", v.Problems)
	}
}

// TestFilesGoOn: full files are kept and numbered, old ones are deleted, and the chain goes on through all.
func TestFilesGoOn(t *testing.T) {
	path := at(t)
	r := open(t, audit.Options{File: path, MaxSize: 2000, Keep: 3})
	record(t, r, 1, 60)
	found, err := filepath.Glob(path + ".0*")
	if err != nil || len(found) != 3 {
		t.Fatalf("%v, %v", found, err)
	}
	v := verify(t, audit.VerifyOptions{File: path})
	if !v.OK || v.First < 20 || v.Last < 61 || len(v.Files) != 4 {
		t.Errorf("%+v", v)
	}
	if h, err := r.History(t.Context(), status.HistoryQuery{Token: "ci", Limit: 8}); err != nil || len(h.Entries) != 8 || !h.More || h.Entries[7].RotationID != "R60" || h.Entries[0].RotationID != "R53" {
		t.Errorf("%+v, %v", h, err)
	}
	_ = r.Close()
	r = open(t, audit.Options{File: path, MaxSize: 2000, Keep: 3})
	record(t, r, 61, 61)
	if v := verify(t, audit.VerifyOptions{File: path}); !v.OK {
		t.Errorf("after a restart: %v", v.Problems)
	}
	for i, name := range found { // one file removed, and the oldest
		moved := name + "-away"
		if err := os.Rename(name, moved); err != nil {
			t.Fatal(err)
		}
		v := verify(t, audit.VerifyOptions{File: path})
		if len(v.Problems) != 1 || v.Problems[0].Kind != audit.ProblemMissing || v.Problems[0].Line != 1 {
			t.Errorf("without file %d: %v", i, v.Problems)
		}
		if err := os.Rename(moved, name); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFileOfAge: a file whose first line is old enough is full.
func TestFileOfAge(t *testing.T) {
	path, clock := at(t), now
	r := open(t, audit.Options{File: path, MaxAge: 24 * time.Hour, Now: func() time.Time { return clock }})
	record(t, r, 1, 2)
	clock = clock.Add(25 * time.Hour)
	record(t, r, 3, 4)
	if found, err := filepath.Glob(path + ".0*"); err != nil || len(found) != 1 {
		t.Errorf("%v, %v", found, err)
	}
	if v := verify(t, audit.VerifyOptions{File: path}); !v.OK || len(v.Files) != 2 {
		t.Errorf("%+v", v)
	}
}

// TestCrashOfTheMachine cuts the file behind what was durable, at each length and with zeros: the rest is cut off and
// kept, the record says so, and its chain goes on.
func TestCrashOfTheMachine(t *testing.T) {
	path := at(t)
	r := open(t, audit.Options{File: path})
	record(t, r, 1, 3)
	durable := len(bytes.Join(lines(t, path), nil))
	headPath := strings.TrimSuffix(path, ".jsonl") + ".head"
	head, err := os.ReadFile(headPath)
	if err != nil {
		t.Fatal(err)
	}
	record(t, r, 4, 5)
	_ = r.Close()
	whole := bytes.Join(lines(t, path), nil)
	for cut := durable; cut < len(whole); cut += 13 {
		for _, zeros := range []int{0, 100} {
			text := append(slices.Clone(whole[:cut]), make([]byte, zeros)...)
			if err := errors.Join(os.WriteFile(path, text, 0o600), os.WriteFile(headPath, head, 0o600)); err != nil {
				t.Fatal(err)
			}
			r := open(t, audit.Options{File: path})
			record(t, r, 6, 6)
			notices := r.Notices()
			torn := zeros > 0 || whole[cut-1] != '\n'
			if (len(notices) == 1) != torn {
				t.Fatalf("cut at %d with %d zeros: %v", cut, zeros, notices)
			}
			_ = r.Close()
			if v := verify(t, audit.VerifyOptions{File: path}); !v.OK {
				t.Fatalf("cut at %d with %d zeros: %v", cut, zeros, v.Problems)
			}
			if torn {
				kept := notices[0].(event.AuditTorn).Kept
				if _, err := os.Stat(kept); err != nil {
					t.Fatal(err)
				}
				_ = os.Remove(kept)
			}
		}
	}
}

// TestDamageAtStart: whatever is missing or changed, the record goes on with a new chain, says why, and no number is
// used twice.
func TestDamageAtStart(t *testing.T) {
	headOf := func(path string) string { return strings.TrimSuffix(path, ".jsonl") + ".head" }
	for what, damage := range map[string]func(path string) error{
		"removed":        os.Remove,
		"emptied":        func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"cut":            func(path string) error { return os.Truncate(path, 900) },
		"foreign":        func(path string) error { return os.WriteFile(path, []byte("hello\nworld\n"), 0o600) },
		"without head":   func(path string) error { return os.Remove(headOf(path)) },
		"changed head":   func(path string) error { return os.WriteFile(headOf(path), []byte("12:abc"), 0o600) },
		"endless line":   func(path string) error { return os.WriteFile(path, make([]byte, 1<<20), 0o600) },
		"changed inside": func(path string) error { all := lines(t, path); all[4][30] ^= 1; put(t, path, all); return nil },
	} {
		t.Run(what, func(t *testing.T) {
			path := written(t)
			if err := damage(path); err != nil {
				t.Fatal(err)
			}
			r := open(t, audit.Options{File: path})
			record(t, r, 20, 21)
			notices := r.Notices()
			if len(notices) != 1 || notices[0].(event.AuditChain).Damage == "" {
				t.Fatalf("%v", notices)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			v := verify(t, audit.VerifyOptions{File: path})
			if v.OK || !slices.ContainsFunc(v.Problems, func(p audit.Problem) bool {
				return p.Kind == audit.ProblemNewChain || p.Kind == audit.ProblemMissing || p.Kind == audit.ProblemUnreadable
			}) {
				t.Errorf("%v", v.Problems)
			}
			if v.Last != 16 {
				t.Errorf("the last line is %d", v.Last)
			}
			if v := verify(t, audit.VerifyOptions{File: path, From: 14}); !v.OK {
				t.Errorf("from the new chain on: %v", v.Problems)
			}
			again := open(t, audit.Options{File: path})
			if notices := again.Notices(); len(notices) != 0 {
				t.Errorf("at the next start: %v", notices)
			}
		})
	}
}

// TestDamageWhileItRuns: the file is removed, replaced or cut under the daemon.
func TestDamageWhileItRuns(t *testing.T) {
	for what, damage := range map[string]func(path string) error{
		"removed": os.Remove,
		"replaced": func(path string) error {
			return errors.Join(os.Rename(path, path+".1"), os.WriteFile(path, []byte("x\n"), 0o600))
		},
		"cut": func(path string) error { return os.Truncate(path, 10) },
	} {
		t.Run(what, func(t *testing.T) {
			path := at(t)
			r := open(t, audit.Options{File: path})
			record(t, r, 1, 3)
			if err := damage(path); err != nil {
				t.Fatal(err)
			}
			record(t, r, 4, 5)
			if notices := r.Notices(); len(notices) != 1 || !strings.Contains(notices[0].(event.AuditChain).Damage, what) {
				t.Errorf("%v", notices)
			}
			h, err := r.History(t.Context(), status.HistoryQuery{})
			if n := len(h.Entries); err != nil || n < 3 || h.Entries[n-1].RotationID != "R5" || h.Entries[n-2].RotationID != "R4" || h.Entries[n-3].Kind != string(event.AuditDamaged) {
				t.Errorf("%+v, %v", h, err)
			}
		})
	}
}

// TestForeignFileAtStart: a file that never was a record is not moved away.
func TestForeignFileAtStart(t *testing.T) {
	path := at(t)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("CF_ACCESS_CLIENT_ID=x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := audit.Open(audit.Options{File: path}); err == nil || !strings.Contains(err.Error(), "no line of a record") || !strings.Contains(err.Error(), "choose another path") {
		t.Errorf("%v", err)
	}
	if content, err := os.ReadFile(path); err != nil || string(content) != "CF_ACCESS_CLIENT_ID=x\n" {
		t.Errorf("%q, %v", content, err)
	}
	if _, err := audit.Open(audit.Options{File: path}); err == nil {
		t.Error("the second start takes it for a record")
	}
}

// TestDirectoryIsMovedAway: the directory of the record is moved away under the daemon. The record and its head begin in
// a new one, no number is used twice, and the next start finds nothing wrong.
func TestDirectoryIsMovedAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit", "audit.jsonl")
	r := open(t, audit.Options{File: path})
	record(t, r, 1, 3)
	moved := filepath.Dir(path) + ".moved"
	if err := os.Rename(filepath.Dir(path), moved); err != nil {
		t.Fatal(err)
	}
	record(t, r, 4, 6)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	numbers := map[uint64]bool{}
	for _, file := range []string{filepath.Join(moved, "audit.jsonl"), path} {
		for _, text := range lines(t, file) {
			var l struct{ Seq uint64 }
			if err := json.Unmarshal(text, &l); err != nil {
				t.Fatal(err)
			}
			if numbers[l.Seq] && file == path {
				t.Errorf("number %d is used twice", l.Seq)
			}
			numbers[l.Seq] = true
		}
	}
	if head, err := audit.ReadHead(path); err != nil || head.IsZero() {
		t.Errorf("the head beside the record: %v, %v", head, err)
	}
	again := open(t, audit.Options{File: path})
	if notices := again.Notices(); len(notices) != 0 {
		t.Errorf("the next start: %v", notices)
	}
}

// TestPipesAreNotRead: a pipe or a device in the place of a file keeps no reader.
func TestPipesAreNotRead(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "audit.jsonl")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	device := filepath.Join(t.TempDir(), "audit.jsonl")
	if err := os.Symlink("/dev/zero", device); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, device} {
		if _, err := audit.Verify(t.Context(), audit.VerifyOptions{File: path}); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("verify of %s: %v", path, err)
		}
		if _, err := audit.ReadHistory(t.Context(), path, status.HistoryQuery{}); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("history of %s: %v", path, err)
		}
	}
}

// TestNothingIsLostBetweenFiles: a file is damaged under the daemon, and no new one can be made at first. Lines that were
// not on the disk yet are in the new file, and what is left of the damaged one is kept.
func TestNothingIsLostBetweenFiles(t *testing.T) {
	for what, damage := range map[string]func(path string) error{
		"removed": os.Remove,
		"cut":     func(path string) error { return os.Truncate(path, 10) },
	} {
		t.Run(what, func(t *testing.T) {
			path := at(t)
			r := open(t, audit.Options{File: path})
			record(t, r, 1, 3)
			r.Subscriber().Handle(event.New(now, "other", event.Daemon, event.Missed{Count: 7}))
			if err := errors.Join(damage(path), os.Mkdir(path+".next", 0o700)); err != nil {
				t.Fatal(err)
			}
			if err := r.Sync(); err == nil {
				t.Fatal("there is no file, and the lines are durable")
			}
			if err := os.Remove(path + ".next"); err != nil {
				t.Fatal(err)
			}
			if err := r.Sync(); err != nil {
				t.Fatal(err)
			}
			h, err := r.History(t.Context(), status.HistoryQuery{Token: "other"})
			if err != nil || len(h.Entries) != 1 || r.Stats().Lost != 0 {
				t.Errorf("%+v, %v, %d lost", h, err, r.Stats().Lost)
			}
			notices := r.Notices()
			if len(notices) != 1 {
				t.Fatalf("%v", notices)
			}
			chain := notices[0].(event.AuditChain)
			if left, err := os.ReadFile(chain.Kept); what == "cut" && (err != nil || len(left) != 10) {
				t.Errorf("%+v: %d bytes are kept, %v", chain, len(left), err)
			}
		})
	}
}

// TestNameIsTaken: a full file whose name is taken already gets another one, under which it is read.
func TestNameIsTaken(t *testing.T) {
	path := at(t)
	r := open(t, audit.Options{File: path, MaxSize: 1500})
	if err := os.WriteFile(path+".000000000001", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	record(t, r, 2, 9)
	if v := verify(t, audit.VerifyOptions{File: path}); !v.OK || v.First != 1 || len(v.Files) < 3 {
		t.Errorf("%+v", v)
	}
}

// TestOneWriter: a second daemon does not write the same record.
func TestOneWriter(t *testing.T) {
	path := at(t)
	open(t, audit.Options{File: path})
	if _, err := audit.Open(audit.Options{File: path}); err == nil || !strings.Contains(err.Error(), "another process writes") {
		t.Errorf("%v", err)
	}
}

// TestBurst: events that come faster than they are made durable are not lost.
func TestBurst(t *testing.T) {
	path := at(t)
	r := open(t, audit.Options{File: path})
	s := r.Subscriber()
	for n := range 5000 {
		s.Handle(event.New(now, fmt.Sprint("token-", n), event.Daemon, event.Missed{Count: n}))
	}
	if err := r.Sync(); err != nil || r.Stats().Lost != 0 {
		t.Errorf("%+v, %v", r.Stats(), err)
	}
	if v := verify(t, audit.VerifyOptions{File: path}); !v.OK || v.Lines != 5001 {
		t.Errorf("%+v", v)
	}
}

// TestNoSecretIsRecorded: a text from elsewhere that has a secret is scrubbed wherever it comes, and nothing in a record
// looks like a secret, not even its hashes. Lines are bounded.
func TestNoSecretIsRecorded(t *testing.T) {
	const canary, canaryHex = "cfast_CANARYcanaryCANARYcanaryCANARYcanary0123deadbeef", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	path := at(t)
	r := open(t, audit.Options{File: path})
	s := r.Subscriber()
	long := strings.Repeat("very long, with \x00\x1b[2J\u2028 and \xff in it ", 2000)
	bad := fmt.Errorf("the answer was %s and %s: %s", canary, canaryHex, long)
	args := []any{}
	for n := range 40 {
		args = append(args, fmt.Sprint("argument_", n), long+canary)
	}
	for _, e := range []event.Event{
		event.New(now, canary, event.Operator(canaryHex), event.Command{Verb: event.OperatorPause, Args: args, Outcome: canary, Err: bad.Error()}),
		event.New(now, "ci", event.Daemon, event.RotationEnded{RotationID: canary, Trigger: canary, Result: event.ResultFailed, Reason: canaryHex, Err: bad}),
		event.New(now, "ci", event.Daemon, event.SinkWrite{Sink: canary, Err: bad}),
		event.New(now, "ci", event.Daemon, event.Healed{What: []string{canary, canaryHex}}),
	} {
		s.Handle(e)
	}
	record(t, r, 1, 1)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if shown := string(text); secret.Scrub(shown) != shown || strings.Contains(shown, canary) || strings.Contains(shown, canaryHex) {
		t.Errorf("the record has what looks like a secret:\n%.3000s", shown)
	}
	for _, line := range lines(t, path) {
		if len(line) > 9<<10 {
			t.Errorf("a line has %d bytes", len(line))
		}
	}
	if v := verify(t, audit.VerifyOptions{File: path}); !v.OK || v.Lines != 6 {
		t.Errorf("%+v", v)
	}
}
