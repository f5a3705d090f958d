package rotation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/moment"
)

// This file revokes and extends the previous secret for an operator.

// ErrNoPrevious is in the error of RevokePrevious and ExtendGrace if there is no previous secret
// that could be revoked or extended, or consumers may need it.
var ErrNoPrevious = errors.New("nothing was changed")

// RevokePrevious revokes the previous secret of a token now, even if its promised grace is not over.
// Consumers that have not read the present one are refused from then on. It may be repeated. With strategy
// replace, the service tokens that were replaced are deleted.
//
// While a rotation is in progress it is refused, because consumers may have nothing else: see
// [Rotator.RevokeInUse].
func (r *Rotator) RevokePrevious(ctx context.Context, t Token) (Record, error) {
	e, err := r.openPatiently(ctx, t)
	defer e.close()
	if err == nil {
		err = e.requireIdle("revoked")
	}
	if errors.Is(err, errInProgress) && e.record.movableEnd() != nil {
		err = fmt.Errorf("%w. To revoke it although consumers fail until they can read the new one: rotatord revoke-previous %s --override-in-use", err, t.Name)
	}
	if err == nil {
		err = e.revokePrevious(ctx)
	}
	return e.record, err
}

func (e *entry) revokePrevious(ctx context.Context) error {
	t, now, last := e.token, e.now().UTC(), e.record.Last
	// The previous secret belongs to the service token in use, and not to one that was replaced.
	own := last != nil && !last.GraceEndsAt.IsZero() && !e.record.replacedUntil(last.GraceEndsAt) && (!t.Replace || now.Before(last.GraceEndsAt))
	switch {
	case own:
	case len(e.record.Replaced) > 0:
		return e.deleteNow(ctx)
	case t.Replace:
		return fmt.Errorf("%w: no service token that was replaced by %s is left", ErrNoPrevious, t.Name)
	default:
		return fmt.Errorf("%w: no previous secret of %s is known to work: it was never rotated by this ledger, or without a grace. "+
			"If the present one has leaked: rotatord rotate %s --revoke-now", ErrNoPrevious, t.Name, t.Name)
	}
	// A secret whose grace is over is revoked too: another person or program may have extended it since.
	facts, _, err := e.setGrace(ctx, t.ServiceToken(e.record), 0)
	if err != nil {
		return err
	}
	e.observe(e.record.touched(facts).previousRevoked(now))
	if len(e.record.Replaced) > 0 {
		return e.deleteNow(ctx)
	}
	return e.become(ctx, e.record)
}

// RevokeInUse revokes the previous secret as RevokePrevious does, but also while a rotation is in
// progress, if the old secret is known to be the previous one at Cloudflare. Consumers are refused until
// the new secret is delivered. It is for a secret that has leaked while a sink is away.
func (r *Rotator) RevokeInUse(ctx context.Context, t Token) (Record, error) {
	e, err := r.openPatiently(ctx, t)
	defer e.close()
	if err == nil {
		err = e.requireIdle("revoked")
	}
	switch {
	case err == nil:
		err = e.revokePrevious(ctx)
	case errors.Is(err, errInProgress) && e.record.movableEnd() != nil:
		err = e.moveEnd(ctx, 0)
	}
	return e.record, err
}

// replacedUntil reports whether a replaced service token was promised to work until then.
func (r Record) replacedUntil(end time.Time) bool {
	return slices.ContainsFunc(r.Replaced, func(old Replaced) bool { return old.At.Equal(end) })
}

// ExtendGrace lets the previous secret of a token work for this long from now. It never shortens a grace,
// and never revives a secret that has ended.
func (r *Rotator) ExtendGrace(ctx context.Context, t Token, grace time.Duration) (Record, error) {
	e, err := r.openPatiently(ctx, t)
	defer e.close()
	if err == nil {
		err = e.requireIdle("kept for longer")
	}
	if end := e.record.movableEnd(); errors.Is(err, errInProgress) && end != nil {
		err = e.extendInProgress(ctx, *end, grace)
	} else if err == nil {
		err = e.extendPrevious(ctx, grace)
	}
	return e.record, err
}

func (e *entry) extendPrevious(ctx context.Context, grace time.Duration) error {
	last, now, name := e.record.Last, e.now(), e.token.Name
	switch {
	case last == nil || last.GraceEndsAt.IsZero():
		return fmt.Errorf("%w: %s has no previous secret that could be kept: it was never rotated by this ledger, or without a grace: rotatord status %s", ErrNoPrevious, name, name)
	case !now.Before(last.GraceEndsAt):
		return fmt.Errorf("%w: the previous secret of %s stopped working at %s, and cannot be revived", ErrNoPrevious, name, last.GraceEndsAt.Format(time.RFC3339))
	case grace > MaxGrace:
		return fmt.Errorf("%w: a grace is at most %s", ErrNoPrevious, MaxGrace)
	case now.Add(grace).Before(last.GraceEndsAt):
		return fmt.Errorf("%w: the previous secret of %s works until %s already, and that would be earlier", ErrNoPrevious, name, last.GraceEndsAt.Format(time.RFC3339))
	}
	if e.record.replacedUntil(last.GraceEndsAt) {
		return e.become(ctx, e.record.replacedWorkUntil(now.Add(grace).UTC()))
	}
	facts, until, err := e.setGrace(ctx, e.token.ServiceToken(e.record), grace)
	if err != nil {
		return err
	}
	e.observe(e.record.touched(facts).previousWorksUntil(until.UTC()))
	return e.become(ctx, e.record)
}

