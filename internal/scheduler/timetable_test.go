package scheduler_test

import (
	"testing"
	"time"

	"rotatord/internal/scheduler"
)

// TestFreezes looks at a daily slot at 04:00 UTC around freezes of all kinds. What waits for
// the end of a freeze begins within ten minutes after it.
func TestFreezes(t *testing.T) {
	once := func(from, to string, skip bool) scheduler.Freeze {
		return scheduler.Freeze{Name: "once", From: at(t, from), To: at(t, to), Skip: skip}
	}
	weekend := func(skip bool) scheduler.Freeze {
		return scheduler.Freeze{Name: "weekend", Schedule: mustParse(t, "0 18 * * 5", "Europe/Berlin"), Duration: 62 * time.Hour, Skip: skip}
	}
	for _, test := range []struct {
		name, anchor string
		freezes      []scheduler.Freeze
		slot, begin  string
		freeze       string
	}{
		{"before it", "2026-12-19T00:00:00Z", []scheduler.Freeze{once("2026-12-20T00:00:00Z", "2027-01-04T06:00:00Z", false)},
			"2026-12-19T04:00:00Z", "2026-12-19T04:00:00Z", ""},
		{"deferred", "2026-12-19T04:00:00Z", []scheduler.Freeze{once("2026-12-20T00:00:00Z", "2027-01-04T06:00:00Z", false)},
			"2026-12-20T04:00:00Z", "2027-01-04T06:00:00Z", "once"},
		{"passed over", "2026-12-19T04:00:00Z", []scheduler.Freeze{once("2026-12-20T00:00:00Z", "2027-01-04T06:00:00Z", true)},
			"2027-01-05T04:00:00Z", "2027-01-05T04:00:00Z", ""},
		{"its first moment is in it", "2026-12-19T05:00:00Z", []scheduler.Freeze{once("2026-12-20T04:00:00Z", "2026-12-20T04:00:01Z", false)},
			"2026-12-20T04:00:00Z", "2026-12-20T04:00:01Z", "once"},
		{"its end is not", "2026-12-19T05:00:00Z", []scheduler.Freeze{once("2026-12-20T03:00:00Z", "2026-12-20T04:00:00Z", true)},
			"2026-12-20T04:00:00Z", "2026-12-20T04:00:00Z", ""},
		{"again and again", "2026-11-27T05:00:00Z", []scheduler.Freeze{weekend(false)}, // Friday
			"2026-11-28T04:00:00Z", "2026-11-30T07:00:00Z", "weekend"},
		{"again and again, passed over", "2026-11-27T05:00:00Z", []scheduler.Freeze{weekend(true)},
			"2026-12-01T04:00:00Z", "2026-12-01T04:00:00Z", ""},
		{"one after the other", "2026-11-27T05:00:00Z", []scheduler.Freeze{once("2026-11-30T06:00:00Z", "2026-12-01T00:00:00Z", false), weekend(false)},
			"2026-11-28T04:00:00Z", "2026-12-01T00:00:00Z", "once"},
	} {
		table := scheduler.Timetable{Schedule: mustParse(t, "0 4 * * *", "UTC"), Freezes: test.freezes, Window: time.Hour}
		f := table.Next(at(t, test.anchor))
		spread := f.Begin.Sub(at(t, test.begin))
		if !f.Slot.Equal(at(t, test.slot)) || spread < 0 || spread >= 10*time.Minute || (spread == 0) != (test.freeze == "") || f.Freeze != test.freeze || !f.Close.Equal(f.Begin.Add(time.Hour)) {
			t.Errorf("%s: %+v; want slot %s, begin %s, freeze %q", test.name, f, test.slot, test.begin, test.freeze)
		}
	}
}

