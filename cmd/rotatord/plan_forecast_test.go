package main

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
	"rotatord/internal/secret"
)

const planTokenID = "f174e90a-fafe-4643-bbbc-4a0ed4fc8415"

// kindWorld is a Cloudflare, a sink and a journal in which nothing ever fails, and that take
// no time.
type kindWorld struct {
	clock   time.Time
	stored  rotation.Stored
	sealed  map[string]rotation.Issued
	rotates int
	claims  []rotation.Work
	graces  []time.Time
}

func (w *kindWorld) Ready(context.Context) error { return nil }

func (w *kindWorld) Inspect(_ context.Context, id string) (rotation.TokenFacts, error) {
	return rotation.TokenFacts{ID: id, ClientID: "client.access", UpdatedAt: w.clock.Add(-time.Hour)}, nil
}

func (w *kindWorld) Rotate(_ context.Context, r rotation.RotateRequest) (rotation.Issued, error) {
	w.rotates++
	issued := rotation.Issued{
		Credential: rotation.Credential{ClientID: "client.access", ClientSecret: secret.New(fmt.Sprintf("cfast_%048d", w.rotates))},
		Facts:      rotation.TokenFacts{ID: r.TokenID, ClientID: "client.access", UpdatedAt: w.clock},
	}
	if r.Grace > 0 {
		issued.GraceEndsAt = w.clock.Add(r.Grace)
	}
	w.graces = append(w.graces, w.clock.Add(r.Grace))
	return issued, nil
}

func (w *kindWorld) SetGrace(context.Context, string, time.Duration) (rotation.TokenFacts, time.Time, error) {
	panic("nobody's grace needs to be extended")
}

func (w *kindWorld) Name() string                                       { return "vault:secret/ci" }
func (w *kindWorld) Preflight(context.Context) (rotation.Stored, error) { return w.stored, nil }
func (w *kindWorld) Reserve(context.Context, rotation.PendingKey) error { return nil }
func (w *kindWorld) Erase(context.Context, string) error                { return nil }
func (w *kindWorld) Seal(_ context.Context, k rotation.PendingKey, i rotation.Issued) error {
	w.sealed = map[string]rotation.Issued{k.RotationID: i}
	return nil
}

func (w *kindWorld) Open(_ context.Context, id string) (rotation.Issued, bool, error) {
	issued, ok := w.sealed[id]
	return issued, ok, nil
}

func (w *kindWorld) Store(_ context.Context, c rotation.Credential, _ rotation.Stored) (rotation.Stored, error) {
	w.stored = rotation.Stored{Exists: true, ClientID: c.ClientID, Digest: c.ClientSecret.Digest()}
	return w.stored, nil
}

// saved keeps each claim.
func (w *kindWorld) saved(record rotation.Record) {
	if record.Step == rotation.StepClaimed {
		w.claims = append(w.claims, *record.Work)
	}
}

// happened is what a rotation was in the end, and what a plan says that it will be.
type happened struct {
	Begins, Last, GraceEnds string
}

