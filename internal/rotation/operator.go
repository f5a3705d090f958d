package rotation

import (
	"context"
	"errors"
	"fmt"

	"rotatord/internal/event"
	"rotatord/internal/secret"
)

// This file carries out an operator's decision about a rotation in progress that is not in doubt: its new
// secret waits for a sink, was overtaken, or belongs to a service token that is gone.

// resolveInProgress carries out an operator's decision about a rotation in progress that is not in doubt.
func (e *entry) resolveInProgress(ctx context.Context, how Resolution) (Verdict, error) {
	state := e.StateOf(e.token, e.record)
	switch {
	case e.record.Step == StepSealed && how == ResolveDrop:
		return e.drop(ctx)
	case state == StateOvertaken && how == ResolveDeliver:
		verdict := Verdict{Resolved: true, Deliver: true, Reason: ReasonOperatorDeliver}
		err := e.become(ctx, e.record.overtaken(e.record.Work.Overtaken.delivering()).retriedAt(e.now().UTC()))
		if err == nil {
			e.tell(event.OvertakenEnd{RotationID: e.record.Work.RotationID, Reason: verdict.Reason})
		}
		return verdict, err
	case state == StateOvertaken && how == ResolveRotateNow && !e.record.Work.Overtaken.Gone:
		verdict := Verdict{Resolved: true, Reason: ReasonOperatorRotateNow}
		return verdict, e.abandon(ctx, verdict, TokenFacts{}, false)
	case state == StateOvertaken && how == ResolveLook:
		return e.retryNow(ctx, ReasonOvertaken)
	case state == StateSealed && (how == ResolveLook || how == ResolveDeliver):
		return e.retryNow(ctx, ReasonUndelivered)
	case e.record.sinksInQuestion() && how == ResolveLook:
		return e.lookForOperatorAtSinks(ctx)
	case e.record.sinksInQuestion() && how == ResolveAccept:
		return e.acceptSinks(ctx)
	}
	return Verdict{}, e.mayNotResolve(state)
}

// retryNow lets the next attempt begin at once. The status of the token will show its result.
func (e *entry) retryNow(ctx context.Context, reason string) (Verdict, error) {
	err := e.become(ctx, e.record.retriedAt(e.now().UTC()))
	return Verdict{Reason: reason, Again: e.record.NotBefore}, err
}

// mayNotResolve returns an error that says why there is nothing to decide, and what to type instead.
func (e *entry) mayNotResolve(state State) error {
	name, work := e.token.Name, e.record.Work
	switch state {
	case StateOvertaken:
		if work.Overtaken.Gone {
			return fmt.Errorf("%w: %s has no service token at Cloudflare any more, so no rotation of it can succeed: "+
				"give its new secret up with rotatord resolve %s --drop, or deliver it with --deliver", ErrUnfit, name, name)
		}
		return fmt.Errorf("%w: the new secret of %s was overtaken: rotatord resolve %s --deliver, --drop or --rotate-now", ErrUnfit, name, name)
	case StateSealed:
		return fmt.Errorf("%s is %w: its new secret is good and waits for its sinks%s. Mend the sink, or configure another one and reload; "+
			"if the secret has leaked, rotatord rotate %s --revoke-now", name, ErrNotInDoubt, because(e.record), name)
	case StateStored:
		return fmt.Errorf("%s is %w: its new secret is in every sink, and the rotation is about to end%s: rotatord status %s", name, ErrNotInDoubt, because(e.record), name)
	case StateUnsealed:
		return fmt.Errorf("%s is %w: its new secret is only in memory%s. Do not stop the daemon, and make its disk writable: rotatord status %s",
			name, ErrNotInDoubt, because(e.record), name)
	case StateClaimed, StateIntent:
		return fmt.Errorf("%s is %w: a rotation of it is in progress (%s)%s: rotatord status %s", name, ErrNotInDoubt, state, because(e.record), name)
	}
	if e.record.sinksInQuestion() {
		return fmt.Errorf("%w: no rotation of %s is in progress. A sink does not hold what was written to it, or others have rotated the token: "+
			"rotatord resolve %s --accept takes what the sinks hold as right, rotatord rotate %s rotates again", ErrUnfit, name, name, name)
	}
	if state == StateIdle {
		return fmt.Errorf("%s is %w: its state is idle", name, ErrNotInDoubt)
	}
	return fmt.Errorf("%s is %w: its state is %s%s: rotatord status %s", name, ErrNotInDoubt, state, because(e.record), name)
}

