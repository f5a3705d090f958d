package pending_test

import (
	"runtime"
	"testing"

	"rotatord/internal/rotation"
	"rotatord/internal/statedir"
)

// TestOpenInLittleMemory: every rotation reads back what it has sealed. An answer has less than a kilobyte, so that may not take
// more than the file and one buffer of age.
func TestOpenInLittleMemory(t *testing.T) {
	j := open(t, statedir.Options{Dir: stateDir(t)})
	if err := j.Pending.Seal(t.Context(), rotation.PendingKey{RotationID: "R", Token: "ci", TokenID: "uuid"}, issued); err != nil {
		t.Fatal(err)
	}
	const n = 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n {
		back, ok, err := j.Pending.Open(t.Context(), "R")
		if err != nil || !ok || !back.ClientSecret.Equal(issued.ClientSecret) {
			t.Fatal(ok, err)
		}
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / n; each > 110<<10 {
		t.Errorf("to open a sealed answer takes %d KiB", each>>10)
	}
}
