//go:build linux

package app_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rotatord/internal/durable/disktest"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// answersAtOnce checks that the daemon answers while a disk hangs.
func (d *daemon) answersAtOnce(paths ...string) {
	d.w.t.Helper()
	client := &http.Client{Timeout: 5 * time.Second}
	for _, path := range paths {
		res, err := client.Get(d.url + path)
		if err != nil {
			d.w.t.Errorf("while the disk hangs: %v", err)
			continue
		}
		_ = res.Body.Close()
	}
}

// stopsSoon checks that a stop ends although a disk hangs.
func (d *daemon) stopsSoon() {
	d.w.t.Helper()
	bounded, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	began := time.Now()
	_ = d.Stop(bounded)
	if took := time.Since(began); took > 20*time.Second {
		d.w.t.Errorf("the stop took %s", took)
	}
}

// free waits until a daemon that was left behind in its stop has ended, and with it its lock.
func (w *world) free(path string) {
	w.t.Helper()
	w.eventually("the lock of "+path+" is free", func() bool {
		f, err := os.Open(path)
		if err != nil {
			return false
		}
		defer f.Close()
		return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
	})
}

// TestRecordOnAFrozenDisk: the disk of the record hangs while a request waits for its line. The rotation is given back in
// time, and its request does not leave later. Everything else answers. Once the disk answers, the token is rotated.
func TestRecordOnAFrozenDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for half a minute")
	}
	t.Parallel()
	w := newWorld(t)
	disk := disktest.New(t, disktest.Ext4, 128<<10) // so much that room is reserved in large pieces, and the line is what hangs
	ci := w.token("ci", seldom, "1h")
	w.token("cd", seldom, "1h")
	c := w.config()
	c.Audit.File = filepath.Join(disk.Dir, "audit", "audit.jsonl")
	d := w.run(c)
	w.eventually("the check is good", func() bool { d.LookAhead(); return d.check(status.CheckAudit).OK })
	disk.Freeze()
	result := make(chan error, 1)
	go func() {
		_, err := d.App.Rotate(context.Background(), "ci", rotation.Overrides{}, "alice")
		result <- err
	}()
	for waiting := true; waiting; {
		select {
		case err := <-result:
			if err == nil || !strings.Contains(err.Error(), "the disk with the record of events has not answered for 30s") {
				t.Errorf("%v", err)
			}
			waiting = false
		case <-time.After(2 * time.Second):
			d.answersAtOnce("/", "/metrics", "/readyz", "/api/v1/tokens", "/tokens/ci")
		}
	}
	if s := d.status("ci"); s.State != "idle" {
		t.Errorf("the token is %s", s.State)
	}
	w.eventually("the check fails", func() bool { d.LookAhead(); c := d.check(status.CheckAudit); return c.Fails() && c.Stops })
	if _, err := d.App.History(t.Context(), status.HistoryQuery{}); err == nil {
		t.Error("the history is read from a disk that hangs")
	}
	disk.Thaw()
	w.eventually("the check is good again", func() bool { d.LookAhead(); return d.check(status.CheckAudit).OK })
	if n := len(w.seen("rotate")); n != 0 {
		t.Fatalf("%d requests were sent after their rotation was given back", n)
	}
	if _, err := d.App.Rotate(t.Context(), "ci", rotation.Overrides{}, "alice"); err != nil || !w.delivered(ci) {
		t.Errorf("%v", err)
	}
	if got := w.sim.Stats(); got.Rotations[ci.ID] != 1 {
		t.Errorf("%d rotations", got.Rotations[ci.ID])
	}
	disk.Freeze()
	go func() { _, _ = d.App.Rotate(context.Background(), "cd", rotation.Overrides{}, "alice") }()
	w.eventually("the request waits for its line", func() bool { return d.status("cd").State == "intent" })
	d.stopsSoon()
	disk.Thaw()
	w.free(filepath.Join(filepath.Dir(c.Audit.File), "audit.head"))
}

// TestStateOnAFrozenDisk: the disk of ledger, seals and record hangs while a rotation is due. Everything else answers and
// stops. The next start goes on, and there is one rotation.
func TestStateOnAFrozenDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for back-offs")
	}
	t.Parallel()
	w := newWorld(t)
	disk := disktest.New(t, disktest.Ext4, 16<<10)
	dir := filepath.Join(disk.Dir, "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, w.stateDir()); err != nil {
		t.Fatal(err)
	}
	ci := w.token("ci", seldom, "1h")
	c := w.config()
	d := w.run(c)
	w.eventually("the check is good", func() bool { d.LookAhead(); return d.check(status.CheckStateDirectory).OK })
	disk.Freeze()
	go func() { _, _ = d.App.Rotate(context.Background(), "ci", rotation.Overrides{}, "alice") }()
	for range 3 {
		d.answersAtOnce("/", "/metrics", "/readyz", "/livez", "/api/v1/tokens", "/tokens/ci")
		time.Sleep(300 * time.Millisecond)
	}
	d.stopsSoon()
	if n := len(w.seen("rotate")); n != 0 {
		t.Fatalf("%d requests were sent", n)
	}
	disk.Thaw()
	w.free(filepath.Join(filepath.Dir(c.Audit.File), "audit.head"))
	w.free(filepath.Join(dir, "in-use"))
	w.free(filepath.Join(dir, "journal.db"))
	again := w.start(c)
	w.eventually("it is done or given back", func() bool { return again.status("ci").State == "idle" })
	if _, err := again.App.Rotate(t.Context(), "ci", rotation.Overrides{}, "alice"); err != nil || !w.delivered(ci) {
		t.Errorf("%v", err)
	}
	if got := w.sim.Stats(); got.Rotations[ci.ID] > 2 {
		t.Errorf("%d rotations", got.Rotations[ci.ID])
	}
}
