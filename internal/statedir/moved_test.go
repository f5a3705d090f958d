package statedir_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rotatord/internal/ledger"
	"rotatord/internal/rotation"
	"rotatord/internal/statedir"
)

var exportedAt = time.Date(2026, 11, 29, 2, 0, 0, 123e6, time.UTC)

func none([]rotation.Record, map[string]rotation.Pause) error { return nil }

// TestTakeOutAndBringIn moves a ledger out of a directory and back. In between no daemon starts, and the sealed
// secrets stay.
func TestTakeOutAndBringIn(t *testing.T) {
	o := statedir.Options{Dir: stateDir(t)}
	used(t, o)
	var records []rotation.Record
	aside, err := statedir.TakeOut(o.Dir, exportedAt, func(all []rotation.Record, _ map[string]rotation.Pause) error { records = all; return nil })
	if err != nil || len(records) != 1 {
		t.Fatal(records, err)
	}
	if _, err := os.Stat(aside); err != nil {
		t.Error(err)
	}
	if at := statedir.ExportedAt(o.Dir); !at.Equal(exportedAt) {
		t.Errorf("exported at %s", at)
	}
	for what, err := range map[string]error{"refusal": statedir.Refusal(o.Dir), "open": openErr(o)} {
		if err == nil || !strings.Contains(err.Error(), "was exported to another ledger, and is "+filepath.Base(aside)) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := statedir.TakeOut(o.Dir, exportedAt, none); err == nil || !strings.Contains(err.Error(), "It was exported before: the ledger file is "+aside) {
		t.Errorf("a second export: %v", err)
	}

	broken := errors.New("broken")
	if err := statedir.BringIn(o.Dir, func(l *ledger.Local) error {
		_, err := l.Save(t.Context(), rotation.Record{Format: rotation.RecordFormat, Token: "half"})
		return errors.Join(err, broken)
	}); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if entries, err := filepath.Glob(filepath.Join(o.Dir, ".new-*")); err != nil || len(entries) > 0 {
		t.Errorf("left behind: %q, %v", entries, err)
	}
	if err := statedir.Refusal(o.Dir); err == nil {
		t.Error("a daemon starts after half an import")
	}
	save := func(l *ledger.Local) error {
		records[0].Revision = 0
		_, err := l.SaveAll(t.Context(), records)
		return err
	}
	if err := statedir.BringIn(o.Dir, save); err != nil {
		t.Fatal(err)
	}
	if at := statedir.ExportedAt(o.Dir); !at.IsZero() {
		t.Errorf("a ledger is in use, and exported at %s", at)
	}
	// A ledger that is there is opened, and not replaced.
	if err := statedir.BringIn(o.Dir, func(l *ledger.Local) error {
		if r, err := l.Load(t.Context(), "ci"); err != nil || r.Revision != 1 {
			t.Errorf("%+v, %v", r, err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	j := open(t, o)
	if r, err := j.Ledger.Load(t.Context(), "ci"); err != nil || r.Token != "ci" {
		t.Errorf("%+v, %v", r, err)
	}
}

func openErr(o statedir.Options) error {
	d, err := statedir.Open(o)
	if err == nil {
		err = d.Close()
	}
	return err
}

// TestMoveBesideDaemon: while a daemon has the directory open nothing moves.
func TestMoveBesideDaemon(t *testing.T) {
	o := statedir.Options{Dir: stateDir(t)}
	j := open(t, o)
	if _, err := j.Ledger.Save(t.Context(), rotation.Record{Format: rotation.RecordFormat, Token: "ci"}); err != nil {
		t.Fatal(err)
	}
	if _, err := statedir.TakeOut(o.Dir, exportedAt, none); !errors.Is(err, statedir.ErrInUse) {
		t.Errorf("export: %v", err)
	}
	if err := statedir.BringIn(o.Dir, func(*ledger.Local) error { t.Error("called"); return nil }); !errors.Is(err, statedir.ErrInUse) {
		t.Errorf("import: %v", err)
	}
	// Not even when the ledger file was deleted under it.
	if err := os.Remove(filepath.Join(o.Dir, ledger.FileName)); err != nil {
		t.Fatal(err)
	}
	if err := statedir.BringIn(o.Dir, func(*ledger.Local) error { t.Error("called"); return nil }); !errors.Is(err, statedir.ErrInUse) {
		t.Errorf("import without a ledger file: %v", err)
	}
}

// TestSaveFails: an export that could not be written leaves the ledger in use.
func TestSaveFails(t *testing.T) {
	o := statedir.Options{Dir: stateDir(t)}
	used(t, o)
	full := errors.New("full")
	if _, err := statedir.TakeOut(o.Dir, exportedAt, func([]rotation.Record, map[string]rotation.Pause) error { return full }); !errors.Is(err, full) {
		t.Fatal(err)
	}
	if err := openErr(o); err != nil {
		t.Error(err)
	}
}

func TestMoveNowhere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nothing")
	if _, err := statedir.TakeOut(dir, exportedAt, none); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if err := statedir.BringIn(dir, func(*ledger.Local) error { return nil }); err == nil || !strings.Contains(err.Error(), "create it with mode 0700") {
		t.Error(err)
	}
}
