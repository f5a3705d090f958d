// Package rotation gives a service token a fresh client secret without ever losing
// one.
//
// Cloudflare invents the secret, shows it once and revokes the old one. Between that
// answer and a confirmed write to every sink the only copy in the world is in this
// process, so the protocol in this file makes each step durable before it takes the
// next, and recovery after a crash runs the very same code:
//
//	due ── claim ── preflight ── intent ── ROTATE ── sealed ── stored ── verified ── done
//
// A service token that is made, or replaced by a new one, goes the same way (make.go).
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
	"sync"
	"time"

	"rotatord/internal/failpoint"
	"rotatord/internal/secret"
)

// How long each step may take. Rotate and store go on after the caller's context has
// ended, so that a rotation in hand is finished and not cut; these bounds are what then
// ends them. A daemon that stops must wait for rotateTimeout, or it leaves a doubt; it
// need not wait for a store, since what is sealed is safe.
const (
	claimTime     = 2 * time.Minute // no rotate request leaves later than this after the claim
	rotateTimeout = 20 * time.Second
	storeTimeout  = 20 * time.Second
	minTimeLeft   = 5 * time.Second // before the claim's deadline, to send a request at all
	movedWithin   = time.Minute     // of the intent, for updated_at to have moved with a rotation
)

// Options are what a Rotator needs. All fields but Pauses, Observer and Now are required.
type Options struct {
	Ledger   Ledger
	Pending  Pending
	Pauses   Pauses           // nil: what is paused is forgotten at a restart
	Observer Observer         // nil: nobody is told
	Now      func() time.Time // nil: time.Now
	Owner    string           // names this process in claims
	Started  time.Time        // slots due before it are caught up, not on time
}

// Rotator runs the protocol. It is safe for concurrent use; calls for one token wait for
// each other.
type Rotator struct {
	ledger   Ledger
	pending  Pending
	observer Observer
	now      func() time.Time
	owner    string
	started  time.Time

	mu    sync.Mutex
	locks map[string]*sync.Mutex // by token
	held  map[string]heldAnswer  // answers whose seal failed, by rotation ID
	kept  map[string]time.Time   // until when old secrets were extended, by rotation ID

	store   Pauses
	pausing sync.Mutex // held while they are saved
	pauseMu sync.Mutex
	pauses  map[string]Pause // by token; never changed, but replaced
}

// New returns a Rotator.
func New(o Options) *Rotator {
	r := &Rotator{
		ledger: o.Ledger, pending: o.Pending, observer: o.Observer, now: o.Now,
		owner: o.Owner, started: o.Started,
		locks: make(map[string]*sync.Mutex), held: make(map[string]heldAnswer), kept: make(map[string]time.Time), store: o.Pauses,
	}
	if r.store == nil {
		r.store = noPauses{}
	}
	if r.now == nil {
		r.now = time.Now
	}
	return r
}

// Advance works on a token that is due: it continues the rotation in hand or begins the
// one that the schedule asks for, and goes as far as it can. It returns the token's
// record as it then stands; [NextDue] of it says when to call again. The error is nil
// if a rotation was completed, or if nothing was due.
//
// If ctx ends before the rotate request is sent, nothing is sent. After it, the
// rotation in hand is finished all the same, within bounds.
func (r *Rotator) Advance(ctx context.Context, t Token) (Record, error) {
	defer r.lock(t.Name)()
	record, err := r.load(ctx, t)
	if err != nil {
		if r.observer != nil {
			r.observer.Observe(Stuck{Token: t.Name, Err: err})
		}
		return record, err
	}
	a := &attempt{Rotator: r, token: t, record: record, began: r.now()}
	if withoutBackOff(ctx) && record.Unfinished() {
		a.record.NotBefore, record.NotBefore = time.Time{}, time.Time{}
	}
	if any, err := a.chores(ctx); any { // what else is due is found to be so again
		return a.record, err
	}
	if due := r.Due(t, record); due.Unscheduled || due.At.After(a.began) {
		return record, nil
	}
	if err = a.run(ctx); err != nil && !a.reported && ctx.Err() == nil {
		a.tell(Stuck{Token: t.Name, Err: err})
	}
	if err != nil && ctx.Err() == nil {
		a.keepLostAlive(ctx)
	}
	return a.record, err
}

