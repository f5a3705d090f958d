package rotation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/secret"
)

// This file says what happens to a sealed secret that another one has overtaken. While it waited for a
// sink, another person or program rotated the same service token and put its secret there. Ours is not
// delivered over it: theirs is the current secret, and ours is at best the previous one. The state is
// durable and has these exits:
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
	// Sinks are the sinks that hold another secret, with its digest.
	Sinks map[string]secret.Digest `json:"sinks"`
	// ChangedAt is when the service token was changed at Cloudflare after our rotation; zero if Gone, and
	// if Cloudflare does not show it.
	ChangedAt time.Time `json:"changed_at,omitzero"`
	// Gone is set if Cloudflare has no such service token any more.
	Gone bool `json:"gone,omitempty"`
	// Deliver is set once it is decided that ours is delivered over what the sinks hold. The decision does
	// not apply to a secret that others write there later.
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

// requireLatest returns nil if our secret may be delivered to a sink that holds another one now. If
// Cloudflare has changed the service token after our rotation, what the sink holds is probably the
// secret that works, and delivering ours would lock consumers out.
func (a *attempt) requireLatest(ctx context.Context, sink string, now Stored, d *round) error {
	work := a.record.Work
	if o := work.Overtaken; now.Digest == "" || o != nil && o.Deliver && o.Sinks[sink] == now.Digest {
		return nil // the sink has no secret to lose, or it is decided
	}
	gone, facts, err := a.isGone(ctx, work.TokenID)
	if err != nil {
		return fmt.Errorf("the sink holds a secret that is not ours, and Cloudflare could not be asked whether ours is the last: %w", err)
	}
	if !gone {
		a.noteChange(facts)
	}
	changedAt := a.record.Work.ChangedAt
	if !gone && changedAt.IsZero() && work.wouldShow(facts) {
		return nil
	}
	why := "the token was changed at Cloudflare at " + changedAt.Format(time.RFC3339) + ", after our rotation"
	switch {
	case gone:
		why, changedAt = "there is no such service token at Cloudflare any more", time.Time{}
	case changedAt.IsZero():
		why = "Cloudflare does not show whether the token was rotated after us: our own rotation did not move updated_at"
	}
	if d.overtaken == nil {
		d.overtaken = &Overtaken{Since: a.now().UTC(), Gone: gone, ChangedAt: changedAt}
	}
	d.overtaken, d.seen = new(d.overtaken.with(sink, now.Digest)), facts
	return fmt.Errorf("the sink holds a secret that is not ours, and %s: %w", why, errOvertaken)
}

// wouldShow reports whether a rotation by others would be seen in the facts: our own has moved updated_at.
// A service token that this rotation has created is new, and the one that it replaces will be deleted.
func (w *Work) wouldShow(facts TokenFacts) bool {
	before, after := w.Before.UpdatedAt, w.After.UpdatedAt
	if after.IsZero() { // the answer did not say
		after = facts.UpdatedAt
	}
	return w.strategy().traits().creates || !before.IsZero() && after.After(before)
}

// noteChange notes a change of the service token at Cloudflare after our answer that was not our own.
func (e *entry) noteChange(facts TokenFacts) {
	if e.record.Work.changedByOthers(facts) {
		e.observe(e.record.changeSeen(facts.UpdatedAt.UTC()))
	}
}

// changedByOthers reports whether the facts show a change after our answer that was not our own.
func (w *Work) changedByOthers(facts TokenFacts) bool {
	ours := facts.UpdatedAt.Sub(w.IntentAt) < movedWithin // where the answer did not say when it was
	if after := w.After.UpdatedAt; !after.IsZero() {
		ours = !facts.UpdatedAt.After(after)
	}
	return !ours && facts.UpdatedAt.After(w.TouchedAt)
}

// noteChangeBefore calls noteChange before a request of our own moves updated_at. After that request a
// change by others could not be told from our own.
func (e *entry) noteChangeBefore(ctx context.Context) {
	if work := e.record.Work; e.record.Step == StepSealed && work.ChangedAt.IsZero() {
		if facts, err := e.token.Issuer.Inspect(ctx, work.TokenID); err == nil {
			e.noteChange(facts)
		}
	}
}

