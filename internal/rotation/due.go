package rotation

import (
	"time"

	"rotatord/internal/scheduler"
)

// Token is one service token as the configuration describes it.
type Token struct {
	Name    string // config name, and the ledger's key
	Account string // config name of the account
	ID      string // Cloudflare's UUID
	// Partner is the UUID of the second service token of a pair, of which ID is the one
	// that was in use to begin with; empty for a single token.
	Partner   string
	Grace     time.Duration
	Timetable scheduler.Timetable
	Issuer    Issuer
	Sinks     []Sink
}

// Due says when a token is to be looked at next, and why then.
type Due struct {
	At      time.Time
	Slot    time.Time // the slot to serve; zero when a rotation in hand is continued
	Begin   time.Time // slot and jitter: when the slot's work could have begun
	Trigger Trigger
	Reason  DueReason
}

// DueReason is a stable code for what decided the time.
type DueReason string

// The reasons, in the order in which the rules are asked.
const (
	DueUnfinished DueReason = "unfinished" // a rotation in hand is continued
	DueInDoubt    DueReason = "in_doubt"   // the doubt is looked at again
	DueGrace      DueReason = "grace"      // the slot waits for the previous secret's grace
	DueBackOff    DueReason = "back_off"   // the slot failed and waits for its next try
	DueSlot       DueReason = "slot"       // the schedule
)

// dueRules is the ordered chain: the first rule that applies decides.
var dueRules = []func(Token, Record) (Due, bool){
	dueUnfinished,
	dueInDoubt,
	dueSlot,
}

// NextDue says when t is due, given what the ledger knows. It is a pure function of
// its arguments: a restart at any moment arrives at the same time.
func NextDue(t Token, r Record) Due {
	for _, rule := range dueRules {
		if due, ok := rule(t, r); ok {
			return due
		}
	}
	panic("rotation: the last rule applies always")
}

func dueUnfinished(_ Token, r Record) (Due, bool) {
	switch r.Step {
	case StepClaimed, StepIntent, StepSealed, StepStored:
		return Due{At: r.NotBefore, Trigger: TriggerRecovery, Reason: DueUnfinished}, true
	default:
		return Due{}, false
	}
}

func dueInDoubt(_ Token, r Record) (Due, bool) {
	return Due{At: r.NotBefore, Trigger: TriggerRecovery, Reason: DueInDoubt}, r.Step == StepInDoubt
}

// dueSlot applies always. A promised grace is kept: while the previous secret is still
// valid no rotation starts, since Cloudflare keeps one previous secret only and
// rotating again would cut it off early.
func dueSlot(t Token, r Record) (Due, bool) {
	f := t.Timetable.Next(r.Anchor)
	slot, begin := f.Slot, f.Begin
	due := Due{At: begin, Slot: slot, Begin: begin, Trigger: TriggerSchedule, Reason: DueSlot}
	if r.Failures > 0 {
		due.Trigger = TriggerRetry
	}
	if r.NotBefore.After(due.At) {
		due.At, due.Reason = r.NotBefore, DueBackOff
	}
	if r.Last != nil && r.Last.GraceEndsAt.After(due.At) {
		due.At, due.Reason = r.Last.GraceEndsAt, DueGrace
	}
	return due, true
}
