//go:build linux

package statedir_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"rotatord/internal/durable/disktest"
	"rotatord/internal/rotation"
	"rotatord/internal/statedir"
)

// TestProve: the proof fails where a rotation would fail, leaves nothing, and succeeds again once there is
// space.
func TestProve(t *testing.T) {
	onDisks(t, 700, func(t *testing.T, d *disktest.Disk, o statedir.Options) {
		j := open(t, o)
		began := time.Now()
		for range 3 {
			if err := j.Prove(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if at, err := j.LastWrite(); err != nil || at.Before(began) {
			t.Errorf("the last write was at %v, %v", at, err)
		}
		left := func() {
			t.Helper()
			if entries, err := os.ReadDir(filepath.Join(o.Dir, "pending")); err != nil || len(entries) != 0 {
				t.Errorf("left: %v, %v", entries, err)
			}
			if sealed, err := j.Pending.Sealed(); err != nil || len(sealed) != 0 {
				t.Errorf("sealed: %v, %v", sealed, err)
			}
		}
		left()
		if err := statedir.Space(o.Dir); err != nil {
			t.Errorf("a small disk with free space: %v", err)
		}
		d.Fill()
		err := j.Prove(t.Context())
		if !errors.Is(err, syscall.ENOSPC) || rotation.CauseOf(err) != "no_space" {
			t.Errorf("on a full disk: %v", err)
		}
		if _, last := j.LastWrite(); !errors.Is(last, syscall.ENOSPC) {
			t.Errorf("the last write ended with %v", last)
		}
		left()
		if err := statedir.Space(o.Dir); rotation.CauseOf(err) != "no_space" {
			t.Errorf("the space of a full disk: %v", err)
		}
		d.Free()
		if err := j.Prove(t.Context()); err != nil {
			t.Errorf("once there is space: %v", err)
		}
		if _, last := j.LastWrite(); last != nil {
			t.Errorf("the last write ended with %v", last)
		}
	})
}

// TestProveOfAnotherLedger: what is written to a deleted file is lost.
func TestProveOfAnotherLedger(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	j := open(t, statedir.Options{Dir: dir})
	if err := os.Remove(filepath.Join(dir, "journal.db")); err != nil {
		t.Fatal(err)
	}
	if err := j.Prove(t.Context()); err == nil {
		t.Error("a ledger that was deleted is proven")
	}
	_ = j.Close()
	if err := j.Prove(t.Context()); err == nil {
		t.Error("a journal that is closed is proven")
	}
}

// TestSpace: a disk with free space is good, and a missing directory says nothing.
func TestSpace(t *testing.T) {
	if err := statedir.Space(filepath.Join(t.TempDir(), "missing")); err != nil {
		t.Error(err)
	}
	for want, e := range map[string]statedir.SpaceError{
		"low_space": {Dir: "/x", Free: 50 << 20, Files: -1},
		"no_space":  {Dir: "/x", Free: 1 << 20, Files: -1},
	} {
		if e.Cause() != want || e.Error() == "" {
			t.Errorf("%+v: %s, %s", e, e.Cause(), &e)
		}
	}
	if e := (&statedir.SpaceError{Dir: "/x", Free: 1 << 40, Files: 3}); e.Cause() != "no_space" || e.Error() != "only 3 more files fit on the disk of /x: remove files there that are not needed" {
		t.Error(e.Cause(), e)
	}
}
