package rotation

import (
	"slices"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/moment"
)

// This file holds the transitions beside a rotation: what is known of a service token, operators'
// orders, renewals, deletions, and slots that pass without a rotation.

// newRecord returns the record of a token whose slots are counted from now on. before is the record of
// another service token that had the same name, if there is one.
func newRecord(t Token, before Record, now time.Time) Record {
	r := Record{
		Format: RecordFormat, Revision: before.Revision,
		Token: t.Name, TokenID: t.ID, Account: t.Account,
		Replaced: toBeDeleted(t, t.ID, before.Replaced), Abandoned: before.Abandoned,
		Anchor: now.UTC().Truncate(time.Second), Schedule: scheduleOf(t),
	}
	if t.LedgerHasID() {
		r.Origin = t.Origin()
	}
	return r
}

// configured brings a record in line with the configuration of its token, and reports whether that
// has changed it.
func (r Record) configured(t Token, now time.Time) (_ Record, changed bool) {
	r, changed = r.rescheduled(t, now)
	if t.LedgerHasID() && r.Origin != t.Origin() { // it was rotated before, and is replaced from now on
		r.Origin, changed = t.Origin(), true
	}
	if left := toBeDeleted(t, r.TokenID, r.Replaced); len(left) < len(r.Replaced) {
		r.Replaced, changed = left, true
	}
	if r.Step == StepIdle {
		forgotten := false
		r, forgotten = r.withoutSpare(t)
		changed = changed || forgotten
	}
	return r, changed
}

// toBeDeleted returns which of the replaced service tokens are still to be deleted once inUse is in
// use: not those that the configuration names again.
func toBeDeleted(t Token, inUse string, replaced []Replaced) []Replaced {
	return slices.DeleteFunc(slices.Clone(replaced), func(r Replaced) bool {
		return r.TokenID == inUse || !t.LedgerHasID() && t.Owns(r.TokenID)
	})
}

// rescheduled notes that a token has another schedule than before. The new one is counted from now on:
// slots that it would have had since the last rotation are no reason to rotate at once. @every is
// counted from the last rotation in any case.
func (r Record) rescheduled(t Token, now time.Time) (_ Record, changed bool) {
	schedule := scheduleOf(t)
	if r.Schedule == schedule {
		return r, false
	}
	if now = now.UTC().Truncate(time.Second); r.Schedule != "" && t.Timetable.Schedule.Interval() == 0 && now.After(r.Anchor) {
		r.Anchor, r.CatchUpAt = now, time.Time{}
		if r.Step == StepIdle {
			r.NotBefore = time.Time{}
		}
	}
	r.Schedule = schedule
	return r, true
}

func scheduleOf(t Token) string {
	return t.Timetable.Schedule.String() + " in " + t.Timetable.Schedule.Location().String()
}

// withoutBackOff lets the next attempt begin at once.
func (r Record) withoutBackOff() Record { return r.retriedAt(time.Time{}) }

// waitingForThaw lets a rotation wait for the end of a freeze that began after it was due.
func (r Record) waitingForThaw(now time.Time) Record {
	r.CatchUpAt = now
	return r
}

// consumedUntil consumes slots that are not made up for.
func (r Record) consumedUntil(slot time.Time) Record {
	r.Anchor = slot.UTC()
	return r
}

// caughtUpAt sets when missed slots are made up for.
func (r Record) caughtUpAt(at time.Time) Record {
	r.CatchUpAt = at.UTC()
	return r
}

// listed records what Cloudflare shows of a service token now. It returns an event if that shows a change
// that was not our own. Cloudflare shows that something was changed and when, but not what. If no visible
// fact is different, the secret was changed.
func (r Record) listed(t Token, facts TokenFacts, now time.Time) (Record, event.Detail) {
	return r.withFactsAs(t, facts.ID, facts).noticed(t, r.knownAs(t, facts.ID), facts, now)
}

// noticed notes what has changed since before, and returns an event as listed does. r has the facts already.
func (r Record) noticed(t Token, before, facts TokenFacts, now time.Time) (Record, event.Detail) {
	changed := event.OutsideChange{TokenID: facts.ID, ChangedAt: facts.UpdatedAt}
	switch {
	case before.UpdatedAt.IsZero() || !facts.UpdatedAt.After(before.UpdatedAt):
		return r, nil
	case r.ownChangeAt(facts.UpdatedAt):
		return r, nil
	case facts.LastSeenAt.After(before.LastSeenAt) && facts.LastSeenAt.Sub(facts.UpdatedAt).Abs() <= time.Second:
		return r, nil // it was used: no document says that this does not move updated_at
	case before.Name != facts.Name, before.Enabled != facts.Enabled, before.Duration != "" && before.Duration != facts.Duration,
		!before.ExpiresAt.Equal(facts.ExpiresAt):
		return r, changed
	case r.StillCount > 0:
		// On this account a rotation has not moved updated_at. So an updated_at that moves does not show a
		// rotation.
		return r, changed
	}
	r.Outside = facts.UpdatedAt.UTC()
	answers := t.RotateAfterOutside && !r.owed() && r.Order == nil && now.Sub(r.OutsideAnswered) > outsideOnce
	if answers {
		// Consumers read a secret that has ended, or will end soon.
		r = r.withoutBackOff().orderedAfterOutside(now)
	}
	return r, event.OutsideRotation{TokenID: facts.ID, ChangedAt: facts.UpdatedAt, Heals: answers}
}

