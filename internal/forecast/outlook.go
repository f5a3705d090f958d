package forecast

import (
	"time"

	"rotatord/internal/moment"
	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
)

// outlook is the forecast of one token, up to some time.
type outlook struct {
	*forecaster
	token       *rotation.Token
	record      rotation.Record
	clock       time.Time // how far the forecast is
	countedFrom string
	listed      int // rotations
	// skipped counts the slots that freezes skip. lastSkipped is the index of the last of them in the
	// forecast.
	skipped, lastSkipped int
}

// begin finds the record from which the token is counted. The error is about a conflict between the ledger and the
// configuration.
func (o *outlook) begin() error {
	known, ok := o.state.Records[o.token.Name]
	ok = ok && o.token.MatchesRecord(known)
	o.clock, o.countedFrom = o.Now, FromLedger
	if !ok && !o.From.IsZero() {
		o.countedFrom = FromRange
		o.record = rotation.Record{Format: rotation.RecordFormat, Token: o.token.Name, TokenID: o.token.ID, Anchor: o.From.UTC()}
		if o.token.Timetable.Schedule.Interval() == 0 {
			o.record.Anchor = o.undisturbed(o.From)
		}
		o.clock = o.record.Anchor
		return nil
	}
	record, err := rotation.EnrollRecord(*o.token, o.state.Records[o.token.Name], o.pause(), o.clock)
	o.record = record
	if !ok || !record.Anchor.Equal(known.Anchor) && record.Anchor.Equal(o.Now.Truncate(time.Second)) {
		o.countedFrom = FromNow
	}
	return err
}

// pause returns the pause of the token at the time to which the forecast has come.
func (o *outlook) pause() rotation.Pause {
	return rotation.PauseAt(o.state.Pauses, o.token.Name, o.clock)
}

// step forecasts the next rotation, and reports whether others follow.
func (o *outlook) step() (more bool, err error) {
	due, pause := o.due()
	at := moment.Max(due.At, o.clock)
	switch {
	case due.Unscheduled:
		return false, o.hold(due, pause)
	case !o.Until.IsZero() && at.Truncate(time.Second).After(o.Until):
		if due.Wake.IsZero() {
			return false, nil
		}
		return false, o.skip(o.Until)
	}
	passed := o.passed(due, at)
	if !due.Wake.IsZero() || passed.DeferredCount > 0 {
		if err := o.skip(moment.Max(passed.LastDue.Slot, due.Slot)); err != nil {
			return false, err
		}
	}
	o.clock = at
	if o.record.Step == rotation.StepIdle {
		if next, givenUp := rotation.GiveUpMissed(*o.token, o.record, at); givenUp {
			return true, o.giveUp(due, at, next)
		}
	}
	e := o.entry(Planned, due)
	e.Starts = at.UTC().Truncate(time.Second)
	o.explain(&e, due, pause, at, passed)
	o.record = rotation.Foretell(*o.token, o.record, due, at)
	e.GraceEnds = o.record.Last.GraceEndsAt.Truncate(time.Second)
	if !o.From.IsZero() && e.Starts.Before(o.From) {
		o.hasten()
		return true, nil
	}
	o.listed++
	return true, o.append(e)
}

// due returns when the token is due next, and the pause that delays it.
func (o *outlook) due() (rotation.Due, rotation.Pause) {
	pause := o.pause()
	due := rotation.NextDue(*o.token, o.record, pause)
	if due.Reason != rotation.DuePaused || due.Unscheduled || !o.Until.IsZero() && due.At.After(o.Until) {
		return due, pause
	}
	// When a pause ends, the daemon looks at the slots that passed during it.
	o.clock = moment.Max(due.At, o.clock)
	o.record = rotation.CatchUpRecord(*o.token, o.record, o.pause(), o.clock)
	return rotation.NextDue(*o.token, o.record, o.pause()), pause
}

// passed returns the slots that have passed at some time, counted from the slot that is due.
func (o *outlook) passed(due rotation.Due, at time.Time) scheduler.Passed {
	anchor := o.record.Anchor
	if !due.Slot.IsZero() {
		anchor = o.before(due.Slot)
	}
	return o.token.Timetable.Passed(anchor, at)
}