// sinksInQuestion reports whether an operator can decide what the sinks should hold.
func (r Record) sinksInQuestion() bool {
	return r.Watched() && !r.owed() && (len(r.Findings) > 0 || !r.Outside.IsZero())
}

// lookForOperatorAtSinks looks at all sinks now.
func (e *entry) lookForOperatorAtSinks(ctx context.Context) (Verdict, error) {
	wrong, err := e.lookAgain(ctx)
	switch {
	case errors.Is(err, ErrLedger):
		return Verdict{}, err
	case wrong > 0 || err != nil || !e.record.Outside.IsZero():
		return Verdict{Reason: ReasonSinksDiffer}, err
	}
	return Verdict{Resolved: true, Reason: ReasonSinksAsWritten}, nil
}

// acceptSinks takes what the sinks hold as right, because the operator says so. All must hold one whole
// secret of the service token, and another one than was written.
func (e *entry) acceptSinks(ctx context.Context) (Verdict, error) {
	refused := func(sink Sink, why error) error {
		return fmt.Errorf("%w: sink %s %w, so it is not accepted: rotatord rotate %s brings all sinks a new secret", ErrUnfit, sink.Name(), why, e.token.Name)
	}
	held, first, differs := make(map[string]Stored, len(e.token.Sinks)), Stored{}, false
	for i, sink := range e.token.Sinks {
		stored, err := lookBriefly(ctx, sink)
		if err == nil {
			err = e.acceptable(ctx, sink, stored)
		} else {
			err = fmt.Errorf("could not be read (%w)", err)
		}
		if i == 0 {
			first = stored
		} else if err == nil && (stored.Digest != first.Digest || stored.ClientID != first.ClientID) {
			err = fmt.Errorf("holds another secret than sink %s", e.token.Sinks[0].Name())
		}
		if err != nil {
			return Verdict{}, refused(sink, err)
		}
		want, _ := e.record.shouldHold(sink.Name())
		differs = differs || stored.Digest != want.Digest
		held[sink.Name()] = stored
	}
	if !differs && !e.record.Outside.IsZero() {
		return Verdict{}, fmt.Errorf("%w: the sinks of %s still hold the secret from before the rotation by others: write theirs to the sinks first, or rotatord rotate %s",
			ErrUnfit, e.token.Name, e.token.Name)
	}
	return Verdict{Resolved: true, Reason: ReasonOperatorAcceptSinks}, e.become(ctx, e.record.taken(e.token, held, e.now().UTC()))
}

// acceptable returns nil if a sink holds a whole secret of the service token.
func (e *entry) acceptable(ctx context.Context, sink Sink, now Stored) error {
	known := false
	for _, facts := range e.record.ServiceTokens() {
		known = known || facts.ClientID == "" || facts.ClientID == now.ClientID
	}
	switch {
	case !now.Exists || now.Digest == "":
		return errors.New("holds no secret")
	case !known:
		return fmt.Errorf("holds a secret for another client ID (%q)", now.ClientID)
	}
	return wholeIn(ctx, sink, now.Digest)
}

// wholeIn returns nil if the secret of that digest is a whole one in a sink, or if the sink cannot be read back.
func wholeIn(ctx context.Context, sink Sink, digest secret.Digest) error {
	c, can, err := readSink(ctx, sink)
	switch {
	case !can:
		return nil
	case err != nil:
		return fmt.Errorf("could not be read (%w)", err)
	case c.ClientSecret.Digest() != digest, secret.Damaged(c.ClientSecret):
		return errors.New("does not hold a whole secret")
	}
	return nil
}

// because returns why a rotation does not continue; empty if nothing has failed.
func because(r Record) string {
	if r.LastError == "" || r.Failures == 0 {
		return ""
	}
	return ": " + r.LastError
}

