package app_test

import (
	"sync"
	"testing"

	"rotatord/internal/event"
)

// TestStalledLogDelaysNoRotation: nothing reads the log of the daemon, as if the journal hung. Tokens are rotated,
// and once the log is read again it has their lines.
func TestStalledLogDelaysNoRotation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.logStalled = make(chan struct{})
	read := sync.OnceFunc(func() { close(w.logStalled) })
	defer read() // also if the test fails, or the daemon could not stop
	ci, other := w.due("ci", "0s"), w.due("other", "10m")
	d := w.start(w.config())
	for _, spec := range []tokenSpec{ci, other} {
		w.eventually(spec.Name+" is rotated", func() bool { return w.delivered(spec) && len(d.events.of(spec.Name, event.ResultSuccess)) == 1 })
	}
	if text := d.log.String(); text != "" {
		t.Errorf("the log was not stalled, so this proves nothing: %s", text)
	}
	read()
	w.eventually("the log has both lines", func() bool { return len(d.logged("rotated")) == 2 })
}
