package rotation

import (
	"time"
)

// Due says when a token needs work next, and why at that time.
type Due struct {
	At      time.Time
	Slot    time.Time // the slot to serve; zero if a rotation in progress is continued
	Begin   time.Time // when the slot's work could have begun, after jitter and freeze
	Close   time.Time // when the slot is missed; zero if it has no window
	Trigger Trigger
	Reason  DueReason
	// Freeze names the freeze that At waits for, or that deferred the slot; empty if none.
	Freeze string
	// Wake is a time before At at which to consume a slot that a freeze passes over; zero if there is
	// none.
	Wake time.Time
	// Unscheduled is set if no time is known: the token is paused until an operator resumes it, or the
	// schedule has no more slots. Then At means nothing.
	Unscheduled bool
}

// DueReason is a stable code that says which rule decided the time.
type DueReason string

// The reasons, in the order of the rules.
const (
	DueUnfinished DueReason = "unfinished" // a rotation in progress is continued
	DueInDoubt    DueReason = "in_doubt"   // the doubt is looked at again
	DueReissue    DueReason = "reissue"    // a secret was lost, and a reissue is owed whatever the schedule says
	DueOrdered    DueReason = "ordered"    // an operator has ordered it, and it is tried until it is done
	DueCreate     DueReason = "create"     // the service token is not created yet
	DueNever      DueReason = "never"      // the schedule has no more slots outside of freezes
	DueSlot       DueReason = "slot"       // the schedule
	DueCatchUp    DueReason = "catch_up"   // slots passed while no daemon ran, and are made up for
	DueBackOff    DueReason = "back_off"   // the slot failed and waits for its next try
	DueGrace      DueReason = "grace"      // the slot waits for the previous secret's grace
	DuePaused     DueReason = "paused"     // an operator has paused the token
	DueFreeze     DueReason = "freeze"     // the slot waits for the end of a freeze
)

// dueRules are the rules in order: the first rule that applies decides.
var dueRules = []func(Token, Record, Pause) (Due, bool){
	dueUnfinished,
	dueInDoubt,
	dueReissue,
	dueOrdered,
	dueCreate,
	dueSlot,
}

// NextDue returns when t is due, from its record in the ledger and its pause. It is a pure function of its
// arguments: after a restart at any moment the result is the same time.
func NextDue(t Token, r Record, p Pause) Due {
	for _, rule := range dueRules {
		if due, ok := rule(t, r, p); ok {
			return due
		}
	}
	panic("rotation: the last rule always applies")
}

func dueUnfinished(_ Token, r Record, _ Pause) (Due, bool) {
	switch r.Step {
	case StepClaimed, StepIntent, StepSealed, StepStored:
		return Due{At: r.NotBefore, Trigger: TriggerRecovery, Reason: DueUnfinished}, true
	default:
		return Due{}, false
	}
}

func dueInDoubt(_ Token, r Record, _ Pause) (Due, bool) {
	return Due{At: r.NotBefore, Trigger: TriggerRecovery, Reason: DueInDoubt}, r.Step == StepInDoubt
}

// dueReissue is for a rotation that consumers need, because a secret was lost. No window, freeze or pause
// delays it.
func dueReissue(t Token, r Record, _ Pause) (Due, bool) {
	return Due{At: r.NotBefore, Trigger: r.NextTrigger, Reason: DueReissue}, r.owed()
}

// dueOrdered is for a rotation that an operator has ordered. A pause, a freeze or a grace delays it,
// unless the order overrides that.
func dueOrdered(t Token, r Record, p Pause) (Due, bool) {
	if r.Order == nil {
		return Due{}, false
	}
	due := Due{At: r.Order.Since, Trigger: r.Order.trigger(), Reason: DueOrdered}
	due.notBefore(r.NotBefore, DueBackOff)
	if r.Last != nil && !r.Order.Grace {
		due.notBefore(r.Last.GraceEndsAt, DueGrace)
	}
	if p.On() && !r.Order.Pause && due.pausedBy(p) {
		return due, true
	}
	if !r.Order.Freeze {
		due.notBefore(r.CatchUpAt, due.Reason)
		due.thaw(t, r.Order.Since)
	}
	return due, true
}

// dueCreate is for a service token that does not exist yet. No consumer uses it, so neither slots
// nor freezes apply.
func dueCreate(t Token, r Record, p Pause) (Due, bool) {
	if !t.Uncreated(r) {
		return Due{}, false
	}
	due := Due{At: r.NotBefore, Trigger: TriggerCreate, Reason: DueCreate}
	if p.On() {
		due.pausedBy(p)
	}
	return due, true
}

// dueSlot always applies. It waits for the end of a promised grace: no rotation starts while the previous
// secret is valid. Cloudflare has only one previous secret, so another rotation would revoke it early.
func dueSlot(t Token, r Record, p Pause) (Due, bool) {
	f := t.Timetable.Next(r.Anchor)
	if r.Last != nil && !f.Slot.IsZero() && f.Slot.Equal(r.Last.Slot) { // served already, while the clock was ahead
		f = t.Timetable.Next(f.Slot)
	}
	due := Due{At: f.Begin, Slot: f.Slot, Begin: f.Begin, Close: f.Close, Wake: f.FirstSkipped, Trigger: TriggerSchedule, Reason: DueSlot}
	if f.Slot.IsZero() {
		due.Unscheduled, due.Reason = true, DueNever
		return due, true
	}
	if f.Freeze != "" {
		due.Reason, due.Freeze = DueFreeze, f.Freeze
	}
	switch {
	case r.Failures > 0 && !r.NotBefore.IsZero() && !r.NotBefore.Before(f.Begin): // else another slot failed
		due.Trigger = TriggerRetry
	case !r.CatchUpAt.IsZero():
		due.Trigger = TriggerCatchUp
	}
	due.notBefore(r.CatchUpAt, DueCatchUp)
	due.notBefore(r.NotBefore, DueBackOff)
	if r.Last != nil {
		due.notBefore(r.Last.GraceEndsAt, DueGrace)
	}
	if !p.On() || !due.pausedBy(p) {
		due.thaw(t, f.Slot)
	}
	return due, true
}

// pausedBy delays a due time until a pause is over. It returns true if no time is known: the pause has no
// end.
func (d *Due) pausedBy(p Pause) (unscheduled bool) {
	d.notBefore(p.Until, DuePaused)
	if p.Until.IsZero() {
		d.Unscheduled, d.Reason = true, DuePaused
	}
	return d.Unscheduled
}

// thaw delays a due time until the end of a freeze.
func (d *Due) thaw(t Token, slot time.Time) {
	switch at, freeze := t.Timetable.Thaw(slot, d.At); {
	case freeze == "":
	case at.IsZero():
		d.Unscheduled, d.Reason = true, DueNever
	default:
		d.At, d.Reason, d.Freeze = at, DueFreeze, freeze
	}
}

// notBefore delays a due time until t, for that reason.
func (d *Due) notBefore(t time.Time, because DueReason) {
	if t.After(d.At) {
		d.At, d.Reason, d.Freeze = t, because, ""
	}
}