// extendInProgress extends the old secret of a rotation in progress. end is when that secret ends now.
func (e *entry) extendInProgress(ctx context.Context, end time.Time, grace time.Duration) error {
	now, name := e.now(), e.token.Name
	switch {
	case end.IsZero() || !now.Before(end):
		return fmt.Errorf("%w: the old secret of %s stopped working with the rotation in progress, and cannot be revived: rotatord status %s", ErrNoPrevious, name, name)
	case grace > MaxGrace:
		return fmt.Errorf("%w: a grace is at most %s", ErrNoPrevious, MaxGrace)
	case now.Add(grace).Before(end):
		return fmt.Errorf("%w: the old secret of %s works until %s already, and that would be earlier", ErrNoPrevious, name, end.Format(time.RFC3339))
	}
	return e.moveEnd(ctx, grace)
}

// errInProgress is in the error of RevokePrevious and ExtendGrace while a rotation is in progress.
var errInProgress = fmt.Errorf("%w: a rotation is in progress", ErrNoPrevious)

// requireIdle refuses while a rotation is in progress: the previous secret may be the one that consumers
// need. done is what should happen to that secret, as a participle for the message, such as "revoked".
func (e *entry) requireIdle(done string) error {
	t, record := e.token, e.record
	switch {
	case record.Step == StepInDoubt:
		return fmt.Errorf("%w: %s is in doubt, and its old secret may be the only one that works: rotatord resolve %s. "+
			"If the old secret has leaked: rotatord rotate %s --revoke-now", errInProgress, t.Name, t.Name, t.Name)
	case record.Step == StepSealed && record.Work.Overtaken != nil:
		return fmt.Errorf("%w: the new secret of %s was overtaken, and it is not known which one is the previous: rotatord resolve %s. "+
			"If a secret has leaked: rotatord rotate %s --revoke-now", errInProgress, t.Name, t.Name, t.Name)
	case record.Step != StepIdle:
		return fmt.Errorf("%w: that of %s (%s), and consumers may need its old secret until it is done: rotatord status %s", errInProgress, t.Name, e.StateOf(t, record), t.Name)
	case record.owed():
		return fmt.Errorf("%w: a secret of %s was lost, and it is not known which one is the previous: rotatord rotate %s makes up for it now", ErrNoPrevious, t.Name, t.Name)
	case strategyFor(t, record).traits().alternates:
		return fmt.Errorf("%w: of a pair the service token that was replaced works until its own turn comes, so its secret cannot be %s: "+
			"rotatord rotate %s --revoke-now renews both", ErrNoPrevious, done, t.Name)
	}
	return nil
}

// movableEnd returns the end of the old secret of a rotation in progress, if that secret is known to be
// the previous one at Cloudflare. Then it can be revoked or extended there. Otherwise it returns nil.
func (r Record) movableEnd() *time.Time {
	work := r.Work
	switch {
	case work == nil || work.LeavesCurrentInUse() || !r.OldDiesBy.IsZero():
		return nil
	case r.Step == StepInDoubt && (r.Doubt.CarriedOut || r.Doubt.Answered()):
		return &r.Doubt.OldWorksUntil
	case (r.Step == StepSealed || r.Step == StepStored) && work.Overtaken == nil:
		return &work.GraceEndsAt
	}
	return nil
}

// moveEnd moves the end of the old secret of a rotation in progress, to grace from now.
func (e *entry) moveEnd(ctx context.Context, grace time.Duration) error {
	if e.record.Step == StepSealed {
		e.noteChangeBefore(ctx)
	}
	id := e.record.Work.RotationID
	// Also this process remembers it: the ledger may not be writable, and the answer may be lost.
	e.keepAsked(id, asked{by: grace, until: e.now().Add(grace)})
	e.observe(e.record.mayExtendBy(grace))
	facts, until, err := e.setGrace(ctx, e.record.Work.TokenID, grace)
	if err != nil {
		if classOf(err) != Unknown {
			e.keepAsked(id, asked{by: grace})
		}
		return err
	}
	end, now := until.UTC(), e.now().UTC()
	if grace == 0 {
		end = moment.Min(end, now)
	}
	e.keepExtended(id, end)
	e.observe(e.record.touched(facts).endMoved(end, now))
	return e.become(ctx, e.record)
}

// setGrace moves the end of the previous secret. A request that failed may still have moved updated_at, so
// then the known updated_at is void.
func (e *entry) setGrace(ctx context.Context, tokenID string, grace time.Duration) (TokenFacts, time.Time, error) {
	if err := e.mustHold(ctx); err != nil {
		return TokenFacts{}, time.Time{}, err
	}
	if grace == 0 { // an extension ends no secret, and consumers may need it
		if err := e.recorded(ctx, event.RequestLeaving{Operation: "revoke", TokenID: tokenID}); err != nil {
			return TokenFacts{}, time.Time{}, err
		}
	}
	facts, until, err := e.token.Issuer.SetGrace(WithSendCheck(ctx, e.maySend), tokenID, grace)
	if err != nil && classOf(err) == Unknown {
		err = errors.Join(err, e.become(ctx, e.record.maybeTouched()))
	}
	return facts, until, err
}

// deleteNow deletes the replaced service tokens. Once the decision is saved, the daemon tries until they
// are deleted.
func (e *entry) deleteNow(ctx context.Context) error {
	if err := e.become(ctx, e.record.deletingAll(e.now().UTC())); err != nil {
		return err
	}
	if err := e.mustHold(ctx); err != nil {
		return err
	}
	return e.deleteReplaced(ctx)
}
