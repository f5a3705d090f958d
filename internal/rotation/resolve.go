package rotation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rotatord/internal/failpoint"
)

// This file holds how a doubt ends: by a look at the world, judged by the rules in
// doubt.go, or by an operator. And what is done for consumers until then.

// resolve looks at the world and judges the doubt. A resolved token is due again at
// once, for the slot that it was rotated for.
func (a *attempt) resolve(ctx context.Context) error {
	if done, err := a.overruled(ctx); done {
		return err
	}
	verdict, readErr, err := a.lookAndAct(ctx)
	if err != nil || verdict.Resolved {
		return err
	}
	return errors.Join(&InDoubtError{Token: a.token.Name, Reason: verdict.Reason, Again: verdict.Again}, readErr)
}

// lookAndAct looks at the world and makes durable what the verdict asks for. readErr is of
// interest only where the doubt stays: it says why no more is known.
func (a *attempt) lookAndAct(ctx context.Context) (verdict Verdict, readErr, err error) {
	verdict, readErr, err = a.look(ctx)
	switch {
	case err != nil:
		return verdict, nil, err
	case verdict.Resolved:
		return verdict, nil, a.settle(ctx, verdict)
	}
	a.record.NotBefore = verdict.Again.UTC()
	if readErr != nil { // else there is nothing that would be there sooner
		a.record.NotBefore = a.hasten(a.record.NotBefore, EmergencyWait)
	}
	return verdict, readErr, a.save(ctx, StepInDoubt)
}

// look reads what there is to be known, judges the doubt, and gives the old secret more time
// if the verdict asks for that. readErr says why Cloudflare could not be asked.
func (a *attempt) look(ctx context.Context) (verdict Verdict, readErr, err error) {
	var e Evidence
	if a.record.Work.CreateName != "" {
		e.Created, readErr = a.lookForMade(ctx)
		e.Looked = readErr == nil
	} else if e.Facts = a.listed(); e.Facts == nil || a.manual {
		e.Facts, readErr = a.inspect(ctx)
	}
	records, err := a.ledger.All(ctx)
	if err != nil {
		return Verdict{}, readErr, fmt.Errorf("%w: %w", ErrLedger, err)
	}
	e.Trusted, e.Unread = oracleTrusted(records, a.token.Account), readErr != nil && !errors.Is(readErr, ErrGone)
	if d := a.record.Doubt; !d.OldWorksUntil.IsZero() { // the ledger may not have been writable
		d.OldWorksUntil = later(d.OldWorksUntil, a.keptUntil(a.record.Work.RotationID))
	}
	verdict = Judge(a.record, e, a.now())
	a.record.Doubt.CarriedOut = a.record.Doubt.CarriedOut || verdict.CarriedOut
	if verdict.Extend > 0 {
		until, err := a.extendGrace(ctx, a.record.Work.RotationID, a.record.Work.TokenID, verdict.Extend)
		if err == nil {
			a.record.Doubt.OldWorksUntil = until
			a.record.Doubt.Extensions++
		}
		e.CannotExtend, readErr = err != nil, errors.Join(readErr, err)
		verdict = Judge(a.record, e, a.now())
	}
	a.made = e.Created
	a.decide(verdict)
	return verdict, readErr, nil
}

// inspect asks Cloudflare what the rotate request has changed, where it matters to
// consumers. nil facts without an error mean that it does not.
func (a *attempt) inspect(ctx context.Context) (*TokenFacts, error) {
	work := a.record.Work
	if work.Grace == 0 || work.Spare {
		return nil, nil
	}
	facts, err := a.token.Issuer.Inspect(ctx, work.TokenID)
	if err != nil {
		return nil, err
	}
	a.record.Facts = facts
	a.record.Doubt.CarriedOut = a.record.Doubt.CarriedOut || movedWith(work, facts)
	return &facts, nil
}

// decide notes a verdict in the record and tells of it.
func (a *attempt) decide(verdict Verdict) {
	d := a.record.Doubt
	a.tell(DoubtJudged{
		Token: a.token.Name, RotationID: a.record.Work.RotationID,
		Reason: verdict.Reason, Before: d.Decision, Again: verdict.Again,
	})
	d.Decision, d.DecidedAt = verdict.Reason, a.now().UTC()
}