func TestFrozenForGood(t *testing.T) {
	week := scheduler.Freeze{Name: "week", Schedule: mustParse(t, "0 0 * * 1", "UTC"), Duration: 5 * 24 * time.Hour}
	weekend := scheduler.Freeze{Name: "weekend", Schedule: mustParse(t, "0 0 * * 6", "UTC"), Duration: 2 * 24 * time.Hour}
	for _, skip := range []bool{false, true} {
		week.Skip, weekend.Skip = skip, skip
		table := scheduler.Timetable{Schedule: mustParse(t, "0 4 * * *", "UTC"), Freezes: []scheduler.Freeze{week, weekend}}
		if f := table.Next(at(t, "2026-11-27T05:00:00Z")); !f.Slot.IsZero() || !f.Begin.IsZero() {
			t.Errorf("skip %v: %+v, want none", skip, f)
		}
	}
}

// TestPassed looks back on the slots of @every 1h and of an hourly cron schedule, which come
// to the same.
func TestPassed(t *testing.T) {
	anchor := at(t, "2026-11-24T00:00:00Z")
	freeze := func(from, to string, skip bool) []scheduler.Freeze {
		return []scheduler.Freeze{{Name: "f", From: at(t, from), To: at(t, to), Skip: skip}}
	}
	for _, test := range []struct {
		name    string
		now     string
		window  time.Duration
		freezes []scheduler.Freeze

		last        string
		due, frozen int
		missed      string
		misses      int
	}{
		{"none yet", "2026-11-24T00:59:59Z", 0, nil, "", 0, 0, "", 0},
		{"one", "2026-11-24T01:00:00Z", 0, nil, "2026-11-24T01:00:00Z", 1, 0, "", 0},
		{"many, no window", "2026-11-24T05:59:00Z", 0, nil, "2026-11-24T05:00:00Z", 5, 0, "", 0},
		{"many, the last open", "2026-11-24T05:10:00Z", 10 * time.Minute, nil, "2026-11-24T05:00:00Z", 5, 0, "2026-11-24T04:00:00Z", 4},
		{"many, all missed", "2026-11-24T05:10:01Z", 10 * time.Minute, nil, "2026-11-24T05:00:00Z", 5, 0, "2026-11-24T05:00:00Z", 5},
		{"passed over by a freeze", "2026-11-24T05:10:00Z", 10 * time.Minute, freeze("2026-11-24T01:30:00Z", "2026-11-24T04:30:00Z", true),
			"2026-11-24T05:00:00Z", 2, 3, "2026-11-24T01:00:00Z", 1},
		{"all passed over", "2026-11-24T04:10:00Z", 0, freeze("2026-11-24T00:30:00Z", "2026-11-24T04:30:00Z", true), "", 0, 0, "", 0},
		{"deferred", "2026-11-24T04:30:00Z", 10 * time.Minute, freeze("2026-11-24T01:30:00Z", "2026-11-24T04:30:00Z", false),
			"2026-11-24T04:00:00Z", 2, 2, "2026-11-24T01:00:00Z", 1},
		{"deferred and missed", "2026-11-24T04:50:00Z", 10 * time.Minute, freeze("2026-11-24T01:30:00Z", "2026-11-24T04:30:00Z", false),
			"2026-11-24T04:00:00Z", 2, 2, "2026-11-24T04:00:00Z", 2},
	} {
		for _, expression := range []string{"@every 1h", "0 * * * *"} {
			table := scheduler.Timetable{Schedule: mustParse(t, expression, "UTC"), Window: test.window, Freezes: test.freezes}
			p := table.Passed(anchor, at(t, test.now))
			last, missed := time.Time{}, time.Time{}
			if test.last != "" {
				last = at(t, test.last)
			}
			if test.missed != "" {
				missed = at(t, test.missed)
			}
			if !p.LastDue.Slot.Equal(last) || p.DueCount != test.due || p.DeferredCount != test.frozen || !p.LastMissed.Equal(missed) || p.MissedCount != test.misses {
				t.Errorf("%s, %s: %+v", test.name, expression, p)
			}
		}
	}
}

