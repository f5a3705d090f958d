package scheduler_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	_ "time/tzdata"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/scheduler"
)

func mustParse(t testing.TB, expression, zone string) *scheduler.Schedule {
	t.Helper()
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	s, err := scheduler.Parse(expression, loc)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func at(t testing.TB, s string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestParseRefuses(t *testing.T) {
	for expression, want := range map[string]string{
		"":                           "empty",
		"* * * *":                    "five cron fields",
		"61 * * * *":                 "five cron fields",
		"0 4 * * 1 2026":             "five cron fields",
		"TZ=Europe/Berlin 0 4 * * 1": "use time_zone",
		"@reboot":                    "must never rotate",
		"@every soon":                "wants a duration",
		"@every 500ms":               "at least 1s",
		"@every 1500ms":              "whole seconds",
		"@every -1h":                 "at least 1s",
		"0 0 30 2 *":                 "never comes",
	} {
		_, err := scheduler.Parse(expression, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q) = %v, want an error with %q", expression, err, want)
		}
	}
}

func TestNext(t *testing.T) {
	for _, test := range []struct{ expression, zone, after, want string }{
		{"0 4 * * 1", "UTC", "2026-11-23T03:59:59Z", "2026-11-23T04:00:00Z"},
		{"0 4 * * 1", "UTC", "2026-11-23T04:00:00Z", "2026-11-30T04:00:00Z"},
		{"0 4 * * 1", "Europe/Berlin", "2026-11-23T00:00:00Z", "2026-11-23T03:00:00Z"},
		{"30 6 1 * *", "Asia/Kathmandu", "2026-11-23T00:00:00Z", "2026-12-01T00:45:00Z"},
		{"@weekly", "UTC", "2026-11-23T00:00:00Z", "2026-11-29T00:00:00Z"},
		{"@every 720h", "UTC", "2026-11-01T12:34:56Z", "2026-12-01T12:34:56Z"},
	} {
		got := mustParse(t, test.expression, test.zone).Next(at(t, test.after))
		if !got.Equal(at(t, test.want)) {
			t.Errorf("%s in %s after %s: %s, want %s", test.expression, test.zone, test.after, got.UTC(), test.want)
		}
	}
}

func TestSmallestGap(t *testing.T) {
	from := at(t, "2026-01-01T00:00:00Z")
	for expression, want := range map[string]time.Duration{
		"@every 90s":       90 * time.Second,
		"0 4 * * 1":        7 * 24 * time.Hour,
		"0 4,5 * * *":      time.Hour,
		"55 23 * * *":      24 * time.Hour,
		"0 0 1 * *":        28 * 24 * time.Hour,
		"0 23 31 12 *":     365 * 24 * time.Hour,
		"0,59 * * * *":     time.Minute,
		"0 22 * * 1,2,3,4": 24 * time.Hour,
	} {
		if got := mustParse(t, expression, "UTC").SmallestGap(from, 400); got != want {
			t.Errorf("%s: %s, want %s", expression, got, want)
		}
	}
}

func TestPassedCountsSlots(t *testing.T) {
	anchor := at(t, "2026-11-01T00:00:00Z")
	for _, test := range []struct {
		expression, now, slot string
		n                     int
	}{
		{"0 4 * * *", "2026-11-01T03:59:59Z", "2026-11-01T00:00:00Z", 0},
		{"0 4 * * *", "2026-11-01T04:00:00Z", "2026-11-01T04:00:00Z", 1},
		{"0 4 * * *", "2026-11-15T05:00:00Z", "2026-11-15T04:00:00Z", 15},
		{"@every 1h", "2026-10-01T00:00:00Z", "2026-11-01T00:00:00Z", 0},
		{"@every 1h", "2026-11-01T00:59:59Z", "2026-11-01T00:00:00Z", 0},
		{"@every 1h", "2026-11-03T00:30:00Z", "2026-11-03T00:00:00Z", 48},
	} {
		table := scheduler.Timetable{Schedule: mustParse(t, test.expression, "UTC")}
		passed := table.Passed(anchor, at(t, test.now))
		slot := passed.LastDue.Slot
		if passed.DueCount == 0 {
			slot = anchor
		}
		if !slot.Equal(at(t, test.slot)) || passed.DueCount != test.n || !passed.LastDueOpen() && passed.DueCount > 0 {
			t.Errorf("%s at %s: %+v; want %s, %d", test.expression, test.now, passed, test.slot, test.n)
		}
	}
}

func TestJitterIsDeterministicSpreadAndBounded(t *testing.T) {
	const jitter = 10 * time.Minute
	slot := at(t, "2026-11-23T04:00:00Z")
	seen := map[time.Duration]bool{}
	for i := range 100 {
		table := scheduler.Timetable{Schedule: mustParse(t, "0 4 * * *", "UTC"), Jitter: jitter, Key: fmt.Sprint("token-", i)}
		delay := table.Delay(slot)
		if delay < 0 || delay >= jitter {
			t.Fatalf("delay %s is outside [0, %s)", delay, jitter)
		}
		if again := table.Delay(slot.In(time.FixedZone("x", 3600))); again != delay {
			t.Fatalf("the same slot gave %s and %s", delay, again)
		}
		if f := table.Next(slot.Add(-time.Second)); !f.Begin.Equal(slot.Add(delay)) {
			t.Fatalf("Next begins at %s, not at the slot and its delay", f.Begin)
		}
		seen[delay.Truncate(time.Minute)] = true
	}
	if len(seen) < 9 {
		t.Errorf("100 tokens fell into only %d of 10 minutes", len(seen))
	}
	if d := (&scheduler.Timetable{Key: "x"}).Delay(slot); d != 0 {
		t.Errorf("without jitter the delay is %s", d)
	}
}

func TestQueueFiresOnTheTick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		q := scheduler.NewQueue(nil)
		var got []string
		beats := 0
		q.Set("late", start.Add(2*time.Hour))
		q.Set("early", start.Add(time.Second))
		q.Set("gone", start.Add(3*time.Second))
		q.Set("moved", start.Add(5*time.Second))
		done := make(chan struct{})
		go func() {
			defer close(done)
			q.Run(ctx, func(key string, due time.Time) {
				got = append(got, fmt.Sprintf("%s +%s", key, time.Since(start)))
				if !due.Equal(time.Now()) {
					t.Errorf("%s was due at %s and fired at %s", key, due, time.Now())
				}
				if key == "early" && len(got) == 1 {
					q.Set("early", due.Add(time.Minute)) // from within fire
				}
			}, func() { beats++ })
		}()
		time.Sleep(2 * time.Second)
		q.Remove("gone")
		q.Remove("never there")
		q.Set("moved", start.Add(90*time.Minute))
		q.Set("added", start.Add(2500*time.Millisecond))
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if q.Len() != 0 {
			t.Errorf("%d keys left", q.Len())
		}
		cancel()
		<-done
		want := []string{"early +1s", "added +2.5s", "early +1m1s", "moved +1h30m0s", "late +2h0m0s"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if perInterval := 3 * 3600 / 30; beats < perInterval {
			t.Errorf("%d beats in three hours, want at least %d", beats, perInterval)
		}
	})
}

func TestQueueStopsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		q := scheduler.NewQueue(nil)
		fired := 0
		for i := range 10 {
			q.Set(fmt.Sprint(i), time.Now())
		}
		q.Run(ctx, func(string, time.Time) {
			if fired++; fired == 3 {
				cancel()
			}
		}, nil)
		if fired != 3 || q.Len() != 7 {
			t.Errorf("fired %d, %d left; want 3 and 7", fired, q.Len())
		}
	})
}
