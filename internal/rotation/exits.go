package rotation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"rotatord/internal/secret"
)

// This file holds what an operator can decide about a rotation in progress that is not in doubt: its
// new secret waits for a sink, was overtaken, or belongs to a service token that is gone.

// resolveInProgress carries out such a decision.
func (r *Rotator) resolveInProgress(ctx context.Context, t Token, record Record, how Resolution) (Record, Verdict, error) {
	a := &attempt{Rotator: r, token: t, record: record.clone(), began: r.now()}
	state := a.StateOf(t, record)
	switch {
	case record.Step == StepSealed && how == ResolveDrop:
		verdict, err := a.drop(ctx)
		return a.record, verdict, err
	case state == StateOvertaken && how == ResolveDeliver:
		o := *a.record.Work.Overtaken
		o.Deliver = true
		a.record.Work.Overtaken = &o
		verdict := Verdict{Resolved: true, Deliver: true, Reason: ReasonOperatorDeliver}
		err := a.tryAgain(ctx)
		if err == nil {
			a.tell(OvertakenEnded{Token: t.Name, RotationID: record.Work.RotationID, Reason: verdict.Reason})
		}
		return a.record, verdict, err
	case state == StateOvertaken && how == ResolveRotateNow && !record.Work.Overtaken.Gone:
		verdict := Verdict{Resolved: true, Reason: ReasonOperatorRotateNow}
		err := a.abandon(ctx, verdict, false)
		return a.record, verdict, err
	case state == StateOvertaken && how == ResolveLook:
		return a.lookSoon(ctx, ReasonOvertaken)
	case state == StateSealed && (how == ResolveLook || how == ResolveDeliver):
		return a.lookSoon(ctx, ReasonUndelivered)
	}
	return record, Verdict{}, a.mayNotResolve(state)
}

// lookSoon has the next attempt begin at once. What comes of it is seen in the token's status.
func (a *attempt) lookSoon(ctx context.Context, reason string) (Record, Verdict, error) {
	err := a.tryAgain(ctx)
	return a.record, Verdict{Reason: reason, Again: a.record.NotBefore}, err
}

func (a *attempt) tryAgain(ctx context.Context) error {
	a.record.NotBefore = a.now().UTC()
	return a.save(ctx, a.record.Step)
}

// mayNotResolve says why there is nothing to decide, and what to type instead.
func (a *attempt) mayNotResolve(state State) error {
	name, work := a.token.Name, a.record.Work
	switch state {
	case StateOvertaken:
		if work.Overtaken.Gone {
			return fmt.Errorf("%w: %s has no service token at Cloudflare any more, so no rotation of it can succeed: "+
				"give its new secret up with rotatord resolve %s --drop, or deliver it with --deliver", ErrUnfit, name, name)
		}
		return fmt.Errorf("%w: the new secret of %s was overtaken: rotatord resolve %s --deliver, --drop or --rotate-now", ErrUnfit, name, name)
	case StateSealed:
		return fmt.Errorf("%s is %w: its new secret is good and waits for its sinks%s. Mend the sink, or configure another one and reload; "+
			"if the secret has leaked, rotatord rotate %s --revoke-now", name, ErrNotInDoubt, because(a.record), name)
	case StateStored:
		return fmt.Errorf("%s is %w: its new secret is in every sink, and the rotation is about to end%s: rotatord status %s", name, ErrNotInDoubt, because(a.record), name)
	case StateUnsealed:
		return fmt.Errorf("%s is %w: its new secret is in memory alone%s. Do not stop the daemon, and make its disk writable: rotatord status %s",
			name, ErrNotInDoubt, because(a.record), name)
	case StateClaimed, StateIntent:
		return fmt.Errorf("%s is %w: a rotation of it is in progress (%s)%s: rotatord status %s", name, ErrNotInDoubt, state, because(a.record), name)
	}
	if state == StateIdle {
		return fmt.Errorf("%s is %w: its state is idle", name, ErrNotInDoubt)
	}
	return fmt.Errorf("%s is %w: its state is %s%s: rotatord status %s", name, ErrNotInDoubt, state, because(a.record), name)
}

// because is why a rotation does not go on; empty if nothing has failed.
func because(r Record) string {
	if r.LastError == "" || r.Failures == 0 {
		return ""
	}
	return ": " + r.LastError
}

// drop gives up a sealed secret: every sink holds another whole secret of the service token, or the
// service token is gone. Otherwise ours may be the only one that works, and it is refused.
func (a *attempt) drop(ctx context.Context) (Verdict, error) {
	verdict := Verdict{Resolved: true, NotCarriedOut: true, Reason: ReasonOperatorDrop}
	gone, err := a.isGone(ctx)
	if err != nil {
		return Verdict{}, fmt.Errorf("%w: Cloudflare could not be asked whether the new secret of %s is still needed: %w. Try again when it can", ErrUnfit, a.token.Name, err)
	}
	if gone {
		a.record.Work.Overtaken = &Overtaken{Since: a.now().UTC(), Gone: true}
		return verdict, a.abandon(ctx, verdict, true)
	}
	if a.record.Work.Overtaken == nil {
		return Verdict{}, fmt.Errorf("%w: the new secret of %s waits for its sinks%s, and nothing shows that another one took its place, so it is not given up. "+
			"Mend the sink, or configure another one and reload: rotatord status %s", ErrUnfit, a.token.Name, because(a.record), a.token.Name)
	}
	for _, sink := range a.token.Sinks {
		if err := a.holdsAnother(ctx, sink); err != nil {
			return Verdict{}, fmt.Errorf("%w: sink %s %w, so the new secret of %s is not given up: rotatord resolve %s --deliver delivers it, --rotate-now has another one made",
				ErrUnfit, sink.Name(), err, a.token.Name, a.token.Name)
		}
	}
	return verdict, a.abandon(ctx, verdict, true)
}

