package rotation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"rotatord/internal/secret"
)

// This file holds what becomes of a sealed secret that another one has overtaken. While it waited
// for a sink, another person or program rotated the same service token and put its secret there.
// Ours is not delivered over it: theirs is the current secret, and ours is at best the previous one.
// The state is durable and has these exits:
//
//   - By itself: the sink holds ours again, or what it held before; or, where verify is configured,
//     requests with both secrets show which of them works; or outside_rotation is "rotate".
//   - An operator: resolve --deliver, --drop or --rotate-now, or rotate --revoke-now.
//
// No exit erases our secret at once. It stays sealed until a later rotation is done, because until
// then it may be the only copy of the secret that works.

// Overtaken says why a sealed secret is not delivered.
type Overtaken struct {
	Since time.Time `json:"since"` // when it was found
	// Sinks are those that hold another secret, with the digest of it.
	Sinks map[string]secret.Digest `json:"sinks"`
	// ChangedAt is when the service token was changed at Cloudflare after our rotation; zero if Gone, and
	// if Cloudflare does not show it.
	ChangedAt time.Time `json:"changed_at,omitzero"`
	// Gone is set if Cloudflare has no such service token any more.
	Gone bool `json:"gone,omitempty"`
	// Deliver is set once it is decided that ours is delivered over what the sinks hold. It does not
	// hold for a secret that gets there later.
	Deliver bool `json:"deliver,omitempty"`
	// Tried says what requests with both secrets have shown; empty if none were sent.
	Tried string `json:"tried,omitempty"`
}

// overtakenRecheck is how often a secret that was overtaken is looked at again.
const overtakenRecheck = 5 * time.Minute

// errOvertaken is in the error of a delivery to a sink that holds a later secret than ours.
var errOvertaken = errors.New("our new secret was overtaken: it is kept sealed and not delivered")

// OvertakenError says that a secret stays sealed because another one has overtaken it.
type OvertakenError struct {
	Token  string
	Detail string
	Again  time.Time // when it is looked at again
}

// Error implements error.
func (e *OvertakenError) Error() string {
	return fmt.Sprintf("the new secret of %s was overtaken: %s; looking again at %s", e.Token, e.Detail, e.Again.UTC().Format(time.RFC3339))
}

// notOvertaken returns nil if our secret may be delivered to a sink that holds another one now. If
// Cloudflare has changed the service token after our rotation, what the sink holds is probably the
// secret that works, and delivering ours would lock consumers out.
func (a *attempt) notOvertaken(ctx context.Context, sink string, now Stored) error {
	work := a.record.Work
	if o := work.Overtaken; now.Digest == "" || o != nil && o.Deliver && o.Sinks[sink] == now.Digest {
		return nil // nothing is lost by it, or it is decided
	}
	facts, err := a.token.Issuer.Inspect(ctx, work.TokenID)
	gone := errors.Is(err, ErrGone)
	if err != nil && !gone {
		return fmt.Errorf("the sink holds a secret that is not ours, and Cloudflare could not be asked whether ours is the last: %w", err)
	}
	if !gone {
		a.noteChange(facts)
	}
	if !gone && work.ChangedAt.IsZero() && work.wouldShow(facts) {
		return nil
	}
	if a.overtaker == nil {
		a.overtaker = &Overtaken{Since: a.now().UTC(), Sinks: make(map[string]secret.Digest), Gone: gone, ChangedAt: work.ChangedAt}
	}
	a.overtaker.Sinks[sink] = now.Digest
	a.seen = facts
	why := "the token was changed at Cloudflare at " + work.ChangedAt.Format(time.RFC3339) + ", after our rotation"
	switch {
	case gone:
		why = "there is no such service token at Cloudflare any more"
		a.overtaker.ChangedAt = time.Time{}
	case work.ChangedAt.IsZero():
		why = "Cloudflare does not show whether the token was rotated after us: our own rotation left updated_at alone"
	}
	return fmt.Errorf("the sink holds a secret that is not ours, and %s: %w", why, errOvertaken)
}

// wouldShow reports whether a rotation by others would be seen in the facts: our own has moved
// updated_at. A service token that this rotation has made is new, and what it replaces is to go.
func (w *Work) wouldShow(facts TokenFacts) bool {
	before, after := w.Before.UpdatedAt, w.After.UpdatedAt
	if after.IsZero() { // the answer did not say
		after = facts.UpdatedAt
	}
	return w.CreateName != "" || !before.IsZero() && after.After(before)
}

