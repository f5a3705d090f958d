package rotation

import (
	"context"
	"math/rand/v2"
	"time"
)

// This file holds what keeps consumers alive while a new secret is pending: the old secret is
// extended until the new one is delivered, and a token whose consumers are about to be cut off is
// an emergency.
//
// The new secret can be pending in three ways: nobody knows whether it exists (in doubt), it was
// lost and another one is owed (Lost), or it is sealed and a sink does not take it. In all three
// the old secret is extended in the same way: in time, by its grace, for MaxGrace in total.

// Lost is what the ledger keeps of a rotation whose secret was lost, or may have been lost, until a
// rotation that makes up for it is done. A Lost is never changed, but replaced.
type Lost struct {
	RotationID string    `json:"rotation_id"`
	At         time.Time `json:"at"`    // when the request left
	Since      time.Time `json:"since"` // since when another rotation is owed
	Grace      Grace     `json:"grace"` // by how much the old secret is extended each time; 0 for never
	// Until is when the old secret stops working, as far as is known; zero if it stopped with the request.
	Until time.Time `json:"until,omitzero"`
	// CutOff is set if the rotation that was to make up for it was lost as well: since then
	// consumers must be expected to have no secret that works.
	CutOff time.Time `json:"cut_off,omitzero"`
	// Extensions counts how often the old secret was extended since then.
	Extensions int `json:"extensions,omitempty"`
}

// extendBy returns by how much an old secret that works until then is to be extended now, counted
// from now; 0 for not now. sent is when the request left that made it the previous one. The first
// extension comes at once, and the next ones whenever a quarter of the grace is over, so that
// neither a restart nor an outage meets an old secret that is about to end.
func extendBy(grace time.Duration, until, sent time.Time, extended bool, now time.Time) time.Duration {
	left := until.Sub(now)
	if grace == 0 || left <= 0 || extended && left > grace*3/4 { // what is dead stays dead
		return 0
	}
	by := min(grace, sent.Add(MaxGrace).Sub(now))
	if by <= left && extended || by < left-time.Second {
		return 0
	}
	return by
}

// Emergencies.
const (
	// EmergencyAhead is how long before consumers are cut off a token becomes an emergency. No
	// other wait of a token whose secret is pending is as long.
	EmergencyAhead = 2 * time.Minute
	// EmergencyWait is between two tries of an emergency. It does not grow. Where Cloudflare has
	// refused the request it is refusedWait: a person has to change something first.
	EmergencyWait = 3 * time.Second
	refusedWait   = 10 * time.Second
	// maxPendingWait is the longest wait between two tries while a secret is owed or in hand.
	maxPendingWait = 30 * time.Second
)

// CutOffAt returns when consumers are left without a secret that works unless the pending work is
// done before. In the past, they are cut off now. It is zero if no pending work threatens them.
func (r Record) CutOffAt() time.Time {
	w, lost := r.Work, r.Lost
	refused := r.Step == StepStored && w != nil && w.Verification.Last == ProbeBad && !w.Verification.Accepted
	switch {
	case r.Step != StepIdle && (w == nil || w.LeavesCurrentInUse()): // what consumers use is not touched
		return time.Time{}
	case r.Step == StepStored && !refused, r.Step == StepSealed && w.Overtaken != nil: // consumers find another secret
		return time.Time{}
	case r.Step == StepSealed || r.Step == StepStored:
		if lost != nil || w.GraceEndsAt.IsZero() { // the old secret ended with the request
			return w.IntentAt
		}
		return w.GraceEndsAt
	case lost != nil && !lost.CutOff.IsZero():
		return lost.CutOff
	case lost != nil && (r.Step == StepIntent || r.Step == StepInDoubt): // if it was carried out, it cut the old secret off
		return w.IntentAt
	case lost != nil && lost.Until.IsZero():
		return lost.At
	case lost != nil:
		return lost.Until
	case r.Step == StepInDoubt && !r.Doubt.OldWorksUntil.IsZero():
		return r.Doubt.OldWorksUntil
	case r.Step == StepInDoubt:
		return w.IntentAt
	case r.Step == StepIntent && w.Delivered:
		return time.Time{}
	case r.Step == StepIntent && !w.GraceEndsAt.IsZero(): // it is held in memory, and the old one may have been extended
		return w.GraceEndsAt
	case r.Step == StepIntent:
		return w.IntentAt.Add(time.Duration(w.Grace))
	}
	return time.Time{}
}

// Emergency reports whether consumers are cut off, or will be within EmergencyAhead. Such a token
// is tried every few seconds, and goes first in every queue.
func (r Record) Emergency(now time.Time) bool {
	at := r.EmergencyAt()
	return !at.IsZero() && !now.Before(at)
}

