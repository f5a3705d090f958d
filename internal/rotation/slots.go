package rotation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/scheduler"
)

// This file says which slots a rotation serves, and what happens to slots that pass without one.

// If a token is found later than lateTolerance, its catch-up gets a time of its own. That is longer than
// any delay of a process that runs. A token that has such a time gets a new one only if it is later than
// spreadTolerance, so that a daemon which crashes again and again does not delay it for ever.
const (
	lateTolerance   = time.Minute
	spreadTolerance = time.Hour
)

// batchSize is how many records are saved in one transaction.
const batchSize = 1000

// passed returns which slots after the anchor have passed.
func (r Record) passed(t Token, now time.Time) scheduler.Passed {
	return t.Timetable.Passed(r.Anchor, now)
}

// ignoresSchedule reports whether the next rotation does not depend on slots.
func (r Record) ignoresSchedule(t Token) bool {
	return r.owed() || r.Order != nil || t.Uncreated(r)
}

// serves returns which slot the rotation that is claimed now serves, and how many slots pass with it
// without a rotation of their own. manual says that a person asked for it.
func (r Record) serves(due Due, passed scheduler.Passed, manual bool, now time.Time) (slot time.Time, missed, frozen int) {
	slot, missed, frozen = passed.LastDue.Slot.UTC(), max(passed.DueCount-1, 0), passed.DeferredCount
	switch {
	case manual, r.Order != nil, due.Reason == DueCreate, passed.DueCount == 0 && r.owed():
		slot = now.Truncate(time.Second)
	case passed.DueCount == 0: // the wall clock went back since the slot was found due
		slot = due.Slot.UTC()
	}
	if passed.DueCount > 0 && !passed.LastDueOpen() { // made up for after its window
		missed++
	}
	if passed.SkippedCount > 0 && !slot.Before(passed.LastSkipped) {
		frozen += passed.SkippedCount
	}
	return slot, missed, frozen
}

// trigger returns why the rotation that is claimed now begins.
func (a *attempt) trigger(passed scheduler.Passed) Trigger {
	switch {
	case a.manual:
		return TriggerManual
	case a.record.NextTrigger != "":
		return a.record.NextTrigger
	case a.record.owed():
		return TriggerRecovery
	case a.due.Trigger == TriggerSchedule && (a.due.Begin.Before(a.started) || passed.DueCount > 0 && !passed.LastDueOpen()):
		return TriggerCatchUp
	}
	return a.due.Trigger
}

// ignoresClock reports whether the rotation goes on although the local clock is wrong.
func (w *Work) ignoresClock() bool {
	return w.Trigger == TriggerManual || w.Trigger == TriggerRecovery || w.Trigger == TriggerCreate
}

// inFreeze reports whether a freeze delays the rotation that is due: the freeze began after the rotation
// was found due.
func (r Record) inFreeze(t Token, now time.Time) bool {
	if r.ignoresSchedule(t) && (r.Order == nil || r.Order.Freeze || r.owed()) {
		return false
	}
	_, freeze := t.Timetable.FrozenUntil(now)
	return freeze != ""
}

// missedGivenUp consumes the slots that were missed, if the configuration says that they are not made up
// for, and reports whether there are any.
func (r Record) missedGivenUp(t Token, now time.Time) (_ Record, missed event.Missed, changed bool) {
	if !t.Timetable.SkipMissed || r.ignoresSchedule(t) {
		return r, event.Missed{}, false
	}
	last := r.passed(t, now).LastMissed
	if last.IsZero() {
		return r, event.Missed{}, false
	}
	passed := r.passed(t, last)
	r = r.withoutBackOff().consumedUntil(last).caughtUpAt(time.Time{})
	return r, event.Missed{Count: passed.DueCount, Frozen: passed.DeferredCount, GivenUp: true}, true
}

