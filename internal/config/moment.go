package config

import (
	"fmt"
	"regexp"
	"time"

	"rotatord/internal/scheduler"
)

// validMoment is a date, perhaps with a time of day, perhaps with an offset.
var validMoment = regexp.MustCompile(
	`^\d{4}-\d{2}-\d{2}(?:([ T])\d{2}:\d{2}(:\d{2})?(Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)?)?$`)

// A year outside of these is taken for a typing error.
const firstYear, lastYear = 2000, 2199

// plausible reports whether t is in those years in some time zone.
func plausible(t time.Time) bool {
	return t.After(time.Date(firstYear, 1, 0, 0, 0, 0, 0, time.UTC)) && t.Before(time.Date(lastYear+1, 1, 2, 0, 0, 0, 0, time.UTC))
}

// parseMoment reads a date, which is its first moment, or a date and a time of day. With an
// offset that is one moment. Without one it is the time that clocks in zone show. If they show it twice,
// first and last differ. If they never show it, it is the moment at which they skip it.
func parseMoment(text string, zone *time.Location) (first, last time.Time, err error) {
	parts := validMoment.FindStringSubmatch(text)
	if parts == nil {
		return first, last, fmt.Errorf(
			`%q is neither a date nor a date with a time: write 2026-12-20, "2026-12-20 18:00" or 2026-12-20T18:00:00+01:00`, text)
	}
	layout := time.DateOnly
	if separator := parts[1]; separator != "" {
		layout += separator + "15:04"
	}
	if parts[2] != "" {
		layout += ":05"
	}
	if parts[3] != "" {
		layout += "Z07:00"
	}
	t, err := time.Parse(layout, text)
	if err != nil {
		return first, last, fmt.Errorf("%q does not exist: there is no such day, or no such time of day (00:00:00 to 23:59:59)", text)
	}
	if parts[3] != "" {
		first, last = t.In(zone), t.In(zone)
	} else {
		first, last = scheduler.Shown(t, zone)
	}
	if !plausible(first) || !plausible(last) {
		return time.Time{}, time.Time{}, fmt.Errorf("%q is not in the years %d to %d: correct the year", text, firstYear, lastYear)
	}
	return first, last, nil
}

// shownMoment writes a moment for people: as clocks in its zone show it, and how far they
// are ahead of UTC. parseMoment reads it.
func shownMoment(t time.Time) string { return t.Format("2006-01-02 15:04:05Z07:00") }