// noteChange remembers that the service token was changed at Cloudflare after our answer, and not
// by us.
func (a *attempt) noteChange(facts TokenFacts) {
	work := a.record.Work
	ours := facts.UpdatedAt.Sub(work.IntentAt) < movedWithin // where the answer did not say when it was
	if after := work.After.UpdatedAt; !after.IsZero() {
		ours = !facts.UpdatedAt.After(after)
	}
	if !ours && facts.UpdatedAt.After(work.TouchedAt) {
		work.ChangedAt = facts.UpdatedAt.UTC()
	}
}

// noteChangeBefore does so before a request of our own moves updated_at, after which a change by
// others could no longer be told from it.
func (a *attempt) noteChangeBefore(ctx context.Context) {
	if work := a.record.Work; a.record.Step == StepSealed && work.ChangedAt.IsZero() {
		if facts, err := a.token.Issuer.Inspect(ctx, work.TokenID); err == nil {
			a.noteChange(facts)
		}
	}
}

// overtaken ends an attempt whose secret was overtaken, in a way that the next one can find out more.
// It is told once, and again only when something about it is different.
func (a *attempt) overtaken(ctx context.Context, issued Issued, cause error) error {
	work, now := a.record.Work, a.now().UTC()
	before := work.Overtaken
	work.Overtaken = a.overtaker
	known := before != nil && before.Gone == work.Overtaken.Gone && sameSinks(before, work.Overtaken)
	if known {
		work.Overtaken.Since = before.Since
	}
	if o := a.record.Order; o != nil && o.RevokeNow {
		return a.abandon(ctx, Verdict{Resolved: true, Reason: ReasonLeakOrder}, false)
	}
	switch a.tryBoth(ctx, issued) {
	case ReasonOursWorks:
		work.Overtaken.Deliver = true
		a.tell(OvertakenEnded{Token: a.token.Name, RotationID: work.RotationID, Reason: ReasonOursWorks})
		return a.save(ctx, StepSealed)
	case ReasonTheirsWorks:
		return a.abandon(ctx, Verdict{Resolved: true, NotCarriedOut: true, Reason: ReasonTheirsWorks}, true)
	}
	if a.token.RotateAfterOutside && !work.Overtaken.Gone && a.record.Order == nil && now.Sub(a.record.OutsideAnswered) > healOnce {
		a.record.Order = &Order{Since: now, By: "rotatord", AfterOutside: true, Overrides: Overrides{Grace: true}, Left: 1}
		a.record.OutsideAnswered = now
		return a.abandon(ctx, Verdict{Resolved: true, NotCarriedOut: true, Reason: ReasonAfterOutside}, false)
	}
	a.record.NotBefore = now.Add(overtakenRecheck)
	a.record.LastError, a.record.LastCause = cause.Error(), ReasonOvertaken
	if a.sinkFailed { // that one is tried again as always
		a.record.NotBefore = now.Add(pendingWait(a.record.Failures+1, time.Duration(work.Grace)))
	}
	if known = known && !a.sinkFailed; !known {
		a.record.Failures++
	}
	err := error(&OvertakenError{Token: a.token.Name, Detail: cause.Error(), Again: a.record.NotBefore})
	if saveErr := a.save(context.WithoutCancel(ctx), StepSealed); saveErr != nil {
		err = errors.Join(err, saveErr)
	}
	if known {
		a.reported = true // whoever is to know was told
		return err
	}
	a.report(work, ResultFailed, ReasonOvertaken, err)
	return err
}

func sameSinks(a, b *Overtaken) bool {
	if len(a.Sinks) != len(b.Sinks) {
		return false
	}
	for name, digest := range a.Sinks {
		if b.Sinks[name] != digest {
			return false
		}
	}
	return true
}

