package forecast

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
)

const tokenID = "f174e90a-fafe-4643-bbbc-4a0ed4fc8415"

// daily returns a token that rotates at four in the morning, UTC.
func daily(t testing.TB, change ...func(*rotation.Token)) *rotation.Token {
	t.Helper()
	c := &rotation.Token{Name: "ci", ID: tokenID, Grace: time.Hour, Timetable: scheduler.Timetable{Schedule: parsed(t, "0 4 * * *"), Key: "ci"}}
	for _, f := range change {
		f(c)
	}
	return c
}

func parsed(t testing.TB, expression string) *scheduler.Schedule {
	t.Helper()
	s, err := scheduler.Parse(expression, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// summary is an entry in a line: when it starts and why, and the codes of its warnings.
func summary(e Entry) string {
	at := string(e.Status)
	if !e.Starts.IsZero() {
		at = shortly(e.Starts)
	}
	codes := make([]string, len(e.Warnings))
	for i, w := range e.Warnings {
		codes[i] = w.Code
	}
	return strings.TrimSpace(strings.TrimSpace(at+" "+string(e.Reason)+" "+e.Freeze) + " " + strings.Join(codes, ","))
}

// noon is when the forecasts of this file are made.
var noon = time.Date(2027, time.June, 1, 12, 0, 0, 0, time.UTC)

func at(day, hour int) time.Time { return time.Date(2027, time.June, day, hour, 0, 0, 0, time.UTC) }

// rotated is a record that was rotated today in its slot, changed.
func rotated(change func(*rotation.Record)) State {
	r := rotation.Record{
		Format: rotation.RecordFormat, Revision: 1, Token: "ci", TokenID: tokenID, Anchor: at(1, 4), Schedule: "0 4 * * * in UTC",
		Last: &rotation.Done{Slot: at(1, 4), At: at(1, 4), GraceEndsAt: at(1, 5)},
	}
	if change != nil {
		change(&r)
	}
	return State{Records: map[string]rotation.Record{"ci": r}}
}

func pausedBy(k State, token string, until time.Time) State {
	k.Pauses = map[string]rotation.Pause{token: {Since: at(1, 11), Until: until, By: "uid 1000 (ops)", Reason: "migration\x1b[2J"}}
	return k
}

// forecastCase is what a plan of two rotations shows.
type forecastCase struct {
	token *rotation.Token
	known State
	want  []string
}

func checkForecasts(t *testing.T, cases map[string]forecastCase) {
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			var got []string
			all, err := Of(context.Background(), []rotation.Token{*test.token}, test.known, Range{Now: noon, Count: 2, Limit: 1000})
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range all {
				got = append(got, summary(e))
				for _, w := range e.Warnings {
					if w.Message == "" || w.Brief == "" || strings.ContainsAny(w.Message+w.Brief, "\n\x1b") {
						t.Errorf("an unfit warning: %+v", w)
					}
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestForecastOfWhatIsLate(t *testing.T) {
	window := func(skip bool) func(*rotation.Token) {
		return func(c *rotation.Token) { c.Timetable.Window, c.Timetable.SkipMissed = time.Hour, skip }
	}
	checkForecasts(t, map[string]forecastCase{
		"nothing to warn of": {daily(t), rotated(nil), []string{"2027-06-02T04:00:00Z slot", "2027-06-03T04:00:00Z slot"}},
		"overdue by a day: spread within a quarter of the time to the next slot": {
			daily(t), rotated(func(r *rotation.Record) { r.Anchor, r.Last = at(1, 4).AddDate(0, 0, -2), nil }),
			[]string{"2027-06-01T12:06:10Z catch_up overdue,merges_slots", "2027-06-02T04:00:00Z slot"},
		},
		"overdue, after its window, made up for": {
			daily(t, window(false)), rotated(func(r *rotation.Record) { r.Anchor, r.Last = at(1, 3), nil }),
			[]string{"2027-06-01T12:06:10Z catch_up overdue,after_window", "2027-06-02T04:00:00Z slot"},
		},
		"overdue, after its window, given up": {
			daily(t, window(true)), rotated(func(r *rotation.Record) { r.Anchor, r.Last = at(1, 3), nil }),
			[]string{"2027-06-02T04:00:00Z slot", "2027-06-03T04:00:00Z slot"},
		},
		"a grace longer than the window of a slot that is not made up for": {
			daily(t, window(true)), rotated(func(r *rotation.Record) { r.Last.GraceEndsAt = at(2, 9) }),
			[]string{"missed grace missed", "2027-06-03T04:00:00Z slot", "2027-06-04T04:00:00Z slot"},
		},
		"a grace longer than the window of a slot that is": {
			daily(t, window(false)), rotated(func(r *rotation.Record) { r.Last.GraceEndsAt = at(2, 9) }),
			[]string{"2027-06-02T09:00:00Z grace deferred_by_grace,after_window", "2027-06-03T04:00:00Z slot"},
		},
		"a grace over the slots of three days": {
			daily(t), rotated(func(r *rotation.Record) { r.Last.GraceEndsAt = at(4, 9) }),
			[]string{"2027-06-04T09:00:00Z grace deferred_by_grace,merges_slots", "2027-06-05T04:00:00Z slot"},
		},
	})
}

func TestForecastOfWhatIsDelayed(t *testing.T) {
	checkForecasts(t, map[string]forecastCase{
		"paused for good": {daily(t), pausedBy(rotated(nil), "ci", time.Time{}), []string{"held paused paused"}},
		"all paused for good, one not in the ledger": {
			daily(t), pausedBy(State{}, rotation.AllTokens, time.Time{}), []string{"held paused paused"},
		},
		"paused past two slots": {
			daily(t), pausedBy(rotated(nil), "ci", at(3, 12)),
			[]string{"2027-06-03T12:05:59Z catch_up paused,merges_slots", "2027-06-04T04:00:00Z slot"},
		},
		"paused, but not that long": {
			daily(t), pausedBy(rotated(nil), "ci", at(1, 13)), []string{"2027-06-02T04:00:00Z slot", "2027-06-03T04:00:00Z slot"},
		},
		"frozen for good": {
			daily(t, func(c *rotation.Token) {
				c.Timetable.Freezes = []scheduler.Freeze{
					{Name: "nights", Schedule: parsed(t, "0 0 * * *"), Duration: 12 * time.Hour},
					{Name: "days", Schedule: parsed(t, "0 12 * * *"), Duration: 12 * time.Hour},
				}
			}), rotated(nil), []string{"held never no_slot"},
		},
		"passed over for good": {
			daily(t, func(c *rotation.Token) {
				c.Timetable.Freezes = []scheduler.Freeze{{Name: "nights", Schedule: parsed(t, "0 0 * * *"), Duration: 12 * time.Hour, Skip: true}}
			}), rotated(nil), []string{"skipped freeze nights", "skipped freeze nights skips_more", "held never no_slot"},
		},
		"deferred by a freeze, and the grace after it by another": {
			daily(t, func(c *rotation.Token) {
				c.Grace = 20 * time.Hour
				c.Timetable.Freezes = []scheduler.Freeze{{Name: "one", From: at(2, 0), To: at(2, 10)}, {Name: "two", From: at(3, 5), To: at(3, 11)}}
			}), rotated(nil),
			[]string{"2027-06-02T10:07:34Z freeze one deferred_by_freeze", "2027-06-03T11:00:57Z freeze two deferred_by_grace,deferred_by_freeze"},
		},
	})
}

func TestForecastOfWhatIsInTrouble(t *testing.T) {
	weekly := func(c *rotation.Token) { c.Timetable.Schedule = parsed(t, "0 4 * * 2") }
	inProgress := func(step rotation.Step) func(*rotation.Record) {
		return func(r *rotation.Record) {
			r.Step = step
			r.Work = &rotation.Work{RotationID: "R1", TokenID: tokenID, Slot: at(1, 10), Began: at(1, 10), GraceEndsAt: at(1, 23)}
		}
	}
	checkForecasts(t, map[string]forecastCase{
		"in doubt": {
			daily(t), rotated(func(r *rotation.Record) {
				inProgress(rotation.StepInDoubt)(r)
				r.Doubt, r.NotBefore, r.Failures, r.LastError = &rotation.Doubt{Since: at(1, 11), OldWorksUntil: at(1, 23)}, at(1, 12).Add(8*time.Minute), 1, "reset"
			}),
			[]string{"2027-06-01T12:08:00Z in_doubt in_doubt,failing", "2027-06-02T04:00:00Z slot"},
		},
		"not delivered yet": {
			daily(t), rotated(inProgress(rotation.StepSealed)), []string{"2027-06-01T12:00:00Z unfinished unfinished", "2027-06-02T04:00:00Z slot"},
		},
		"owed": {
			daily(t), rotated(func(r *rotation.Record) { r.NextTrigger = rotation.TriggerRecovery }),
			[]string{"2027-06-01T12:00:00Z reissue reissue", "2027-06-02T04:00:00Z slot"},
		},
		"failing": {
			daily(t), rotated(func(r *rotation.Record) {
				r.Anchor, r.Last, r.Failures, r.NotBefore, r.LastError = at(1, 3), nil, 3, noon.Add(5*time.Minute), "no route"
			}),
			[]string{"2027-06-01T12:05:00Z back_off failing", "2027-06-02T04:00:00Z slot"},
		},
		"expired before the second": {
			daily(t, weekly), rotated(func(r *rotation.Record) {
				r.Schedule, r.Facts.ID, r.Facts.ExpiresAt = "0 4 * * 2 in UTC", r.TokenID, at(9, 0)
			}),
			[]string{"2027-06-08T04:00:00Z slot", "2027-06-15T04:00:00Z slot token_expired"},
		},
		"another service token's record": {
			daily(t), rotated(func(r *rotation.Record) { r.TokenID, r.Anchor = "another", at(1, 4).AddDate(0, 0, -9) }),
			[]string{"2027-06-02T04:00:00Z slot", "2027-06-03T04:00:00Z slot"},
		},
		"another service token's rotation in progress": {
			daily(t), rotated(func(r *rotation.Record) {
				inProgress(rotation.StepSealed)(r)
				r.Work.TokenID, r.TokenID = "another", "another"
			}),
			[]string{"held unfinished ledger_conflict"},
		},
		"@every without a ledger": {
			daily(t, func(c *rotation.Token) { c.Timetable.Schedule = parsed(t, "@every 36h") }), State{},
			[]string{"2027-06-03T00:00:00Z slot estimated", "2027-06-04T12:00:00Z slot estimated"},
		},
	})
}

// TestForecastOfStrategies: a rotation of a pair, and one that creates a service token, promise the same grace as
// one in place. The first service token has no previous secret.
func TestForecastOfStrategies(t *testing.T) {
	for name, test := range map[string]struct {
		token *rotation.Token
		known State
		want  []string // when it starts, and when the grace ends
	}{
		"in place": {daily(t), rotated(nil), []string{"2027-06-02T04:00:00Z 2027-06-02T05:00:00Z", "2027-06-03T04:00:00Z 2027-06-03T05:00:00Z"}},
		"a pair": {daily(t, func(c *rotation.Token) { c.Partner = "5eed0000-0000-4000-8000-000000000002" }), rotated(nil),
			[]string{"2027-06-02T04:00:00Z 2027-06-02T05:00:00Z", "2027-06-03T04:00:00Z 2027-06-03T05:00:00Z"}},
		"replaced": {daily(t, func(c *rotation.Token) { c.Replace = true }), rotated(nil),
			[]string{"2027-06-02T04:00:00Z 2027-06-02T05:00:00Z", "2027-06-03T04:00:00Z 2027-06-03T05:00:00Z"}},
		"created": {daily(t, func(c *rotation.Token) { c.ID, c.Create = "", &rotation.Creation{Name: "ci"} }), State{},
			[]string{"2027-06-01T12:00:00Z 0001-01-01T00:00:00Z", "2027-06-02T04:00:00Z 2027-06-02T05:00:00Z"}},
	} {
		all, err := Of(context.Background(), []rotation.Token{*test.token}, test.known, Range{Now: noon, Count: 2, Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range all {
			got = append(got, shortly(e.Starts)+" "+shortly(e.GraceEnds))
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
