//go:build linux

package app_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rotatord/internal/audit"
	"rotatord/internal/durable/disktest"
	"rotatord/internal/event"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// onDisk puts the state directory of a world on a disk of its own.
func (w *world) onDisk(kib int) *disktest.Disk {
	w.t.Helper()
	disk := disktest.New(w.t, disktest.Tmpfs, kib)
	dir := filepath.Join(disk.Dir, "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Symlink(dir, w.stateDir()); err != nil {
		w.t.Fatal(err)
	}
	return disk
}

// TestNothingIsRotatedOnAFullDisk: a slot comes while an answer could not be stored.
func TestNothingIsRotatedOnAFullDisk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	disk := w.onDisk(400)
	ci := w.due("ci", "0s")
	disk.Fill()
	d := w.start(w.config())
	w.eventually("the attempt is given up twice", func() bool { return len(d.events.of("ci", event.ResultSkipped)) >= 2 })
	for _, a := range d.events.of("ci", event.ResultSkipped) {
		if a.Err == nil || !strings.Contains(a.Err.Error(), "no space left on device") {
			t.Errorf("given up for %v", a.Err)
		}
	}
	if n := len(w.seen("rotate")); n != 0 {
		t.Fatalf("%d rotate requests were sent although the answer could not be kept", n)
	}
	if code, body := d.get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "[-] journal: the last write to the state directory failed at ") {
		t.Errorf("%d: %s", code, body)
	}
	disk.Free()
	w.eventually("the slot is served", func() bool { return w.delivered(ci) && d.status("ci").State == "idle" })
	w.eventually("it is ready", func() bool { code, _ := d.get("/readyz"); return code == http.StatusOK })
	if got := w.sim.Stats(); got.Rotations[ci.ID] != 1 || got.Count("rotate") != 1 {
		t.Errorf("%d rotations with %d requests, want one", got.Rotations[ci.ID], got.Count("rotate"))
	}
}

// TestDiskFillsUpDuringTheRequest fills the disk at the moment at which Cloudflare answers. The secret is
// still sealed and delivered, also by a daemon that starts then.
func TestDiskFillsUpDuringTheRequest(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for back-offs")
	}
	t.Parallel()
	for name, sealVault := range map[string]bool{"Vault takes it at once": false, "Vault takes it after a restart": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			disk := w.onDisk(400)
			ci := w.due("ci", "0s")
			w.on("rotate", func() { disk.Fill(); w.vault.Seal(sealVault) })
			d := w.start(w.config())
			if sealVault {
				w.eventually("the secret waits", func() bool { return len(d.events.of("ci", event.ResultFailed)) >= 1 })
				d.stop()
				w.vault.Seal(false)
				d = w.start(w.config())
			}
			w.eventually("the secret is delivered from the full disk", func() bool { return w.delivered(ci) })
			if lines := d.logged("a new secret could not be sealed on disk and is held in memory alone: do not stop the daemon, free the disk"); len(lines) > 0 {
				t.Errorf("the seal failed: %v", lines)
			}
			disk.Free()
			w.eventually("the rotation is closed", func() bool { return d.status("ci").State == "idle" && !d.status("ci").LastSuccess.IsZero() })
			d.wantMetric("rotatord_pending_secrets", 0)
			if got := w.sim.Stats(); got.Rotations[ci.ID] != 1 || got.Count("rotate") != 1 {
				t.Errorf("%d rotations with %d requests, want one", got.Rotations[ci.ID], got.Count("rotate"))
			}
		})
	}
}

// TestNothingIsSentThatCannotBeRecorded: the record of events is on a disk of its own, which is full. No request leaves, the
// check says why, and once there is room the slot is served and recorded.
func TestNothingIsSentThatCannotBeRecorded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	disk := disktest.New(t, disktest.Tmpfs, 400)
	ci := w.due("ci", "0s")
	c := w.config()
	c.Audit.File = filepath.Join(disk.Dir, "audit", "audit.jsonl")
	disk.Fill()
	d := w.start(c)
	w.eventually("the attempt is given up twice", func() bool { return len(d.events.of("ci", event.ResultSkipped)) >= 2 })
	for _, a := range d.events.of("ci", event.ResultSkipped) {
		if a.Err == nil || !strings.Contains(a.Err.Error(), "the record of events cannot be written: ") || !strings.Contains(a.Err.Error(), "no space left on device") {
			t.Errorf("given up for %v", a.Err)
		}
	}
	if n := len(w.seen("rotate")); n != 0 {
		t.Fatalf("%d rotate requests were sent although they could not be recorded", n)
	}
	w.eventually("the check fails", func() bool { c := d.check(status.CheckAudit); return c.Fails() && c.Stops && c.Reason == "no_space" })
	disk.Free()
	w.eventually("the slot is served", func() bool { return w.delivered(ci) && d.status("ci").State == "idle" })
	w.eventually("the check is good", func() bool { d.LookAhead(); return d.check(status.CheckAudit).OK })
	h, err := d.App.History(t.Context(), status.HistoryQuery{Token: "ci"})
	var kinds []string
	for _, e := range h.Entries {
		kinds = append(kinds, e.Kind)
	}
	if text := strings.Join(kinds, " "); err != nil || !strings.HasSuffix(text, "request.leaves sink.written rotation.succeeded") {
		t.Errorf("the record has %s, %v", text, err)
	}
}

// TestRemovedRecordIsTold: the record is removed under the daemon. It begins again, and the check says so until the next
// start.
func TestRemovedRecordIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ci := w.token("ci", seldom, "1h")
	c := w.config()
	d := w.start(c)
	if err := os.Remove(c.Audit.File); err != nil {
		t.Fatal(err)
	}
	if _, err := d.App.Rotate(t.Context(), "ci", rotation.Overrides{}, "alice"); err != nil || !w.delivered(ci) {
		t.Fatal(err)
	}
	w.eventually("the check says so", func() bool {
		c := d.check(status.CheckAuditChain)
		return c.Fails() && c.Reason == "damaged" && !c.Stops
	})
	v, err := audit.Verify(t.Context(), audit.VerifyOptions{File: c.Audit.File})
	if err != nil || v.OK {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestDamageIsToldAtTheStop: the record is cut, and the daemon stops at once. The log has the damage.
func TestDamageIsToldAtTheStop(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.token("ci", seldom, "1h")
	c := w.config()
	d := w.start(c)
	if err := os.Truncate(c.Audit.File, 10); err != nil {
		t.Fatal(err)
	}
	d.stop()
	if lines := d.logged("the record of events is damaged or missing, and begins again: find out who or what changed it: rotatord audit verify"); len(lines) != 1 {
		t.Errorf("the log says it %d times:\n%s", len(lines), d.log)
	}
}
