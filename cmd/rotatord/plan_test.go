package main

import (
	"context"
	"errors"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
)

// planToken is a token that rotates at four in the morning, UTC.
func planToken(t testing.TB, change ...func(*config.Token)) *config.Token {
	t.Helper()
	c := &config.Token{Name: "ci", ID: planTokenID, Grace: time.Hour, Schedule: parsed(t, "0 4 * * *")}
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

// forecastOne is the plan of one token.
func forecastOne(t testing.TB, c *config.Token, k knowledge, r planRange) plan {
	t.Helper()
	f, err := newForecaster(context.Background(), r, k)
	if err != nil {
		t.Fatal(err)
	}
	f.room = 1000
	if err := f.forecast(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	f.plan.sort()
	return f.plan
}

// summary is an entry in a line: what begins when and why, and the codes of its warnings.
func summary(e planned) string {
	at := string(e.status)
	if !e.begins.IsZero() {
		at = shortly(e.begins)
	}
	codes := make([]string, len(e.warnings))
	for i, w := range e.warnings {
		codes[i] = w.Code
	}
	return strings.TrimSpace(at + " " + reasonCell(&e) + " " + strings.Join(codes, ","))
}

// noon is when the plans of this file are made.
var noon = time.Date(2027, time.June, 1, 12, 0, 0, 0, time.UTC)

func at(day, hour int) time.Time { return time.Date(2027, time.June, day, hour, 0, 0, 0, time.UTC) }

// rotated is a record that was rotated today in its slot, changed.
func rotated(change func(*rotation.Record)) knowledge {
	r := rotation.Record{
		Format: rotation.RecordFormat, Revision: 1, Token: "ci", TokenID: planTokenID, Anchor: at(1, 4), Schedule: "0 4 * * * in UTC",
		Last: &rotation.Done{Slot: at(1, 4), At: at(1, 4), GraceEndsAt: at(1, 5)},
	}
	if change != nil {
		change(&r)
	}
	return knowledge{records: map[string]rotation.Record{"ci": r}}
}

func pausedBy(k knowledge, token string, until time.Time) knowledge {
	k.pauses = map[string]rotation.Pause{token: {Since: at(1, 11), Until: until, By: "uid 1000 (ops)", Reason: "migration\x1b[2J"}}
	return k
}

// planCase is what a plan of two rotations shows.
type planCase struct {
	token *config.Token
	known knowledge
	want  []string
}

func checkPlans(t *testing.T, cases map[string]planCase) {
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, e := range forecastOne(t, test.token, test.known, planRange{now: noon, count: 2}) {
				got = append(got, summary(e))
				for _, w := range e.warnings {
					if w.Message == "" || w.brief == "" || strings.ContainsAny(w.Message+w.brief, "\n\x1b") {
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

func TestPlanOfWhatIsLate(t *testing.T) {
	window := func(skip bool) func(*config.Token) {
		return func(c *config.Token) { c.Window, c.SkipMissed = time.Hour, skip }
	}
	checkPlans(t, map[string]planCase{
		"nothing to warn of": {planToken(t), rotated(nil), []string{"2027-06-02T04:00:00Z slot", "2027-06-03T04:00:00Z slot"}},
		"overdue by a day: spread within a quarter of the time to the next slot": {
			planToken(t), rotated(func(r *rotation.Record) { r.Anchor, r.Last = at(1, 4).AddDate(0, 0, -2), nil }),
			[]string{"2027-06-01T12:06:10Z catch_up overdue,merges_slots", "2027-06-02T04:00:00Z slot"},
		},
		"overdue, after its window, made up for": {
			planToken(t, window(false)), rotated(func(r *rotation.Record) { r.Anchor, r.Last = at(1, 3), nil }),
			[]string{"2027-06-01T12:06:10Z catch_up overdue,after_window", "2027-06-02T04:00:00Z slot"},
		},
		"overdue, after its window, given up": {
			planToken(t, window(true)), rotated(func(r *rotation.Record) { r.Anchor, r.Last = at(1, 3), nil }),
			[]string{"2027-06-02T04:00:00Z slot", "2027-06-03T04:00:00Z slot"},
		},
		"a grace longer than the window of a slot that is not made up for": {
			planToken(t, window(true)), rotated(func(r *rotation.Record) { r.Last.GraceEndsAt = at(2, 9) }),
			[]string{"missed grace missed", "2027-06-03T04:00:00Z slot", "2027-06-04T04:00:00Z slot"},
		},
		"a grace longer than the window of a slot that is": {
			planToken(t, window(false)), rotated(func(r *rotation.Record) { r.Last.GraceEndsAt = at(2, 9) }),
			[]string{"2027-06-02T09:00:00Z grace deferred_by_grace,after_window", "2027-06-03T04:00:00Z slot"},
		},
		"a grace over the slots of three days": {
			planToken(t), rotated(func(r *rotation.Record) { r.Last.GraceEndsAt = at(4, 9) }),
			[]string{"2027-06-04T09:00:00Z grace deferred_by_grace,merges_slots", "2027-06-05T04:00:00Z slot"},
		},
	})
}

func TestPlanOfWhatIsHeldUp(t *testing.T) {
	checkPlans(t, map[string]planCase{
		"paused for good": {planToken(t), pausedBy(rotated(nil), "ci", time.Time{}), []string{"held paused paused"}},
		"all paused for good, one not in the ledger": {
			planToken(t), pausedBy(knowledge{}, rotation.AllTokens, time.Time{}), []string{"held paused paused"},
		},
		"paused past two slots": {
			planToken(t), pausedBy(rotated(nil), "ci", at(3, 12)),
			[]string{"2027-06-03T12:05:59Z catch_up paused,merges_slots", "2027-06-04T04:00:00Z slot"},
		},
		"paused, but not that long": {
			planToken(t), pausedBy(rotated(nil), "ci", at(1, 13)), []string{"2027-06-02T04:00:00Z slot", "2027-06-03T04:00:00Z slot"},
		},
		"frozen for good": {
			planToken(t, func(c *config.Token) {
				c.Freezes = []scheduler.Freeze{
					{Name: "nights", Schedule: parsed(t, "0 0 * * *"), Duration: 12 * time.Hour},
					{Name: "days", Schedule: parsed(t, "0 12 * * *"), Duration: 12 * time.Hour},
				}
			}), rotated(nil), []string{"held never no_slot"},
		},
		"passed over for good": {
			planToken(t, func(c *config.Token) {
				c.Freezes = []scheduler.Freeze{{Name: "nights", Schedule: parsed(t, "0 0 * * *"), Duration: 12 * time.Hour, Skip: true}}
			}), rotated(nil), []string{"skipped freeze nights", "skipped freeze nights skips_more", "held never no_slot"},
		},
		"deferred by a freeze, and the grace after it by another": {
			planToken(t, func(c *config.Token) {
				c.Grace = 20 * time.Hour
				c.Freezes = []scheduler.Freeze{{Name: "one", From: at(2, 0), To: at(2, 10)}, {Name: "two", From: at(3, 5), To: at(3, 11)}}
			}), rotated(nil),
			[]string{"2027-06-02T10:07:34Z freeze one deferred_by_freeze", "2027-06-03T11:00:57Z freeze two deferred_by_grace,deferred_by_freeze"},
		},
	})
}

func TestPlanOfWhatIsInTrouble(t *testing.T) {
	weekly := func(c *config.Token) { c.Schedule = parsed(t, "0 4 * * 2") }
	inHand := func(step rotation.Step) func(*rotation.Record) {
		return func(r *rotation.Record) {
			r.Step = step
			r.Work = &rotation.Work{RotationID: "R1", TokenID: planTokenID, Slot: at(1, 10), Began: at(1, 10), GraceEndsAt: at(1, 23)}
		}
	}
	checkPlans(t, map[string]planCase{
		"in doubt": {
			planToken(t), rotated(func(r *rotation.Record) {
				inHand(rotation.StepInDoubt)(r)
				r.Doubt, r.NotBefore, r.Failures, r.LastError = &rotation.Doubt{Since: at(1, 11), OldWorksUntil: at(1, 23)}, at(1, 12).Add(8*time.Minute), 1, "reset"
			}),
			[]string{"2027-06-01T12:08:00Z in_doubt in_doubt,failing", "2027-06-02T04:00:00Z slot"},
		},
		"not delivered yet": {
			planToken(t), rotated(inHand(rotation.StepSealed)), []string{"2027-06-01T12:00:00Z unfinished unfinished", "2027-06-02T04:00:00Z slot"},
		},
		"owed": {
			planToken(t), rotated(func(r *rotation.Record) { r.NextTrigger = rotation.TriggerRecovery }),
			[]string{"2027-06-01T12:00:00Z reissue reissue", "2027-06-02T04:00:00Z slot"},
		},
		"failing": {
			planToken(t), rotated(func(r *rotation.Record) {
				r.Anchor, r.Last, r.Failures, r.NotBefore, r.LastError = at(1, 3), nil, 3, noon.Add(5*time.Minute), "no route"
			}),
			[]string{"2027-06-01T12:05:00Z back_off failing", "2027-06-02T04:00:00Z slot"},
		},
		"expired before the second": {
			planToken(t, weekly), rotated(func(r *rotation.Record) {
				r.Schedule, r.Facts.ID, r.Facts.ExpiresAt = "0 4 * * 2 in UTC", r.TokenID, at(9, 0)
			}),
			[]string{"2027-06-08T04:00:00Z slot", "2027-06-15T04:00:00Z slot token_expired"},
		},
		"another service token's record": {
			planToken(t), rotated(func(r *rotation.Record) { r.TokenID, r.Anchor = "another", at(1, 4).AddDate(0, 0, -9) }),
			[]string{"2027-06-02T04:00:00Z slot", "2027-06-03T04:00:00Z slot"},
		},
		"another service token's rotation in hand": {
			planToken(t), rotated(func(r *rotation.Record) {
				inHand(rotation.StepSealed)(r)
				r.Work.TokenID, r.TokenID = "another", "another"
			}),
			[]string{"held unfinished ledger_conflict"},
		},
		"@every without a ledger": {
			planToken(t, func(c *config.Token) { c.Schedule = parsed(t, "@every 36h") }), knowledge{},
			[]string{"2027-06-03T00:00:00Z slot estimated", "2027-06-04T12:00:00Z slot estimated"},
		},
	})
}

// TestPlanIsDocumented holds docs/plan.md to the codes and the fields that there are.
func TestPlanIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/plan.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllSubmatch(doc, -1) {
		documented = append(documented, string(row[1]))
	}
	want := []string{
		warnGrace, warnFreeze, warnMerges, warnWindow, warnMissed, warnSkips, warnExpired, warnOverdue, warnPaused, warnDoubt, warnInHand,
		warnReissue, warnOrdered, warnCreate, warnFailing, warnNever, warnEstimate, warnLedger,
	}
	for field := range reflect.TypeFor[shownPlan]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		want = append(want, name)
	}
	slices.Sort(want)
	slices.Sort(documented)
	if diff := cmp.Diff(want, documented); diff != "" {
		t.Errorf("what there is (-) and docs/plan.md (+) differ:\n%s", diff)
	}
}

// TestPlanIsBounded holds that what cannot be shown ends soon, and with a word on what to do.
func TestPlanIsBounded(t *testing.T) {
	c := &config.Config{Tokens: []config.Token{*planToken(t, func(c *config.Token) { c.Schedule, c.Grace = parsed(t, "* * * * *"), 0 })}}
	c.State.Dir = t.TempDir()
	_, _, err := makePlan(context.Background(), c, planRange{now: noon, until: noon.AddDate(10, 0, 0), most: 1000})
	if err == nil || !isUsage(err) || !strings.Contains(err.Error(), "more than 1000 entries: shorten") {
		t.Errorf("ten years of minutes: %v", err)
	}
	// An interval far away does not cost what lies before it, and a list of what a freeze passes
	// over is no longer than the list of rotations.
	c.Tokens[0].Freezes = []scheduler.Freeze{{Name: "long", From: noon.AddDate(8, 0, 0), To: noon.AddDate(8, 1, 0), Skip: true}}
	begun := time.Now()
	p, _, err := makePlan(context.Background(), c, planRange{now: noon, from: noon.AddDate(8, 0, 0), count: 2, most: 1000})
	if err != nil || len(p) != 4 {
		t.Fatalf("%d entries, want two that are skipped and two rotations: %v", len(p), err)
	}
	if took := time.Since(begun); took > time.Minute {
		t.Errorf("it took %s", took)
	}
	if want := noon.AddDate(8, 1, 0); !p[2].begins.Equal(want) {
		t.Errorf("the first rotation begins at %s, want %s", p[2].begins, want)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := makePlan(ctx, c, planRange{now: noon, count: 1, most: 1000}); !errors.Is(err, context.Canceled) {
		t.Errorf("after an interrupt: %v", err)
	}
}

// TestPlanFitsAScreen holds that a line with a usual name and a freeze has 160 columns at most.
func TestPlanFitsAScreen(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	schedule, err := scheduler.Parse("30 4 * * 1-5", berlin)
	if err != nil {
		t.Fatal(err)
	}
	c := planToken(t, func(c *config.Token) {
		c.Name, c.Schedule, c.Jitter, c.Window, c.Grace = "ci-deploy", schedule, 10*time.Minute, 6*time.Hour, 4*time.Hour
		c.Freezes = []scheduler.Freeze{{Name: "release", From: at(2, 0), To: at(2, 10)}}
	})
	var b strings.Builder
	if err := forecastOne(t, c, knowledge{}, planRange{now: noon, count: 3}).print(&b); err != nil {
		t.Fatal(err)
	}
	lines := slices.Collect(strings.Lines(b.String()))
	if len(lines) != 4 || !strings.Contains(lines[1], "freeze release") {
		t.Errorf("not the lines that were to be measured:\n%s", b.String())
	}
	for _, line := range lines {
		if len(line) > 161 {
			t.Errorf("%d columns: %s", len(line)-1, line)
		}
	}
}
