package statedir_test

import (
	"errors"
	"maps"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/rotation"
	"rotatord/internal/statedir"
)

func TestPausesAreKept(t *testing.T) {
	o := statedir.Options{Dir: stateDir(t)}
	since := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	want := map[string]rotation.Pause{
		"ci":               {Since: since, Reason: "a migration", By: "root"},
		rotation.AllTokens: {Since: since, Until: since.Add(time.Hour)},
	}
	for _, pauses := range []map[string]rotation.Pause{{}, {"other": {Since: since}}, want} {
		j := open(t, o)
		if err := j.Ledger.SavePauses(t.Context(), pauses); err != nil {
			t.Fatal(err)
		}
		if _, err := j.Ledger.Save(t.Context(), rotation.Record{Format: rotation.RecordFormat, Token: "r" + string(rune('0'+len(pauses)))}); err != nil && !errors.Is(err, rotation.ErrConflict) {
			t.Fatal(err)
		}
		_ = j.Close()
		j = open(t, o)
		got, err := j.Ledger.LoadPauses(t.Context())
		_ = j.Close()
		if err != nil || !maps.Equal(got, pauses) {
			t.Errorf("%v, %v", got, err)
		}
	}
	got, err := statedir.ReadPauses(t.Context(), o.Dir)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// TestSaveAll saves many records at once, or none.
func TestSaveAll(t *testing.T) {
	j := open(t, statedir.Options{Dir: stateDir(t)})
	records := []rotation.Record{{Format: rotation.RecordFormat, Token: "a"}, {Format: rotation.RecordFormat, Token: "b"}}
	saved, err := j.Ledger.SaveAll(t.Context(), records)
	if err != nil || len(saved) != 2 || saved[0].Revision != 1 || saved[1].Token != "b" || saved[1].Revision != 1 {
		t.Fatalf("%+v, %v", saved, err)
	}
	if none, err := j.Ledger.SaveAll(t.Context(), nil); err != nil || none != nil {
		t.Errorf("of nothing: %v, %v", none, err)
	}
	saved[0].Failures = 7
	if _, err := j.Ledger.SaveAll(t.Context(), []rotation.Record{saved[0], records[1]}); !errors.Is(err, rotation.ErrConflict) {
		t.Errorf("with an old revision: %v", err)
	}
	if r, err := j.Ledger.Load(t.Context(), "a"); err != nil || r.Failures != 0 || r.Revision != 1 {
		t.Errorf("half of it was saved: %+v, %v", r, err)
	}
}

// TestFormat2 opens a directory that a rotatord without pauses left. A version without pauses cannot open it
// afterwards.
func TestFormat2(t *testing.T) {
	o := statedir.Options{Dir: stateDir(t)}
	for _, name := range []string{"journal.db", "identity.age"} {
		write(t, filepath.Join(o.Dir, name), read(t, filepath.Join("testdata", "format2", name)))
	}
	for range 2 {
		j := open(t, o)
		all, err := j.Ledger.All(t.Context())
		if err != nil || len(all) != 2 || all[0].Token != "idle" || all[0].Last == nil || all[1].OldDiesBy.IsZero() {
			t.Fatalf("%+v, %v", all, err)
		}
		if pauses, err := j.Ledger.LoadPauses(t.Context()); err != nil || len(pauses) != 0 {
			t.Errorf("%v, %v", pauses, err)
		}
		_ = j.Close()
	}
}
