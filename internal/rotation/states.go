package rotation

import (
	"fmt"
	"time"
)

// This file names the states that an operator can see, and what to type then. Every state has an exit: it
// ends by itself, or a command or an edit ends it. docs/states.md has the whole table; a test writes it
// from this code.

// State is the state of a token as an operator needs to know it: a [Step], or a part of a step that needs
// another action.
type State string

// The states.
const (
	StateIdle       State = "idle"       // nothing is to be done before the next slot
	StateUncreated  State = "unmade"     // the service token is not created yet
	StateOwed       State = "owed"       // a secret was lost, and the rotation that makes up for it has not succeeded
	StateOrdered    State = "ordered"    // an operator has ordered a rotation that is not done
	StateClaimed    State = "claimed"    // a rotation began, and nothing was asked of Cloudflare
	StateIntent     State = "intent"     // a request may have left
	StateUnsealed   State = "unsealed"   // the new secret is only in memory, because the disk refused it
	StateSealed     State = "sealed"     // the new secret waits for its sinks
	StateOvertaken  State = "overtaken"  // a sink holds a secret that is later than the new one
	StateStored     State = "stored"     // the new secret is in every sink, and the rotation is about to end
	StateUnverified State = "unverified" // the new secret is in every sink, and not accepted where it is tried
	StateDoubt      State = "in_doubt"   // it is not known whether the request was carried out
)

// States are all states, in the order of a rotation.
var States = []State{
	StateIdle, StateUncreated, StateOwed, StateOrdered, StateClaimed, StateIntent, StateUnsealed, StateSealed, StateOvertaken,
	StateStored, StateUnverified, StateDoubt,
}

// StateOf returns the state of a token with that record.
func (r *Rotator) StateOf(t Token, record Record) State {
	switch record.Step {
	case StepIdle:
		switch {
		case record.owed():
			return StateOwed
		case record.Order != nil:
			return StateOrdered
		case t.Uncreated(record):
			return StateUncreated
		}
		return StateIdle
	case StepClaimed:
		return StateClaimed
	case StepIntent:
		if _, unsealed := r.unsealedAnswer(record.Work.RotationID); unsealed {
			return StateUnsealed
		}
		return StateIntent
	case StepSealed:
		if record.Work.Overtaken != nil {
			return StateOvertaken
		}
		return StateSealed
	case StepStored:
		if record.Work.Verification.Probes > 0 && !record.Work.Verification.Accepted {
			return StateUnverified
		}
		return StateStored
	case StepInDoubt:
		return StateDoubt
	}
	return State(record.Step) // a step of a newer version; it has no exit here
}

// Exit is something that ends a state, or ends the cause why the state does not end.
type Exit struct {
	// Command is what to type; empty if the exit is done elsewhere, or comes by itself.
	Command string `json:"command,omitempty"`
	// Does says what it does, or what to do.
	Does string `json:"does"`
}

// Troubles are the troubles of a token that are not in its record.
type Troubles struct {
	Gone     bool // Cloudflare has no such service token
	Disabled bool // Cloudflare refuses its secrets
	Expired  bool // the service token itself has ended
	Pause    Pause
	// PausedAll is set if Pause is the pause of all tokens.
	PausedAll bool
	At        time.Time // the time to which all this refers; zero: no grace lasts any more
	Freeze    string    // the freeze that its next rotation waits for
}

// Exits returns what ends the state of a token; exits that come by themselves are first. It is empty for a
// token that needs no person.
func (r *Rotator) Exits(t Token, record Record, now Troubles) []Exit {
	exits := append(exitsOf(r.StateOf(t, record), t, record, now), exitsFrom(t, record, now)...)
	if record.Step == StepIdle && record.Order != nil {
		exits = append(exits, Exit{"rotatord rotate " + t.Name + " --cancel", "Take the order back."})
	}
	return exits
}

