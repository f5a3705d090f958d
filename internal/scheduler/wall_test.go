package scheduler_test

import (
	"testing"
	"time"

	"rotatord/internal/scheduler"
)

func TestShown(t *testing.T) {
	for _, test := range []struct{ reading, zone, first, last string }{
		{"2026-11-24T12:00:00Z", "UTC", "2026-11-24T12:00:00Z", "2026-11-24T12:00:00Z"},
		{"2026-11-24T12:00:00+09:00", "Europe/Berlin", "2026-11-24T11:00:00Z", "2026-11-24T11:00:00Z"}, // its own zone does not count
		{"2026-03-29T01:59:59Z", "Europe/Berlin", "2026-03-29T00:59:59Z", "2026-03-29T00:59:59Z"},
		{"2026-03-29T02:00:00Z", "Europe/Berlin", "2026-03-29T01:00:00Z", "2026-03-29T01:00:00Z"}, // never
		{"2026-03-29T02:59:59Z", "Europe/Berlin", "2026-03-29T01:00:00Z", "2026-03-29T01:00:00Z"},
		{"2026-10-25T02:30:00Z", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"}, // twice
		{"2026-10-04T02:15:00Z", "Australia/Lord_Howe", "2026-10-03T15:30:00Z", "2026-10-03T15:30:00Z"},
		{"2018-11-04T00:00:00Z", "America/Sao_Paulo", "2018-11-04T03:00:00Z", "2018-11-04T03:00:00Z"}, // a day without a midnight
	} {
		zone, err := time.LoadLocation(test.zone)
		if err != nil {
			t.Fatal(err)
		}
		first, last := scheduler.Shown(at(t, test.reading), zone)
		if !first.Equal(at(t, test.first)) || !last.Equal(at(t, test.last)) || first.Location() != zone {
			t.Errorf("%s in %s: %s and %s, want %s and %s", test.reading, test.zone, first, last, test.first, test.last)
		}
	}
}
