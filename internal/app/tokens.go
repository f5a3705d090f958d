package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
)

// This file adds, changes and removes tokens while the engine runs.

// replaceTokens adds and changes tokens for a reload, and removes others: all of it at once, or nothing
// if it returns an error. A rotation that has begun goes on with the token as it was. New and changed
// tokens wait until enrollReloaded has made them known to the ledger.
func (e *engine) replaceTokens(changed []rotation.Token, removed []string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.checkReplace(changed, removed); err != nil {
		return err
	}
	for _, name := range removed {
		e.drop(name)
	}
	for _, token := range changed {
		s := e.tokens[token.Name]
		if s == nil {
			s = &kept{}
			e.tokens[token.Name] = s
		}
		s.token, s.enrolling = lean(token), true
		e.queue.Remove(token.Name)
		e.openTurns(token)
	}
	return nil
}

// sameIdentity reports whether two tokens mean the same service token, and rotate it in the same way.
func sameIdentity(a, b rotation.Token) bool {
	return a.ID == b.ID && a.Partner == b.Partner && a.Replace == b.Replace && a.Origin() == b.Origin()
}

// checkReplace refuses to forget a service token during its rotation: its entry was removed, or names
// another service token. e.mu must be held.
func (e *engine) checkReplace(changed []rotation.Token, removed []string) error {
	var errs []error
	check := func(name string) {
		s := e.tokens[name]
		if s == nil {
			return
		}
		if record := s.record.Get(); s.active > 0 || record.Step != rotation.StepIdle {
			errs = append(errs, fmt.Errorf("tokens.%s: a rotation is in progress (%s), and would never be finished: keep the entry as it is until the rotation is done. rotatord status %s says how to end it",
				name, shownState(record), name))
		}
	}
	for _, name := range removed {
		check(name)
	}
	for _, token := range changed {
		if s := e.tokens[token.Name]; s != nil && !sameIdentity(s.token.token(), token) {
			check(token.Name)
		}
	}
	return errors.Join(errs...)
}

// enrollReloaded makes the tokens known to the ledger that replaceTokens added or changed, and queues
// them. Idle tokens are one write of the ledger; each of the others is waited for. If the ledger cannot
// be written, it tries again until ctx ends.
func (e *engine) enrollReloaded(ctx context.Context, tokens []rotation.Token) {
	var idle, busy []rotation.Token
	for _, token := range tokens {
		if s, ok := e.view(token.Name); ok && s.active > 0 {
			busy = append(busy, token)
		} else {
			idle = append(idle, token)
		}
	}
	records, err := e.rotator.EnrollAll(ctx, idle)
	if errors.Is(err, rotation.ErrConflict) { // a listing has changed one of them meanwhile
		records, err = e.rotator.EnrollAll(ctx, idle)
	}
	if err == nil {
		for i, token := range idle {
			e.enrolled(token, records[i])
		}
	} else {
		e.workers.Go(func() { e.enrollEach(ctx, idle) })
	}
	for _, token := range busy { // each waits for its own rotation in progress
		e.workers.Go(func() { e.enrollEach(ctx, []rotation.Token{token}) })
	}
}

// enrollsAtOnce is how many tokens are enrolled at the same time, each in a transaction of its own.
const enrollsAtOnce = 16

// enrollEach makes tokens known to the ledger one by one, and tries again what could not be written until ctx ends. It leaves out tokens that a later
// reload has changed or removed. It tells of each token once an hour: while a disk is full, the same thousands of tokens fail every time.
func (e *engine) enrollEach(ctx context.Context, tokens []rotation.Token) {
	var told time.Time
	for {
		errs := e.enrollSome(ctx, tokens)
		if ctx.Err() != nil {
			return
		}
		tell := told.IsZero() || time.Since(told) >= time.Hour
		if tell {
			told = time.Now()
		}
		var left []rotation.Token
		for i, err := range errs {
			if err == nil || errors.Is(err, rotation.ErrReplaced) {
				continue
			}
			left = append(left, tokens[i])
			if tell {
				e.tell(tokens[i].Name, event.NotEnrolled{Err: err})
			}
		}
		if tokens = left; len(tokens) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(retryCeiling):
		}
	}
}

// enrollSome tries once to make each of these tokens known to the ledger, and queues those that are. It returns the error of
// each token. It tries none any more after ctx has ended.
func (e *engine) enrollSome(ctx context.Context, tokens []rotation.Token) []error {
	errs := make([]error, len(tokens))
	var enrolling errgroup.Group
	enrolling.SetLimit(enrollsAtOnce)
	for i, token := range tokens {
		if ctx.Err() != nil {
			break
		}
		enrolling.Go(func() error {
			var record rotation.Record
			if record, errs[i] = e.rotator.EnrollIf(ctx, token, func() bool { return e.isConfigured(token) }); errs[i] == nil {
				e.enrolled(token, record)
			}
			return nil
		})
	}
	_ = enrolling.Wait()
	return errs
}

// isConfigured reports whether no later reload has changed or removed a token.
func (e *engine) isConfigured(token rotation.Token) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.tokens[token.Name]
	return s != nil && s.isOf(token)
}

// isOf reports whether a token was not changed by a reload after that one: each has parsed its own schedules.
func (k *kept) isOf(token rotation.Token) bool {
	now := k.token.token()
	return sameIdentity(now, token) && now.Timetable.Schedule == token.Timetable.Schedule
}

// enrolled lets the engine work on a token again, unless a later reload has changed the token.
func (e *engine) enrolled(token rotation.Token, record rotation.Record) {
	e.mu.Lock()
	s := e.tokens[token.Name]
	current := s != nil && s.isOf(token)
	if current {
		s.enrolling = false
	}
	e.mu.Unlock()
	if current {
		e.add(token, record)
	}
}
