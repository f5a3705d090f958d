// Package rotation gives a service token a new client secret and never loses one.
//
// Cloudflare invents the secret, shows it once and revokes the old one. Between that
// answer and a confirmed write to every sink the only copy in the world is in this
// process, so the protocol in this file makes each step durable before it takes the
// next, and recovery after a crash runs the same code:
//
//	due ── claim ── preflight ── intent ── ROTATE ── sealed ── stored ── verified ── done
//
// There are three ways to rotate: a new secret for the service token, a new secret for the spare of a
// pair, and a new service token. Their differences are in the strategies (strategy.go).
//
// Guarantees, whatever fails and wherever the process dies:
//
//   - A secret that was received is sealed on disk before anything else is done with
//     it, and erased only after every sink has confirmed it by read-back.
//   - No rotate request leaves before sinks, journal and claim are proven writable.
//   - One rotation sends one request. It is repeated only when the failure proves that
//     it was not carried out.
//   - An unknown outcome makes the token "in doubt". It is resolved by looking at the
//     world ([Judge]). It is not rotated again while the old secret may still work, until
//     half of that secret's grace is left or three graces are over.
//
// The package reaches the world through the ports in ports.go and imports no adapter.
package rotation

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/failpoint"

	"rotatord/internal/moment"
)

// How long each step may take. Rotate and store go on after the caller's context has ended,
// so that a rotation in progress is finished and not cut; these bounds end them. A daemon that
// stops must wait for rotateTimeout, or it leaves a doubt. It need not wait for a store, since
// a sealed answer is safe.
const (
	claimTime     = 2 * time.Minute // no rotate request leaves later than this after the claim
	rotateTimeout = 20 * time.Second
	storeTimeout  = 20 * time.Second
	minStoreTime  = time.Second     // a store gets that long, however little is left of the grace
	minTimeLeft   = 5 * time.Second // before the claim's deadline, to send a request at all
	movedWithin   = time.Minute     // of the intent, for updated_at to have moved with a rotation
)

// Advance works on a token that is due: it continues the rotation in progress or begins the one that the
// schedule asks for, and goes as far as it can. It returns the token's record after that; [NextDue] of
// that record says when to call again. The error is nil if a rotation was completed, or if nothing was
// due.
//
// If ctx ends before the rotate request is sent, nothing is sent. After that the rotation in
// progress is still finished, within bounds.
func (r *Rotator) Advance(ctx context.Context, t Token) (Record, error) {
	e, err := r.open(ctx, t)
	defer e.close()
	if err != nil {
		if !errors.Is(err, ErrHeld) { // then another replica is doing it
			e.tell(StuckOn(err))
		}
		e.extendUnread(ctx, err)
		return e.record, err
	}
	e.recall()
	began := r.now()
	if withoutBackOff(ctx) && e.record.Unfinished() {
		e.observe(e.record.withoutBackOff())
	}
	if did, err := e.runChores(ctx); did { // the caller asks again what is due
		return e.record, err
	}
	if due := r.Due(t, e.record); due.Unscheduled || due.At.After(began) {
		return e.record, nil
	}
	a := &attempt{entry: e, began: began, order: e.record.Order}
	if err = a.takeOver(ctx); err == nil {
		err = a.run(ctx)
	} else {
		a.extendUnread(ctx, err)
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, errOutpaced) {
		if !a.reported {
			e.tell(StuckOn(err))
		}
		a.extendLost(ctx)
	}
	return a.record, err
}

// takeOver takes the hold on a rotation in progress, with several replicas. One of which no request has left needs
// none: it starts over with another claim.
func (a *attempt) takeOver(ctx context.Context) error {
	if a.replica == nil || a.record.Step == StepIdle || a.record.Step == StepClaimed {
		return nil
	}
	return a.take(ctx)
}

// attempt is one run through the protocol for one token.
type attempt struct {
	*entry
	began time.Time
	order *Order // as it was when the attempt began
	due   Due    // what is served; zero while a rotation of an earlier attempt is continued

	manual   bool // an operator asked for it, once
	claimed  bool // this attempt made the claim that it works under
	reported bool // an event.RotationEnded was told

	fromDisk receivedAnswer // the answer that this attempt has sealed last, as the disk returned it after that
}