// settle ends a doubt as the verdict says.
func (a *attempt) settle(ctx context.Context, verdict Verdict) error {
	before, doubt, work := a.record, a.record.Doubt, a.record.Work
	step := StepIdle
	if verdict.Deliver {
		step = StepSealed
	} else {
		if a.made != nil {
			a.keepMade(*a.made)
		}
		if !verdict.NotCarriedOut {
			a.owesAnother(doubt, work)
			a.voidUpdatedAt()
		}
		a.record.Work = nil
	}
	// What remedies a doubt must not wait for its back-off. A slot that it leaves unserved was
	// tried before.
	a.record.Doubt, a.record.NotBefore, a.record.NextTrigger = nil, a.now().UTC(), verdict.trigger()
	if err := a.save(ctx, step); err != nil {
		a.record = before
		return err
	}
	if !doubt.Sealed {
		if err := a.erase(ctx, work.RotationID); err != nil {
			return fmt.Errorf("giving back the reservation: %w", err)
		}
	}
	a.tell(DoubtResolved{Token: a.token.Name, RotationID: work.RotationID, Reason: verdict.Reason, After: a.now().Sub(doubt.Since)})
	return nil
}

// voidUpdatedAt forgets when the service token was last changed, where only our own request can
// have changed it since and nobody looked: it would be taken for somebody else's.
func (a *attempt) voidUpdatedAt() {
	for _, facts := range []*TokenFacts{&a.record.Facts, &a.record.Spare} {
		if work := a.record.Work; facts.ID == work.TokenID && facts.UpdatedAt.Equal(work.Before.UpdatedAt) {
			facts.UpdatedAt = time.Time{}
		}
	}
}

// extendGrace lets the old secret, the previous one of that service token, live for this long from now.
func (a *attempt) extendGrace(ctx context.Context, rotationID, tokenID string, grace time.Duration) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	failpoint.Reach("extend.before")
	facts, until, err := a.token.Issuer.SetGrace(ctx, tokenID, grace)
	failpoint.Reach("extend.after")
	if err != nil {
		// It may have moved updated_at all the same, so what is known of that is void.
		a.record.Facts.UpdatedAt = time.Time{}
		err = fmt.Errorf("extending the grace of the old secret: %w", err)
	} else {
		if a.record.Work != nil {
			a.record.Work.TouchedAt = facts.UpdatedAt
		}
		a.record.Facts = a.record.Facts.updatedBy(facts)
		a.keep(rotationID, until.UTC())
	}
	a.tell(GraceExtended{Token: a.token.Name, RotationID: rotationID, Until: until, Err: err})
	return until.UTC(), err
}

// InDoubtError says that a token stays in doubt, why, and until when.
type InDoubtError struct {
	Token  string
	Reason string
	Again  time.Time
}

// Error implements error.
func (e *InDoubtError) Error() string {
	return fmt.Sprintf("%s stays in doubt (%s); looking again at %s", e.Token, e.Reason, e.Again.Format(time.RFC3339))
}

// Resolution is what an operator decides about a token in doubt.
type Resolution string

// The resolutions.
const (
	ResolveLook             Resolution = "look"               // look at the world again, now
	ResolveRotateNow        Resolution = "rotate_now"         // take it as carried out and lost: reissue at once
	ResolveAssumeNotRotated Resolution = "assume_not_rotated" // the operator knows that it was not carried out
	ResolveDeliver          Resolution = "deliver"            // deliver the sealed answer although it failed validation
	ResolveAccept           Resolution = "accept"             // take a new secret as good that was refused where it was tried
	ResolveDrop             Resolution = "drop"               // give the new secret up: another one took its place, or the token is gone
)

// Resolutions are all of them.
var Resolutions = []Resolution{ResolveLook, ResolveRotateNow, ResolveAssumeNotRotated, ResolveDeliver, ResolveAccept, ResolveDrop}

// ErrNotInDoubt is in the error of Resolve when there is no doubt to resolve.
var ErrNotInDoubt = errors.New("not in doubt")

// ErrUnfit is in the error of Resolve when what is known speaks against the resolution.
var ErrUnfit = errors.New("the resolution does not fit what is known")