// exitsOf returns the exits of a state.
func exitsOf(state State, t Token, record Record, now Troubles) []Exit {
	resolve, leaked := "rotatord resolve "+t.Name, Exit{
		"rotatord rotate " + t.Name + " --revoke-now",
		"If a secret has leaked: this goes before a rotation in progress, and is tried until it is done.",
	}
	switch state {
	case StateIdle:
		if record.Failures == 0 || now.Gone {
			return nil
		}
		return []Exit{{"", "The last attempt failed: mend what the last error names. It is tried again by itself, and rotatord rotate " + t.Name + " tries it now."}}
	case StateClaimed, StateIntent:
		return []Exit{{"", "It goes on by itself within a minute or two. If it does not, mend what the last error names."}}
	case StateUnsealed:
		return []Exit{{"", "Make the daemon's disk writable, and do not stop the daemon until then: it goes on by itself."}}
	case StateSealed:
		return sealedExits(resolve, t, record, now)
	case StateOvertaken:
		return overtakenExits(resolve, record, leaked)
	case StateUnverified:
		return []Exit{
			{"", "It is tried again by itself: Cloudflare's edge may need a moment to know a new secret, and an application may be mended."},
			{resolve + " --accept", "Take the new secret as good: the application is at fault, or its policy. The old secret is not extended any longer."},
			{resolve + " --rotate-now", "Take the new secret as bad, and rotate again. This CUTS OFF the old secret: consumers fail until they have read the new one from the sinks."},
			leaked,
		}
	case StateStored:
		return []Exit{{"", "It ends by itself. If it does not, the last error says why: most often the daemon's disk is full."}}
	case StateDoubt:
		return doubtExits(resolve, record, now, leaked)
	case StateOwed:
		if now.Gone {
			return nil
		}
		return []Exit{{"rotatord rotate " + t.Name, "A secret was lost, and the daemon rotates again by itself: this tries it now. If it fails, mend what the error names."}}
	case StateOrdered:
		return []Exit{{"", "It is carried out by itself, when what it waits for is over and the last error is mended. `rotatord rotate " + t.Name + " --override-grace` does not wait for the end of the grace."}}
	case StateUncreated:
		return []Exit{{"", "The daemon creates the service token by itself. If it does not, mend what the last error names."}}
	}
	return nil
}

func sealedExits(resolve string, t Token, record Record, now Troubles) []Exit {
	exits := []Exit{
		{"", "Mend what the last error names, most often the sink, or configure another sink and reload: delivery is tried again at least every 30 s."},
		{resolve, "Try to deliver it now."},
		{resolve + " --drop", "Only if the service token was deleted at Cloudflare: give the secret up."},
	}
	if end := record.Work.GraceEndsAt; record.Work.LeavesCurrentInUse() || end.IsZero() || now.Gone {
		return exits
	}
	return append(exits,
		Exit{"rotatord extend-grace " + t.Name + " 24h", "Keep the old secret, which consumers use until then, working for longer. The daemon extends it by itself too."},
		Exit{"rotatord revoke-previous " + t.Name + " --override-in-use", "If the old secret has leaked and the sink stays away: revoke it now. CONSUMERS FAIL until they can read the new one."})
}

func overtakenExits(resolve string, record Record, leaked Exit) []Exit {
	exits := []Exit{
		{resolve, "Look again now. If the sink holds our secret or the one from before again, the rotation goes on by itself."},
		{resolve + " --drop", "The secret in the sinks is the right one: end this rotation. Ours stays sealed until a later rotation is done."},
		{resolve + " --deliver", "Ours is the right one: write it over what the sinks hold."},
	}
	if record.Work.Overtaken.Gone {
		return exits
	}
	return append(exits, Exit{resolve + " --rotate-now", "Rotate again over both: the sinks get a secret that works. The one in them keeps working for the grace, if it is the current one."}, leaked)
}

func doubtExits(resolve string, record Record, now Troubles, leaked Exit) []Exit {
	exits := append(doubtByItself(record, now.At), Exit{resolve, "Look again now, and show what is known."})
	if record.Work != nil && record.Work.strategy().traits().creates {
		exits = append(exits, Exit{"", "It ends by itself, a minute after the request, once Cloudflare says whether the service token was created."},
			Exit{resolve + " --rotate-now", "Only if it stays in doubt after that: take its secret as lost, and create another service token."})
		return append(exits, leaked)
	}
	exits = append(exits, Exit{resolve + " --rotate-now", "Take its secret as lost, and rotate again at once. If the rotation was carried out, this CUTS OFF the old secret."})
	if record.Doubt.MayDeliver() {
		exits = append(exits, Exit{resolve + " --deliver", "Deliver the sealed answer to the sinks."})
	}
	if !record.Doubt.CarriedOut && !record.Doubt.Answered() {
		exits = append(exits, Exit{resolve + " --assume-not-rotated", "Only if you know that it was not carried out: the slot is served again at once."})
	}
	if now.Gone {
		return append(exits, Exit{resolve + " --drop", "The service token is gone: end the doubt, so that the entry can name another one."})
	}
	return append(exits, leaked)
}

// doubtByItself says how a doubt ends if no operator decides, while consumers have a secret that works.
func doubtByItself(record Record, at time.Time) []Exit {
	if at.IsZero() || record.Work == nil || record.Work.LeavesCurrentInUse() || !record.Doubt.OldWorksUntil.After(at) {
		return nil
	}
	ends := "if Cloudflare shows that it was carried out, the grace of the old secret is extended, and the token is rotated again three graces after the request; otherwise when half of the grace is left"
	if record.Doubt.CarriedOut || record.Doubt.Answered() {
		ends = "the grace of the old secret is extended, and the token is rotated again three graces after the request"
	}
	return []Exit{{"", "It ends by itself: " + ends + ". Decide it now if consumers can read a new secret at once, or if they fail."}}
}

