package app

import (
	"context"
	"errors"
	"time"

	"rotatord/internal/moment"
	"rotatord/internal/rotation"
)

// This file holds what an engine does beside others that share its ledger: it learns what they have saved, and
// leaves to them what they do first.

// peers are the other replicas that share the ledger. Methods are called with locks held, so they return at once and
// call nothing of the engine.
type peers interface {
	// Wait returns how long after something is due this replica leaves it to the ones that are preferred for the
	// token; 0 if this one is preferred.
	Wait(token string, r rotation.Record) time.Duration
	// HeldFor returns for how long another replica still has the right to work on the token; 0 if none has.
	HeldFor(r rotation.Record) time.Duration
	// Owns reports whether this replica has sent the request of the rotation in progress, or has its answer.
	Owns(r rotation.Record) bool
	// MayBegin returns why this replica must not begin anything now; nil if it may.
	MayBegin() error
}

const (
	// lostRetry is when a token is looked at again after another replica was faster.
	lostRetry = time.Second
	// asideRetry is when a token is looked at again while this replica may not begin anything.
	asideRetry = 5 * time.Second
)

// await adds tokens that wait until the ledger can be read: see joining.
func (e *engine) await(tokens []rotation.Token) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, token := range tokens {
		e.tokens[token.Name] = &kept{token: lean(token), condition: condition{enrolling: true, joining: true}}
		e.openTurns(token)
	}
}

// joinLedger makes the tokens known to the ledger that wait for it, and queues them. Those whose record is unreadable
// are tried again by themselves, until a stop begins.
func (e *engine) joinLedger(ctx, beginning context.Context, unreadable map[string]error) error {
	var tokens, alone []rotation.Token
	e.mu.Lock()
	for name, s := range e.tokens {
		switch {
		case !s.joining:
		case unreadable[name] != nil:
			alone = append(alone, s.token.token())
		default:
			tokens = append(tokens, s.token.token())
		}
	}
	e.mu.Unlock()
	records, err := e.rotator.EnrollAll(ctx, tokens)
	if err != nil {
		return err
	}
	for i, token := range tokens {
		e.enrolled(token, records[i])
	}
	if len(alone) > 0 {
		e.workers.Go(func() { e.enrollEach(beginning, alone) })
	}
	return nil
}

// mayBegin returns why nothing may begin here now; nil if something may.
func (e *engine) mayBegin() error {
	if e.peers == nil {
		return nil
	}
	return e.peers.MayBegin()
}

// heldByOther reports whether another replica has the right to work on the token of a record.
func (e *engine) heldByOther(r rotation.Record) bool { return e.peers != nil && e.peers.HeldFor(r) > 0 }

// leaveToOthers reports whether another replica comes first for a token whose time has come. Then the token is
// looked at again when it is this one's turn. Mostly that never comes, because another record is learned before.
func (e *engine) leaveToOthers(name string) bool {
	if e.peers == nil {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.tokens[name]
	if s == nil || s.enrolling {
		return false
	}
	wait := asideRetry
	if e.peers.MayBegin() == nil || e.peers.Owns(s.record.Get()) { // what it has begun it brings to an end
		wait = e.othersFirst(s)
	}
	if wait > 0 {
		e.queue.Set(name, e.now().Add(wait))
	}
	return wait > 0
}

// othersFirst returns for how long other replicas come first for what is due for a token; 0 if they do not. e.mu must
// be held.
func (e *engine) othersFirst(s *kept) time.Duration {
	now, record, planned := e.now(), s.record.Get(), s.due.Get()
	if held := e.peers.HeldFor(record); held > 0 {
		// When it has ended, the preferred one takes over, and the next one only if that one does not.
		s.since = now.Add(held)
		return held
	}
	due := planned.At
	if !s.chore.IsZero() && (planned.Unscheduled || s.chore.Before(due)) {
		due = s.chore
	}
	began := moment.Max(due, s.since)
	return max(0, began.Add(e.peers.Wait(s.token.name, record)).Sub(now))
}

// ours reports whether this replica is the one that works on a token and watches it.
func (e *engine) ours(s scheduled) bool {
	return e.peers == nil || e.peers.MayBegin() == nil && e.peers.Wait(s.token.Name, s.record) == 0
}

// learn takes over records that other replicas have saved, and plans their tokens again.
func (e *engine) learn(records []rotation.Record) {
	for _, record := range records {
		e.mu.Lock()
		s := e.tokens[record.Token]
		news := s != nil && !s.enrolling && record.Revision > s.record.Get().Revision
		idle := news && s.active == 0
		if news {
			s.take(record)
			s.since = e.now()
			e.setUnrecovered(s, false)
			s.unrecorded, s.unrecordedErr, s.unsaved = 0, nil, false
		}
		e.mu.Unlock()
		if idle {
			e.plan(record.Token, record, 0)
		}
	}
}

// setUnreadable notes for which tokens the record in the ledger cannot be used.
func (e *engine) setUnreadable(all map[string]error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for name, s := range e.tokens {
		s.unreadable = all[name]
	}
}

// lost reports whether an error means that another replica was faster or works on the token. Nothing has failed
// then.
func (e *engine) lost(err error) bool {
	return e.peers != nil && (errors.Is(err, rotation.ErrHeld) || errors.Is(err, rotation.ErrConflict))
}