// attempt is one run through the protocol for one token.
type attempt struct {
	*Rotator
	token  Token
	record Record
	began  time.Time
	due    Due // what is served; zero while a rotation of an earlier attempt is continued

	manual   bool // an operator asked for it, once
	claimed  bool // this attempt made the claim that it works under
	reported bool // an Attempted was told

	made *TokenFacts // in doubt about a service token that was to be made: it, if it is there

	overtaker  *Overtaken // what this attempt found in the sinks in the place of our secret
	seen       TokenFacts // what Cloudflare showed then
	sinkFailed bool       // another sink failed
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
			before := a.record
			if a.nowFrozen() { // it will be due anew when that is over
				return a.saveOr(ctx, before)
			}
			if missed, any := a.giveUpMissed(); !any {
				err = a.claim(ctx)
			} else if err = a.saveOr(ctx, before); err == nil {
				a.tellMissed(missed)
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

// claim takes the slot, and with it those that passed before it and were not served.
// The ledger's check-and-set lets only one claimant win.
func (a *attempt) claim(ctx context.Context) error {
	now := a.now().UTC()
	passed := a.passed(now)
	work := &Work{
		RotationID: rand.Text(), Owner: a.owner, Trigger: a.trigger(passed), Slot: passed.LastDue.Slot.UTC(),
		Missed: max(passed.DueCount-1, 0), Frozen: passed.DeferredCount,
		Began: now, Deadline: now.Add(claimTime), Grace: Grace(a.grace()),
	}
	if work.CreateName = a.makes(work.RotationID); work.CreateName == "" {
		work.TokenID = a.token.ServiceToken(a.record)
	}
	switch {
	case a.manual, a.record.Order != nil, a.due.Reason == DueCreate, passed.DueCount == 0 && a.record.owed():
		work.Slot = now.Truncate(time.Second)
	case passed.DueCount == 0: // the wall clock went back since the slot was found due
		work.Slot = a.due.Slot.UTC()
	}
	if passed.DueCount > 0 && !passed.LastDueOpen() { // made up for after its window
		work.Missed++
	}
	if passed.SkippedCount > 0 && !work.Slot.Before(passed.LastSkipped) {
		work.Frozen += passed.SkippedCount
	}
	a.record.Work = work
	err := a.phase(PhaseClaim, func() error { return a.save(ctx, StepClaimed) })
	if err != nil {
		a.record.Work = nil
		err = fmt.Errorf("claiming %s: %w", a.token.Name, err)
		a.report(work, ResultSkipped, "claim", err)
		return err
	}
	a.claimed = true
	return nil
}

// rotate goes from the claim over preflight and intent to the one request, and seals
// what comes back.
func (a *attempt) rotate(ctx context.Context) error {
	if !a.claimed {
		// The claim is left over from a process that died before its intent: no request
		// left. Give it up and look again at what is due.
		return a.release(ctx)
	}
	if err := a.phase(PhasePreflight, func() error { return a.preflight(ctx) }); err != nil {
		if ctx.Err() != nil { // the daemon stops: nobody's failure
			return errors.Join(ctx.Err(), a.release(ctx))
		}
		if errors.Is(err, errAdopted) {
			return a.adopt(ctx)
		}
		return a.giveUp(ctx, ResultSkipped, "preflight", err)
	}
	if err := a.phase(PhaseIntent, func() error { return a.intent(ctx) }); err != nil {
		return a.giveUp(ctx, ResultSkipped, "intent", err)
	}

	// From here on the caller's context no longer counts: an answer that nobody waits
	// for would be a secret lost.
	ctx = context.WithoutCancel(ctx)
	work := a.record.Work
	var issued Issued
	err := a.phase(PhaseRotate, func() (err error) {
		deadline := earlier(work.Deadline, a.now().Add(failpoint.Bound("rotate.timeout", rotateTimeout)))
		bounded, cancel := context.WithTimeout(ctx, deadline.Sub(a.now()))
		defer cancel()
		issued, err = a.request(bounded)
		return err
	})
	if err != nil {
		if class := classOf(err); class != Unknown {
			return a.giveUp(ctx, ResultFailed, class.reason(), err)
		}
		return a.doubt(ctx, ReasonOutcomeUnknown, false, err)
	}
	return a.seal(ctx, issued)
}

// preflight proves that the answer could be kept and delivered, before it is asked for.
func (a *attempt) preflight(ctx context.Context) error {
	work := a.record.Work
	bound := max(work.Deadline.Sub(a.now())-minTimeLeft, 0)
	if lost := a.record.Lost; lost != nil { // a peer that hangs must not keep the old secret from being extended
		bound = min(bound, storeTimeout, max(time.Duration(lost.Grace)/4, minTimeLeft))
	}
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	work.BeforeSink = make(map[string]Stored, len(a.token.Sinks))
	for _, sink := range a.token.Sinks {
		stored, err := sink.Preflight(ctx)
		if err != nil {
			return fmt.Errorf("sink %s: %w", sink.Name(), err)
		}
		work.BeforeSink[sink.Name()] = stored
		a.noteDeletion(sink.Name(), stored)
		if err := a.requireLasting(sink.Name(), stored); err != nil {
			return fmt.Errorf("sink %s: %w", sink.Name(), err)
		}
	}
	if a.token.Paired() {
		if err := a.chooseSpare(ctx); err != nil {
			return err
		}
	}
	if work.CreateName == "" {
		facts, err := a.knownFacts(ctx, work.TokenID)
		if err != nil {
			return err
		}
		work.Before = *facts
	} else if err := a.mayMake(ctx); err != nil {
		return err
	}
	if err := a.pending.Reserve(ctx, a.pendingKey()); err != nil {
		return fmt.Errorf("the journal: %w", err)
	}
	// Last, since it may wait for the request budget.
	if err := a.token.Issuer.Ready(ctx); err != nil && !(errors.Is(err, ErrClock) && a.unscheduled()) {
		return err
	}
	if left := work.Deadline.Sub(a.now()); left < minTimeLeft {
		return fmt.Errorf("only %s left before the claim's deadline", left)
	}
	return ctx.Err()
}

// intent makes durable that a request may leave from now on.
func (a *attempt) intent(ctx context.Context) error {
	a.record.Work.IntentAt = a.now().UTC()
	return a.save(ctx, StepIntent)
}

// seal is the commit point: once it has succeeded, the secret cannot be lost with the
// process. Whatever holds a secret is sealed first and judged afterwards.
func (a *attempt) seal(ctx context.Context, issued Issued) error {
	work := a.record.Work
	if issued.ClientSecret.IsZero() {
		return a.doubt(ctx, ReasonAnswerInvalid, false, errors.New("the answer has no client secret"))
	}
	a.hold(a.pendingKey(), issued)
	err := a.phase(PhaseSeal, func() error {
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
		return err
	})
	if err != nil {
		a.tell(SealFailed{Token: a.token.Name, RotationID: work.RotationID, Err: err})
		return a.deliverUnsealed(ctx, issued, err)
	}
	a.letGo(work.RotationID)
	return a.sealed(ctx, issued)
}

func (a *attempt) pendingKey() PendingKey {
	return PendingKey{RotationID: a.record.Work.RotationID, Token: a.token.Name, TokenID: a.record.Work.TokenID}
}

// sealed records what was sealed. The sealed answer alone decides that this step was
// reached; the ledger follows it.
func (a *attempt) sealed(ctx context.Context, issued Issued) error {
	work := a.record.Work
	work.SealedAt = a.now().UTC()
	work.Digest = issued.ClientSecret.Digest()
	work.After = issued.Facts
	work.GraceEndsAt = later(work.GraceEndsAt, issued.GraceEndsAt.UTC())
	if work.CreateName != "" {
		work.TokenID = issued.Facts.ID
	}
	if work.replayed(issued) {
		return a.doubt(ctx, ReasonOutcomeUnknown, false, errors.New("the answer shows the secret that a sink holds already: something between here and Cloudflare repeats an earlier answer"))
	}
	if reason, err := validate(work.Before, issued); err != nil {
		return a.doubt(ctx, reason, true, err)
	}
	if err := a.save(ctx, StepSealed); err != nil {
		// What is sealed is safe, and consumers need it whether or not the ledger can be
		// written: the next attempt finds it sealed and delivered.
		return a.stall(ctx, "ledger", errors.Join(err, a.deliver(ctx, issued.Credential)))
	}
	return nil
}

// replayed reports whether an answer shows the secret that a sink held before the request. Each
// request brings a new one, so that one is not the answer to it. The sealed copy is of no use.
func (w *Work) replayed(issued Issued) bool {
	for _, stored := range w.BeforeSink {
		if stored.Digest != "" && stored.Digest == issued.ClientSecret.Digest() {
			return true
		}
	}
	return false
}

// validate judges an answer. What is around the secret was judged by the issuer: its objection
// counts last, since the other reasons say more.
func validate(before TokenFacts, issued Issued) (reason string, err error) {
	switch {
	case issued.ClientID == "" && issued.Objection != "":
		return ReasonAnswerInvalid, fmt.Errorf("the answer has no client ID: %s", issued.Objection)
	case issued.ClientID == "":
		return ReasonAnswerInvalid, errors.New("the answer has no client ID")
	case before.ClientID != "" && issued.ClientID != before.ClientID:
		return ReasonAnswerInvalid, fmt.Errorf("the answer is for client ID %q, not %q", issued.ClientID, before.ClientID)
	case issued.Facts.ID != "" && issued.Facts.ID != before.ID && before.ID != "":
		return ReasonAnswerInvalid, fmt.Errorf("the answer is for token %q, not %q", issued.Facts.ID, before.ID)
	case secret.Damaged(issued.ClientSecret):
		return ReasonAnswerInvalid, errors.New("the answer's client secret is a damaged form of a known format")
	case issued.Objection != "":
		return ReasonOddAnswer, fmt.Errorf("the answer shows a client secret, and %s", issued.Objection)
	case !secret.WellFormed(issued.ClientSecret):
		return ReasonUnfamiliarSecret, errors.New("the answer's client secret has neither of the two known formats")
	}
	return "", nil
}

// recoverIntent continues a rotation whose request may have left. If the answer was
// sealed it goes on; otherwise nobody knows, and the token is in doubt.
func (a *attempt) recoverIntent(ctx context.Context) error {
	id := a.record.Work.RotationID
	if issued, ok := a.isHeld(id); ok {
		return a.seal(ctx, issued)
	}
	issued, ok, err := a.pending.Open(ctx, id)
	switch {
	case errors.Is(err, ErrUnreadable):
		return a.doubt(ctx, ReasonSealedLost, true, err)
	case err != nil:
		return a.stall(ctx, "journal", err)
	case ok:
		return a.sealed(ctx, issued)
	}
	if issued, ok, err := a.readBack(ctx); err != nil {
		a.keepOldAlive(ctx)
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
	issued, ok, err := a.pending.Open(ctx, a.record.Work.RotationID)
	switch {
	case errors.Is(err, ErrUnreadable):
		return a.doubt(ctx, ReasonSealedLost, true, err)
	case err != nil:
		a.keepOldAlive(ctx)
		return a.stall(ctx, "journal", err)
	case !ok:
		return a.doubt(ctx, ReasonSealedLost, false, errors.New("the sealed secret is not in the state directory any more"))
	}
	if err := a.identifyMade(ctx, issued); err != nil {
		return a.stall(ctx, "identify", err)
	}
	a.overtaker, a.sinkFailed = nil, false
	if err := a.phase(PhaseStore, func() error { return a.deliver(ctx, issued.Credential) }); err != nil {
		if a.overtaker != nil {
			return a.overtaken(ctx, issued, err)
		}
		a.keepOldAlive(ctx)
		return a.stall(ctx, "store", err)
	}
	a.keepOldAlive(ctx) // who reads a secret that was delivered late has a whole grace for it; if that fails, what is left
	a.record.Work.Overtaken = nil
	if err := a.save(ctx, StepStored); err != nil {
		return a.stall(ctx, "ledger", err)
	}
	return nil
}

// deliver writes to every sink and tries them all, even if one fails.
func (a *attempt) deliver(ctx context.Context, c Credential) error {
	var failed []error
	for _, sink := range a.token.Sinks {
		err := a.deliverTo(ctx, sink, c)
		if !errors.Is(err, errOvertaken) { // then nothing was written, and nothing is wrong with the sink
			a.tell(SinkWritten{Token: a.token.Name, Sink: sink.Name(), Err: err})
			a.sinkFailed = a.sinkFailed || err != nil
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("sink %s: %w", sink.Name(), err))
		}
	}
	return errors.Join(failed...)
}

func (a *attempt) deliverTo(ctx context.Context, sink Sink, c Credential) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	base, fresh := a.record.Work.BeforeSink[sink.Name()]
	// In the attempt that did the preflight its reading is still good, and the sink merges
	// what was written since. A later attempt looks again.
	if !fresh || !a.claimed {
		now, err := lookAt(ctx, sink)
		if err != nil {
			return err
		}
		if fresh && now.Digest != base.Digest && now.Digest != c.ClientSecret.Digest() {
			if err := a.notOvertaken(ctx, sink.Name(), now); err != nil {
				return err
			}
		}
		base = now
	}
	stored, err := sink.Store(ctx, c, base)
	if err != nil {
		return err
	}
	if stored.Digest != c.ClientSecret.Digest() || stored.ClientID != c.ClientID {
		return errors.New("the sink confirmed something else than what was delivered")
	}
	a.noteDeletion(sink.Name(), stored)
	a.warnOfDeletion(sink.Name(), stored)
	return nil
}

// deliverUnsealed is the way out when the disk fails in the one moment in which it must
// not: the answer is delivered from memory, since that is the only other safe place,
// and stays in memory so that the next attempt can seal it.
func (a *attempt) deliverUnsealed(ctx context.Context, issued Issued, sealErr error) error {
	err := fmt.Errorf("sealing the answer: %w", sealErr)
	if _, invalid := validate(a.record.Work.Before, issued); invalid != nil || a.record.Work.replayed(issued) {
		return a.stall(ctx, "seal", errors.Join(err, invalid))
	}
	a.noteDelivery(ctx, issued)
	if undelivered := a.deliver(ctx, issued.Credential); undelivered != nil {
		a.keepOldAlive(ctx)
		err = errors.Join(err, undelivered)
	} else {
		a.record.Work.Delivered = true
	}
	return a.stall(ctx, "seal", err)
}

// commit ends the rotation. The sealed secret is erased only now that the ledger says
// that every sink has confirmed it.
func (a *attempt) commit(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	before, work := a.record, a.record.Work
	var healed []string
	err := a.phase(PhaseCommit, func() error {
		if err := errors.Join(a.erase(ctx, work.RotationID), a.eraseAbandoned(ctx)); err != nil {
			return err
		}
		switch now := a.now().UTC(); {
		case !work.Slot.After(a.record.Anchor):
		case work.Slot.Sub(now) <= maxAnchorAhead:
			a.record.Anchor = work.Slot
		default: // the clock was put back by days since the claim: what was consumed stays so
			healed = append(healed, "a slot was served at "+work.Slot.Format(time.RFC3339))
			a.record.Anchor = later(a.record.Anchor, now.Truncate(time.Second))
		}
		a.record.Last = &Done{
			RotationID: work.RotationID, Trigger: work.Trigger, Slot: work.Slot,
			At: a.now().UTC(), Digest: work.Digest, GraceEndsAt: work.GraceEndsAt, AskedAt: work.IntentAt,
			Unverified: work.Verification.unproven(),
		}
		renewed := a.record.factsOf(work.TokenID)
		switch {
		case work.Spare:
			a.switchToSpare()
		case work.CreateName != "":
			a.takePlace()
		}
		a.record.Facts = work.Before.updatedBy(work.After)
		if work.CreateName != "" { // whose answer shows all that there is
			a.record.Facts = work.After
			a.record.Facts.ID = work.TokenID
		}
		if a.record.Renewal.At.After(work.IntentAt) && renewed.ExpiresAt.After(a.record.Facts.ExpiresAt) { // meanwhile
			a.record.Facts.ExpiresAt, a.record.Facts.Duration = renewed.ExpiresAt, renewed.Duration
		}
		if work.TouchedAt.After(a.record.Facts.UpdatedAt) {
			a.record.Facts.UpdatedAt = work.TouchedAt
		}
		if !work.Before.UpdatedAt.IsZero() && !work.After.UpdatedAt.IsZero() {
			switch {
			case unchanged(work.Before, work.After):
				a.record.StillCount++
			case work.After.UpdatedAt.Sub(work.IntentAt).Abs() < movedWithin:
				// Then, and not at some edit since we last looked.
				a.record.MovedCount++
			}
		}
		a.record.Work, a.record.Failures, a.record.LastError, a.record.LastCause, a.record.NextTrigger = nil, 0, "", "", ""
		a.record.NotBefore, a.record.CatchUpAt, a.record.OldDiesBy, a.record.Outside = time.Time{}, time.Time{}, time.Time{}, time.Time{}
		a.record.Lost = nil
		a.carriedOut(work)
		record, what := heal(a.token, a.record, a.now()) // the clock may have been put back since the claim
		a.record, healed = record, append(healed, what...)
		return a.save(ctx, StepIdle)
	})
	if err != nil {
		a.record = before
		return a.stall(ctx, "commit", err)
	}
	a.dropKept(work.RotationID)
	if before.Lost != nil {
		a.dropKept(before.Lost.RotationID)
	}
	if len(healed) > 0 {
		a.tell(ClockHealed{Token: a.token.Name, What: healed})
	}
	a.tellMissed(SlotsMissed{Token: a.token.Name, Count: work.Missed, Frozen: work.Frozen})
	a.report(work, ResultSuccess, "", nil)
	return nil
}

func classOf(err error) Class {
	if e, ok := errors.AsType[*IssuerError](err); ok {
		return e.Class
	}
	return Unknown
}

func (c Class) reason() string {
	switch c {
	case NotCarriedOut:
		return "not_carried_out"
	case Refused:
		return "refused"
	case Throttled:
		return "throttled"
	default:
		return ReasonOutcomeUnknown
	}
}