// Resolve carries out what an operator decides about a token in doubt, or about another rotation in
// progress that needs a decision. It returns the record as it then stands and the verdict. It
// rotates and delivers nothing by itself: a resolved token is due at once, and Advance does the rest.
func (r *Rotator) Resolve(ctx context.Context, t Token, how Resolution) (Record, Verdict, error) {
	defer r.lock(t.Name)()
	record, err := r.load(ctx, t)
	if err != nil {
		return record, Verdict{}, err
	}
	if record.Step == StepStored && record.Work.Verification.Probes > 0 {
		return r.resolveUnverified(ctx, t, record, how)
	}
	if record.Step != StepInDoubt {
		return r.resolveInProgress(ctx, t, record, how)
	}
	if how == ResolveDrop {
		return r.dropDoubt(ctx, t, record)
	}
	a := &attempt{Rotator: r, token: t, record: record.clone(), began: r.now()}
	a.manual = true
	if how == ResolveLook { // to an operator it is an answer, and not an error, that a doubt stays
		verdict, readErr, err := a.lookAndAct(ctx)
		if errors.Is(readErr, ErrGone) {
			readErr = fmt.Errorf("%w. If the service token was deleted: rotatord resolve %s --drop", readErr, t.Name)
		}
		return a.record, verdict, errors.Join(err, readErr)
	}
	// What Cloudflare shows counts, also where an operator decides. If it cannot be asked the
	// operator knows more than we do.
	switch {
	case record.Work.CreateName == "":
		_, _ = a.inspect(ctx)
	case how == ResolveRotateNow, how == ResolveAssumeNotRotated:
		if err := a.seekMade(ctx); err != nil {
			return record, Verdict{}, err
		}
	}
	verdict, err := operatorVerdict(a.record, how)
	if err != nil {
		return record, Verdict{}, err
	}
	a.decide(verdict)
	err = a.settle(ctx, verdict)
	return a.record, verdict, err
}

// operatorVerdict turns an operator's decision into a verdict, unless what is known says that
// it is a mistake.
func operatorVerdict(r Record, how Resolution) (Verdict, error) {
	d := r.Doubt
	switch how {
	case ResolveRotateNow:
		return Verdict{Resolved: true, Reason: ReasonOperatorRotateNow}, nil
	case ResolveAssumeNotRotated:
		if d.Answered() || d.CarriedOut {
			return Verdict{}, fmt.Errorf("%w: Cloudflare has shown that the rotation of %s was carried out, so it cannot be taken as not rotated: "+
				"have another one made with rotatord resolve %s --rotate-now when consumers can bear it, or leave that to the daemon, which does it before the grace ends",
				ErrUnfit, r.Token, r.Token)
		}
		return Verdict{Resolved: true, NotCarriedOut: true, Reason: ReasonOperatorNotRotated}, nil
	case ResolveDeliver:
		if !d.MayDeliver() {
			return Verdict{}, fmt.Errorf("%w: there is no sealed answer for %s that could be delivered: "+
				"only one whose secret has an unfamiliar format, that is not as documented around the secret, or that could not be opened before. "+
				"See rotatord resolve %s", ErrUnfit, r.Token, r.Token)
		}
		return Verdict{Resolved: true, Deliver: true, Reason: ReasonOperatorDeliver}, nil
	case ResolveAccept:
		return Verdict{}, fmt.Errorf("%w: --accept is for a secret that was delivered and is refused where it was tried, and %s is in doubt: rotatord resolve %s",
			ErrUnfit, r.Token, r.Token)
	default:
		return Verdict{}, fmt.Errorf("%w: %q is no resolution", ErrUnfit, how)
	}
}

// resolveUnverified does so for a token whose new secret is refused where it was tried.
func (r *Rotator) resolveUnverified(ctx context.Context, t Token, record Record, how Resolution) (Record, Verdict, error) {
	a := &attempt{Rotator: r, token: t, record: record.clone(), began: r.now()}
	verdict := Verdict{Resolved: true, Deliver: true, Reason: ReasonOperatorAccept}
	switch how {
	case ResolveAccept:
	case ResolveRotateNow:
		verdict = Verdict{Resolved: true, Reason: ReasonOperatorRotateNow}
	case ResolveLook:
		return record, Verdict{Reason: ReasonUnverified, Again: record.NotBefore}, nil
	default:
		return record, Verdict{}, fmt.Errorf("%w: the rotation of %s is known to be carried out and delivered; its secret is refused where it was tried: "+
			"rotatord resolve %s --accept, or --rotate-now", ErrUnfit, t.Name, t.Name)
	}
	err := a.acceptUnverified(ctx, how == ResolveRotateNow)
	return a.record, verdict, err
}
