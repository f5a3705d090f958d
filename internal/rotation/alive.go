package rotation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/failpoint"
	"rotatord/internal/moment"
)

// This file keeps consumers working while a new secret is pending: the old secret is extended until
// the new one is delivered, and a token whose consumers are about to be cut off is an emergency.
//
// The new secret can be pending in three ways: it is in doubt whether it exists, it was lost and a
// reissue is owed (Lost), or it is sealed and a sink does not accept it. In all three the old secret
// is extended in the same way: in time, by its grace, for MaxGrace in total.

// Lost is what the ledger stores about a rotation whose secret was lost, or may have been lost. The ledger
// stores it until a rotation that makes up for it is done. A Lost is never changed; it is replaced by
// another Lost.
type Lost struct {
	RotationID string    `json:"rotation_id"`
	At         time.Time `json:"at"`    // when the request left
	Since      time.Time `json:"since"` // since when another rotation is owed
	Grace      Grace     `json:"grace"` // by how much the old secret is extended each time; 0 for never
	// Until is when the old secret stops working, as far as is known; zero if it stopped with the request.
	Until time.Time `json:"until,omitzero"`
	// CutOff is when the reissue was lost too. Since then assume that consumers have no secret that works.
	// Zero if no reissue was lost.
	CutOff time.Time `json:"cut_off,omitzero"`
	// Extensions counts how often the old secret was extended since then.
	Extensions int `json:"extensions,omitempty"`
}

// endSlack is by how much an old secret may end before the end that is known of it. Cloudflare's clock is read from a
// header of whole seconds, and the end that is known is the latest one that is plausible: waits for the end need that
// one, and what has to be done before the end needs an earlier one.
const endSlack = 2 * time.Second

// surelyUntil returns until when an old secret works for certain. until is its known end, and sent is when the request
// left that made it the previous secret, with this grace.
func surelyUntil(grace time.Duration, until, sent time.Time) time.Time {
	return moment.Max(until.Add(-endSlack), moment.Min(until, sent.Add(grace)))
}

// extendBy returns for how long to extend an old secret, counted from now; 0 means do not extend it now.
// until is when that secret ends, as far as is known. sent is when the request left that made it the previous secret.
// The first extension comes at once. The next ones come each time that a quarter of the grace is over. So when
// a restart or an outage begins, the old secret is never about to end. With a grace of a few seconds endSlack is most of
// it: then each try extends.
func extendBy(grace time.Duration, until, sent time.Time, extended bool, now time.Time) time.Duration {
	left, longest := until.Sub(now), sent.Add(MaxGrace).Sub(now)
	if grace == 0 || left <= 0 { // a secret that has ended is not revived
		return 0
	}
	if (extended || left > grace) && surelyUntil(grace, until, sent).Sub(now) > grace*3/4 {
		return 0
	}
	if longest < left || longest == left && extended { // an extension never moves the end to an earlier time
		return 0
	}
	return min(max(grace, left), longest)
}

// Emergencies.
const (
	// EmergencyAhead is the time before consumers are cut off in which a token is an emergency. It is
	// longer than every other wait of a token whose secret is pending.
	EmergencyAhead = 2 * time.Minute
	// EmergencyWait is the wait between two tries of an emergency. It does not grow. If Cloudflare has
	// refused the request, the wait is refusedWait: a person has to change something first.
	EmergencyWait = 3 * time.Second
	refusedWait   = 10 * time.Second
	// maxPendingWait is the longest wait between two tries while a secret is owed or not delivered.
	maxPendingWait = 30 * time.Second
)

// CutOffAt returns when consumers will have no secret that works, unless the pending work is done before.
// If that time is in the past, they are cut off now. It is zero if no pending work threatens them.
func (r Record) CutOffAt() time.Time {
	switch {
	case r.Step != StepIdle && (r.Work == nil || r.Work.LeavesCurrentInUse()):
		return time.Time{}
	case r.Step == StepSealed || r.Step == StepStored:
		return r.undeliveredCutOff()
	case r.Lost != nil:
		return r.lostCutOff()
	case r.Step == StepInDoubt && !r.Doubt.OldWorksUntil.IsZero():
		return r.Doubt.OldWorksUntil
	case r.Step == StepInDoubt:
		return r.Work.IntentAt
	case r.Step != StepIntent || r.Work.Delivered:
		return time.Time{}
	case !r.Work.GraceEndsAt.IsZero(): // the answer is in memory, and the old secret may have been extended
		return r.Work.GraceEndsAt
	}
	return r.Work.IntentAt.Add(time.Duration(r.Work.Grace))
}