// overtaken ends an attempt whose secret was overtaken, so that the next attempt can find out more. It
// publishes this once, and again only when something about it is different.
func (a *attempt) overtaken(ctx context.Context, issued Issued, d round) error {
	work, now, o := a.record.Work, a.now().UTC(), *d.overtaken
	known := work.Overtaken != nil && work.Overtaken.Gone == o.Gone && maps.Equal(work.Overtaken.Sinks, o.Sinks)
	if known {
		o = o.since(work.Overtaken.Since)
	}
	a.observe(a.record.overtaken(o))
	if a.record.revokes() {
		return a.abandon(ctx, Verdict{Resolved: true, Reason: ReasonLeakOrder}, d.seen, false)
	}
	proof, tried := a.tryBoth(ctx, issued, o)
	a.observe(a.record.overtaken(o.tried(tried)))
	switch proof {
	case ReasonOursWorks:
		a.tell(event.OvertakenEnd{RotationID: work.RotationID, Reason: ReasonOursWorks})
		return a.become(ctx, a.record.overtaken(a.record.Work.Overtaken.delivering()))
	case ReasonTheirsWorks:
		return a.abandon(ctx, Verdict{Resolved: true, NotCarriedOut: true, Reason: ReasonTheirsWorks}, d.seen, true)
	}
	if a.token.RotateAfterOutside && !o.Gone && a.record.Order == nil && now.Sub(a.record.OutsideAnswered) > outsideOnce {
		a.observe(a.record.orderedAfterOutside(now))
		return a.abandon(ctx, Verdict{Resolved: true, NotCarriedOut: true, Reason: ReasonAfterOutside}, d.seen, false)
	}
	return a.waitOvertaken(ctx, d, known, now)
}

// waitOvertaken ends the attempt without a decision. known says that the same was found before.
func (a *attempt) waitOvertaken(ctx context.Context, d round, known bool, now time.Time) error {
	work := a.record.Work
	again := now.Add(overtakenRecheck)
	if d.failed { // that sink is tried again as always
		again = now.Add(pendingWait(a.record.Failures+1, time.Duration(work.Grace)))
	}
	known = known && !d.failed
	err := error(&OvertakenError{Token: a.token.Name, Detail: d.err.Error(), Again: again})
	next := a.record.failed(failure{err: d.err, next: again, silent: known}).overtakenAsCause()
	if saveErr := a.becomeFailed(context.WithoutCancel(ctx), next); saveErr != nil {
		err = errors.Join(err, saveErr)
	}
	if known {
		a.reported = true // the same was told before
		return err
	}
	a.report(work, event.ResultFailed, ReasonOvertaken, err)
	return err
}

// tryBoth sends one request with each secret where verify says, ours and the one that the sinks hold. It
// returns the reason code of what that proves, empty if it proves nothing, and what was tried in words. If
// theirs is accepted, that decides: theirs can only be later than ours, and ours may still be accepted as
// the previous secret. A refusal of theirs counts only when the edge has had the time to know it.
func (a *attempt) tryBoth(ctx context.Context, issued Issued, o Overtaken) (proof, tried string) {
	if a.token.Prober == nil || o.Gone {
		return "", ""
	}
	theirs, err := a.theirs(ctx, o)
	if err != nil {
		return "", err.Error()
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	probe, err := a.token.Prober.Probe(ctx, theirs)
	switch {
	case probe == ProbeGood:
		return ReasonTheirsWorks, ""
	case probe != ProbeBad:
		return "", "it cannot be told whether the secret in the sink works: " + textOf(err)
	}
	tried = "the secret in the sink is refused: " + textOf(err)
	if a.now().Sub(o.Since) < a.token.VerifyWithin {
		return "", tried
	}
	if probe, err = a.token.Prober.Probe(ctx, issued.Credential); probe == ProbeGood {
		return ReasonOursWorks, tried
	}
	return "", tried + "; ours is not accepted either: " + textOf(err)
}

func textOf(err error) string {
	if err == nil {
		return "no reason was given"
	}
	return err.Error()
}

// theirs returns the one secret that the sinks hold in place of ours.
func (a *attempt) theirs(ctx context.Context, o Overtaken) (found Credential, err error) {
	for _, sink := range a.token.Sinks {
		digest, holds := o.Sinks[sink.Name()]
		if !holds {
			continue
		}
		c, can, err := readSink(ctx, sink)
		switch {
		case !can:
			return found, fmt.Errorf("what sink %s holds cannot be tried", sink.Name())
		case err != nil:
			return found, sinkError(sink, err)
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

// abandon ends the rotation in progress without delivering its secret. served says that the slot needs
// no other rotation.
func (e *entry) abandon(ctx context.Context, verdict Verdict, seen TokenFacts, served bool) error {
	id := e.record.Work.RotationID
	next := e.record.givenUp(e.token, verdict, seen, served, e.now().UTC())
	if err := e.become(context.WithoutCancel(ctx), next); err != nil {
		return err
	}
	e.tell(event.OvertakenEnd{RotationID: id, Reason: verdict.Reason})
	return nil
}
