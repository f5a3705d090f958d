package forecast

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"rotatord/internal/moment"
	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
	"rotatord/internal/secret"
)

// kindWorld is a Cloudflare, a sink and a store of sealed answers that never fail and take no time.
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
	panic("no grace has to be extended")
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

func (w *kindWorld) Store(_ context.Context, d rotation.Delivery) (rotation.Stored, error) {
	w.stored = rotation.Stored{Exists: true, ClientID: d.ClientID, Digest: d.ClientSecret.Digest()}
	return w.stored, nil
}

// saved keeps each claim.
func (w *kindWorld) saved(record rotation.Record) {
	if record.Step == rotation.StepClaimed {
		w.claims = append(w.claims, *record.Work)
	}
}

// happened is what a rotation was, or what a forecast says about it.
type happened struct {
	Begins, Last, GraceEnds string
}

func shortly(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// copiedLedger is a ledger in memory.
type copiedLedger map[string]rotation.Record

func (l copiedLedger) Load(_ context.Context, token string) (rotation.Record, error) {
	return l[token], nil
}

func (l copiedLedger) Save(_ context.Context, r rotation.Record) (rotation.Record, error) {
	r.Revision++
	l[r.Token] = r
	return r, nil
}

func (l copiedLedger) SaveAll(context.Context, []rotation.Record) ([]rotation.Record, error) {
	panic("one token is saved at a time")
}

func (l copiedLedger) All(context.Context) ([]rotation.Record, error) {
	panic("one token is loaded at a time")
}

// copiedPauses are pauses in memory.
type copiedPauses map[string]rotation.Pause

func (p copiedPauses) LoadPauses(context.Context) (map[string]rotation.Pause, error) {
	return maps.Clone(p), nil
}

func (p copiedPauses) SetPause(_ context.Context, token string, to *rotation.Pause) (map[string]rotation.Pause, error) {
	return rotation.WithPause(p, token, to), nil
}

// live runs the daemon's own code from now until so many rotations are done or none follows, as the
// engine of package app does.
func live(ctx context.Context, t *rapid.T, c rotation.Token, known State, now time.Time, rotations int) (all []happened, held rotation.DueReason) {
	w := &kindWorld{clock: now}
	ledger := copiedLedger{}
	maps.Copy(ledger, known.Records)
	r := rotation.New(rotation.Options{
		Ledger: ledger, Pending: w, Pauses: copiedPauses(known.Pauses), Saved: w.saved, Now: func() time.Time { return w.clock }, Started: now,
	})
	if err := r.LoadPauses(ctx); err != nil {
		t.Fatal(err)
	}
	token := c
	token.Issuer, token.Sinks = w, []rotation.Sink{w}
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
			w.clock = moment.Max(w.clock, due.At)
			if record, err = r.CatchUp(ctx, token); err == nil {
				if again := r.Due(token, record); again.Unscheduled || again.At.After(w.clock) {
					continue
				}
			}
		}
		if held != "" || err != nil {
			break
		}
		w.clock = moment.Max(w.clock, due.At)
		record, err = r.Advance(ctx, token)
	}
	if err != nil {
		t.Fatal(err)
	}
	for i, claim := range w.claims {
		h := happened{Begins: shortly(claim.Began), Last: shortly(claim.Slot), GraceEnds: shortly(w.graces[i])}
		if claim.Trigger == rotation.TriggerRecovery { // a forecast has no slot for it
			h.Last = shortly(time.Time{})
		}
		all = append(all, h)
	}
	return all, held
}

var epoch = time.Date(2027, time.March, 20, 12, 0, 0, 0, time.UTC)

// drawToken draws a token that a configuration could have.
func drawToken(t *rapid.T) rotation.Token {
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
	c := rotation.Token{Name: "ci", ID: tokenID, Timetable: scheduler.Timetable{Schedule: schedule, Jitter: span("jitter"), Key: "ci"}}
	c.Grace, c.Timetable.Window = span("grace"), span("window")
	c.Timetable.SkipMissed = rapid.Bool().Draw(t, "skip missed")
	for i := range rapid.IntRange(0, 2).Draw(t, "freezes") {
		f := scheduler.Freeze{Name: fmt.Sprintf("freeze%d", i), Skip: rapid.Bool().Draw(t, "skip")}
		if rapid.Bool().Draw(t, "once") {
			f.From = epoch.Add(time.Duration(rapid.IntRange(-100, 400).Draw(t, "from")) * time.Hour)
			f.To = f.From.Add(time.Duration(rapid.IntRange(1, 200).Draw(t, "hours")) * time.Hour)
		} else {
			if f.Schedule, err = scheduler.Parse("0 18 * * 5", location); err != nil {
				t.Fatal(err)
			}
			f.Duration = time.Duration(rapid.IntRange(1, 100).Draw(t, "hours")) * time.Hour
		}
		c.Timetable.Freezes = append(c.Timetable.Freezes, f)
	}
	return c
}

