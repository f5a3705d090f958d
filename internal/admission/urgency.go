package admission

import (
	"time"

	"rotatord/internal/rotation"
)

// Work is what a token is due for.
type Work struct {
	Record rotation.Record
	Due    rotation.Due
	Chore  time.Time // when there is something to do beside rotations; zero for never
}

// Turn returns the turn that the token asks for now.
func (w Work) Turn(now time.Time) Turn {
	one := w.ordinary(now)
	switch at := w.Record.EmergencyAt(); {
	case at.IsZero():
	case !at.After(now):
		one.Urgency, one.RisesAt = rotation.UrgencyEmergency, time.Time{}
	default:
		one.RisesAt, one.RisesTo = at, rotation.UrgencyEmergency
	}
	return one
}

// ordinary returns the turn of a token that is not an emergency.
func (w Work) ordinary(now time.Time) Turn {
	switch w.Record.Step {
	case rotation.StepIntent, rotation.StepSealed, rotation.StepStored:
		return Turn{Urgency: rotation.UrgencyDoubt, Local: true} // if there was an answer, it is sealed here
	case rotation.StepInDoubt:
		return Turn{Urgency: rotation.UrgencyDoubt}
	}
	if !w.Chore.IsZero() && !w.Chore.After(now) { // the chore is first, and whatever else is due asks again
		return w.chore(now)
	}
	return w.rotation(now)
}

// chore returns the turn of a chore. A chore never delays a rotation of the same token that is due. To
// revoke a leaked secret is as urgent as an order.
func (w Work) chore(now time.Time) Turn {
	one := Turn{Urgency: rotation.UrgencyRoutine}
	if !w.Due.Unscheduled && !w.Due.At.After(now) {
		one = w.rotation(now)
	}
	if end := w.Record.Facts.ExpiresAt; !end.IsZero() && end.Sub(now) < rotation.EmergencyAhead { // the chore renews it
		one.Urgency = rotation.UrgencyEmergency
	}
	for _, old := range w.Record.Replaced {
		if !old.Promised && !old.At.After(now) && !old.NotBefore.After(now) {
			one.Urgency = max(one.Urgency, rotation.UrgencyManual)
		}
	}
	return one
}

// rotation returns the turn of a rotation that is due.
func (w Work) rotation(now time.Time) Turn {
	one := Turn{Urgency: rotation.UrgencySlot, Close: w.Due.Close}
	switch {
	case w.Due.Reason == rotation.DueOrdered: // rotations that were ordered together begin in that order
		return Turn{Urgency: rotation.UrgencyManual, Close: w.Record.Order.Since}
	case w.Due.Trigger == rotation.TriggerManual:
		one.Urgency = rotation.UrgencyManual
	case w.Due.Reason == rotation.DueReissue:
		one.Urgency = rotation.UrgencyDoubt
	case w.Due.Trigger == rotation.TriggerCatchUp:
		one.Urgency = rotation.UrgencyCatchUp
	}
	if !one.Close.IsZero() {
		one.RisesTo = rotation.UrgencyClosing
		one.RisesAt = one.Close.Add(-max(one.Close.Sub(w.Due.Begin)/10, time.Minute))
		if !one.RisesAt.After(now) {
			one.Urgency, one.RisesAt = max(one.Urgency, rotation.UrgencyClosing), time.Time{}
		}
	}
	return one
}
