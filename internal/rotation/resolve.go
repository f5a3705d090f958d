package rotation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rotatord/internal/event"
)

// This file holds how a doubt ends: by a look at the world and a verdict ([Judge]), or by an operator's
// decision. What an operator can decide about other rotations in progress is in operator.go.

// resolve looks at the world and decides about the doubt. A resolved token is due again at
// once, for the slot that it was rotated for.
func (a *attempt) resolve(ctx context.Context) error {
	if returned, err := a.answerReturned(ctx); returned || err != nil {
		return err
	}
	if a.record.overruled() {
		return a.resolveAs(ctx, Verdict{Resolved: true, Reason: ReasonOperatorRotateNow}, nil)
	}
	verdict, readErr, err := a.lookAndAct(ctx, a.manual)
	if err != nil || verdict.Resolved {
		return err
	}
	return errors.Join(&InDoubtError{Token: a.token.Name, Reason: verdict.Reason, Again: verdict.Again}, readErr)
}

// overruled reports whether an order that revokes ends the doubt: the old secret must end, whether the
// request was carried out or not. It does not end a doubt about a service token that was to be created, or
// about a request that the order itself has caused: such a doubt ends by itself.
func (r Record) overruled() bool {
	return r.revokes() && r.Work.IntentAt.Before(r.Order.Since) && !r.Work.strategy().traits().creates
}

// lookAndAct looks at the world and makes durable what the verdict asks for. asked says that a person asks
// for the look. readErr says why no more is known; it matters only if the doubt stays.
func (e *entry) lookAndAct(ctx context.Context, asked bool) (verdict Verdict, readErr, err error) {
	verdict, created, readErr, err := e.look(ctx, asked)
	switch {
	case err != nil:
		return verdict, nil, err
	case verdict.Resolved:
		return verdict, nil, e.endDoubt(ctx, verdict, created)
	}
	next := verdict.Again.UTC()
	if readErr != nil { // else looking earlier would show nothing new
		next = e.record.hasten(next, EmergencyWait, e.now().UTC())
	}
	return verdict, readErr, e.become(ctx, e.record.retriedAt(next))
}

// look reads what can be known, decides about the doubt, and gives the old secret more time if the
// verdict asks for that. readErr says why Cloudflare could not be asked.
func (e *entry) look(ctx context.Context, asked bool) (verdict Verdict, created *TokenFacts, readErr, err error) {
	evidence, readErr := e.record.Work.strategy().look(ctx, e, asked)
	if evidence.Trusted, err = e.oracleTrusted(ctx, e.token.Account); err != nil {
		return Verdict{}, nil, readErr, fmt.Errorf("%w: %w", ErrLedger, err)
	}
	if d := e.record.Doubt; !d.OldWorksUntil.IsZero() { // the ledger may not have been writable
		e.observe(e.record.doubtWorksUntil(e.knownEnd(e.record.Work.RotationID, d.OldWorksUntil)))
	}
	verdict = Judge(e.record, evidence, e.now())
	e.observe(e.record.shownCarriedOut(verdict.CarriedOut))
	if verdict.Extend > 0 {
		until, err := e.extendGrace(ctx, e.record.Work.RotationID, e.record.Work.TokenID, verdict.Extend)
		if err == nil {
			e.observe(e.record.doubtExtended(until))
		}
		evidence.CannotExtend, readErr = err != nil, errors.Join(readErr, err)
		verdict = Judge(e.record, evidence, e.now())
	}
	e.noteVerdict(verdict)
	return verdict, evidence.Created, readErr, nil
}

// noteVerdict puts a verdict into the record and tells of it.
func (e *entry) noteVerdict(verdict Verdict) {
	e.tell(event.Verdict{
		RotationID: e.record.Work.RotationID,
		Reason:     verdict.Reason, Before: e.record.Doubt.Decision, Again: verdict.Again,
	})
	e.observe(e.record.decided(verdict, e.now().UTC()))
}

// resolveAs ends the doubt by a decision that was not made by a look.
func (e *entry) resolveAs(ctx context.Context, verdict Verdict, created *TokenFacts) error {
	e.noteVerdict(verdict)
	return e.endDoubt(ctx, verdict, created)
}

// endDoubt ends a doubt as the verdict says. created is what the request in doubt has created, if it has.
func (e *entry) endDoubt(ctx context.Context, verdict Verdict, created *TokenFacts) error {
	doubt, work := e.record.Doubt, e.record.Work
	if err := e.become(ctx, e.record.resolved(e.token, verdict, created, e.now().UTC())); err != nil {
		return err
	}
	if !doubt.Sealed && !e.hasAnswer(ctx, work.RotationID) {
		if err := e.erase(ctx, work.RotationID); err != nil {
			return fmt.Errorf("giving back the reservation: %w", err)
		}
	}
	e.tell(event.Resolution{RotationID: work.RotationID, Reason: verdict.Reason, After: e.now().Sub(doubt.Since)})
	return nil
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
	ResolveAccept           Resolution = "accept"             // take a new secret as good that is refused where it is tried
	ResolveDrop             Resolution = "drop"               // give the new secret up: another one took its place, or the token is gone
)