// run goes from step to step until the rotation is done or a step fails. Each step
// leaves the record, in memory and in the ledger, at the step that it reached.
func (a *attempt) run(ctx context.Context) error {
	for {
		var err error
		switch a.record.Step {
		case StepIdle:
			if a.due = a.Due(a.token, a.record); a.due.Unscheduled || a.due.At.After(a.now()) {
				return nil
			}
			if now := a.now(); a.record.inFreeze(a.token, now) {
				return a.become(ctx, a.record.waitingForThaw(now.UTC()))
			} else if next, missed, changed := a.record.missedGivenUp(a.token, now); !changed {
				err = a.claim(ctx)
			} else if err = a.become(ctx, next); err == nil {
				a.tellMissed(a.token.Name, missed)
			}
		case StepClaimed:
			err = a.rotate(ctx)
		case StepIntent:
			err = a.recoverIntent(ctx)
		case StepSealed:
			err = a.store(ctx)
		case StepStored:
			if verified, err := a.verify(ctx); err != nil || !verified {
				return err
			}
			return a.commit(ctx)
		case StepInDoubt:
			err = a.resolve(ctx)
		default:
			err = fmt.Errorf("the ledger has the unknown step %q for %s: was it written by a newer version?", a.record.Step, a.token.Name)
		}
		if err != nil {
			return err
		}
	}
}

// claim takes the slot, and with it the earlier slots that were not served. The ledger's check-and-set
// lets only one claimant win.
func (a *attempt) claim(ctx context.Context) error {
	now := a.now().UTC()
	passed := a.record.passed(a.token, now)
	slot, missed, frozen := a.record.serves(a.due, passed, a.manual, now)
	work := strategyFor(a.token, a.record).plan(a.token, a.record, Work{
		RotationID: rand.Text(), Owner: a.owner, Replica: a.replicaName(), Trigger: a.trigger(passed), Slot: slot, Missed: missed, Frozen: frozen,
		Began: now, Deadline: now.Add(a.claimTime()), Grace: Grace(a.record.grace(a.token)),
	})
	a.working = true
	if err := a.phase(event.PhaseClaim, func() error { return a.outpaced(a.become(ctx, a.record.claimed(work))) }); err != nil {
		if errors.Is(err, errOutpaced) {
			return err
		}
		err = fmt.Errorf("claiming %s: %w", a.token.Name, err)
		a.report(&work, event.ResultSkipped, "claim", err)
		return err
	}
	a.claimed = true
	return nil
}

// rotate goes from the claim over preflight and intent to the one request, and seals
// the answer.
func (a *attempt) rotate(ctx context.Context) error {
	if !a.claimed {
		// The claim is left over from a process that died before its intent: no request
		// left. Give it up and look again at what is due.
		before := a.record
		if err := a.outpaced(a.release(ctx)); err != nil {
			return err
		}
		a.tellTakenOver(before)
		return nil
	}
	if err := a.phase(event.PhasePreflight, func() error { return a.preflight(ctx) }); err != nil {
		if ctx.Err() != nil { // the daemon stops, and nothing has failed
			return errors.Join(ctx.Err(), a.release(ctx))
		}
		if errors.Is(err, errAdopted) {
			return a.adopt(ctx)
		}
		return a.giveUp(ctx, event.ResultSkipped, "preflight", err)
	}
	intent := func() error { return a.become(ctx, a.record.intending(a.now().UTC())) }
	if err := a.phase(event.PhaseIntent, intent); err != nil {
		return a.giveUp(ctx, event.ResultSkipped, "intent", err)
	}
	if err := a.timed(event.PhaseRecord, func() error { return a.recordedInTime(ctx) }); err != nil {
		if ctx.Err() != nil { // the daemon stops, and nothing has failed
			a.report(a.record.Work, event.ResultSkipped, "record", ctx.Err())
			return errors.Join(ctx.Err(), a.release(ctx))
		}
		return a.giveUp(ctx, event.ResultSkipped, "record", err)
	}

	// From here on the caller's context no longer counts: if nothing waited for the answer, the
	// secret would be lost.
	ctx = WithSendCheck(context.WithoutCancel(ctx), a.maySend)
	work := a.record.Work
	var issued Issued
	err := a.phase(event.PhaseRotate, func() (err error) {
		if err := a.maySend(); err != nil {
			return &IssuerError{Class: NotCarriedOut, Operation: "rotate", Err: err}
		}
		deadline := a.now().Add(failpoint.Bound("rotate.timeout", rotateTimeout))
		if a.replica == nil { // else the request may leave only until then, but its answer is waited for
			deadline = moment.Min(work.Deadline, deadline)
		}
		bounded, cancel := context.WithTimeout(ctx, deadline.Sub(a.now()))
		defer cancel()
		issued, err = work.strategy().request(bounded, a.entry)
		return err
	})
	if err != nil {
		if class := classOf(err); class != Unknown {
			return a.giveUp(ctx, event.ResultFailed, class.reason(), err)
		}
		return a.doubt(ctx, ReasonOutcomeUnknown, false, err)
	}
	return a.seal(ctx, issued)
}

