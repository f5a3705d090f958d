package scheduler_test

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/internal/scheduler"
)

// slow is a hundred times what reading the longest expression and taking a few steps lasts, so a machine that is busy does not reach it,
// and what grows without bounds does.
const slow = time.Second / 4

// FuzzParse holds for any text, in any zone and at any time from 1970 until 2100: it is
// refused, or it is a schedule whose slots come one after the other and which its own
// expression describes. Neither takes long.
func FuzzParse(f *testing.F) {
	seeds, err := filepath.Glob("testdata/fuzz/FuzzParse/*")
	if err != nil || len(seeds) < 20 {
		f.Fatalf("%d seeds, %v", len(seeds), err)
	}
	names := slices.Sorted(maps.Keys(zones))
	locations := make([]*time.Location, len(names))
	for i, name := range names {
		locations[i] = loadZone(f, name)
	}
	f.Fuzz(func(t *testing.T, expression string, zone uint8, seconds uint32) {
		lasted := time.Hour
		for range 5 { // this machine has other things to do too: only what is slow each time is slow
			began := time.Now()
			schedule, err := scheduler.Parse(expression, locations[int(zone)%len(locations)])
			if err == nil {
				check(t, schedule, expression, time.Unix(int64(seconds), 0))
			} else if schedule != nil || err.Error() == "" {
				t.Fatalf("Parse = %v, %q", schedule, err)
			}
			if lasted = min(lasted, time.Since(began)); lasted < slow {
				return
			}
		}
		t.Errorf("%q takes %s", expression, lasted)
	})
}

func check(t *testing.T, schedule *scheduler.Schedule, expression string, from time.Time) {
	if schedule.String() != strings.TrimSpace(expression) {
		t.Errorf("%q is read as %q", expression, schedule)
	}
	again, err := scheduler.Parse(schedule.String(), schedule.Location())
	if err != nil || again.String() != schedule.String() || again.Interval() != schedule.Interval() {
		t.Fatalf("%q is read as %q, and that as %v, %v", expression, schedule, again, err)
	}
	slot := from
	for range 10 {
		next := schedule.Next(slot)
		if !next.Equal(again.Next(slot)) {
			t.Fatalf("%q after %s: %s and %s", expression, slot, next, again.Next(slot))
		}
		if next.IsZero() && slot.Year() > 2090 {
			break // 29 February: 2096, 2104
		}
		if !next.After(slot) {
			t.Fatalf("%q after %s: %s", expression, slot, next)
		}
		if every := schedule.Interval(); every > 0 && next.Sub(slot) != every {
			t.Fatalf("%q after %s: %s", expression, slot, next)
		}
		slot = next
	}
}