// drop gives up a sealed secret if every sink holds another whole secret of the service token, or if the
// service token is gone. Otherwise drop refuses, because ours may be the only secret that works.
func (e *entry) drop(ctx context.Context) (Verdict, error) {
	verdict := Verdict{Resolved: true, NotCarriedOut: true, Reason: ReasonOperatorDrop}
	gone, seen, err := e.record.Work.strategy().gone(ctx, e)
	if err != nil {
		return Verdict{}, fmt.Errorf("%w: Cloudflare could not be asked whether the new secret of %s is still needed: %w. Try again when it can", ErrUnfit, e.token.Name, err)
	}
	if gone {
		e.observe(e.record.overtaken(Overtaken{Since: e.now().UTC(), Gone: true}))
		return verdict, e.abandon(ctx, verdict, seen, true)
	}
	if e.record.Work.Overtaken == nil {
		return Verdict{}, fmt.Errorf("%w: the new secret of %s waits for its sinks%s, and nothing shows that another one took its place, so it is not given up. "+
			"Mend the sink, or configure another one and reload: rotatord status %s", ErrUnfit, e.token.Name, because(e.record), e.token.Name)
	}
	for _, sink := range e.token.Sinks {
		if err := e.record.Work.isReplacedIn(ctx, sink); err != nil {
			return Verdict{}, fmt.Errorf("%w: sink %s %w, so the new secret of %s is not given up: rotatord resolve %s --deliver delivers it, --rotate-now rotates again",
				ErrUnfit, sink.Name(), err, e.token.Name, e.token.Name)
		}
	}
	return verdict, e.abandon(ctx, verdict, seen, true)
}

// isReplacedIn returns nil if a sink holds a whole secret of the service token that is neither ours nor
// the one from before the rotation.
func (w *Work) isReplacedIn(ctx context.Context, sink Sink) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	now, err := sink.Preflight(ctx)
	if err != nil {
		return fmt.Errorf("could not be read (%w)", err)
	}
	before, known := w.BeforeSink[sink.Name()]
	switch {
	case !now.Exists || now.Digest == "":
		return errors.New("holds no secret")
	case now.Digest == w.Digest:
		return errors.New("holds the new secret already, and the rotation ends by itself")
	case known && now.Digest == before.Digest:
		return errors.New("still holds the secret from before the rotation")
	case w.After.ClientID != "" && now.ClientID != w.After.ClientID && now.ClientID != w.Before.ClientID:
		return fmt.Errorf("holds a secret for another client ID (%q)", now.ClientID)
	}
	return wholeIn(ctx, sink, now.Digest)
}

// dropDoubt ends a doubt about a service token that is gone. Nothing of it is left to protect, and the
// entry in the configuration can name another service token.
func (e *entry) dropDoubt(ctx context.Context) (Verdict, error) {
	name, doubt, id, s := e.token.Name, e.record.Doubt, e.record.Work.RotationID, e.record.Work.strategy()
	refused := func(why string) error {
		return fmt.Errorf("%w: %s. A doubt is only dropped if its service token is gone at Cloudflare: rotatord resolve %s says what else can be decided", ErrUnfit, why, name)
	}
	if s.traits().creates {
		return Verdict{}, refused("the doubt of " + name + " is about a service token that was to be created, and ends by itself")
	}
	gone, _, err := s.gone(ctx, e)
	if err != nil {
		return Verdict{}, refused(fmt.Sprintf("Cloudflare could not be asked for the service token of %s: %v", name, err))
	}
	if !gone {
		return Verdict{}, refused("Cloudflare still has the service token of " + name)
	}
	verdict := Verdict{Resolved: true, NotCarriedOut: true, Reason: ReasonOperatorDrop}
	e.observe(e.record.overtaken(Overtaken{Since: e.now().UTC(), Gone: true}))
	e.noteVerdict(verdict)
	if err := e.abandon(ctx, verdict, TokenFacts{}, true); err != nil {
		return Verdict{}, err
	}
	e.tell(event.Resolution{RotationID: id, Reason: verdict.Reason, After: e.now().Sub(doubt.Since)})
	return verdict, nil
}