// tryBoth sends one request with each secret where verify says, ours and the one that the sinks
// hold. It returns the reason code of what that proves; empty if it proves nothing. Theirs that is
// accepted decides: it can only be later than ours, which may still be accepted as the previous one.
// That theirs is refused counts only once the edge has had the time to know it.
func (a *attempt) tryBoth(ctx context.Context, issued Issued) string {
	o := a.record.Work.Overtaken
	if a.token.Prober == nil || o.Gone {
		return ""
	}
	theirs, err := a.theirs(ctx, o)
	if err != nil {
		o.Tried = err.Error()
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	probe, err := a.token.Prober.Probe(ctx, theirs)
	switch {
	case probe == ProbeGood:
		return ReasonTheirsWorks
	case probe != ProbeBad:
		o.Tried = "it cannot be told whether the secret in the sink works: " + textOf(err)
		return ""
	}
	o.Tried = "the secret in the sink is refused: " + textOf(err)
	if a.now().Sub(o.Since) < a.token.VerifyWithin {
		return ""
	}
	if probe, err = a.token.Prober.Probe(ctx, issued.Credential); probe == ProbeGood {
		return ReasonOursWorks
	}
	o.Tried += "; ours is not accepted either: " + textOf(err)
	return ""
}

func textOf(err error) string {
	if err == nil {
		return "no reason was given"
	}
	return err.Error()
}

// theirs is the one secret that the sinks hold in the place of ours.
func (a *attempt) theirs(ctx context.Context, o *Overtaken) (found Credential, err error) {
	for _, sink := range a.token.Sinks {
		digest, holds := o.Sinks[sink.Name()]
		if !holds {
			continue
		}
		reader, can := sink.(SinkReader)
		if !can {
			return found, fmt.Errorf("what sink %s holds cannot be tried", sink.Name())
		}
		bounded, cancel := context.WithTimeout(ctx, storeTimeout)
		c, err := reader.ReadBack(bounded)
		cancel()
		switch {
		case err != nil:
			return found, fmt.Errorf("sink %s: %w", sink.Name(), err)
		case c.ClientSecret.Digest() != digest, !found.ClientSecret.IsZero() && !found.ClientSecret.Equal(c.ClientSecret):
			return found, errors.New("the sinks hold different secrets, or are being changed")
		}
		found = c
	}
	if found.ClientSecret.IsZero() {
		return found, errors.New("no sink holds another secret")
	}
	return found, nil
}

// abandon ends the rotation in hand without delivering its secret. The sealed answer is erased when
// a later rotation is done, and not before. served says that the slot needs no other rotation.
func (a *attempt) abandon(ctx context.Context, verdict Verdict, served bool) error {
	before, work := a.record, a.record.Work
	a.record = a.record.clone()
	a.record.Abandoned = append(slices.Clone(before.Abandoned), work.RotationID)
	gone := work.Overtaken != nil && work.Overtaken.Gone
	if !gone {
		a.keepFacts(work)
	}
	if now := a.now().UTC(); served && work.Slot.After(a.record.Anchor) && work.Slot.Sub(now) <= maxAnchorAhead {
		a.record.Anchor = work.Slot
	}
	if o := work.Overtaken; served && o != nil && len(o.Sinks) < len(a.token.Sinks) {
		a.record.Outside = o.ChangedAt // another sink still has a secret that is dead or will be
	}
	a.record.Work, a.record.Doubt, a.record.Failures, a.record.LastError, a.record.LastCause = nil, nil, 0, "", ""
	a.record.NotBefore, a.record.CatchUpAt, a.record.NextTrigger = time.Time{}, time.Time{}, ""
	if !served {
		a.record.NextTrigger = verdict.trigger()
	}
	if served || gone { // consumers have another secret, or no rotation of it can succeed
		a.record.OldDiesBy, a.record.Lost, a.record.NextTrigger = time.Time{}, nil, ""
	}
	if err := a.save(context.WithoutCancel(ctx), StepIdle); err != nil {
		a.record = before
		return err
	}
	a.tell(OvertakenEnded{Token: a.token.Name, RotationID: work.RotationID, Reason: verdict.Reason})
	return nil
}

// keepFacts keeps what is known of the service token of a rotation that is given up.
func (a *attempt) keepFacts(work *Work) {
	facts := work.Before.updatedBy(work.After)
	if a.seen.ID == work.TokenID {
		facts = a.seen
	}
	if !work.ChangedAt.IsZero() && work.ChangedAt.After(facts.UpdatedAt) {
		facts.UpdatedAt = work.ChangedAt
	}
	switch {
	case work.CreateName != "" && work.TokenID != "":
		facts.ID = work.TokenID
		a.keepMade(facts)
	case work.CreateName != "":
	case work.Spare:
		a.record.Spare = facts
	default:
		a.record.Facts = facts
	}
}

// eraseAbandoned erases the sealed answers of rotations that were given up, now that a later one is
// done.
func (a *attempt) eraseAbandoned(ctx context.Context) error {
	for _, id := range a.record.Abandoned {
		if err := a.erase(ctx, id); err != nil {
			return err
		}
	}
	a.record.Abandoned = nil
	return nil
}

// overruled settles a doubt that is in the way of an order which revokes: the old secret is to die,
// whatever became of the request. It reports whether it did. A doubt about a service token that was
// to be made ends by itself, and so does one about a request that the order itself has caused.
func (a *attempt) overruled(ctx context.Context) (bool, error) {
	work, o := a.record.Work, a.record.Order
	if o == nil || !o.RevokeNow || !work.IntentAt.Before(o.Since) || work.CreateName != "" {
		return false, nil
	}
	verdict := Verdict{Resolved: true, Reason: ReasonOperatorRotateNow}
	a.decide(verdict)
	return true, a.settle(ctx, verdict)
}
