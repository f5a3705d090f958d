package app

import (
	"strings"
	"testing"
	"time"

	"rotatord/internal/durable"
	"rotatord/internal/rotation"
)

// hungDisk is a state directory in which a write does not end.
type hungDisk struct{ stateDisk }

func (hungDisk) Present() error { return nil }

func (hungDisk) LastWrite() (time.Time, error) {
	return time.Now().Add(-time.Minute), &durable.HangsError{Began: time.Now().Add(-time.Minute)}
}

// TestWriteThatHangsIsNamed: a write of a rotation in progress that does not end fails the check of the state directory, and
// /readyz says so.
func TestWriteThatHangsIsNamed(t *testing.T) {
	a := healthyFleet(t, 1)
	a.state = &state{disk: hungDisk{}}
	a.engine.tokens["token-00000"].active = 1
	if err := a.lookAtState(t.Context()); rotation.CauseOf(err) != "hangs" {
		t.Errorf("the check: %v", err)
	}
	if check := a.readyToWrite(); check.OK || !strings.Contains(check.Detail, "a write has not ended for 1m0s: look at the disk") || strings.Contains(check.Detail, "failed") {
		t.Errorf("/readyz: %+v", check)
	}
}