func shortly(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// live runs the daemon's own code from now on until so many rotations are done or none
// follows, in the way of the engine of package app.
func live(ctx context.Context, t *rapid.T, c config.Token, known knowledge, now time.Time, rotations int) (all []happened, held rotation.DueReason) {
	w := &kindWorld{clock: now}
	ledger := copiedLedger{}
	maps.Copy(ledger, known.records)
	r := rotation.New(rotation.Options{
		Ledger: ledger, Pending: w, Pauses: copiedPauses(known.pauses), Saved: w.saved, Now: func() time.Time { return w.clock }, Started: now,
	})
	if err := r.LoadPauses(ctx); err != nil {
		t.Fatal(err)
	}
	token := rotation.Token{Name: c.Name, ID: c.ID, Grace: c.Grace, Timetable: c.Timetable(), Issuer: w, Sinks: []rotation.Sink{w}}
	record, err := r.Enroll(ctx, token)
	for err == nil && len(w.claims) < rotations {
		due := r.Due(token, record)
		switch {
		case due.Unscheduled:
			held = due.Reason
		case due.Wake.After(w.clock) && due.Wake.Before(due.At):
			w.clock = due.Wake
			record, err = r.CatchUp(ctx, token)
			continue
		case due.Reason == rotation.DuePaused:
			w.clock = latest(w.clock, due.At)
			if record, err = r.CatchUp(ctx, token); err == nil {
				if again := r.Due(token, record); again.Unscheduled || again.At.After(w.clock) {
					continue
				}
			}
		}
		if held != "" || err != nil {
			break
		}
		w.clock = latest(w.clock, due.At)
		record, err = r.Advance(ctx, token)
	}
	if err != nil {
		t.Fatal(err)
	}
	for i, claim := range w.claims {
		h := happened{Begins: shortly(claim.Began), Last: shortly(claim.Slot), GraceEnds: shortly(w.graces[i])}
		if claim.Trigger == rotation.TriggerRecovery { // a plan has no slot for it
			h.Last = shortly(time.Time{})
		}
		all = append(all, h)
	}
	return all, held
}

var planEpoch = time.Date(2027, time.March, 20, 12, 0, 0, 0, time.UTC)

// drawToken draws a token that a configuration could have.
func drawToken(t *rapid.T) config.Token {
	kind := rapid.SampledFrom([]struct {
		expression string
		gap        time.Duration
	}{
		{"30 2 * * *", 23 * time.Hour}, {"0 */6 * * *", 5 * time.Hour}, {"*/15 * * * *", 15 * time.Minute}, {"0 4 * * 1", 167 * time.Hour},
		{"@every 7h", 7 * time.Hour}, {"@every 100h", 100 * time.Hour}, {"0 2,3,4 28 3,10 *", time.Hour},
	}).Draw(t, "schedule")
	zone := rapid.SampledFrom([]string{"UTC", "Europe/Berlin", "Australia/Lord_Howe"}).Draw(t, "zone")
	location, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	schedule, err := scheduler.Parse(kind.expression, location)
	if err != nil {
		t.Fatal(err)
	}
	part := rapid.SampledFrom([]time.Duration{0, 2, 10, 100})
	span := func(name string) time.Duration {
		if n := part.Draw(t, name); n > 0 {
			return (kind.gap / n).Truncate(time.Second)
		}
		return 0
	}
	c := config.Token{
		Name: "ci", ID: planTokenID, Schedule: schedule, Jitter: span("jitter"), Grace: span("grace"), Window: span("window"),
		SkipMissed: rapid.Bool().Draw(t, "skip missed"),
	}
	for i := range rapid.IntRange(0, 2).Draw(t, "freezes") {
		f := scheduler.Freeze{Name: fmt.Sprintf("freeze%d", i), Skip: rapid.Bool().Draw(t, "skip")}
		if rapid.Bool().Draw(t, "once") {
			f.From = planEpoch.Add(time.Duration(rapid.IntRange(-100, 400).Draw(t, "from")) * time.Hour)
			f.To = f.From.Add(time.Duration(rapid.IntRange(1, 200).Draw(t, "hours")) * time.Hour)
		} else {
			if f.Schedule, err = scheduler.Parse("0 18 * * 5", location); err != nil {
				t.Fatal(err)
			}
			f.Duration = time.Duration(rapid.IntRange(1, 100).Draw(t, "hours")) * time.Hour
		}
		c.Freezes = append(c.Freezes, f)
	}
	return c
}

// drawKnowledge draws what a ledger could say.
func drawKnowledge(t *rapid.T, c config.Token, now time.Time) knowledge {
	ago := func(name string, hours int) time.Time {
		return now.Add(-time.Duration(rapid.IntRange(0, hours*3600).Draw(t, name)) * time.Second)
	}
	k := knowledge{records: map[string]rotation.Record{}, pauses: map[string]rotation.Pause{}}
	if rapid.Bool().Draw(t, "known") {
		r := rotation.Record{Format: rotation.RecordFormat, Revision: 1, Token: c.Name, TokenID: c.ID, Anchor: ago("anchor", 400)}
		if rapid.Bool().Draw(t, "rescheduled") {
			r.Schedule = "another"
		}
		if rapid.Bool().Draw(t, "rotated") {
			at := latest(r.Anchor, now.Add(-2*time.Hour))
			r.Last = &rotation.Done{Slot: r.Anchor, At: at, GraceEndsAt: at.Add(c.Grace)}
		}
		if rapid.IntRange(0, 3).Draw(t, "failing") == 0 {
			r.Failures, r.NotBefore, r.LastError = 3, now.Add(5*time.Minute), "no route to host"
		}
		if rapid.IntRange(0, 5).Draw(t, "owed") == 0 {
			r.NextTrigger = rotation.TriggerRecovery
		}
		k.records[c.Name] = r
	}
	for _, who := range []string{c.Name, rotation.AllTokens} {
		if rapid.IntRange(0, 3).Draw(t, "paused") > 0 {
			continue
		}
		p := rotation.Pause{Since: now.Add(-time.Hour)}
		if rapid.IntRange(0, 3).Draw(t, "for good") > 0 {
			p.Until = now.Add(time.Duration(rapid.IntRange(-1, 200).Draw(t, "pause")) * time.Hour)
		}
		k.pauses[who] = p
	}
	return k
}

// planOf forecasts one token, with the slots that freezes take away if they are asked for.
func planOf(t *rapid.T, c *config.Token, k knowledge, r planRange) plan {
	records := map[string]rotation.Record{}
	maps.Copy(records, k.records)
	f, err := newForecaster(context.Background(), r, knowledge{records, k.pauses})
	if err != nil {
		t.Fatal(err)
	}
	f.room = 100_000
	if err := f.forecast(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	return f.plan
}

func foretold(p plan) (all []happened, held rotation.DueReason) {
	for _, e := range p {
		switch e.status {
		case planPlanned:
			all = append(all, happened{Begins: shortly(e.begins), Last: shortly(e.last), GraceEnds: shortly(e.graceEnds)})
		case planHeld:
			held = e.reason
		}
	}
	return all, held
}

// TestForecastIsWhatHappens holds forecasts against rotations of the real thing, with
// Cloudflare and Vault at their best.
func TestForecastIsWhatHappens(t *testing.T) {
	const rotations = 12
	rapid.Check(t, func(t *rapid.T) {
		c := drawToken(t)
		now := planEpoch.Add(time.Duration(rapid.IntRange(0, 14*24*3600).Draw(t, "now")) * time.Second)
		k := drawKnowledge(t, c, now)
		want, wantHeld := live(context.Background(), t, c, k, now, rotations)
		got, held := foretold(planOf(t, &c, k, planRange{now: now, count: rotations}))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("what happens (-) and the plan (+) differ:\n%s", diff)
		}
		if held != wantHeld {
			t.Errorf("held by %q in the end, the plan says %q", wantHeld, held)
		}
	})
}

// TestIntervalIsPartOfThePlan holds that looking at an interval alone, however far away, shows
// what the whole plan has there.
func TestIntervalIsPartOfThePlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawToken(t)
		now := planEpoch.Add(time.Duration(rapid.IntRange(0, 14*24*3600).Draw(t, "now")) * time.Second)
		k := drawKnowledge(t, c, now)
		if _, known := k.records[c.Name]; !known {
			return // it is counted from now, or from --from
		}
		from := now.Add(time.Duration(rapid.IntRange(1, 60*24).Draw(t, "from")) * time.Hour)
		until := from.Add(time.Duration(rapid.IntRange(0, 10*24).Draw(t, "hours")) * time.Hour)
		whole := planOf(t, &c, k, planRange{now: now, until: until})
		part := planOf(t, &c, k, planRange{now: now, from: from, until: until})
		var want plan
		for _, e := range whole {
			if !e.at().IsZero() && !e.at().Before(from) {
				want = append(want, e)
			}
		}
		w, _ := foretold(want)
		p, _ := foretold(part)
		if diff := cmp.Diff(w, p); diff != "" {
			t.Errorf("the whole plan (-) and that of the interval (+) differ:\n%s", diff)
		}
	})
}
