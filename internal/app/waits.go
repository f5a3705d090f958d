package app

import (
	"time"

	"rotatord/internal/admission"
	"rotatord/internal/rotation"
)

// waitsFor says what delays a token that is due, and until when if that is known; "" if nothing does.
func (e *engine) waitsFor(s scheduled) (what string, until time.Time) {
	e.mu.Lock()
	turns := e.turns[s.token.Account]
	e.mu.Unlock()
	if s.waiting && turns != nil {
		return turns.WaitsFor(s.turn(e.now()), s.token.Account)
	}
	issuer, ok := s.token.Issuer.(admission.Explainer)
	switch {
	case !ok:
	case s.active > 0 && s.record.Step == rotation.StepClaimed: // its request waits to leave, or soon will
		if why, until := issuer.DelayReason(rotation.UrgencySlot); why != "" {
			return admission.LimitWords(why), until
		}
	case s.active == 0 && s.due.Reason == rotation.DueBackOff && s.due.At.After(e.now()):
		// Its own request may be the one that was refused.
		if why, until := issuer.DelayReason(rotation.UrgencySlot); why != "" && until.Sub(s.due.At).Abs() <= 2*time.Second {
			return admission.LimitWords(why), until
		}
	}
	return "", time.Time{}
}

// turn returns the turn that the token asks for now.
func (s scheduled) turn(now time.Time) admission.Turn {
	return admission.Work{Record: s.record, Due: s.due, Chore: s.chore}.Turn(now)
}