// undeliveredCutOff returns CutOffAt for a rotation whose answer is sealed.
func (r Record) undeliveredCutOff() time.Time {
	w := r.Work
	refused := r.Step == StepStored && w.Verification.Last == ProbeBad && !w.Verification.Accepted
	switch {
	case r.Step == StepStored && !refused, r.Step == StepSealed && w.Overtaken != nil: // consumers find another secret
		return time.Time{}
	case r.Lost != nil || w.GraceEndsAt.IsZero(): // the old secret ended with the request
		return w.IntentAt
	}
	return w.GraceEndsAt
}

// lostCutOff returns CutOffAt while a reissue is owed.
func (r Record) lostCutOff() time.Time {
	switch {
	case !r.Lost.CutOff.IsZero():
		return r.Lost.CutOff
	case r.Step == StepIntent || r.Step == StepInDoubt: // if it was carried out, it cut the old secret off
		return r.Work.IntentAt
	case r.Lost.Until.IsZero():
		return r.Lost.At
	}
	return r.Lost.Until
}

// Emergency reports whether consumers are cut off, or will be within EmergencyAhead. The daemon tries such
// a token every few seconds, and it is first in every queue.
func (r Record) Emergency(now time.Time) bool {
	at := r.EmergencyAt()
	return !at.IsZero() && !now.Before(at)
}

// EmergencyAt returns when Emergency becomes true; zero for never.
func (r Record) EmergencyAt() time.Time {
	if at := r.CutOffAt(); !at.IsZero() {
		return at.Add(-EmergencyAhead)
	}
	return time.Time{}
}

// Unfinished reports whether a rotation is in progress or owed. Then it is worth trying again when
// something that was missing has come back.
func (r Record) Unfinished() bool { return r.Step != StepIdle || r.owed() }

// movedEnd is where this process has moved the end of an old secret. revision is what the ledger had then.
type movedEnd struct {
	until    time.Time
	revision uint64
}

// knownEnd returns when the old secret of a rotation ends: as this process has moved that end the last time, or else
// as the ledger says. The ledger says the same, unless it could not be written. Once the ledger was written since, by
// any replica, what it says is later knowledge.
func (e *entry) knownEnd(rotationID string, inLedger time.Time) time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	if moved, ok := e.extended[rotationID]; ok && (e.replica == nil || moved.revision == e.record.Revision) {
		return moved.until
	}
	return inLedger
}

func (e *entry) keepExtended(rotationID string, until time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.extended[rotationID] = movedEnd{until, e.record.Revision}
	e.asked[rotationID] = asked{by: e.asked[rotationID].by}
}

// asked is by how much, and until when, an operator wants the old secret of a rotation extended. until is zero
// unless the answer was lost: then the end does not count as moved, and the next extension of the daemon goes as far.
type asked struct {
	by    time.Duration
	until time.Time
}

func (r *Rotator) keepAsked(rotationID string, a asked) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked[rotationID] = a
}

func (r *Rotator) askedFor(rotationID string) asked {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked[rotationID]
}

func (r *Rotator) dropExtended(rotationID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.extended, rotationID)
	delete(r.asked, rotationID)
}

// extendOld extends the old secret while the new one cannot be delivered: until the delivery consumers
// have no other secret. It does not extend a secret that an operator has ordered to end.
func (a *attempt) extendOld(ctx context.Context) {
	if !a.record.overlaps() || a.record.revokes() {
		return
	}
	work := a.record.Work
	a.observe(a.record.mayExtendBy(a.askedFor(work.RotationID).by).graceEnds(a.knownEnd(work.RotationID, work.GraceEndsAt)))
	by := a.record.oldOfWork().extendBy(a.now())
	if by == 0 {
		return
	}
	a.noteChangeBefore(ctx)
	if until, err := a.extendGrace(ctx, work.RotationID, work.TokenID, by); err == nil {
		a.observe(a.record.graceEnds(until))
	}
}