// holdsAnother returns nil if a sink holds a whole secret of the service token, and neither ours nor
// the one that was there before.
func (a *attempt) holdsAnother(ctx context.Context, sink Sink) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	work := a.record.Work
	now, err := sink.Preflight(ctx)
	if err != nil {
		return fmt.Errorf("could not be read (%w)", err)
	}
	before, known := work.BeforeSink[sink.Name()]
	switch {
	case !now.Exists || now.Digest == "":
		return errors.New("holds no secret")
	case now.Digest == work.Digest:
		return errors.New("holds the new secret already, and the rotation ends by itself")
	case known && now.Digest == before.Digest:
		return errors.New("still holds the secret from before the rotation")
	case work.After.ClientID != "" && now.ClientID != work.After.ClientID && now.ClientID != work.Before.ClientID:
		return fmt.Errorf("holds a secret for another client ID (%q)", now.ClientID)
	}
	if reader, can := sink.(SinkReader); can {
		c, err := reader.ReadBack(ctx)
		if err != nil {
			return fmt.Errorf("could not be read (%w)", err)
		}
		if c.ClientSecret.Digest() != now.Digest || secret.Damaged(c.ClientSecret) {
			return errors.New("does not hold a whole secret")
		}
	}
	return nil
}

// isGone reports whether Cloudflare has no such service token any more.
func (a *attempt) isGone(ctx context.Context) (bool, error) {
	work := a.record.Work
	if work.TokenID == "" { // one that was made, and whose answer did not say its ID
		found, err := a.find(ctx, work.CreateName)
		if err != nil || len(found) == 0 {
			return err == nil, err
		}
		issued, ok, err := a.pending.Open(ctx, work.RotationID)
		ours := func(f TokenFacts) bool { return f.ClientID == issued.ClientID }
		return err == nil && ok && !slices.ContainsFunc(found, ours), err
	}
	facts, err := a.token.Issuer.Inspect(ctx, work.TokenID)
	if errors.Is(err, ErrGone) {
		return true, nil
	}
	a.seen = facts
	return false, err
}

// dropDoubt ends a doubt about a service token that is gone: nothing of it is left to protect, and
// its place in the configuration can be given to another one.
func (r *Rotator) dropDoubt(ctx context.Context, t Token, record Record) (Record, Verdict, error) {
	a := &attempt{Rotator: r, token: t, record: record.clone(), began: r.now()}
	refused := func(why string) error {
		return fmt.Errorf("%w: %s. A doubt is only dropped if its service token is gone at Cloudflare: rotatord resolve %s says what else can be decided", ErrUnfit, why, t.Name)
	}
	if record.Work.CreateName != "" {
		return record, Verdict{}, refused("the doubt of " + t.Name + " is about a service token that was to be made, and ends by itself")
	}
	gone, err := a.isGone(ctx)
	if err != nil {
		return record, Verdict{}, refused(fmt.Sprintf("Cloudflare could not be asked for the service token of %s: %v", t.Name, err))
	}
	if !gone {
		return record, Verdict{}, refused("Cloudflare still has the service token of " + t.Name)
	}
	verdict := Verdict{Resolved: true, NotCarriedOut: true, Reason: ReasonOperatorDrop}
	a.record.Work.Overtaken = &Overtaken{Since: r.now().UTC(), Gone: true}
	a.decide(verdict)
	doubt := *a.record.Doubt
	if err := a.abandon(ctx, verdict, true); err != nil {
		return record, Verdict{}, err
	}
	a.tell(DoubtResolved{Token: t.Name, RotationID: record.Work.RotationID, Reason: verdict.Reason, After: r.now().Sub(doubt.Since)})
	return a.record, verdict, nil
}

// inUse returns the end of the old secret of a rotation in progress as the record has it, where that
// secret is known to be the previous one at Cloudflare: it can be revoked or kept there. nil if not.
func (a *attempt) inUse() *time.Time {
	work := a.record.Work
	switch {
	case work == nil || work.LeavesCurrentInUse() || !a.record.OldDiesBy.IsZero():
		return nil
	case a.record.Step == StepInDoubt && (a.record.Doubt.CarriedOut || a.record.Doubt.Answered()):
		return &a.record.Doubt.OldWorksUntil
	case (a.record.Step == StepSealed || a.record.Step == StepStored) && work.Overtaken == nil:
		return &work.GraceEndsAt
	}
	return nil
}

// moveInUse moves the end of the old secret of a rotation in progress, to grace from now.
func (a *attempt) moveInUse(ctx context.Context, grace time.Duration) (Record, error) {
	end, work := a.inUse(), a.record.Work
	if a.record.Step == StepSealed {
		a.noteChangeBefore(ctx)
	}
	facts, until, err := a.token.Issuer.SetGrace(ctx, work.TokenID, grace)
	if err != nil {
		if classOf(err) == Unknown {
			a.record.Facts.UpdatedAt = time.Time{}
			err = errors.Join(err, a.save(ctx, a.record.Step))
		}
		return a.record, err
	}
	work.TouchedAt = facts.UpdatedAt
	a.record.Facts = a.record.Facts.updatedBy(facts)
	if *end = until.UTC(); grace == 0 {
		*end = earlier(until.UTC(), a.now().UTC())
	}
	if a.record.Step == StepInDoubt { // it is judged again at once
		a.record.NotBefore = a.now().UTC()
	}
	err = a.save(ctx, a.record.Step)
	return a.record, err
}