// giveUp adds the slots that next no longer has, because their window is over before a rotation can start.
func (o *outlook) giveUp(due rotation.Due, at time.Time, next rotation.Record) error {
	last := next.Anchor
	e := o.entry(Missed, due)
	e.Slots, e.LastSlot, e.Closes = o.passed(due, last).DueCount, last, o.token.Timetable.Firing(last).Close
	e.warn(WarnMissed, "missed", "it cannot start before %s, but its window closes at %s: it is skipped (catch_up: skip)", rfc(at), rfc(e.Closes))
	o.record = next
	if !o.shown(e.Slot) {
		return nil
	}
	return o.append(e)
}

// hold adds an entry for a token whose next rotation has no known time.
func (o *outlook) hold(due rotation.Due, pause rotation.Pause) error {
	if !due.Wake.IsZero() {
		if err := o.skip(moment.MinNonZero(o.Until, due.Slot)); err != nil {
			return err
		}
	}
	e := o.entry(Held, due)
	switch {
	case due.Reason == rotation.DuePaused:
		e.paused(pause, "until it is resumed")
	case o.listed > 0 && o.Count == 0:
		return nil // a range shows only what is in it
	default:
		e.warn(WarnNever, "no slot", "there is no slot in the next five years that is outside of freezes")
	}
	return o.append(e)
}

// skip adds the slots until end that freezes skip; all of them if end is zero. A forecast with a count gets no more
// of them than rotations, and a warning that there are others.
func (o *outlook) skip(end time.Time) error {
	tt := &o.token.Timetable
	anchor := o.record.Anchor
	if !o.From.IsZero() {
		anchor = moment.Max(anchor, o.before(o.From))
	}
	for {
		slot := tt.Schedule.Next(anchor)
		if slot.IsZero() || !end.IsZero() && slot.After(end) {
			return nil
		}
		skipped := tt.Passed(anchor, slot).SkippedCount > 0
		if anchor = slot; !skipped || !o.shown(slot) {
			continue
		}
		if o.skipped++; o.Count > 0 && o.skipped > o.Count {
			if o.skipped == o.Count+1 {
				o.all[o.lastSkipped].warn(WarnSkips, "and more", "this freeze or another one also skips later slots, which are not listed: give --until")
			}
			return nil
		}
		o.lastSkipped = len(o.all)
		e := o.entry(Skipped, rotation.Due{Slot: slot, Reason: rotation.DueFreeze, Freeze: o.skippedBy(slot)})
		if err := o.append(e); err != nil {
			return err
		}
	}
}

// skippedBy returns the name of the freeze that skips a slot.
func (o *outlook) skippedBy(slot time.Time) string {
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

// shown reports whether a slot without a rotation is in the range.
func (o *outlook) shown(slot time.Time) bool {
	return !slot.Before(o.From) && (o.Until.IsZero() || !slot.After(o.Until))
}

// entry returns an entry for a slot that is due.
func (o *outlook) entry(status Status, due rotation.Due) Entry {
	slot := due.Slot
	if work := o.record.Work; work != nil {
		slot = work.Slot
	}
	e := Entry{Token: o.token, Status: status, Reason: due.Reason, Freeze: due.Freeze, Closes: due.Close, CountedFrom: o.countedFrom}
	if !slot.IsZero() {
		e.Slot, e.LastSlot, e.Slots = slot, slot, 1
	}
	return e
}

func (o *outlook) append(e Entry) error {
	if len(o.all) >= o.Limit {
		return TooManyError{o.Limit}
	}
	o.all = append(o.all, e)
	return nil
}

// before returns the last moment before t from which the schedule can be counted and has the same slots.
func (o *outlook) before(t time.Time) time.Time {
	every := o.token.Timetable.Schedule.Interval()
	if every == 0 {
		return t.Add(-1)
	}
	since := t.Sub(o.record.Anchor) - 1
	return o.record.Anchor.Add(since - since%every)
}

// hasten leaves out what happens long before the range.
func (o *outlook) hasten() {
	to := o.before(o.undisturbed(o.From))
	if to.After(o.record.Anchor) && !to.Before(o.record.Last.GraceEndsAt) && !o.pause().On() {
		o.record.Anchor = to.UTC()
	}
}

// undisturbed returns a moment before t such that what happened before it does not change what starts from t
// on. Between the two there is time for freezes, and for rotations that wait for each other's grace.
func (o *outlook) undisturbed(t time.Time) time.Time {
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

// rfc returns a time for a message.
func rfc(t time.Time) string { return t.UTC().Format(time.RFC3339) }
