package main

import (
	"context"
	"maps"
	"time"

	"rotatord/internal/app"
	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
)

// A plan must not have an opinion of its own on when tokens rotate. A forecaster therefore
// asks package rotation, as the daemon does: it enrols each token in a copy of the ledger,
// moves the clock to when the token is due, takes it that the rotation succeeds there and
// then, and asks again. TestForecastIsWhatHappens holds it against real rotations.
type forecaster struct {
	planRange
	rotator *rotation.Rotator
	ledger  copiedLedger
	clock   time.Time // where the token in hand has come
	plan    plan
	room    int // how long the plan may become
}

func newForecaster(ctx context.Context, o planRange, known knowledge) (*forecaster, error) {
	f := &forecaster{planRange: o, ledger: known.records}
	if f.ledger == nil {
		f.ledger = copiedLedger{}
	}
	f.rotator = rotation.New(rotation.Options{
		Ledger: f.ledger, Pauses: copiedPauses(known.pauses), Now: func() time.Time { return f.clock }, Started: o.now,
	})
	return f, f.rotator.LoadPauses(ctx)
}

// copiedLedger is a ledger in memory for one that asks at a time.
type copiedLedger map[string]rotation.Record

func (l copiedLedger) Load(_ context.Context, token string) (rotation.Record, error) {
	return l[token], nil
}

func (l copiedLedger) Save(_ context.Context, r rotation.Record) (rotation.Record, error) {
	r.Revision++
	l[r.Token] = r
	return r, nil
}

func (l copiedLedger) SaveAll(ctx context.Context, all []rotation.Record) ([]rotation.Record, error) {
	saved := make([]rotation.Record, len(all))
	for i, r := range all {
		saved[i], _ = l.Save(ctx, r)
	}
	return saved, nil
}

func (l copiedLedger) All(context.Context) ([]rotation.Record, error) {
	all := make([]rotation.Record, 0, len(l))
	for _, r := range l {
		all = append(all, r)
	}
	return all, nil
}

// copiedPauses are what was paused.
type copiedPauses map[string]rotation.Pause

func (p copiedPauses) LoadPauses(context.Context) (map[string]rotation.Pause, error) {
	return maps.Clone(p), nil
}

func (p copiedPauses) SavePauses(context.Context, map[string]rotation.Pause) error { return nil }

// outlook is the forecast of one token.
type outlook struct {
	*forecaster
	config  *config.Token
	token   rotation.Token
	record  rotation.Record
	counted string // ledger, now or from
	listed  int    // rotations
	// skipped counts the slots that a freeze passes over, and lastSkipped is where in the plan
	// the last of them stands.
	skipped, lastSkipped int
}

// forecast adds what is to come of a token to the plan.
func (f *forecaster) forecast(ctx context.Context, c *config.Token) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	o := &outlook{forecaster: f, config: c, token: app.PlannedToken(*c)}
	if conflict := o.begin(ctx); conflict != nil { // the daemon would not start
		e := o.entry(planHeld, rotation.Due{Reason: rotation.DueUnfinished})
		e.warn(warnLedger, "conflict with the ledger", "%v", conflict)
		return o.add(e)
	}
	for f.count == 0 || o.listed < f.count {
		if more, err := o.step(ctx); err != nil || !more {
			return err
		}
	}
	return nil
}

// begin finds out where the token is counted from.
func (o *outlook) begin(ctx context.Context) error {
	known, ok := o.ledger[o.token.Name]
	ok = ok && o.token.MatchesRecord(known)
	o.clock, o.counted = o.now, "ledger"
	if !ok && !o.from.IsZero() {
		o.counted = "from"
		o.record = rotation.Record{Format: rotation.RecordFormat, Token: o.token.Name, TokenID: o.token.ID, Anchor: o.from.UTC()}
		if o.token.Timetable.Schedule.Interval() == 0 {
			o.record.Anchor = o.settled(o.from)
		}
		o.clock = o.record.Anchor
		return nil
	}
	record, err := o.rotator.Enroll(ctx, o.token)
	o.record = record
	if !ok || !record.Anchor.Equal(known.Anchor) && record.Anchor.Equal(o.now.Truncate(time.Second)) {
		o.counted = "now" // it is new, or its schedule is
	}
	return err
}