// preflight proves, before the request, that its answer could be sealed and delivered.
func (a *attempt) preflight(ctx context.Context) error {
	work := a.record.Work
	bound := max(work.Deadline.Sub(a.now())-a.minTimeLeft(), 0)
	if lost := a.record.Lost; lost != nil { // a peer that hangs must not keep the old secret from being extended
		bound = min(bound, storeTimeout, max(time.Duration(lost.Grace)/4, a.minTimeLeft()))
	}
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	if err := a.proveSinks(ctx); err != nil {
		return err
	}
	if err := work.strategy().prepare(ctx, a.entry); err != nil {
		return err
	}
	if err := a.pending.Reserve(ctx, a.pendingKey()); err != nil {
		return fmt.Errorf("the journal: %w", err)
	}
	if err := a.keepRoom(ctx); err != nil {
		return err
	}
	// Last, since it may wait for the request budget.
	if err := a.token.Issuer.Ready(ctx); err != nil && !(errors.Is(err, ErrClock) && work.ignoresClock()) {
		return err
	}
	if left := work.Deadline.Sub(a.now()); left < a.minTimeLeft() {
		return fmt.Errorf("only %s left before the claim's deadline", left)
	}
	return ctx.Err()
}

// proveSinks proves that every sink can be written, and notes what each holds.
func (a *attempt) proveSinks(ctx context.Context) error {
	holds := make(map[string]Stored, len(a.token.Sinks))
	defer func() { a.observe(a.record.beforeRequest(holds)) }()
	for _, sink := range a.token.Sinks {
		stored, err := sink.Preflight(ctx)
		if err != nil {
			return sinkError(sink, err)
		}
		holds[sink.Name()] = stored
		if err := a.requireLasting(stored); err != nil {
			return sinkError(sink, err)
		}
	}
	return nil
}

// seal is the commit point: once it has succeeded, the secret cannot be lost with the
// process. Whatever holds a secret is sealed first and validated afterwards.
func (a *attempt) seal(ctx context.Context, issued Issued) error {
	work := a.record.Work
	if issued.ClientSecret.IsZero() {
		return a.doubt(ctx, ReasonAnswerInvalid, false, errors.New("the answer has no client secret"))
	}
	a.keepUnsealed(a.pendingKey(), issued)
	err := a.phase(event.PhaseSeal, func() error {
		if failpoint.Off("seal") { // a test shows what the seal is for
			return nil
		}
		if err := a.pending.Seal(ctx, a.pendingKey(), issued); err != nil {
			return err
		}
		back, ok, err := a.pending.Open(ctx, work.RotationID)
		if err == nil && (!ok || !back.ClientSecret.Equal(issued.ClientSecret)) {
			err = errors.New("what was sealed does not read back")
		}
		if err == nil {
			a.fromDisk = receivedAnswer{a.pendingKey(), back}
		}
		return err
	})
	if err != nil {
		a.tell(event.SealFailure{RotationID: work.RotationID, Err: err})
		return a.deliverUnsealed(ctx, issued, err)
	}
	a.dropUnsealed(work.RotationID)
	return a.sealed(ctx, issued)
}

// sealed validates what was sealed and records it. Only the sealed answer decides that this step was
// reached; the ledger follows it.
func (a *attempt) sealed(ctx context.Context, issued Issued) error {
	a.observe(a.record.answered(issued, a.now().UTC()))
	work := a.record.Work
	if work.replayed(issued) {
		return a.doubt(ctx, ReasonOutcomeUnknown, false, errors.New("the answer shows the secret that a sink holds already: something between here and Cloudflare repeats an earlier answer"))
	}
	if reason, err := validate(work.Before, issued); err != nil {
		return a.doubt(ctx, reason, true, err)
	}
	if err := a.timed(event.PhaseSealed, func() error { return a.become(ctx, a.record.sealed()) }); err != nil {
		if a.replica != nil && (errors.Is(err, ErrConflict) || a.holdLeft() <= 0) {
			return a.outrun(work, err)
		}
		// What is sealed is safe, and consumers need it whether or not the ledger can be
		// written: the next attempt finds it sealed and delivered.
		return a.stall(ctx, "ledger", errors.Join(err, a.deliver(ctx, issued.Credential).err))
	}
	return nil
}