// caughtUp returns the record of a token that is found to be late, and the slots that were given up. Slots
// that a freeze passes over are consumed. Slots that are made up for get a time of their own.
func (r Record) caughtUp(t Token, p Pause, now time.Time) (_ Record, missed event.Missed, changed bool) {
	if r.Step != StepIdle || r.ignoresSchedule(t) {
		return r, event.Missed{}, false
	}
	if passed := r.passed(t, now); passed.DueCount == 0 && passed.SkippedCount > 0 {
		// Consumed now, they stay passed over when the freeze is taken out of the configuration.
		return r.consumedUntil(passed.LastSkipped), event.Missed{Frozen: passed.SkippedCount}, true
	}
	onTime := func(due Due) bool { return due.Unscheduled || now.Sub(due.At) <= lateTolerance }
	if onTime(NextDue(t, r, p)) {
		return r, event.Missed{}, false
	}
	if r, missed, changed = r.missedGivenUp(t, now); changed && onTime(NextDue(t, r, p)) {
		return r, missed, true
	}
	if before := r.CatchUpAt; !before.IsZero() && now.Sub(before) < spreadTolerance {
		return r, missed, changed
	}
	passed := r.passed(t, now)
	if passed.DueCount == 0 {
		return r, missed, changed
	}
	return r.caughtUpAt(t.Timetable.CatchUp(passed.LastDue, now)), missed, true
}

// CatchUp looks at a token that is found to be late, because no daemon ran or the clock was put
// forward, and at one whose slots a freeze passes over: those are consumed. Missed slots that are
// not made up for are given up. Those that are made up for get a time of their own, so that tokens
// which are late together do not all begin together. It rotates nothing, changes nothing for a
// token that is on time, and returns the record after it.
func (r *Rotator) CatchUp(ctx context.Context, t Token) (Record, error) {
	e, err := r.open(ctx, t)
	defer e.close()
	if err != nil {
		return e.record, err
	}
	next, missed, changed := e.record.caughtUp(t, r.PauseOf(t.Name), r.now())
	if !changed {
		return e.record, nil
	}
	if err := e.save(ctx, next); err != nil {
		return e.record, err
	}
	r.tellMissed(t.Name, missed)
	return e.record, nil
}

// CatchUpAll catches up many tokens as CatchUp does, in few transactions. It leaves out those that are
// being worked on, and returns the records of the others by name. If it fails nothing was changed for some
// of them.
func (r *Rotator) CatchUpAll(ctx context.Context, tokens []Token) (map[string]Record, error) {
	records := make(map[string]Record, len(tokens))
	for batch := range slices.Chunk(tokens, batchSize) {
		if err := r.catchUpBatch(ctx, batch, records); err != nil {
			return records, err
		}
	}
	return records, nil
}

func (r *Rotator) catchUpBatch(ctx context.Context, tokens []Token, records map[string]Record) error {
	var changed saveBatch
	var unsaved []Record
	for _, t := range tokens {
		if _, twice := records[t.Name]; twice {
			continue
		}
		e, err := r.tryOpen(ctx, t)
		if e == nil {
			continue
		}
		defer e.close()
		if err != nil {
			continue // the next attempt reports it
		}
		next, missed, change := e.record.caughtUp(t, r.PauseOf(t.Name), r.now())
		if records[t.Name] = next; !change {
			continue
		}
		changed.add(next, func(saved Record, ok bool) {
			if !ok {
				unsaved = append(unsaved, next)
				delete(records, t.Name)
				return
			}
			records[t.Name] = saved
			r.tellMissed(t.Name, missed)
		})
	}
	err := r.saveAll(ctx, changed)
	switch {
	case errors.Is(err, ErrConflict) && r.replica != nil: // another replica came between
		r.learnChanged(ctx, unsaved, records)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrLedger, err)
	}
	return nil
}

// learnChanged is for the part of a batch that could not be saved because another replica came into it: each record is
// loaded again. Those that it has not changed are left to the next try.
func (r *Rotator) learnChanged(ctx context.Context, unsaved []Record, records map[string]Record) {
	for _, record := range unsaved {
		if now, err := r.ledger.Load(ctx, record.Token); err == nil && now.Revision > record.Revision {
			records[record.Token] = now
		}
	}
}
