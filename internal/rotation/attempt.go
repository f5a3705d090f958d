package rotation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"rotatord/internal/failpoint"
)

// This file holds the exits of an attempt that are not its end: how it fails, and how it
// becomes in doubt. How a doubt ends stands in resolve.go.

// giveUp ends an attempt in which nothing was carried out. The slot stays unserved, and
// the next try is a rotation of its own.
func (a *attempt) giveUp(ctx context.Context, result Result, reason string, cause error) error {
	ctx = context.WithoutCancel(ctx)
	work, now := a.record.Work, a.now().UTC()
	e, isIssuers := errors.AsType[*IssuerError](cause)
	switch {
	case a.manual: // it is not tried again, and what the schedule had in mind stands
	case isIssuers && e.Class == Throttled:
		// A 429 says how long to stay away, and is no failure of this token.
		a.record.NotBefore = now.Add(max(e.RetryAfter, minBackOff))
	default:
		a.record.Failures++
		a.record.NotBefore = a.nextTry(now)
		if a.record.Lost != nil { // consumers have only the old secret, or none
			wait := EmergencyWait
			if isIssuers && e.Class == Refused {
				wait = refusedWait
			}
			a.record.NotBefore = a.hasten(now.Add(pendingWait(a.record.Failures, time.Duration(a.record.Lost.Grace))), wait)
		}
	}
	a.record.Work = nil
	a.noteError(reason, cause)
	err := cause
	if saveErr := a.save(ctx, StepIdle); saveErr != nil {
		// The ledger keeps the earlier step. "Claimed" is given up at the next attempt;
		// "intent" will be in doubt, which is more than is known but safe.
		a.record.Work = work
		err = errors.Join(cause, saveErr)
	} else if eraseErr := a.erase(ctx, work.RotationID); eraseErr != nil {
		err = errors.Join(cause, fmt.Errorf("giving back the reservation: %w", eraseErr))
	}
	a.report(work, result, reason, err)
	return err
}

// noteError notes what went wrong. reason is where, for errors that do not say their cause.
func (a *attempt) noteError(reason string, cause error) {
	a.record.LastError = cause.Error()
	if a.record.LastCause = CauseOf(cause); a.record.LastCause == CauseOther {
		a.record.LastCause = reason
	}
}

// nextTry is when a slot that failed is tried again: once more before its window is over,
// whatever the back-off says.
func (a *attempt) nextTry(now time.Time) time.Time {
	next := now.Add(BackOff(a.record.Failures))
	closing := a.token.Timetable.Firing(a.record.Work.Slot).Close
	if closing.IsZero() || a.unbound() {
		return next
	}
	left := closing.Add(-minTimeLeft).Sub(now) // spread, as the back-off is
	if last := now.Add(left - rand.N(max(left/8, 1))); left > minBackOff && last.Before(next) {
		return last.UTC()
	}
	return next
}

// stall ends an attempt whose rotation stays in hand. The next one goes on at the step
// that was reached.
func (a *attempt) stall(ctx context.Context, reason string, cause error) error {
	return a.stallUntil(ctx, reason, cause, time.Time{})
}

// stallUntil does so with a time for the next attempt; the zero time for the usual one.
func (a *attempt) stallUntil(ctx context.Context, reason string, cause error, next time.Time) error {
	a.record.Failures++
	a.record.NotBefore = a.nextDelivery(next)
	a.noteError(reason, cause)
	err := cause
	if saveErr := a.save(context.WithoutCancel(ctx), a.record.Step); saveErr != nil {
		err = errors.Join(cause, saveErr)
	}
	a.report(a.record.Work, ResultFailed, reason, err)
	return err
}

// nextDelivery is when a secret in hand is tried again: at next or, if that is zero, after a wait that
// stays far below the old secret's grace.
func (a *attempt) nextDelivery(next time.Time) time.Time {
	now, grace := a.now().UTC(), time.Duration(a.record.Work.Grace)
	if next.IsZero() {
		next = now.Add(pendingWait(a.record.Failures, grace))
	}
	if a.overlaps() && grace > 0 { // and in time to extend the old secret again
		extend := a.record.Work.GraceEndsAt.Add(-grace / 2)
		next = earlier(next, later(extend, now.Add(minBackOff)))
	}
	return a.hasten(next, EmergencyWait)
}

