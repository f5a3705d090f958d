package app

import (
	"context"

	"rotatord/internal/rotation"
)

// This file handles slots that passed: no daemon ran, or the wall clock was set, or the token was
// paused.

// catchUp lets the rotator decide about tokens whose slots passed, and plans them again. There may be
// very many of them at once. Tokens that are added while some are decided about come next, and all of
// them are one write of the ledger.
func (e *engine) catchUp(ctx context.Context, names ...string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.passed = append(e.passed, names...)
	if !e.catchingUp && len(e.passed) > 0 {
		e.catchingUp = true
		e.workers.Go(func() {
			for tokens := e.takePassed(ctx); len(tokens) > 0; tokens = e.takePassed(ctx) {
				e.catchUpAll(ctx, tokens)
			}
		})
	}
}

// takePassed returns the tokens to catch up next, and none if there are none or ctx has ended.
func (e *engine) takePassed(ctx context.Context) []rotation.Token {
	e.mu.Lock()
	defer e.mu.Unlock()
	var tokens []rotation.Token
	if ctx.Err() == nil {
		for _, name := range e.passed {
			if s := e.tokens[name]; s != nil && !s.enrolling {
				tokens = append(tokens, s.token.token())
			}
		}
	}
	e.passed = nil
	e.catchingUp = len(tokens) > 0
	return tokens
}

func (e *engine) catchUpAll(ctx context.Context, tokens []rotation.Token) {
	records, err := e.rotator.CatchUpAll(ctx, tokens)
	if err != nil {
		e.log.Warn("slots that passed could not be looked at", "error", err)
	}
	for _, token := range tokens {
		record, decided := records[token.Name]
		if decided {
			e.setSaved(token.Name)
		}
		if !decided && err != nil { // its record could not be read or written
			s, _ := e.view(token.Name)
			record = s.record
		}
		switch due := e.rotator.Due(token, record); {
		case decided && (due.Unscheduled || due.At.After(e.now())):
			e.plan(token.Name, record, 0)
		case err != nil && (due.Unscheduled || due.At.After(e.now())):
			e.queue.Set(token.Name, e.now().Add(retryCeiling)) // and is decided about again
		default: // it is due now, or was not decided about
			e.enqueue(ctx, token.Name)
		}
	}
}

// replanAll decides about all tokens again after the wall clock was set.
func (e *engine) replanAll(ctx context.Context) {
	if e.peers != nil { // each token is decided about by the replica that comes first for it
		e.replan(rotation.AllTokens)
		return
	}
	e.catchUp(ctx, e.names(func(s *kept) bool { return s.active == 0 })...)
}
