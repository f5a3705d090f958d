package scheduler

import "time"

// Shown returns when clocks in the zone show the date and time of day of r, whatever the
// zone of r itself is: first and last differ if they show it twice. If they never show it,
// both are the moment at which they are put forward over it.
func Shown(r time.Time, zone *time.Location) (first, last time.Time) {
	year, month, day := r.Date()
	hour, minute, second := r.Clock()
	return shown(time.Date(year, month, day, hour, minute, second, r.Nanosecond(), time.UTC), zone)
}