// recoverIntent continues a rotation whose request may have left. If the answer was sealed it goes on.
// Otherwise it is not known here whether the request was carried out, and the token is in doubt.
func (a *attempt) recoverIntent(ctx context.Context) error {
	id := a.record.Work.RotationID
	if issued, ok := a.unsealedAnswer(id); ok {
		return a.seal(ctx, issued)
	}
	issued, ok, err := a.openAnswer(ctx, id)
	switch {
	case errors.Is(err, ErrUnreadable):
		return a.doubt(ctx, ReasonSealedLost, true, err)
	case err != nil:
		return a.stall(ctx, "journal", err)
	case ok:
		return a.sealed(ctx, issued)
	}
	if issued, ok, err := a.readBack(ctx); err != nil {
		a.extendOld(ctx)
		return a.stall(ctx, "sink", err)
	} else if ok {
		return a.seal(ctx, issued)
	}
	return a.doubt(ctx, ReasonInterrupted, false, errors.New("the process ended before an answer was kept"))
}

// store delivers the sealed secret to every sink, for as many attempts as it takes: a
// failure leaves the record where it is, and the next attempt begins here.
func (a *attempt) store(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	issued, ok, err := a.fromDisk.issued, true, error(nil)
	if id := a.record.Work.RotationID; a.fromDisk.key.RotationID != id { // else it was read back when it was sealed
		issued, ok, err = a.openAnswer(ctx, id)
	}
	switch {
	case errors.Is(err, ErrUnreadable):
		return a.doubt(ctx, ReasonSealedLost, true, err)
	case err != nil:
		a.extendOld(ctx)
		return a.stall(ctx, "journal", err)
	case !ok && a.isElsewhere():
		if found, ok, err := a.readBack(ctx); err != nil {
			a.extendOld(ctx)
			return a.stall(ctx, "sink", err)
		} else if ok { // the other replica has delivered it to a sink, and did not come further
			return a.seal(ctx, found)
		}
		return a.doubt(ctx, ReasonSealedElsewhere, false, fmt.Errorf("the sealed secret is on the disk of replica %s, which has left no copy that this replica can open", a.record.Work.Replica))
	case !ok:
		return a.doubt(ctx, ReasonSealedLost, false, errors.New("the sealed secret is not in the state directory any more"))
	}
	if err := a.record.Work.strategy().identify(ctx, a.entry, issued); err != nil {
		return a.stall(ctx, "identify", err)
	}
	var d round
	if err := a.phase(event.PhaseStore, func() error { d = a.deliver(ctx, issued.Credential); return d.err }); err != nil {
		if d.overtaken != nil {
			return a.overtaken(ctx, issued, d)
		}
		a.extendOld(ctx)
		a.copyAnswer(ctx)
		return a.stall(ctx, "store", err)
	}
	a.extendOld(ctx) // consumers get a whole grace to read a secret that was delivered late; if this fails, they have what is left
	a.observe(a.record.notOvertaken())
	if err := a.timed(event.PhaseStored, func() error { return a.become(ctx, a.record.stored()) }); err != nil {
		return a.stall(ctx, "ledger", err)
	}
	return nil
}

// commit ends the rotation. The sealed secret is erased only now that the ledger says
// that every sink has confirmed it.
func (a *attempt) commit(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	before, work := a.record, a.record.Work
	var healed []string
	err := a.phase(event.PhaseCommit, func() error {
		var failed []error
		for _, id := range append([]string{work.RotationID}, before.Abandoned...) {
			failed = append(failed, a.erase(ctx, id))
			if a.copies != nil && (work.Copied || id != work.RotationID) {
				failed = append(failed, a.copies.Erase(ctx, id))
			}
		}
		if err := errors.Join(failed...); err != nil {
			return err
		}
		next, what := before.done(a.token, a.now().UTC())
		healed = what
		return a.become(ctx, next)
	})
	if err != nil {
		return a.stall(ctx, "commit", err)
	}
	a.dropExtended(work.RotationID)
	if before.Lost != nil {
		a.dropExtended(before.Lost.RotationID)
	}
	a.tellHealed(a.token, healed)
	a.tellMissed(a.token.Name, event.Missed{Count: work.Missed, Frozen: work.Frozen})
	a.report(work, event.ResultSuccess, "", nil)
	return nil
}