// step forecasts the next rotation, and reports whether there is more to come.
func (o *outlook) step(ctx context.Context) (more bool, err error) {
	due, pause, err := o.due(ctx)
	if err != nil {
		return false, err
	}
	at := latest(due.At, o.clock)
	switch {
	case due.Unscheduled:
		return false, o.hold(due, pause)
	case !o.until.IsZero() && at.Truncate(time.Second).After(o.until):
		if due.Wake.IsZero() {
			return false, nil
		}
		return false, o.skip(o.until)
	}
	passed := o.passed(due, at)
	if !due.Wake.IsZero() || passed.DeferredCount > 0 {
		if err := o.skip(latest(passed.LastDue.Slot, due.Slot)); err != nil {
			return false, err
		}
	}
	o.clock = at
	inHand := o.record.Step != rotation.StepIdle
	owed := due.Reason == rotation.DueReissue
	if o.token.Timetable.SkipMissed && !inHand && !owed && !passed.LastMissed.IsZero() {
		return true, o.giveUp(due, at, passed.LastMissed)
	}
	e := o.entry(planPlanned, due)
	e.begins = at.UTC().Truncate(time.Second)
	o.explain(&e, due, pause, at, passed)
	graceEnds := o.succeed(due, at, passed)
	e.graceEnds = graceEnds.UTC().Truncate(time.Second)
	if !o.from.IsZero() && e.begins.Before(o.from) {
		o.hasten()
		return true, nil
	}
	o.listed++
	return true, o.add(e)
}

// due is when the token is due next, and what it is paused by until then.
func (o *outlook) due(ctx context.Context) (rotation.Due, rotation.Pause, error) {
	pause := o.rotator.PauseOf(o.token.Name)
	due := rotation.NextDue(o.token, o.record, pause)
	if due.Reason != rotation.DuePaused || due.Unscheduled {
		return due, pause, nil
	}
	if !o.until.IsZero() && due.At.After(o.until) {
		return due, pause, nil
	}
	// When a pause is over the daemon looks at the slots that have passed meanwhile.
	o.clock = latest(due.At, o.clock)
	if _, err := o.ledger.Save(ctx, o.record); err != nil {
		return due, pause, err
	}
	record, err := o.rotator.CatchUp(ctx, o.token)
	if err != nil {
		return due, pause, err
	}
	o.record = record
	return o.rotator.Due(o.token, record), pause, nil
}

// passed looks at the slots that have passed at that time, as an attempt does, from the one
// on that is due.
func (o *outlook) passed(due rotation.Due, at time.Time) scheduler.Passed {
	anchor := o.record.Anchor
	if !due.Slot.IsZero() {
		anchor = o.before(due.Slot)
	}
	return o.token.Timetable.Passed(anchor, at)
}

// succeed takes it that the token is rotated at that time, or what is in hand finished, and
// returns when the previous secret then stops working.
func (o *outlook) succeed(due rotation.Due, at time.Time, passed scheduler.Passed) time.Time {
	r := &o.record
	slot, graceEnds := passed.LastDue.Slot, at.Add(o.token.Grace)
	switch work := r.Work; {
	case work != nil:
		slot = work.Slot
		if end := r.GraceEnd(); end.After(at) {
			graceEnds = end
		}
	case passed.DueCount > 0:
	case due.Slot.IsZero():
		slot = at.Truncate(time.Second)
	default:
		slot = due.Slot
	}
	if o.token.Uncreated(*r) { // nothing is replaced by the first
		r.TokenID, graceEnds = "to be made", time.Time{}
	}
	r.Order = nil
	r.Anchor = latest(r.Anchor, slot.UTC())
	r.Last = &rotation.Done{Slot: slot.UTC(), At: at.UTC(), GraceEndsAt: graceEnds.UTC()}
	r.Step, r.Work, r.Doubt = rotation.StepIdle, nil, nil
	r.Failures, r.LastError, r.NextTrigger = 0, "", ""
	r.NotBefore, r.CatchUpAt, r.OldDiesBy = time.Time{}, time.Time{}, time.Time{}
	return graceEnds
}

// giveUp is for slots whose window is over before they can begin, where these are not made
// up for.
func (o *outlook) giveUp(due rotation.Due, at, last time.Time) error {
	passed := o.passed(due, last)
	e := o.entry(planMissed, due)
	e.slots, e.last, e.closes = passed.DueCount, last, o.token.Timetable.Firing(last).Close
	e.warn(warnMissed, "missed", "it cannot start before %s, but its window closes at %s: it is skipped (catch_up: skip)",
		rfc(at), rfc(e.closes))
	o.record.Anchor, o.record.NotBefore, o.record.CatchUpAt = last.UTC(), time.Time{}, time.Time{}
	if !o.shown(e.slot) {
		return nil
	}
	return o.add(e)
}

