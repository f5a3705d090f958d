package rotation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// This file holds what an operator does about the previous secret after a rotation.

// ErrNoPrevious is in the error of RevokePrevious and ExtendGrace if there is no previous secret
// that could be revoked or kept, or consumers may need it.
var ErrNoPrevious = errors.New("nothing was changed")

// RevokePrevious revokes the previous secret of a token now, whatever grace it was promised.
// Consumers that have not read the present one are refused from then on. It may be repeated.
// Of strategy replace the service tokens whose place was taken are deleted.
//
// While a rotation is in progress it is refused, because consumers may have nothing else: see
// [Rotator.RevokeInUse].
func (r *Rotator) RevokePrevious(ctx context.Context, t Token) (Record, error) {
	defer r.lock(t.Name)()
	a, err := r.grown(ctx, t, "revoked")
	if errors.Is(err, errInProgress) && a.inUse() != nil {
		err = fmt.Errorf("%w. To revoke it although consumers fail until they can read the new one: rotatord revoke-previous %s --override-in-use", err, t.Name)
	}
	if err != nil {
		return a.record, err
	}
	now, last := a.now(), a.record.Last
	// A secret of the service token in use: not one whose service token was replaced.
	own := last != nil && !last.GraceEndsAt.IsZero() && !a.record.replacedUntil(last.GraceEndsAt) && (!t.Replace || now.Before(last.GraceEndsAt))
	switch {
	case own:
	case len(a.record.Replaced) > 0:
		return a.deleteNow(ctx)
	case t.Replace:
		return a.record, fmt.Errorf("%w: no service token that was replaced by %s is left", ErrNoPrevious, t.Name)
	default:
		return a.record, fmt.Errorf("%w: no previous secret of %s is known to work: it was never rotated by this ledger, or without a grace. "+
			"If the present one has leaked: rotatord rotate %s --revoke-now", ErrNoPrevious, t.Name, t.Name)
	}
	// One whose grace is over is revoked all the same: its end is what we know, and not what
	// somebody may have made of it since.
	facts, _, err := a.setGrace(ctx, 0)
	if err != nil {
		return a.record, err
	}
	a.record.Facts = a.record.Facts.updatedBy(facts)
	revoked := *last
	revoked.GraceEndsAt, revoked.Revoked = earlier(last.GraceEndsAt, now.UTC()), true
	a.record.Last = &revoked
	if len(a.record.Replaced) > 0 {
		return a.deleteNow(ctx)
	}
	err = a.save(ctx, StepIdle)
	return a.record, err
}

// RevokeInUse does what RevokePrevious does, and revokes the old secret also while a rotation is in
// progress, where it is known to be the previous one at Cloudflare. Consumers are refused until the
// new secret is delivered. It is for a secret that has leaked while a sink is away.
func (r *Rotator) RevokeInUse(ctx context.Context, t Token) (Record, error) {
	record, err := r.revokeInUse(ctx, t)
	if errors.Is(err, errNotInProgress) {
		return r.RevokePrevious(ctx, t)
	}
	return record, err
}

var errNotInProgress = errors.New("no rotation is in progress")

func (r *Rotator) revokeInUse(ctx context.Context, t Token) (Record, error) {
	defer r.lock(t.Name)()
	a, err := r.grown(ctx, t, "revoked")
	switch {
	case !errors.Is(err, errInProgress):
		return a.record, errors.Join(err, errNotInProgress)
	case a.inUse() == nil:
		return a.record, err
	}
	return a.moveInUse(ctx, 0)
}

// replacedUntil reports whether a service token that was replaced was promised until then.
func (r Record) replacedUntil(end time.Time) bool {
	return slices.ContainsFunc(r.Replaced, func(old Replaced) bool { return old.At.Equal(end) })
}

// ExtendGrace lets the previous secret of a token live for this long from now. It never
// shortens a grace, and revives nothing that is dead.
func (r *Rotator) ExtendGrace(ctx context.Context, t Token, grace time.Duration) (Record, error) {
	defer r.lock(t.Name)()
	a, err := r.grown(ctx, t, "kept for longer")
	if end := a.inUse(); errors.Is(err, errInProgress) && end != nil {
		return a.extendInUse(ctx, *end, grace)
	}
	if err != nil {
		return a.record, err
	}
	last, now := a.record.Last, a.now()
	switch {
	case last == nil || last.GraceEndsAt.IsZero():
		return a.record, fmt.Errorf("%w: %s has no previous secret that could be kept: it was never rotated by this ledger, or without a grace: rotatord status %s", ErrNoPrevious, t.Name, t.Name)
	case !now.Before(last.GraceEndsAt):
		return a.record, fmt.Errorf("%w: the previous secret of %s stopped working at %s, and cannot be revived", ErrNoPrevious, t.Name, last.GraceEndsAt.Format(time.RFC3339))
	case grace > MaxGrace:
		return a.record, fmt.Errorf("%w: a grace is at most %s", ErrNoPrevious, MaxGrace)
	case now.Add(grace).Before(last.GraceEndsAt):
		return a.record, fmt.Errorf("%w: the previous secret of %s works until %s already, and that would be earlier", ErrNoPrevious, t.Name, last.GraceEndsAt.Format(time.RFC3339))
	}
	extended := *last
	if a.record.replacedUntil(last.GraceEndsAt) {
		extended.GraceEndsAt = now.Add(grace).UTC()
		for i := range a.record.Replaced {
			if r := &a.record.Replaced[i]; r.At.Equal(last.GraceEndsAt) {
				r.At = extended.GraceEndsAt
			}
		}
	} else {
		facts, until, err := a.setGrace(ctx, grace)
		if err != nil {
			return a.record, err
		}
		a.record.Facts = a.record.Facts.updatedBy(facts)
		extended.GraceEndsAt = until.UTC()
	}
	a.record.Last = &extended
	err = a.save(ctx, StepIdle)
	return a.record, err
}

