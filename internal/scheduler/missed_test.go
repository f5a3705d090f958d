package scheduler_test

import (
	"testing"
	"time"

	"rotatord/internal/scheduler"
)

// TestMissedIsNotWhatTheNextSlotServes: a slot that a freeze defers until the next one has come
// is served with that, and is not missed when only its own window is over.
func TestMissedIsNotWhatTheNextSlotServes(t *testing.T) {
	found := 0
	for i := range 200 {
		table := scheduler.Timetable{
			Schedule: mustParse(t, "0 * * * *", "UTC"), Jitter: 30 * time.Minute, Window: 10 * time.Minute, Key: string(rune('a' + i)),
			Freezes: []scheduler.Freeze{{Name: "f", From: at(t, "2026-11-24T03:30:00Z"), To: at(t, "2026-11-24T05:00:00Z")}},
		}
		p := table.Passed(at(t, "2026-11-24T03:00:00Z"), at(t, "2026-11-24T05:30:00Z"))
		if p.DueCount != 1 || !p.LastDue.Slot.Equal(at(t, "2026-11-24T05:00:00Z")) || p.DeferredCount != 1 {
			t.Fatalf("%+v", p)
		}
		if p.LastDueOpen() {
			found++
			if !p.LastMissed.IsZero() || p.MissedCount != 0 {
				t.Fatalf("nothing is missed, and the slot of 04:00 is among the frozen: %+v", p)
			}
		}
	}
	if found == 0 {
		t.Error("the last slot was never open")
	}
}