// drawState draws what a ledger could say.
func drawState(t *rapid.T, c rotation.Token, now time.Time) State {
	ago := func(name string, hours int) time.Time {
		return now.Add(-time.Duration(rapid.IntRange(0, hours*3600).Draw(t, name)) * time.Second)
	}
	k := State{Records: map[string]rotation.Record{}, Pauses: map[string]rotation.Pause{}}
	if rapid.Bool().Draw(t, "known") {
		r := rotation.Record{Format: rotation.RecordFormat, Revision: 1, Token: c.Name, TokenID: c.ID, Anchor: ago("anchor", 400)}
		if rapid.Bool().Draw(t, "rescheduled") {
			r.Schedule = "another"
		}
		if rapid.Bool().Draw(t, "rotated") {
			at := moment.Max(r.Anchor, now.Add(-2*time.Hour))
			r.Last = &rotation.Done{Slot: r.Anchor, At: at, GraceEndsAt: at.Add(c.Grace)}
		}
		if rapid.IntRange(0, 3).Draw(t, "failing") == 0 {
			r.Failures, r.NotBefore, r.LastError = 3, now.Add(5*time.Minute), "no route to host"
		}
		if rapid.IntRange(0, 5).Draw(t, "owed") == 0 {
			r.NextTrigger = rotation.TriggerRecovery
		}
		k.Records[c.Name] = r
	}
	for _, who := range []string{c.Name, rotation.AllTokens} {
		if rapid.IntRange(0, 3).Draw(t, "paused") > 0 {
			continue
		}
		p := rotation.Pause{Since: now.Add(-time.Hour)}
		if rapid.IntRange(0, 3).Draw(t, "for good") > 0 {
			p.Until = now.Add(time.Duration(rapid.IntRange(-1, 200).Draw(t, "pause")) * time.Hour)
		}
		k.Pauses[who] = p
	}
	return k
}

// forecastOf returns the forecast of one token, in the order in which it is made.
func forecastOf(t *rapid.T, c rotation.Token, s State, r Range) Forecast {
	r.Limit = 100_000
	f := &forecaster{Range: r, state: s}
	if err := f.add(&c); err != nil {
		t.Fatal(err)
	}
	return f.all
}

func foretold(p Forecast) (all []happened, held rotation.DueReason) {
	for _, e := range p {
		switch e.Status {
		case Planned:
			all = append(all, happened{Begins: shortly(e.Starts), Last: shortly(e.LastSlot), GraceEnds: shortly(e.GraceEnds)})
		case Held:
			held = e.Reason
		}
	}
	return all, held
}

// TestForecastIsWhatHappens compares forecasts with rotations of the real code, while Cloudflare and Vault have no
// faults.
func TestForecastIsWhatHappens(t *testing.T) {
	const rotations = 12
	rapid.Check(t, func(t *rapid.T) {
		c := drawToken(t)
		now := epoch.Add(time.Duration(rapid.IntRange(0, 14*24*3600).Draw(t, "now")) * time.Second)
		k := drawState(t, c, now)
		want, wantHeld := live(context.Background(), t, c, k, now, rotations)
		got, held := foretold(forecastOf(t, c, k, Range{Now: now, Count: rotations}))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("what happens (-) and the forecast (+) differ:\n%s", diff)
		}
		if held != wantHeld {
			t.Errorf("held by %q at the end, the forecast says %q", wantHeld, held)
		}
	})
}

// TestRangeIsPartOfTheWhole: the forecast of a range, however far away, has what the whole forecast has there.
func TestRangeIsPartOfTheWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawToken(t)
		now := epoch.Add(time.Duration(rapid.IntRange(0, 14*24*3600).Draw(t, "now")) * time.Second)
		k := drawState(t, c, now)
		if _, known := k.Records[c.Name]; !known {
			return // it is counted from now, or from From
		}
		from := now.Add(time.Duration(rapid.IntRange(1, 60*24).Draw(t, "from")) * time.Hour)
		until := from.Add(time.Duration(rapid.IntRange(0, 10*24).Draw(t, "hours")) * time.Hour)
		whole := forecastOf(t, c, k, Range{Now: now, Until: until})
		part := forecastOf(t, c, k, Range{Now: now, From: from, Until: until})
		var want Forecast
		for _, e := range whole {
			if !e.at().IsZero() && !e.at().Before(from) {
				want = append(want, e)
			}
		}
		w, _ := foretold(want)
		p, _ := foretold(part)
		if diff := cmp.Diff(w, p); diff != "" {
			t.Errorf("the whole forecast (-) and that of the range (+) differ:\n%s", diff)
		}
	})
}