// doubt records that nobody knows whether the rotate request was carried out.
func (a *attempt) doubt(ctx context.Context, reason string, sealed bool, cause error) error {
	ctx = context.WithoutCancel(ctx)
	now := a.now().UTC()
	work := a.record.Work
	d := &Doubt{Since: now, Reason: reason, Detail: cause.Error(), Sealed: sealed}
	if grace := time.Duration(work.Grace); grace > 0 && !work.LeavesCurrentInUse() {
		d.OldWorksUntil = work.IntentAt.Add(grace)
		if work.GraceEndsAt.After(d.OldWorksUntil) { // it was extended while the secret waited
			d.OldWorksUntil = work.GraceEndsAt
		}
		if lost := a.record.Lost; lost != nil && !lost.Until.IsZero() { // this grace may be that of a secret which was lost
			d.OldWorksUntil = earlier(d.OldWorksUntil, lost.Until)
		}
		if dies := a.record.OldDiesBy; !dies.IsZero() { // and here it is
			d.OldWorksUntil = dies
		}
	}
	a.record.Doubt = d
	a.noteError(reason, cause)
	a.record.Failures++
	// The first look comes at once, except where it leads to another request straight away.
	a.record.NotBefore = now
	if work.Grace == 0 || a.record.Lost != nil || work.LeavesCurrentInUse() {
		a.record.NotBefore = now.Add(min(BackOff(a.record.Failures), maxPendingWait))
	}
	if !work.LeavesCurrentInUse() && a.record.Lost != nil { // consumers may be cut off by now
		a.record.NotBefore = a.hasten(a.record.NotBefore, EmergencyWait)
	}
	err := cause
	if saveErr := a.save(ctx, StepInDoubt); saveErr != nil {
		// The ledger still says "intent", which comes to the same at the next attempt.
		err = errors.Join(cause, saveErr)
		a.record.Step, a.record.Doubt = StepIntent, nil
	}
	a.report(work, ResultInDoubt, reason, err)
	return err
}

// release gives up a claim whose request never left, without counting a failure.
func (a *attempt) release(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	work := a.record.Work
	a.record.Work = nil
	if err := a.save(ctx, StepIdle); err != nil {
		a.record.Work = work
		return fmt.Errorf("giving up a claim: %w", err)
	}
	return a.erase(ctx, work.RotationID)
}

// save makes the record durable at the given step. If that fails the record's step in
// memory is what it was before.
func (a *attempt) save(ctx context.Context, step Step) error {
	before := a.record.Step
	a.record.Format, a.record.Step = RecordFormat, step
	a.record.Token, a.record.Account = a.token.Name, a.token.Account
	if a.token.LedgerHasID() {
		a.record.Origin = a.token.Origin()
	} else if !a.token.Owns(a.record.TokenID) {
		a.record.TokenID = a.token.ID
	}
	point := "ledger." + cmp.Or(string(step), "idle")
	failpoint.Reach(point + ".before")
	saved, err := a.ledger.Save(ctx, a.record)
	failpoint.Reach(point + ".after")
	if err != nil {
		a.record.Step = before
		return fmt.Errorf("%w: %w", ErrLedger, err)
	}
	a.record.Revision = saved.Revision
	a.tell(Reached{a.record.clone()})
	return nil
}

// saveOr saves the record of a token that is idle. If that fails the record in memory is the
// one before: what is not durable did not happen, and is done at the next attempt.
func (a *attempt) saveOr(ctx context.Context, before Record) error {
	err := a.save(ctx, StepIdle)
	if err != nil {
		a.record = before
	}
	return err
}

// erase gives up what is kept of a rotation's answer.
func (a *attempt) erase(ctx context.Context, rotationID string) error {
	failpoint.Reach("erase.before")
	err := a.pending.Erase(ctx, rotationID)
	failpoint.Reach("erase.after")
	return err
}

func (a *attempt) phase(p Phase, do func() error) error {
	start := a.now()
	failpoint.Reach(string(p) + ".before")
	err := do()
	failpoint.Reach(string(p) + ".after")
	a.tell(PhaseEnded{Token: a.token.Name, Phase: p, Duration: a.now().Sub(start), Err: err})
	return err
}

func (a *attempt) report(work *Work, result Result, reason string, err error) {
	a.reported = true
	e := Attempted{
		Token: a.token.Name, RotationID: work.RotationID, Trigger: work.Trigger, Result: result,
		Reason: reason, Err: err, Duration: a.now().Sub(a.began), Record: a.record,
	}
	if !a.due.Begin.IsZero() {
		e.Lag = a.began.Sub(a.due.Begin)
	}
	a.tell(e)
}

func (a *attempt) tell(e Event) {
	if a.observer != nil {
		a.observer.Observe(e)
	}
}

// The first wait after a failure, and the longest.
const (
	minBackOff = time.Second
	maxBackOff = 10 * time.Minute
)

// BackOff is how long to wait after the n-th failure in a row, counted from 1: it
// doubles from one second to ten minutes, and is spread by a quarter so that tokens
// which failed together do not come back together.
func BackOff(n int) time.Duration {
	d := minBackOff << min(max(n-1, 0), 10)
	d = min(d, maxBackOff)
	return d - time.Duration(rand.Int64N(int64(d/4)))
}
