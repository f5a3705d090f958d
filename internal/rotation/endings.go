package rotation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/failpoint"
	"rotatord/internal/moment"
)

// This file holds the endings of an attempt without a commit: the attempt fails, or the token becomes in
// doubt. The end of a doubt is in resolve.go.

// giveUp ends an attempt in which nothing was carried out. The slot is still not served, and the next try
// is another rotation.
func (a *attempt) giveUp(ctx context.Context, result event.Result, reason string, cause error) error {
	ctx = context.WithoutCancel(ctx)
	work, now, failures := a.record.Work, a.now().UTC(), a.record.Failures+1
	f := failure{reason: reason, err: cause}
	e, isIssuers := errors.AsType[*IssuerError](cause)
	switch {
	case a.manual: // it is not tried again; the schedule's next rotation is due at the same time as before
		f.next, f.silent = a.record.NotBefore, true
	case isIssuers && e.Class == Throttled:
		// A 429 says how long to wait. It is not a failure of this token.
		f.next, f.silent = now.Add(max(e.RetryAfter, minBackOff)), true
	case a.record.Lost != nil:
		f.next = a.record.nextReissue(failures, isIssuers && e.Class == Refused, now)
	default:
		f.next = a.record.nextTry(a.token, failures, now)
	}
	err := cause
	if saveErr := a.becomeFailed(ctx, a.record.failed(f).released()); saveErr != nil {
		// The ledger still has the earlier step. The next attempt gives a claim up. An intent becomes a
		// doubt: that is safe, although we know here that nothing was carried out.
		err = errors.Join(cause, saveErr)
		if a.replica != nil && errors.Is(saveErr, ErrConflict) { // another replica has taken over, and cannot erase it here
			err = errors.Join(err, a.erase(ctx, work.RotationID))
		}
	} else if eraseErr := a.erase(ctx, work.RotationID); eraseErr != nil {
		err = errors.Join(cause, fmt.Errorf("giving back the reservation: %w", eraseErr))
	}
	a.report(work, result, reason, err)
	return err
}

// becomeFailed calls become for a failure. If the ledger cannot be written, the failure still counts in
// memory, because the caller schedules the next try by it.
func (a *attempt) becomeFailed(ctx context.Context, next Record) error {
	err := a.become(ctx, next)
	if err != nil {
		a.observe(a.record.failedLike(next))
	}
	return err
}

// stall ends an attempt whose rotation stays in progress. The next attempt continues at the step that was
// reached.
func (a *attempt) stall(ctx context.Context, reason string, cause error) error {
	return a.stallUntil(ctx, reason, cause, time.Time{})
}

// stallUntil ends an attempt as stall does, with a time for the next attempt; the zero time means the
// usual wait.
func (a *attempt) stallUntil(ctx context.Context, reason string, cause error, next time.Time) error {
	at := a.record.nextDelivery(a.record.Failures+1, next, a.now().UTC())
	err := cause
	if saveErr := a.becomeFailed(context.WithoutCancel(ctx), a.record.failed(failure{reason: reason, err: cause, next: at})); saveErr != nil {
		err = errors.Join(cause, saveErr)
	}
	a.report(a.record.Work, event.ResultFailed, reason, err)
	return err
}

// doubt records that it is not known whether the rotate request was carried out.
func (a *attempt) doubt(ctx context.Context, reason string, sealed bool, cause error) error {
	now, work := a.now().UTC(), a.record.Work
	f := failure{reason: reason, err: cause, next: a.record.firstLook(a.record.Failures+1, now)}
	d := Doubt{Since: now, Reason: reason, Detail: cause.Error(), Sealed: sealed, OldWorksUntil: a.record.oldWorksUntil()}
	err := cause
	if saveErr := a.becomeFailed(context.WithoutCancel(ctx), a.record.failed(f).inDoubt(d)); saveErr != nil {
		// The ledger still says "intent". The next attempt turns that into a doubt too.
		err = errors.Join(cause, saveErr)
	}
	a.report(work, event.ResultInDoubt, reason, err)
	return err
}

// oldWorksUntil returns when the old secret stops working if the request in progress was carried out. It
// is zero if the old secret was revoked at once, or if the request does not touch it.
func (r Record) oldWorksUntil() (until time.Time) {
	work := r.Work
	grace := time.Duration(work.Grace)
	if grace == 0 || work.LeavesCurrentInUse() {
		return time.Time{}
	}
	until = work.IntentAt.Add(grace)
	if !work.GraceEndsAt.IsZero() { // the answer said so, and it may have been extended or revoked while the secret waited
		until = work.GraceEndsAt
	}
	if lost := r.Lost; lost != nil && !lost.Until.IsZero() { // this grace may belong to a lost secret, and not to the one that consumers use
		until = moment.Min(until, lost.Until)
	}
	if dies := r.OldDiesBy; !dies.IsZero() { // this grace does belong to a lost secret
		until = dies
	}
	return until
}

// release gives up a claim whose request never left. It counts no failure.
func (a *attempt) release(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	work := a.record.Work
	if err := a.become(ctx, a.record.released()); err != nil {
		return fmt.Errorf("giving up a claim: %w", err)
	}
	return a.erase(ctx, work.RotationID)
}

// phase is a timed part of a rotation, with a failpoint before and after it.
func (a *attempt) phase(p event.Phase, do func() error) error {
	return a.timed(p, func() error {
		failpoint.Reach(string(p) + ".before")
		err := do()
		failpoint.Reach(string(p) + ".after")
		return err
	})
}

// timed is a timed part of a rotation. What it does has failpoints of its own.
func (e *entry) timed(p event.Phase, do func() error) error {
	start := e.now()
	err := do()
	e.tell(event.PhaseEnded{Phase: p, Duration: e.now().Sub(start), Err: err})
	return err
}

// report publishes the end of the attempt.
func (a *attempt) report(work *Work, result event.Result, reason string, err error) {
	a.reported = true
	by := a.actor
	if by.Cause == "" {
		by = causeOf(work.Trigger, a.order)
	}
	d := a.record.ended(work, result, a.now())
	d.Reason, d.Err, d.Duration, d.Overtaken = reason, err, a.now().Sub(a.began), reason == ReasonOvertaken
	d.Cause, d.Sink, d.Awaited = ToldAs(err), SinkOf(err), a.manual
	if !a.due.Begin.IsZero() {
		d.Lag = a.began.Sub(a.due.Begin)
	}
	a.Rotator.tell(a.token.Name, by, d)
}

// ended returns the event that describes a token after an attempt at that rotation.
func (r Record) ended(work *Work, result event.Result, now time.Time) event.RotationEnded {
	d := event.RotationEnded{
		RotationID: work.RotationID, Trigger: string(work.Trigger), Result: result, Creates: work.strategy().traits().creates,
		Step: string(r.Step), NextTry: r.NotBefore, Failures: r.Failures,
	}
	if result == event.ResultSuccess {
		d.Slot, d.Digest, d.GraceEndsAt = r.Last.Slot, string(r.Last.Digest), r.Last.GraceEndsAt
		d.MakesUp = work.Trigger == TriggerRecovery
	}
	if r.Lost != nil {
		d.OwedSince, d.CutOffAt, d.KeptAlive = r.Lost.Since, r.CutOffAt(), r.ExtendsLost()
		d.CutOff = !d.CutOffAt.After(now)
	}
	return d
}