// EmergencyAt returns from when on that is so; zero for never.
func (r Record) EmergencyAt() time.Time {
	if at := r.CutOffAt(); !at.IsZero() {
		return at.Add(-EmergencyAhead)
	}
	return time.Time{}
}

// Unfinished reports whether a rotation is in progress or owed, so that it is worth trying again when
// something that was missing has returned.
func (r Record) Unfinished() bool { return r.Step != StepIdle || r.owed() }

// hasten returns next, or an earlier time if consumers cannot wait that long.
func (a *attempt) hasten(next time.Time, wait time.Duration) time.Time {
	now := a.now().UTC()
	if a.record.Emergency(now) {
		return earlier(next, now.Add(wait-rand.N(wait/4)))
	}
	if !a.record.EmergencyAt().IsZero() {
		return earlier(next, a.record.EmergencyAt())
	}
	return next
}

// pendingWait is how long to wait after a failure while a secret is owed or in hand: it grows, and
// stays far below the grace that is being used up.
func pendingWait(failures int, grace time.Duration) time.Duration {
	wait := min(BackOff(failures), maxPendingWait)
	if grace > 0 {
		wait = min(wait, max(grace/8, minBackOff))
	}
	return wait
}

// keptUntil returns until when this process has extended the old secret during that rotation. The
// ledger knows it too, unless it could not be written.
func (r *Rotator) keptUntil(rotationID string) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.kept[rotationID]
}

func (r *Rotator) keep(rotationID string, until time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept[rotationID] = until
}

func (r *Rotator) dropKept(rotationIDs ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range rotationIDs {
		delete(r.kept, id)
	}
}

// keepOldAlive extends the old secret while the new one cannot be delivered: until then consumers
// have nothing else. One that an operator has ordered to end is not extended.
func (a *attempt) keepOldAlive(ctx context.Context) {
	work := a.record.Work
	if !a.overlaps() || a.record.revokes() {
		return
	}
	work.GraceEndsAt = later(work.GraceEndsAt, a.keptUntil(work.RotationID))
	if by := extendBy(time.Duration(work.Grace), work.GraceEndsAt, work.IntentAt, true, a.now()); by > 0 {
		a.noteChangeBefore(ctx)
		if until, err := a.extendGrace(ctx, work.RotationID, work.TokenID, by); err == nil {
			work.GraceEndsAt = until
		}
	}
}

// overlaps reports whether the secret that consumers had before the rotation in hand is the one that
// Cloudflare keeps as the previous one.
func (a *attempt) overlaps() bool {
	work := a.record.Work
	return !work.LeavesCurrentInUse() && !work.GraceEndsAt.IsZero() && a.record.OldDiesBy.IsZero() && a.record.Lost == nil && work.Overtaken == nil
}

// ExtendsLost reports whether the old secret is extended while the rotation that makes up for a lost
// one cannot be carried out. Where nobody knows whether the lost request was carried out, the previous
// secret may be an older one, which is not to be revived if it was revoked.
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

// keepLostAlive extends the old secret as long as [Record.ExtendsLost] says so.
func (a *attempt) keepLostAlive(ctx context.Context) {
	l := a.record.Lost
	if !a.record.ExtendsLost() {
		return
	}
	by := extendBy(time.Duration(l.Grace), later(l.Until, a.keptUntil(l.RotationID)), l.At, true, a.now())
	if by == 0 {
		return
	}
	until, err := a.extendGrace(ctx, l.RotationID, a.token.ServiceToken(a.record), by)
	if err != nil {
		return
	}
	kept := *l
	kept.Until = until
	kept.Extensions++
	a.record.Lost = &kept
	if !a.record.OldDiesBy.IsZero() {
		a.record.OldDiesBy = until
	}
	// If it cannot be saved the secret lives longer than the ledger says, which harms nobody.
	_ = a.save(context.WithoutCancel(ctx), a.record.Step)
}

// owesAnother notes that the secret of the rotation in doubt is lost, or may be, and that another
// rotation must make up for it.
func (a *attempt) owesAnother(doubt *Doubt, work *Work) {
	if work.LeavesCurrentInUse() {
		return
	}
	known := doubt.CarriedOut || doubt.Answered()
	if was := a.record.Lost; was != nil { // the second one in a row
		lost := *was
		if lost.CutOff.IsZero() {
			lost.CutOff = work.IntentAt
		}
		a.record.Lost = &lost
		return
	}
	a.record.Lost = &Lost{
		RotationID: work.RotationID, At: work.IntentAt, Since: a.now().UTC(), Grace: work.Grace, Until: doubt.OldWorksUntil,
	}
	if known && a.record.OldDiesBy.IsZero() {
		a.record.OldDiesBy = doubt.OldWorksUntil
	}
}