// extendInUse does so for the old secret of a rotation in progress, which ends then.
func (a *attempt) extendInUse(ctx context.Context, end time.Time, grace time.Duration) (Record, error) {
	now, name := a.now(), a.token.Name
	switch {
	case end.IsZero() || !now.Before(end):
		return a.record, fmt.Errorf("%w: the old secret of %s stopped working with the rotation in progress, and cannot be revived: rotatord status %s", ErrNoPrevious, name, name)
	case grace > MaxGrace:
		return a.record, fmt.Errorf("%w: a grace is at most %s", ErrNoPrevious, MaxGrace)
	case now.Add(grace).Before(end):
		return a.record, fmt.Errorf("%w: the old secret of %s works until %s already, and that would be earlier", ErrNoPrevious, name, end.Format(time.RFC3339))
	}
	return a.moveInUse(ctx, grace)
}

// errInProgress is in the error of RevokePrevious and ExtendGrace while a rotation is in progress.
var errInProgress = fmt.Errorf("%w: a rotation is in progress", ErrNoPrevious)

// grown returns an attempt at a token of which no rotation is in progress: while one is, the
// previous secret may be the one that consumers need. done says what is asked for that secret.
func (r *Rotator) grown(ctx context.Context, t Token, done string) (*attempt, error) {
	record, err := r.load(ctx, t)
	a := &attempt{Rotator: r, token: t, record: record.clone(), began: r.now()}
	switch {
	case err != nil:
	case record.Step == StepInDoubt:
		err = fmt.Errorf("%w: %s is in doubt, and its old secret may be the only one that works: rotatord resolve %s. "+
			"If the old secret has leaked: rotatord rotate %s --revoke-now", errInProgress, t.Name, t.Name, t.Name)
	case record.Step == StepSealed && record.Work.Overtaken != nil:
		err = fmt.Errorf("%w: the new secret of %s was overtaken, and it is not known which one is the previous: rotatord resolve %s. "+
			"If a secret has leaked: rotatord rotate %s --revoke-now", errInProgress, t.Name, t.Name, t.Name)
	case record.Step != StepIdle:
		err = fmt.Errorf("%w: that of %s (%s), and consumers may need its old secret until it is done: rotatord status %s", errInProgress, t.Name, r.StateOf(t, record), t.Name)
	case record.owed():
		err = fmt.Errorf("%w: a secret of %s was lost, and it is not known which one is the previous: rotatord rotate %s makes up for it now", ErrNoPrevious, t.Name, t.Name)
	case t.Paired():
		err = fmt.Errorf("%w: of a pair the service token that was replaced works until its own turn comes, so its secret cannot be %s: "+
			"rotatord rotate %s --revoke-now renews both", ErrNoPrevious, done, t.Name)
	}
	return a, err
}

// setGrace moves the end of the previous secret. It may have moved updated_at also where it
// fails, so what is known of that is void then.
func (a *attempt) setGrace(ctx context.Context, grace time.Duration) (TokenFacts, time.Time, error) {
	facts, until, err := a.token.Issuer.SetGrace(ctx, a.token.ServiceToken(a.record), grace)
	if err != nil && classOf(err) == Unknown {
		a.record.Facts.UpdatedAt = time.Time{}
		err = errors.Join(err, a.save(ctx, StepIdle))
	}
	return facts, until, err
}

// deleteNow deletes what was replaced.
func (a *attempt) deleteNow(ctx context.Context) (Record, error) {
	now := a.now().UTC()
	for i := range a.record.Replaced {
		old := &a.record.Replaced[i]
		old.At, old.NotBefore, old.Promised = now, time.Time{}, false
	}
	if a.record.Last != nil && a.record.Last.GraceEndsAt.After(now) {
		last := *a.record.Last
		last.GraceEndsAt = now
		a.record.Last = &last
	}
	if err := a.save(ctx, StepIdle); err != nil { // from here on the daemon keeps at it
		return a.record, err
	}
	err := a.deleteReplaced(ctx)
	return a.record, err
}
