package rotation

import (
	"context"
	"fmt"
	"slices"
	"time"

	"rotatord/internal/scheduler"
)

// This file holds what an attempt makes of the slots that passed, what happens to those that
// passed unserved, and to times in a record that a wrong clock left behind.

// How late a token may be found before it is spread: more than any delay of a process that
// runs, and for one that was spread before, long enough that a daemon which keeps dying
// does not put it off for ever.
const (
	lateTolerance   = time.Minute
	spreadTolerance = time.Hour
)

// CatchUp looks at a token that is found to be late, because nobody ran or the clock was put
// forward, and at one whose slots a freeze passes over. Those are consumed. Missed slots that are not made up for are given up. Those that are get a time of
// their own, so that tokens which are late together do not all begin together. It rotates
// nothing, changes nothing for a token that is on time, and returns the record as it stands.
func (r *Rotator) CatchUp(ctx context.Context, t Token) (Record, error) {
	defer r.lock(t.Name)()
	record, err := r.load(ctx, t)
	if err != nil {
		return record, err
	}
	a := &attempt{Rotator: r, token: t, record: record, began: r.now()}
	missed, changed := a.catchUp()
	if !changed {
		return record, nil
	}
	saved, err := r.ledger.Save(ctx, a.record)
	if err != nil {
		return record, err
	}
	a.tellMissed(missed)
	return saved, nil
}

// CatchUpAll does the same for many tokens, in few transactions. It leaves out those that are
// being worked on, and returns the records of the others by name. If it fails nothing was
// changed for some of them.
func (r *Rotator) CatchUpAll(ctx context.Context, tokens []Token) (map[string]Record, error) {
	records := make(map[string]Record, len(tokens))
	for batch := range slices.Chunk(tokens, enrollBatch) {
		if err := r.catchUpBatch(ctx, batch, records); err != nil {
			return records, err
		}
	}
	return records, nil
}

func (r *Rotator) catchUpBatch(ctx context.Context, tokens []Token, records map[string]Record) error {
	var changed []Record
	var passed []SlotsMissed
	for _, t := range tokens {
		l := r.lockOf(t.Name)
		if _, twice := records[t.Name]; twice || !l.TryLock() {
			continue
		}
		defer l.Unlock()
		record, err := r.load(ctx, t)
		if err != nil {
			continue // whoever works on it says so
		}
		a := &attempt{Rotator: r, token: t, record: record, began: r.now()}
		missed, change := a.catchUp()
		if records[t.Name] = a.record; change {
			changed, passed = append(changed, a.record), append(passed, missed)
		}
	}
	saved, err := r.ledger.SaveAll(ctx, changed)
	if err != nil {
		for _, record := range changed {
			delete(records, record.Token)
		}
		return fmt.Errorf("%w: %w", ErrLedger, err)
	}
	for i, record := range saved {
		records[record.Token] = record
		(&attempt{Rotator: r}).tellMissed(passed[i])
	}
	return nil
}

// catchUp changes the record of a late token, and returns the slots that it gave up.
func (a *attempt) catchUp() (missed SlotsMissed, changed bool) {
	if a.record.Step != StepIdle || a.unbound() {
		return SlotsMissed{}, false
	}
	now := a.now()
	if passed := a.passed(now); passed.DueCount == 0 && passed.SkippedCount > 0 {
		// Consumed now, they stay passed over when the freeze is taken out of the configuration.
		a.record.Anchor = passed.LastSkipped.UTC()
		return SlotsMissed{Token: a.token.Name, Frozen: passed.SkippedCount}, true
	}
	due := a.Due(a.token, a.record)
	if due.Unscheduled || now.Sub(due.At) <= lateTolerance {
		return SlotsMissed{}, false
	}
	if missed, changed = a.giveUpMissed(); changed {
		if due = a.Due(a.token, a.record); due.Unscheduled || now.Sub(due.At) <= lateTolerance {
			return missed, true
		}
	}
	if before := a.record.CatchUpAt; !before.IsZero() && now.Sub(before) < spreadTolerance {
		return missed, changed
	}
	passed := a.passed(now)
	if passed.DueCount == 0 {
		return missed, changed
	}
	a.record.CatchUpAt = a.token.Timetable.CatchUp(passed.LastDue, now).UTC()
	return missed, true
}

// nowFrozen reports whether a freeze lasts that began since the rotation was due, which is
// come to only now. Then it has the rotation wait for the end of that freeze.
func (a *attempt) nowFrozen() bool {
	if a.unbound() && (a.record.Order == nil || a.record.Order.Freeze || a.record.owed()) {
		return false
	}
	now := a.now()
	if _, freeze := a.token.Timetable.FrozenUntil(now); freeze == "" {
		return false
	}
	a.record.CatchUpAt = now.UTC()
	return true
}

// giveUpMissed consumes the slots that were missed, if they are not to be made up for.
func (a *attempt) giveUpMissed() (missed SlotsMissed, any bool) {
	if !a.token.Timetable.SkipMissed || a.unbound() {
		return SlotsMissed{}, false
	}
	last := a.passed(a.now()).LastMissed
	if last.IsZero() {
		return SlotsMissed{}, false
	}
	passed := a.passed(last)
	a.record.Anchor, a.record.NotBefore, a.record.CatchUpAt = last.UTC(), time.Time{}, time.Time{}
	return SlotsMissed{Token: a.token.Name, Count: passed.DueCount, Frozen: passed.DeferredCount, GivenUp: true}, true
}

