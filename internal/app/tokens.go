package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rotatord/internal/rotation"
)

// This file holds how tokens come, go and change while the engine runs.

// exchange gives the engine the tokens that a reload brings or changes, and takes those away
// that it removes: all of it at one moment, or, if the error is not nil, none. A rotation
// that has begun goes on with the token as it was. Those that came or changed rest until
// settle has made them known to the ledger.
func (e *engine) exchange(changed []rotation.Token, removed []string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.mayExchange(changed, removed); err != nil {
		return err
	}
	for _, name := range removed {
		delete(e.tokens, name)
		e.queue.Remove(name)
	}
	for _, token := range changed {
		s := e.tokens[token.Name]
		if s == nil {
			s = &scheduled{}
			e.tokens[token.Name] = s
		}
		s.token, s.enrolling = token, true
		e.queue.Remove(token.Name)
		e.takesTurns(token)
	}
	return nil
}

// sameIdentity reports whether two tokens are about the same service token, in the same way.
func sameIdentity(a, b rotation.Token) bool {
	return a.ID == b.ID && a.Partner == b.Partner && a.Replace == b.Replace && a.Origin() == b.Origin()
}

// mayExchange refuses to forget a service token in the middle of a rotation, whether its entry
// is gone or names another one now. e.mu must be held.
func (e *engine) mayExchange(changed []rotation.Token, removed []string) error {
	var errs []error
	check := func(name string) {
		if s := e.tokens[name]; s != nil && (s.working > 0 || s.record.Step != rotation.StepIdle) {
			errs = append(errs, fmt.Errorf("tokens.%s: a rotation is in hand (%s), and nobody would finish it: keep the entry as it is until that is done. rotatord status %s says how to end it",
				name, shownState(s.record), name))
		}
	}
	for _, name := range removed {
		check(name)
	}
	for _, token := range changed {
		if s := e.tokens[token.Name]; s != nil && !sameIdentity(s.token, token) {
			check(token.Name)
		}
	}
	return errors.Join(errs...)
}

// settle makes tokens known to the ledger that exchange brought, and queues them. Those that
// nobody works on are one write; each of the others is waited for. What the ledger refuses is
// tried again until ctx ends.
func (e *engine) settle(ctx context.Context, tokens []rotation.Token) {
	var idle, busy []rotation.Token
	for _, token := range tokens {
		if s, ok := e.view(token.Name); ok && s.working > 0 {
			busy = append(busy, token)
		} else {
			idle = append(idle, token)
		}
	}
	if records, err := e.rotator.EnrollAll(ctx, idle); err == nil {
		for i, token := range idle {
			e.settled(token, records[i])
		}
	} else { // an inventory came between, perhaps
		busy = append(busy, idle...)
	}
	for _, token := range busy {
		e.workers.Go(func() { e.settleOne(ctx, token) })
	}
}

func (e *engine) settleOne(ctx context.Context, token rotation.Token) {
	for {
		record, err := e.rotator.Enroll(ctx, token)
		if err == nil {
			e.settled(token, record)
			return
		}
		e.log.Error("a token that was reloaded is not scheduled yet: its record could not be written", "token", token.Name, "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(retryCeiling):
		}
	}
}

// settled ends the rest of a token, unless a later reload has given it another one.
func (e *engine) settled(token rotation.Token, record rotation.Record) {
	e.mu.Lock()
	s := e.tokens[token.Name]
	current := s != nil && sameIdentity(s.token, token) && s.token.Timetable.Schedule == token.Timetable.Schedule
	if current {
		s.enrolling = false
	}
	e.mu.Unlock()
	if current {
		e.add(token, record)
	}
}