// exitsFrom returns the exits from troubles that can come in any state.
func exitsFrom(t Token, record Record, now Troubles) (exits []Exit) {
	if now.Gone {
		exits = append(exits, Exit{"", "The account has no such service token. In its entry of the configuration write create: {name: " + t.Name +
			"} in place of id, or the id of another one. A rotation in progress must end before that."})
	}
	if now.Disabled {
		exits = append(exits, Exit{"", "Enable the service token in Cloudflare's dashboard: until then all its secrets are refused."})
	}
	if now.Expired {
		exits = append(exits, Exit{"", "The service token itself has ended: refresh it in Cloudflare's dashboard, and set renew_before."})
	}
	if record.Renewal.Failures > 0 {
		exits = append(exits, Exit{"", "Renewing the service token fails: mend what its error names, or refresh the service token in Cloudflare's dashboard."})
	}
	if !record.Outside.IsZero() {
		exits = append(exits, Exit{rotateOverOutside(t, record, now.At), "Another person or program rotated the token: this brings the sinks a secret that works. " +
			"The secret that consumers have stops working with it, if it still does: have them read the new one."})
	}
	exits = append(exits, watchExits(t, record)...)
	if now.Pause.On() {
		resume := "rotatord resume " + t.Name
		if now.PausedAll {
			resume = "rotatord resume --all"
		}
		exits = append(exits, Exit{resume, "Lift the pause."})
	}
	if now.Freeze != "" {
		exits = append(exits, Exit{"rotatord rotate " + t.Name + " --override-freeze", "Rotate although the freeze " + now.Freeze + " lasts."})
	}
	if old := firstFailing(record.Replaced); old != nil {
		exits = append(exits, Exit{"rotatord revoke-previous " + t.Name, fmt.Sprintf("Try again to delete the service token %s that was replaced. "+
			"If a policy names it, change the policy first; if a sink holds it, rotate again.", old.TokenID)})
	}
	return exits
}

// watchExits returns the exits from what the watch has found.
func watchExits(t Token, record Record) (exits []Exit) {
	if record.Step != StepIdle {
		return nil // the rotation in progress writes all sinks
	}
	rotate := Exit{"rotatord rotate " + t.Name, "Only if the secret cannot be put back: this brings all sinks a new one. Until the grace of the previous secret is over it needs --override-grace."}
	mended, accept := false, false
	for _, sink := range t.Sinks {
		switch kind := record.Findings[sink.Name()].Kind; kind {
		case FoundChanged, FoundRolledBack:
			mended, accept = true, true
		case FoundUnreadable:
			exits = append(exits, Exit{"", "Mend why the sink " + sink.Name() + " cannot be read: most often a policy, or a file in another format."})
			mended = true
		case "":
		default:
			mended = true
		}
	}
	if mended && !record.owed() {
		exits = append(exits, Exit{"rotatord resolve " + t.Name, "Look at the sinks again now, for example after you put the secret back."})
	}
	if accept && !record.owed() {
		exits = append(exits, Exit{"rotatord resolve " + t.Name + " --accept", "Only if what all sinks hold is the right secret, for example because a person rotated by hand: take it as it is."})
	}
	if mended {
		exits = append(exits, rotate)
	}
	if record.RefusedInUse != nil && t.VerifyEvery > 0 {
		exits = append(exits,
			Exit{"", "The secret in use is refused at the application: look at its Access policy, at whether the service token is enabled, and at the application itself. It is tried again by itself."},
			Exit{"rotatord rotate " + t.Name, "Only if the secret itself is bad: this brings all sinks a new one."})
	}
	return exits
}

// rotateOverOutside returns the command that rotates a token after another person or program has rotated it. The grace that
// our own last rotation promised is of a secret that Cloudflare does not accept any more: it keeps one previous secret.
func rotateOverOutside(t Token, record Record, at time.Time) string {
	if record.Step == StepIdle && record.GraceEnd().After(at) {
		return "rotatord rotate " + t.Name + " --override-grace"
	}
	return "rotatord rotate " + t.Name
}

func firstFailing(all []Replaced) *Replaced {
	for i := range all {
		if all[i].Failures > 0 {
			return &all[i]
		}
	}
	return nil
}

// PausedByName reports whether the token is paused by its own pause, and not by the pause of all tokens.
func (r *Rotator) PausedByName(token string) bool {
	now := r.PauseOf(token)
	r.pauseMu.Lock()
	defer r.pauseMu.Unlock()
	return now.On() && now == r.pauses[token]
}

// Expired reports whether a service token has ended by now.
func (f TokenFacts) Expired(now time.Time) bool {
	return !f.ExpiresAt.IsZero() && f.Duration != forever && !now.Before(f.ExpiresAt)
}