// unbound reports whether what is due next has nothing to do with slots.
func (a *attempt) unbound() bool {
	return a.record.owed() || a.record.Order != nil || a.token.Uncreated(a.record)
}

// passed looks at the slots after the anchor.
func (a *attempt) passed(now time.Time) scheduler.Passed {
	return a.token.Timetable.Passed(a.record.Anchor, now)
}

// trigger is why the rotation that is claimed now begins.
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

// unscheduled reports whether the clock has no say in this rotation.
func (a *attempt) unscheduled() bool {
	t := a.record.Work.Trigger
	return t == TriggerManual || t == TriggerRecovery || t == TriggerCreate
}

func (a *attempt) tellMissed(missed SlotsMissed) {
	if missed.Count > 0 || missed.Frozen > 0 {
		a.tell(missed)
	}
}

// The furthest that times in a record can be ahead of a clock that is right. What is
// further was written while the clock was ahead, and would hold the token up in silence.
const (
	maxAnchorAhead    = 24 * time.Hour
	maxNotBeforeAhead = 2 * time.Hour
	maxInHandAhead    = maxBackOff + 2*time.Minute // while a secret is in hand it is looked at more often
)

// maxGraceLonger is by how much the previous secret may work longer than was promised: an issuer whose
// clock is behind ours, by 15 minutes at most, is told the later of the two clocks.
const maxGraceLonger = 15*time.Minute + ownChange

// healWork does so for the rotation in hand: what is measured from such a time would not be over
// before the clock comes to it once more, and the old secret would die meanwhile.
func healWork(r *Record, now time.Time, change func(what string, field *time.Time, to time.Time)) {
	w := r.Work
	if w == nil {
		return
	}
	if v := w.Verification; v.Since.Sub(now) > lateTolerance {
		r.Work = new(*r.Work)
		change("its secret was first refused at", &r.Work.Verification.Since, now)
	}
	if latest := now.Add(time.Duration(w.Grace)); w.GraceEndsAt.Sub(latest) > maxGraceLonger {
		r.Work = new(*r.Work)
		change("the old secret was to work until", &r.Work.GraceEndsAt, latest)
	}
	if d := r.Doubt; d != nil && d.Since.Sub(now) > lateTolerance {
		r.Doubt = new(*d)
		change("it was in doubt since", &r.Doubt.Since, now)
	}
}

// heal takes times out of a record that only a clock which was ahead can have put there. An
// anchor that is up to a day ahead is kept, and the token waits: its slots were consumed,
// and none is served twice. It returns what it changed, in words.
func heal(t Token, r Record, now time.Time) (Record, []string) {
	var healed []string
	change := func(what string, field *time.Time, to time.Time) {
		healed = append(healed, what+" "+field.UTC().Format(time.RFC3339))
		*field = to.UTC()
	}
	if r.Anchor.Sub(now) > maxAnchorAhead {
		change("slots were consumed until", &r.Anchor, now.Truncate(time.Second))
	}
	inHand := r.Step == StepSealed || r.Step == StepStored
	if ahead := r.NotBefore.Sub(now); ahead > maxNotBeforeAhead || inHand && ahead > maxInHandAhead {
		change("nothing was to begin before", &r.NotBefore, time.Time{})
	}
	healWork(&r, now, change)
	if r.CatchUpAt.Sub(now) > max(t.Timetable.Jitter, lateTolerance+spreadTolerance) {
		change("missed slots were to be made up for at", &r.CatchUpAt, time.Time{})
	}
	if r.Order != nil && r.Order.Since.Sub(now) > lateTolerance {
		r.Order = new(*r.Order)
		change("it was ordered at", &r.Order.Since, now)
	}
	if r.Renewal.NotBefore.Sub(now) > maxNotBeforeAhead {
		change("it was not to be renewed before", &r.Renewal.NotBefore, time.Time{})
	}
	r.Replaced = slices.Clone(r.Replaced)
	for i := range r.Replaced {
		old := &r.Replaced[i]
		if old.NotBefore.Sub(now) > maxChoreBackOff {
			change("what was replaced was not to be deleted before", &old.NotBefore, time.Time{})
		}
		if old.At.Sub(now) > MaxGrace+maxAnchorAhead {
			change("what was replaced was to be deleted at", &old.At, now.Add(t.Grace))
		}
	}
	if last := r.Last; last != nil && last.Slot.After(r.Anchor) && !last.Slot.After(now) {
		// What was taken for the future has come: slots up to the one that was served then are
		// consumed.
		r.Anchor = last.Slot
	}
	if last := r.Last; last != nil && last.GraceEndsAt.Sub(now) > MaxGrace+maxAnchorAhead {
		r.Last = new(*last)
		change("the grace was to end at", &r.Last.GraceEndsAt, now.Add(t.Grace))
	}
	return r, healed
}
