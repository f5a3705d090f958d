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
func (r *Rotator) RevokePrevious(ctx context.Context, t Token) (Record, error) {
	defer r.lock(t.Name)()
	a, err := r.grown(ctx, t)
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
		return a.record, fmt.Errorf("%w: no previous secret of %s is known to work: it was never rotated by this ledger, or without a grace", ErrNoPrevious, t.Name)
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

// replacedUntil reports whether a service token that was replaced was promised until then.
func (r Record) replacedUntil(end time.Time) bool {
	return slices.ContainsFunc(r.Replaced, func(old Replaced) bool { return old.At.Equal(end) })
}

// ExtendGrace lets the previous secret of a token live for this long from now. It never
// shortens a grace, and revives nothing that is dead.
func (r *Rotator) ExtendGrace(ctx context.Context, t Token, grace time.Duration) (Record, error) {
	defer r.lock(t.Name)()
	a, err := r.grown(ctx, t)
	if err != nil {
		return a.record, err
	}
	last, now := a.record.Last, a.now()
	switch {
	case last == nil || last.GraceEndsAt.IsZero():
		return a.record, fmt.Errorf("%w: %s has no previous secret that could be kept: it was never rotated by this ledger, or without a grace", ErrNoPrevious, t.Name)
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

// grown returns an attempt at a token of which no rotation is in hand: while one is, the
// previous secret may be the one that consumers need.
func (r *Rotator) grown(ctx context.Context, t Token) (*attempt, error) {
	record, err := r.load(ctx, t)
	a := &attempt{Rotator: r, token: t, record: record.clone(), began: r.now()}
	switch {
	case err != nil:
	case record.Step == StepInDoubt:
		err = fmt.Errorf("%w: %s is in doubt, and its old secret may be the only one that works: rotatord resolve %s", ErrNoPrevious, t.Name, t.Name)
	case record.Step != StepIdle:
		err = fmt.Errorf("%w: a rotation of %s is in hand (%s), and consumers may need its old secret until that is done", ErrNoPrevious, t.Name, record.Step)
	case record.owed():
		err = fmt.Errorf("%w: a secret of %s was lost and is about to be made up for", ErrNoPrevious, t.Name)
	case t.Paired():
		err = fmt.Errorf("%w: of a pair the one that was replaced works until its own turn comes: rotatord rotate %s --revoke-now renews both", ErrNoPrevious, t.Name)
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
