package scheduler

import "time"

// A reading is what a clock on the wall of some zone shows, written as a time in UTC, where
// no clock is ever set. Cron expressions describe readings; this file turns moments into
// readings and back.

// offsetAt is how far the zone's clocks are ahead of UTC at t.
func offsetAt(t time.Time, zone *time.Location) time.Duration {
	_, seconds := t.In(zone).Zone()
	return time.Duration(seconds) * time.Second
}

// readingAt is what clocks in the zone show at t.
func readingAt(t time.Time, zone *time.Location) time.Time {
	return t.UTC().Add(offsetAt(t, zone))
}

// furthest is more than clocks anywhere are from UTC, or from where they were before.
const furthest = 26 * time.Hour

// firstShown is when clocks in the zone first show r or, if they never do, the moment at
// which they are put forward over it. It grows with r.
func firstShown(r time.Time, zone *time.Location) time.Time {
	for t := r.Add(-furthest); ; {
		start, end := t.In(zone).ZoneBounds()
		shown := r.Add(-offsetAt(t, zone))
		switch {
		case !end.IsZero() && !shown.Before(end): // not with this offset
			t = end
		case shown.Before(start):
			return start.In(zone)
		default:
			return shown.In(zone)
		}
	}
}

// lastShown is the moment after which clocks in the zone no longer show r: that of its
// second time if it comes twice, and else the same as firstShown.
func lastShown(r time.Time, zone *time.Location) time.Time {
	last := firstShown(r, zone)
	for t := last; t.Before(last.Add(furthest)); {
		_, end := t.In(zone).ZoneBounds()
		if end.IsZero() {
			break
		}
		if shown := r.Add(-offsetAt(end, zone)); !shown.Before(end) {
			last = shown.In(zone)
		}
		t = end
	}
	return last
}
