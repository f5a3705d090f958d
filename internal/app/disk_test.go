//go:build linux

package app_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rotatord/internal/durable/disktest"
	"rotatord/internal/event"
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
