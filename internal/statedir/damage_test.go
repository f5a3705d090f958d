package statedir_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"rotatord/internal/racedetector"
	"rotatord/internal/rotation"
	"rotatord/internal/statedir"
)

// usedDir creates a state directory with a used ledger: records of all sizes, written many times.
func usedDir(t *testing.T) (dir string, ledger []byte, records []rotation.Record) {
	t.Helper()
	dir = stateDir(t)
	j := open(t, statedir.Options{Dir: dir})
	for round := range 6 {
		for i := range 12 {
			token := fmt.Sprintf("token-%02d", i)
			r, err := j.Ledger.Load(t.Context(), token)
			if err != nil {
				t.Fatal(err)
			}
			r.Format, r.Token, r.TokenID, r.Account = rotation.RecordFormat, token, "uuid-of-"+token, "prod"
			r.Anchor = time.Date(2026, 11, round+1, 4, 0, 0, 0, time.UTC)
			r.LastError = strings.Repeat("it failed ", (i*round*7)%60)
			if r.Step = rotation.StepIdle; i%3 == 0 {
				r.Step, r.Work = rotation.StepIntent, &rotation.Work{RotationID: fmt.Sprint("R", i, round), TokenID: r.TokenID, Grace: rotation.Grace(time.Hour)}
			}
			if _, err := j.Ledger.Save(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
	}
	records, err := j.Ledger.All(t.Context())
	if err != nil || len(records) != 12 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	_ = j.Close()
	return dir, read(t, filepath.Join(dir, "journal.db")), records
}

// outcome opens a directory whose ledger is damaged, and reads everything. The result must be exactly what
// was written, or an error that names the file and says what to do.
func outcome(t *testing.T, what, dir string, ledger []byte, want []rotation.Record) (good bool) {
	t.Helper()
	path := filepath.Join(dir, "journal.db")
	if err := os.WriteFile(path, ledger, 0o600); err != nil {
		t.Fatal(err)
	}
	var got []rotation.Record
	j, err := statedir.Open(statedir.Options{Dir: dir})
	if err == nil {
		got, err = j.Ledger.All(t.Context())
		_ = j.Close()
	}
	switch {
	case err == nil && reflect.DeepEqual(got, want):
		good = true
	case err == nil:
		t.Fatalf("%s: it was opened, and differs from what was written", what)
	case !strings.Contains(err.Error(), "journal.db"), !strings.Contains(err.Error(), "backup") && !strings.Contains(err.Error(), "use the version"):
		t.Fatalf("%s: the error does not help: %v", what, err)
	}
	// Inspect must be as careful.
	if in, err := statedir.Inspect(dir); err != nil || (in.LedgerErr == nil) != good {
		t.Fatalf("%s: inspected: %v %v", what, err, in)
	}
	return good
}

// TestFlippedBits flips single bits and overwrites single bytes everywhere in the ledger file.
func TestFlippedBits(t *testing.T) {
	dir, ledger, want := usedDir(t)
	random := rand.New(rand.NewPCG(2026, 11))
	step := 20
	if testing.Short() || racedetector.On {
		step = 150
	}
	good, refused := 0, 0
	for at := 0; at < len(ledger); at += 1 + random.IntN(step) {
		b := append([]byte(nil), ledger...)
		what := fmt.Sprintf("byte %d of %d, bit flipped", at, len(b))
		if random.IntN(4) > 0 {
			b[at] ^= 1 << random.IntN(8)
		} else {
			b[at] = byte(random.Uint32())
			what = fmt.Sprintf("byte %d of %d is now %#x", at, len(b), b[at])
		}
		if outcome(t, what, dir, b, want) {
			good++ // in a free page, or in unused bytes
		} else {
			refused++
		}
	}
	t.Logf("%d changes: %d refused, %d without effect", good+refused, refused, good)
	if good < 50 || refused < 50 {
		t.Errorf("%d changes were refused and %d had no effect", refused, good)
	}
}

// TestDamagedHeaders flips every bit that bbolt relies on: in the headers of the pages, the two roots, and
// the first entries of each page.
func TestDamagedHeaders(t *testing.T) {
	if testing.Short() || racedetector.On {
		t.Skip("opens a journal some ten thousand times")
	}
	dir, ledger, want := usedDir(t)
	pageSize := os.Getpagesize()
	refused := 0
	for page := 0; page < len(ledger); page += pageSize {
		for at := page; at < page+64 && at < len(ledger); at++ {
			for bit := range 8 {
				b := append([]byte(nil), ledger...)
				b[at] ^= 1 << bit
				if !outcome(t, fmt.Sprintf("byte %d, bit %d", at, bit), dir, b, want) {
					refused++
				}
			}
		}
	}
	if refused < 64*8 {
		t.Errorf("only %d changes were refused", refused)
	}
}

// TestTruncated cuts the ledger file at many lengths.
func TestTruncated(t *testing.T) {
	dir, ledger, want := usedDir(t)
	random := rand.New(rand.NewPCG(20, 26))
	refused := 0
	for length := 1; length < len(ledger); length += 1 + random.IntN(600) {
		if !outcome(t, fmt.Sprintf("%d bytes of %d", length, len(ledger)), dir, ledger[:length], want) {
			refused++
		}
	}
	if refused < 20 {
		t.Errorf("only %d lengths were refused", refused)
	}
	for length := 0; length < len(ledger); length += 512 { // and with its end zeroed, at full length
		b := append([]byte(nil), ledger...)
		clear(b[length:])
		outcome(t, fmt.Sprintf("zeros from byte %d", length), dir, b, want)
	}
}

// TestLostWrites puts back pages of an earlier state, one at a time, like a disk that confirmed a write and
// lost it.
func TestLostWrites(t *testing.T) {
	dir := stateDir(t)
	j := open(t, statedir.Options{Dir: dir})
	path := filepath.Join(dir, "journal.db")
	var states [][]byte
	for round := range 8 {
		for i := range 3 {
			r, err := j.Ledger.Load(t.Context(), fmt.Sprint("token-", i))
			if err != nil {
				t.Fatal(err)
			}
			r.Format, r.Token, r.Failures, r.LastError = rotation.RecordFormat, fmt.Sprint("token-", i), round, strings.Repeat("x", 900)
			if _, err := j.Ledger.Save(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			states = append(states, read(t, path))
		}
	}
	want, err := j.Ledger.All(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = j.Close()
	last, refused := states[len(states)-1], 0
	for s, earlier := range states[:len(states)-1] {
		for at := 0; at < min(len(earlier), len(last)); at += os.Getpagesize() {
			if at < 2*os.Getpagesize() && s >= len(states)-3 {
				continue // of the very last write, which nothing later contradicts
			}
			b := append([]byte(nil), last...)
			copy(b[at:], earlier[at:at+os.Getpagesize()])
			if !outcome(t, fmt.Sprintf("page at %d as of write %d", at, s), dir, b, want) {
				refused++
			}
		}
	}
	if refused < len(states) {
		t.Errorf("only %d lost writes were refused", refused)
	}
}