// Resolutions are all resolutions.
var Resolutions = []Resolution{ResolveLook, ResolveRotateNow, ResolveAssumeNotRotated, ResolveDeliver, ResolveAccept, ResolveDrop}

// ErrNotInDoubt is in the error of Resolve when there is no doubt to resolve.
var ErrNotInDoubt = errors.New("not in doubt")

// ErrUnfit is in the error of Resolve when what is known speaks against the resolution.
var ErrUnfit = errors.New("the resolution does not fit what is known")

// Resolve carries out what an operator decides about a token in doubt, or about another rotation in
// progress that needs a decision. It returns the record after that and the verdict. It rotates and
// delivers nothing by itself: a resolved token is due at once, and Advance does the rest.
func (r *Rotator) Resolve(ctx context.Context, t Token, how Resolution) (Record, Verdict, error) {
	e, err := r.openPatiently(ctx, t)
	defer e.close()
	if err != nil {
		return e.record, Verdict{}, err
	}
	before, verdict := e.record, Verdict{}
	switch {
	case e.record.Step == StepStored && e.record.Work.Verification.Probes > 0:
		verdict, err = e.resolveUnverified(ctx, how)
	case e.record.Step != StepInDoubt:
		verdict, err = e.resolveInProgress(ctx, how)
	case how == ResolveDrop:
		verdict, err = e.dropDoubt(ctx)
	case how == ResolveLook:
		return e.lookForOperator(ctx)
	default:
		verdict, err = e.resolveDoubt(ctx, how)
	}
	if err != nil && verdict.Reason == "" { // it was refused
		return before, Verdict{}, err
	}
	return e.record, verdict, err
}

// lookForOperator looks at the doubt again. If the doubt stays, that is an answer to the operator and not
// an error.
func (e *entry) lookForOperator(ctx context.Context) (Record, Verdict, error) {
	verdict, readErr, err := e.lookAndAct(ctx, true)
	if errors.Is(readErr, ErrGone) {
		readErr = fmt.Errorf("%w. If the service token was deleted: rotatord resolve %s --drop", readErr, e.token.Name)
	}
	return e.record, verdict, errors.Join(err, readErr)
}

// resolveDoubt ends the doubt as the operator decides. What Cloudflare shows counts here too. If
// Cloudflare cannot be reached, the operator's decision counts, because the operator knows more than we
// do.
func (e *entry) resolveDoubt(ctx context.Context, how Resolution) (Verdict, error) {
	s := e.record.Work.strategy()
	var created *TokenFacts
	var err error
	if !s.traits().creates {
		_, _ = s.look(ctx, e, true)
	} else if how == ResolveRotateNow || how == ResolveAssumeNotRotated {
		if created, err = s.confirm(ctx, e); err != nil {
			return Verdict{}, err
		}
	}
	verdict, err := operatorVerdict(e.record, how)
	if err != nil {
		return Verdict{}, err
	}
	return verdict, e.resolveAs(ctx, verdict, created)
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
				"rotate again with rotatord resolve %s --rotate-now when consumers can tolerate it, or leave that to the daemon, which does it before the grace ends",
				ErrUnfit, r.Token, r.Token)
		}
		return Verdict{Resolved: true, NotCarriedOut: true, Reason: ReasonOperatorNotRotated}, nil
	case ResolveDeliver:
		if !d.MayDeliver() {
			return Verdict{}, fmt.Errorf("%w: %s: see rotatord resolve %s", ErrUnfit, d.notDeliverable(r.Token), r.Token)
		}
		return Verdict{Resolved: true, Deliver: true, Reason: ReasonOperatorDeliver}, nil
	case ResolveAccept:
		return Verdict{}, fmt.Errorf("%w: --accept is for a secret that was delivered and is refused where it was tried, and %s is in doubt: rotatord resolve %s",
			ErrUnfit, r.Token, r.Token)
	default:
		return Verdict{}, fmt.Errorf("%w: %q is not a resolution", ErrUnfit, how)
	}
}

// resolveUnverified carries out a decision about a new secret that is refused where it is tried.
func (e *entry) resolveUnverified(ctx context.Context, how Resolution) (Verdict, error) {
	now := e.now().UTC()
	switch how {
	case ResolveAccept:
		return Verdict{Resolved: true, Deliver: true, Reason: ReasonOperatorAccept}, e.become(ctx, e.record.accepted(now))
	case ResolveRotateNow:
		return Verdict{Resolved: true, Reason: ReasonOperatorRotateNow}, e.become(ctx, e.record.accepted(now).orderedAgain(now))
	case ResolveLook:
		return Verdict{Reason: ReasonUnverified, Again: e.record.NotBefore}, nil
	default:
		return Verdict{}, fmt.Errorf("%w: the rotation of %s is known to be carried out and delivered; its secret is refused where it is tried: "+
			"rotatord resolve %s --accept, or --rotate-now", ErrUnfit, e.token.Name, e.token.Name)
	}
}
