package scheduler

import (
	"sort"
	"time"
)

// A reading is what a clock on the wall of some zone shows, written as a time in UTC, where
// no clock is ever set. Cron expressions describe readings; this file turns moments into
// readings and back.
//
// It asks for offsets only. time.Time.ZoneBounds would be the tool, but for years that are
// not in the database's tables it cuts at the turn of the year, and a day early in leap years.

// offsetAt is how far the zone's clocks are ahead of UTC at t.
func offsetAt(t time.Time, zone *time.Location) time.Duration {
	_, seconds := t.In(zone).Zone()
	return time.Duration(seconds) * time.Second
}

// readingAt is what clocks in the zone show at t.
func readingAt(t time.Time, zone *time.Location) time.Time {
	return t.UTC().Add(offsetAt(t, zone))
}

// setBetween returns when in (from, to] the zone's clocks are set, and false if they are not
// or are back to where they were at to. It looks for one change: nowhere are there two
// within a day.
func setBetween(from, to time.Time, zone *time.Location) (time.Time, bool) {
	before := offsetAt(from, zone)
	if offsetAt(to, zone) == before {
		return time.Time{}, false
	}
	from = from.Truncate(time.Second) // all changes are at whole ones
	n := sort.Search(int(to.Sub(from)/time.Second), func(s int) bool {
		return offsetAt(from.Add(time.Duration(s)*time.Second), zone) != before
	})
	return from.Add(time.Duration(n) * time.Second), true
}

// furthest is more than clocks anywhere are ahead of UTC, or behind it.
const furthest = 15 * time.Hour

// shown returns when clocks in the zone show r: first and last differ if it comes twice. If
// they never show it, both are the moment at which they are put forward over it. first
// grows with r.
func shown(r time.Time, zone *time.Location) (first, last time.Time) {
	before, after := r.Add(-furthest), r.Add(furthest)
	first, last = r.Add(-offsetAt(before, zone)), r.Add(-offsetAt(after, zone))
	if set, ok := setBetween(before, after, zone); ok {
		switch early, late := first.Before(set), !last.Before(set); {
		case early && !late:
			last = first
		case late && !early:
			first = last
		case !early && !late:
			first, last = set, set
		}
	}
	return first.In(zone), last.In(zone)
}