func TestCatchUpIsSpread(t *testing.T) {
	now := at(t, "2026-11-24T05:00:00Z")
	for _, test := range []struct {
		expression     string
		jitter, window time.Duration
		limit          time.Duration
	}{
		{"0 4 * * *", 0, 0, 10 * time.Minute},
		{"0 4 * * *", 2 * time.Hour, 0, 2 * time.Hour},
		{"@every 8m", 0, 0, 2 * time.Minute},
		{"0 4 * * *", 0, 64 * time.Minute, 4 * time.Minute},
		{"0 4 * * *", 0, 10 * time.Minute, 10 * time.Minute}, // over already
	} {
		seen := make(map[time.Duration]bool)
		for i := range 200 {
			table := scheduler.Timetable{Schedule: mustParse(t, test.expression, "UTC"), Jitter: test.jitter, Window: test.window, Key: string(rune('a' + i))}
			f := table.Firing(at(t, "2026-11-24T04:00:00Z"))
			if test.window == 0 && test.jitter == 0 && !f.Begin.Equal(f.Slot) {
				t.Fatalf("%+v", f)
			}
			begin := table.CatchUp(f, now)
			if d := begin.Sub(now); d < 0 || d >= test.limit {
				t.Fatalf("%s: %s is outside [0, %s)", test.expression, d, test.limit)
			}
			if again := table.CatchUp(f, now); !again.Equal(begin) {
				t.Fatalf("%s and %s", begin, again)
			}
			seen[begin.Sub(now)/(test.limit/10)] = true
		}
		if len(seen) < 10 {
			t.Errorf("%s: 200 tokens fell into %d of 10 parts", test.expression, len(seen))
		}
	}
}

// TestCatchUpAtTheEndOfTheWindow: in its last moment there is no time left to spread it.
func TestCatchUpAtTheEndOfTheWindow(t *testing.T) {
	table := scheduler.Timetable{Schedule: mustParse(t, "0 4 * * *", "UTC"), Window: time.Hour, Key: "ci"}
	f := table.Firing(at(t, "2026-11-24T04:00:00Z"))
	if begin := table.CatchUp(f, f.Close); !begin.Equal(f.Close) {
		t.Errorf("%s, and the window is over at %s", begin, f.Close)
	}
}

// TestDaylightSaving is the rule in small; see TestISC for ten zones and twenty years.
func TestDaylightSaving(t *testing.T) {
	const spring, autumn = "2026-03-28T12:00:00Z", "2026-10-24T12:00:00Z"
	for _, test := range []struct {
		expression, after string
		want              []string
	}{
		{"30 2 * * *", spring, []string{"2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"}},
		{"0,30 2 * * *", spring, []string{"2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z", "2026-03-30T00:30:00Z"}},
		{"30 1-3 * * *", spring, []string{"2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z", "2026-03-29T23:30:00Z"}},
		{"30 2 * * *", autumn, []string{"2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"}},
		{"0 * * * *", "2026-10-24T23:30:00Z", []string{"2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"}},
		{"30 * * * *", "2026-03-29T00:00:00Z", []string{"2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z"}},
		{"*/30 2 * * *", spring, []string{"2026-03-30T00:00:00Z", "2026-03-30T00:30:00Z"}},
		{"*/30 2 * * *", autumn, []string{"2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z", "2026-10-26T01:00:00Z"}},
		{"@daily", autumn, []string{"2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"}},
		{"@hourly", "2026-10-25T00:10:00Z", []string{"2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"}},
		{"@every 24h", autumn, []string{"2026-10-25T12:00:00Z"}},
	} {
		schedule, slot := mustParse(t, test.expression, "Europe/Berlin"), at(t, test.after)
		for _, want := range test.want {
			if slot = schedule.Next(slot); !slot.Equal(at(t, want)) {
				t.Errorf("%s after %s: %s, want %s", test.expression, test.after, slot.UTC(), want)
				break
			}
		}
	}
}
