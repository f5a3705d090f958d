package config

import (
	"testing"
	"time"
	_ "time/tzdata"
)

func mustLoad(t *testing.T, name string) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

func TestParseMoment(t *testing.T) {
	for _, test := range []struct{ text, zone, first, last string }{
		{"2026-12-20", "UTC", "2026-12-20T00:00:00Z", ""},
		{"2026-12-20", "Europe/Berlin", "2026-12-19T23:00:00Z", ""},
		{"2026-12-20 18:00", "Europe/Berlin", "2026-12-20T17:00:00Z", ""},
		{"2026-12-20T18:00", "Europe/Berlin", "2026-12-20T17:00:00Z", ""},
		{"2026-12-20T18:00:07", "America/New_York", "2026-12-20T23:00:07Z", ""},
		{"2026-12-20 18:00:07Z", "America/New_York", "2026-12-20T18:00:07Z", ""},
		{"2026-12-20T18:00+05:45", "America/New_York", "2026-12-20T12:15:00Z", ""},
		{"2026-12-20T18:00:00-05:00", "UTC", "2026-12-20T23:00:00Z", ""},
		{"2026-03-29 02:30", "Europe/Berlin", "2026-03-29T01:00:00Z", ""},                           // never
		{"2026-10-25 02:30", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"},       // twice
		{"2026-10-25 02:30+01:00", "Europe/Berlin", "2026-10-25T01:30:00Z", ""},                     // once, by its offset
		{"2026-04-05 01:45", "Australia/Lord_Howe", "2026-04-04T14:45:00Z", "2026-04-04T15:15:00Z"}, // half an hour
		{"2018-11-04", "America/Sao_Paulo", "2018-11-04T03:00:00Z", ""},                             // a day without a midnight
		{"2026-11-01", "America/Havana", "2026-11-01T04:00:00Z", "2026-11-01T05:00:00Z"},            // a day with two
		{"2199-12-31 23:59:59", "Pacific/Kiritimati", "2199-12-31T09:59:59Z", ""},
	} {
		last := test.last
		if last == "" {
			last = test.first
		}
		zone := mustLoad(t, test.zone)
		gotFirst, gotLast, err := parseMoment(test.text, zone)
		if err != nil || gotFirst.UTC().Format(time.RFC3339) != test.first || gotLast.UTC().Format(time.RFC3339) != last || gotFirst.Location() != zone {
			t.Errorf("%s in %s: %s and %s, %v; want %s and %s", test.text, test.zone, gotFirst, gotLast, err, test.first, last)
		}
	}
	for _, text := range []string{
		"", "2026", "2026-12", "2026-12-20T", "2026-12-20 ", " 2026-12-20", "2026-12-20  18:00", "2026-12-20 18", "2026-12-20 18:00:00.5",
		"2026-12-20 18:00 Z", "2026-12-20Z", "2026-12-20+01:00", "2026-12-20 18:00:00+0100", "2026-12-20 18:00:00+24:00", "2026-12-20 6pm",
		"2026-12-20t18:00:00z", "26-12-20", "20.12.2026", "12/20/2026", "20261220", "1797724800", "２026-12-20", "2026-02-29", "2026-13-01",
		"2026-12-00", "2026-12-20 24:00", "2026-12-20 23:60", "2026-12-20 23:59:60", "0000-01-01", "1999-12-30", "2200-01-03", "9999-12-31",
	} {
		if first, last, err := parseMoment(text, time.UTC); err == nil || !first.IsZero() || !last.IsZero() {
			t.Errorf("%q is taken for %s and %s, %v", text, first, last, err)
		}
	}
}

// FuzzParseMoment holds: what is accepted is one moment, or two within a day of each other,
// and reads as the same when it is written out as messages have it, or as RFC 3339.
func FuzzParseMoment(f *testing.F) {
	zones := []string{"UTC", "Europe/Berlin", "America/Sao_Paulo", "Asia/Kathmandu", "Australia/Lord_Howe", "Africa/Casablanca", "Pacific/Apia"}
	for i, text := range []string{
		"2026-12-20", "2026-03-29 02:30", "2026-10-25T02:30:00", "2026-12-20T18:00:00+05:45", "2199-12-31T23:59:59Z",
		"2026-04-05 01:45", "2000-01-01", "2011-12-30 12:00", "2026-02-30", "2026-12-20 24:00",
	} {
		f.Add(text, uint8(i))
	}
	f.Fuzz(func(t *testing.T, text string, n uint8) {
		zone := mustLoad(t, zones[int(n)%len(zones)])
		first, last, err := parseMoment(text, zone)
		if err != nil {
			return
		}
		if last.Before(first) || last.Sub(first) > 24*time.Hour || first.Nanosecond() != 0 || last.Nanosecond() != 0 {
			t.Errorf("%q in %s: %s and %s", text, zone, first, last)
		}
		for _, m := range []time.Time{first, last} {
			for _, written := range []string{shownMoment(m), m.Format(time.RFC3339), m.UTC().Format(time.RFC3339)} {
				again, same, err := parseMoment(written, zone)
				if err != nil || !again.Equal(m) || !same.Equal(m) {
					t.Errorf("%q in %s is %s; written as %q it is %s and %s, %v", text, zone, m, written, again, same, err)
				}
			}
		}
	})
}