// ownChangeAt reports whether a change at that time was our own: a rotation or a renewal whose answer
// did not show updated_at.
func (r Record) ownChangeAt(at time.Time) bool {
	if last := r.Last; last != nil && (at.Sub(last.AskedAt).Abs() < ownChange || at.Sub(last.At).Abs() < ownChange) {
		return true
	}
	return at.Sub(r.Renewal.At).Abs() < ownChange
}

// orderedAfterOutside orders a rotation of our own, because another person or program has rotated the
// token. That has ended our promise of a grace. A pause or a freeze delays the order, because a person may
// be working by hand.
func (r Record) orderedAfterOutside(now time.Time) Record {
	r.Order = &Order{Since: now, By: "rotatord", AfterOutside: true, Overrides: Overrides{Grace: true}, Left: 1}
	r.OutsideAnswered = now
	return r
}

// ordered puts an operator's order into the record. The order does not wait for the back-off of earlier
// failures.
func (r Record) ordered(o Order) Record {
	r.Order = &o
	switch {
	case r.Step == StepIdle:
		return r.withoutBackOff()
	case r.Step == StepStored && o.RevokeNow && r.Work.Verification.Probes > 0:
		// While the new secret is refused the old one is extended, and the order says that it must end.
		return r.accepted(time.Time{})
	case o.RevokeNow && r.Step != StepInDoubt: // it waits only for this rotation
		return r.withoutBackOff()
	}
	return r
}

// orderWidened lets the order override more. It stays the same order.
func (r Record) orderWidened(o Overrides) Record {
	order := *r.Order
	order.Overrides = order.with(o)
	r.Order = &order
	return r
}

// orderedAgain orders another rotation after the one whose secret is refused.
func (r Record) orderedAgain(now time.Time) Record {
	order := Order{Left: 1}
	if r.Order != nil { // which has not been carried out either
		order = *r.Order
	}
	order.Since, order.Overrides = now, order.with(Overrides{Freeze: true, Pause: true, Grace: true})
	r.Order = &order
	return r
}

// orderCancelled takes the order back.
func (r Record) orderCancelled() Record {
	r.Order = nil
	return r
}

// orderCarriedOut notes that a rotation has done what an order asks for, if it has.
func (r Record) orderCarriedOut(w *Work) Record {
	o := r.Order
	if o == nil || w.IntentAt.Before(o.Since) || o.RevokeNow && w.Grace != 0 {
		return r
	}
	left := *o
	if left.Left--; left.Left > 0 {
		r.Order = &left
	} else {
		r.Order = nil
	}
	return r
}

// renewed notes that a service token was renewed.
func (r Record) renewed(now time.Time) Record {
	r.Renewal = Renewal{At: now}
	return r
}

// renewalFailed notes that a renewal failed, and when to try again.
func (r Record) renewalFailed(err error, next time.Time) Record {
	r.Renewal.Failures++
	r.Renewal.LastError, r.Renewal.NotBefore = err.Error(), next
	return r
}

// renewalSeen records what a renewal has changed in that service token.
func (r Record) renewalSeen(id string, renewed TokenFacts) Record {
	r = r.withServiceToken(id, r.FactsOf(id).updatedBy(renewed))
	if r.Work == nil || r.Work.TokenID != id {
		return r
	}
	return r.withWork(func(w *Work) { w.TouchedAt = moment.Max(w.TouchedAt, renewed.UpdatedAt) })
}

// updatedAtVoid forgets when that service token was last changed.
func (r Record) updatedAtVoid(id string) Record {
	facts := r.FactsOf(id)
	facts.UpdatedAt = time.Time{}
	return r.withServiceToken(id, facts)
}

// withReplaced sets which service tokens are left to be deleted.
func (r Record) withReplaced(left []Replaced) Record {
	r.Replaced = left
	return r
}

// failed notes that a deletion failed.
func (old Replaced) failed(err error, now time.Time) Replaced {
	old.Failures++
	old.NotBefore, old.LastError = now.Add(choreBackOff(old.Failures)), err.Error()
	return old
}

// withClientID notes the client ID of a replaced service token.
func (old Replaced) withClientID(id string) Replaced {
	old.ClientID = id
	return old
}

// deletedAt returns old with the time at which it is to be deleted.
func (old Replaced) deletedAt(at time.Time, promised bool) Replaced {
	old.At, old.NotBefore, old.Promised = at, time.Time{}, promised
	return old
}

// deletingAll lets all replaced service tokens be deleted now, although consumers were promised more time.
func (r Record) deletingAll(now time.Time) Record {
	r.Replaced = slices.Clone(r.Replaced)
	for i, old := range r.Replaced {
		r.Replaced[i] = old.deletedAt(now, false)
	}
	if r.Last != nil && r.Last.GraceEndsAt.After(now) {
		r = r.previousWorksUntil(now)
	}
	return r
}

// previousWorksUntil moves the end of the previous secret.
func (r Record) previousWorksUntil(end time.Time) Record {
	last := *r.Last
	last.GraceEndsAt = end
	r.Last = &last
	return r
}

// replacedWorkUntil moves the end of what was replaced by the last rotation.
func (r Record) replacedWorkUntil(end time.Time) Record {
	r.Replaced = slices.Clone(r.Replaced)
	for i, old := range r.Replaced {
		if old.At.Equal(r.Last.GraceEndsAt) {
			r.Replaced[i].At = end
		}
	}
	return r.previousWorksUntil(end)
}

// previousRevoked notes that the previous secret was revoked before its end.
func (r Record) previousRevoked(now time.Time) Record {
	r = r.previousWorksUntil(moment.Min(r.Last.GraceEndsAt, now))
	last := *r.Last
	last.Revoked = true
	r.Last = &last
	return r
}