// hold is for a token of which nobody knows when it rotates next.
func (o *outlook) hold(due rotation.Due, pause rotation.Pause) error {
	if !due.Wake.IsZero() {
		end := o.until
		if !due.Slot.IsZero() {
			end = earliest(end, due.Slot)
		}
		if err := o.skip(end); err != nil {
			return err
		}
	}
	e := o.entry(planHeld, due)
	switch {
	case due.Reason == rotation.DuePaused:
		e.paused(pause, "until it is resumed")
	case o.listed > 0 && o.count == 0:
		return nil // an interval shows what there is in it
	default:
		e.warn(warnNever, "no slot", "there is no slot in the next five years that is outside of freezes")
	}
	return o.add(e)
}

// skip adds the slots up to end that a freeze passes over; all of them if end is zero. Of a
// list it adds no more than it has rotations, and says so.
func (o *outlook) skip(end time.Time) error {
	tt := &o.token.Timetable
	anchor := o.record.Anchor
	if !o.from.IsZero() {
		anchor = latest(anchor, o.before(o.from))
	}
	for {
		slot := tt.Schedule.Next(anchor)
		if slot.IsZero() || !end.IsZero() && slot.After(end) {
			return nil
		}
		over := tt.Passed(anchor, slot).SkippedCount > 0
		if anchor = slot; !over || !o.shown(slot) {
			continue
		}
		if o.skipped++; o.count > 0 && o.skipped > o.count {
			if o.skipped == o.count+1 {
				last := &o.plan[o.lastSkipped]
				last.warn(warnSkips, "and more", "this freeze or another one also skips later slots, which are not listed: give --until")
			}
			return nil
		}
		o.lastSkipped = len(o.plan)
		e := o.entry(planSkipped, rotation.Due{Slot: slot, Reason: rotation.DueFreeze, Freeze: o.over(slot)})
		if err := o.add(e); err != nil {
			return err
		}
	}
}

// over is the name of the freeze that passes over a slot.
func (o *outlook) over(slot time.Time) string {
	tt := &o.token.Timetable
	for _, f := range tt.Freezes {
		for _, t := range []time.Time{slot, slot.Add(tt.Delay(slot))} {
			if _, _, ok := f.PeriodAt(t); ok && f.Skip {
				return f.Name
			}
		}
	}
	return ""
}

// shown reports whether a slot that does not begin is in the interval that is asked for.
func (o *outlook) shown(slot time.Time) bool {
	return !slot.Before(o.from) && (o.until.IsZero() || !slot.After(o.until))
}

func (o *outlook) entry(status planStatus, due rotation.Due) planned {
	slot := due.Slot
	if work := o.record.Work; work != nil {
		slot = work.Slot
	}
	e := planned{token: o.config, status: status, reason: due.Reason, freeze: due.Freeze, closes: due.Close, counted: o.counted}
	if !slot.IsZero() {
		e.slot, e.last, e.slots = slot, slot, 1
	}
	return e
}

func (o *outlook) add(e planned) error {
	if len(o.plan) >= o.room {
		return usagef("the plan would have more than %d entries: shorten the time between --from and --until, or give a smaller --count", o.room)
	}
	o.plan = append(o.plan, e)
	return nil
}

// before is the last moment before t that the schedule can be counted from and have the same
// slots.
func (o *outlook) before(t time.Time) time.Time {
	every := o.token.Timetable.Schedule.Interval()
	if every == 0 {
		return t.Add(-1)
	}
	since := t.Sub(o.record.Anchor) - 1
	return o.record.Anchor.Add(since - since%every)
}

// hasten leaves out what comes long before the interval that is asked for.
func (o *outlook) hasten() {
	to := o.before(o.settled(o.from))
	if to.After(o.record.Anchor) && !to.Before(o.record.Last.GraceEndsAt) && !o.rotator.PauseOf(o.token.Name).On() {
		o.record.Anchor = to.UTC()
	}
}

// settled is a moment from which on one may count, to know what begins from t on: what came
// before it has been waited for by then, be it a freeze or a chain of graces.
func (o *outlook) settled(t time.Time) time.Time {
	const chain, spread = 8, 10 * time.Minute
	tt := &o.token.Timetable
	t = t.Add(-spread - chain*(o.token.Grace+tt.Jitter))
	for range 1000 {
		moved := false
		for _, f := range tt.Freezes {
			for _, at := range []time.Time{t, t.Add(tt.Jitter)} {
				if begin, _, ok := f.PeriodAt(at); ok {
					t, moved = begin.Add(-tt.Jitter-time.Second), true
				}
			}
		}
		if !moved {
			break
		}
	}
	return t.UTC()
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// earliest takes the zero time for never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}
