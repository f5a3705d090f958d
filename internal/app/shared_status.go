package app

import (
	"slices"
	"time"

	"rotatord/internal/pending"
	"rotatord/internal/status"
)

// This file shows what is known of tokens because several replicas share the ledger.

// showSharing shows who works on a token, and what is known of its answers; nil if the daemon is alone, or if there is
// nothing to say.
func (a *App) showSharing(seen scheduled) *status.Sharing {
	if a.sharing == nil {
		return nil
	}
	var s status.Sharing
	record := seen.record
	if hold := record.Hold; hold != nil {
		s.Hold = &status.Hold{Replica: hold.Replica}
		if left := a.sharing.ledger.HoldLeft(record); left > 0 {
			s.Hold.Until = a.now().Add(left).UTC().Truncate(time.Second)
		} else {
			s.Hold.Until = a.now().Add(-time.Second).UTC().Truncate(time.Second)
		}
	}
	if record.Work != nil {
		s.BegunBy, s.Copied = record.Work.Replica, record.Work.Copied
	}
	s.Late = a.sharing.keptLateOf(seen)
	if s.Hold == nil && s.BegunBy == "" && !s.Copied && s.Late == nil {
		return nil
	}
	return &s
}

// lateAnswer is a sealed answer on the disk that came too late: a later secret took its place.
type lateAnswer struct {
	token string
	shown status.LateAnswer
}

// noteLate notes which of the answers on the disk came too late. Only [sharing.lateAnswers] calls it.
func (s *sharing) noteLate(sealed []pending.Sealed) {
	var late []lateAnswer
	for _, answer := range sealed {
		if s.superseded[answer.RotationID] {
			late = append(late, lateAnswer{answer.Token, status.LateAnswer{RotationID: answer.RotationID, SealedAt: answer.At.UTC(), Superseded: true}})
		}
	}
	s.keptLate.Store(&late)
}

// keptLateOf returns the late answers for a token, from memory.
func (s *sharing) keptLateOf(seen scheduled) (all []status.LateAnswer) {
	late := s.keptLate.Load()
	if late == nil {
		return nil
	}
	for _, answer := range *late {
		if answer.token == seen.token.Name && (seen.record.Work == nil || seen.record.Work.RotationID != answer.shown.RotationID) {
			all = append(all, answer.shown)
		}
	}
	return all
}

// isUnread reports whether nothing is known of the state of a token, because its record could not be read.
func (a *App) isUnread(seen scheduled) bool {
	return a.sharing != nil && (!a.sharing.isJoined() || seen.unreadable != nil)
}

// countTokens adds for how many tokens each living replica comes first, on which each works, and how many have a copy of
// their sealed answer.
func (a *App) countTokens(view *status.Replicas) {
	prefers, works := make(map[string]int), make(map[string][]string)
	for _, t := range a.InForce().Tokens {
		seen, _ := a.engine.view(t.Name)
		prefers[a.sharing.room.First(t.Name, seen.record)]++
		if hold := seen.record.Hold; hold != nil {
			works[hold.Replica] = append(works[hold.Replica], t.Name)
		}
		if work := seen.record.Work; work != nil && work.Copied {
			view.Copies++
		}
	}
	for i := range view.Replicas {
		r := &view.Replicas[i]
		r.Prefers, r.Tokens = prefers[r.Name], works[r.Name]
		slices.Sort(r.Tokens)
	}
}