// oldSecret is a secret that consumers use until its replacement is delivered.
type oldSecret struct {
	rotationID, tokenID string
	grace               time.Duration
	until, sent         time.Time // see extendBy
	// updatedAt is what Cloudflare shows of the service token as long as nobody else changes it.
	updatedAt time.Time
}

// extendBy returns for how long to extend it again; 0 if it is not extended now.
func (o oldSecret) extendBy(now time.Time) time.Duration {
	return extendBy(o.grace, o.until, o.sent, true, now)
}

// oldOfWork returns the old secret of the rotation in progress.
func (r Record) oldOfWork() oldSecret {
	w := r.Work
	return oldSecret{w.RotationID, w.TokenID, time.Duration(w.Grace), w.GraceEndsAt, w.IntentAt, moment.Max(w.After.UpdatedAt, w.TouchedAt)}
}

// oldOfLost returns the old secret while a reissue is owed.
func (r Record) oldOfLost(t Token) oldSecret {
	l := r.Lost
	return oldSecret{l.RotationID, t.ServiceToken(r), time.Duration(l.Grace), l.Until, l.At, r.Facts.UpdatedAt}
}

// oldSecret returns the old secret of an unfinished rotation, if it is known to be the previous one at Cloudflare and may
// be extended.
func (r Record) oldSecret(t Token) (old oldSecret, ok bool) {
	switch {
	case r.ExtendsLost():
		return r.oldOfLost(t), true
	case r.Work == nil || r.Step == StepInDoubt || !r.overlaps() || r.revokes():
		return old, false
	}
	return r.oldOfWork(), true
}

// overlaps reports whether Cloudflare's previous secret is the secret that consumers had before the
// rotation in progress.
func (r Record) overlaps() bool {
	w := r.Work
	return !w.LeavesCurrentInUse() && !w.GraceEndsAt.IsZero() && r.OldDiesBy.IsZero() && r.Lost == nil && w.Overtaken == nil
}

// ExtendsLost reports whether the old secret is extended while the rotation that makes up for a lost
// secret cannot be carried out. If it is not known whether the lost request was carried out, the previous
// secret may be an older one. An older secret that was revoked must not be revived.
func (r Record) ExtendsLost() bool {
	l, last := r.Lost, r.Last
	switch {
	case l == nil, l.Grace == 0, r.Step != StepIdle && r.Step != StepClaimed, !l.CutOff.IsZero(), r.revokes():
		return false
	case r.OldDiesBy.IsZero() && last != nil && (last.Revoked || last.GraceEndsAt.IsZero()):
		return false
	}
	return true
}

// extendLost extends the old secret as long as [Record.ExtendsLost] says so.
func (a *attempt) extendLost(ctx context.Context) {
	l := a.record.Lost
	if !a.record.ExtendsLost() {
		return
	}
	old := a.record.oldOfLost(a.token)
	old.until = a.knownEnd(l.RotationID, l.Until)
	by := old.extendBy(a.now())
	if by == 0 {
		return
	}
	until, err := a.extendGrace(ctx, l.RotationID, old.tokenID, by)
	if err != nil {
		return
	}
	next := a.record.lostExtended(until)
	a.observe(next)
	// If this cannot be saved, the secret works longer than the ledger says. That harms no consumer.
	_ = a.become(context.WithoutCancel(ctx), next)
}

// extendGrace lets the old secret work for this long from now. The old secret is the previous secret of
// that service token.
func (e *entry) extendGrace(ctx context.Context, rotationID, tokenID string, grace time.Duration) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := e.mustHold(ctx); errors.Is(err, ErrConflict) { // another replica decides about the old secret now
		return time.Time{}, err
	}
	failpoint.Reach("extend.before")
	// An end that an operator asked for is not moved to an earlier time.
	grace = min(max(grace, e.askedFor(rotationID).until.Sub(e.now())), MaxGrace)
	facts, until, err := e.token.Issuer.SetGrace(ctx, tokenID, grace)
	failpoint.Reach("extend.after")
	if err != nil {
		// The request may still have moved updated_at, so the known updated_at is void.
		e.observe(e.record.maybeTouched())
		err = fmt.Errorf("extending the grace of the old secret: %w", err)
	} else {
		e.observe(e.record.touched(facts))
		e.keepExtended(rotationID, until.UTC())
	}
	e.tell(event.GraceExtension{RotationID: rotationID, Until: until, Err: err})
	return until.UTC(), err
}
