package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
)

// maxInHand is how many rotations of one account may be in hand at once. Cloudflare's
// budget is the narrower bound; this one limits connections and memory. Each account has
// its own, so that one which answers slowly, or must be left alone, holds up no other.
const maxInHand = 16

// retryFloor keeps a token that cannot even write its ledger record from being tried
// without a pause; the pause doubles up to retryCeiling.
const (
	retryFloor   = time.Second
	retryCeiling = 30 * time.Second
)

// clockStep is by how much the wall clock must have been set for every token to be planned
// anew. A token that is found later than this is late because nobody ran, or because of such
// a step: the queue itself is never so slow.
const clockStep = time.Minute

// engine connects when to what: it keeps one due time for each token in the queue, lets
// the rotator work on those that fire, and asks for the next due time. Tokens may come, go
// and change while it runs; the queue does not pause for that.
type engine struct {
	rotator *rotation.Rotator
	queue   *scheduler.Queue
	clock   *scheduler.Clock
	now     func() time.Time // the wall clock
	log     *slog.Logger
	workers sync.WaitGroup
	beat    atomic.Int64 // Unix nanoseconds of the queue's last sign of life

	mu     sync.Mutex
	tokens map[string]*scheduled
	slots  map[string]*semaphore.Weighted // by account
}

// scheduled is a token and what is known of it.
type scheduled struct {
	token   rotation.Token
	record  rotation.Record
	due     rotation.Due
	working bool
	// unrecorded counts the failures in a row that the ledger, being what failed, does not.
	unrecorded int
	// unrecovered is set while its unfinished rotation was not looked at yet.
	unrecovered bool
}

// newEngine returns an engine whose rotator is still to be set: the rotator tells the
// engine which steps were reached. now is the wall clock.
func newEngine(now func() time.Time, log *slog.Logger) *engine {
	return &engine{
		queue: scheduler.NewQueue(now), clock: scheduler.NewClock(now), now: now, log: log,
		tokens: make(map[string]*scheduled), slots: make(map[string]*semaphore.Weighted),
	}
}

// enroll makes tokens known to the ledger and queues them, in the place of those of the same
// names. It may be called before run and while it runs.
func (e *engine) enroll(ctx context.Context, tokens []rotation.Token) error {
	records, err := e.rotator.EnrollAll(ctx, tokens)
	if err != nil {
		return err
	}
	for i, token := range tokens {
		e.add(token, records[i])
	}
	return nil
}

func (e *engine) add(token rotation.Token, record rotation.Record) {
	e.mu.Lock()
	s := e.tokens[token.Name]
	isNew := s == nil
	if isNew {
		s = &scheduled{}
		e.tokens[token.Name] = s
	}
	s.token = token
	if e.slots[token.Account] == nil {
		e.slots[token.Account] = semaphore.NewWeighted(maxInHand)
	}
	if isNew && record.Step != rotation.StepIdle {
		at := e.rotator.Due(token, record).At
		// One that waits, in doubt or for a back-off, was looked at already.
		s.unrecovered = !at.After(e.now())
		if record.Doubt != nil { // the alarm may have died with the process before this one
			e.log.Error("the token is in doubt, and has been since before this start", "token", token.Name, "rotation_id", record.Work.RotationID,
				"reason", record.Doubt.Reason, "since", record.Doubt.Since, "old_works_until", record.Doubt.OldWorksUntil)
		}
		e.log.Info("a rotation was left unfinished; it is continued first", "token", token.Name,
			"rotation_id", record.Work.RotationID, "step", record.Step, "in", max(at.Sub(e.now()), 0).Round(time.Second).String())
	}
	e.mu.Unlock()
	e.plan(token.Name, record, 0)
}

// remove forgets a token. One that is worked on is finished first by whoever works on it.
func (e *engine) remove(name string) {
	e.mu.Lock()
	delete(e.tokens, name)
	e.mu.Unlock()
	e.queue.Remove(name)
}

// run fires tokens until ctx ends, and returns when no new work will begin. Rotations in
// hand go on; wait for them with finish.
func (e *engine) run(ctx context.Context) {
	e.queue.Run(ctx, func(name string, at time.Time) {
		late := e.now().Sub(at) > clockStep
		e.workers.Go(func() { e.fire(ctx, name, late) })
	}, func() {
		e.beat.Store(time.Now().UnixNano())
		if step := e.clock.Step(); step.Abs() >= clockStep {
			e.log.Warn("the wall clock was set, or the machine slept: all tokens are planned anew", "step", step.Round(time.Millisecond).String())
			e.workers.Go(func() { e.replan(ctx) })
		}
	})
}

// finish waits for the rotations in hand within ctx, and returns the names of the tokens
// whose rotation was still in hand then.
func (e *engine) finish(ctx context.Context) []string {
	done := make(chan struct{})
	go func() { e.workers.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return e.names(func(s *scheduled) bool { return s.working })
	}
}

// fire does what a token that fired is due for.
func (e *engine) fire(ctx context.Context, name string, late bool) {
	s, ok := e.view(name)
	switch {
	case !ok:
	case late, s.due.Held, s.due.At.After(e.now()), s.due.Reason == rotation.DuePaused:
		// Slots have passed, and what was late together must not begin together.
		e.catchUp(ctx, s.token)
	default:
		e.work(ctx, s.token)
	}
}

// catchUp looks at a token whose slots passed without being served, and queues it anew.
func (e *engine) catchUp(ctx context.Context, token rotation.Token) {
	record, err := e.rotator.CatchUp(ctx, token)
	if due := e.rotator.Due(token, record); record.Revision > 0 && (due.Held || due.At.After(e.now())) {
		var floor time.Duration
		if err != nil { // the ledger cannot be written
			floor = retryCeiling
		}
		e.plan(token.Name, record, floor)
		return
	}
	e.work(ctx, token) // it needs no time of its own; or the ledger fails, which work knows to handle
}

// replan looks at all tokens after the wall clock was set.
func (e *engine) replan(ctx context.Context) {
	for _, name := range e.names(func(s *scheduled) bool { return !s.working }) {
		if s, ok := e.view(name); ok && ctx.Err() == nil {
			if record, err := e.rotator.CatchUp(ctx, s.token); err == nil {
				e.plan(name, record, 0)
			}
		}
	}
}

func (e *engine) work(ctx context.Context, token rotation.Token) {
	e.mu.Lock()
	slots := e.slots[token.Account]
	e.mu.Unlock()
	if slots.Acquire(ctx, 1) != nil {
		return // stopping: the ledger knows what is due
	}
	defer slots.Release(1)
	e.setWorking(token.Name, true)
	record, err := e.rotator.Advance(ctx, token)
	e.setWorking(token.Name, false)
	var floor time.Duration
	if err != nil {
		floor = min(retryFloor<<min(e.countUnrecorded(token.Name, err), 5), retryCeiling)
		if record.Revision == 0 { // not even loaded
			s, _ := e.view(token.Name)
			record = s.record
		}
	} else {
		e.countUnrecorded(token.Name, nil)
	}
	e.plan(token.Name, record, floor)
}

// plan queues a token for when it is due next, and not before floor from now. One that was
// removed meanwhile stays so.
func (e *engine) plan(name string, record rotation.Record, floor time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.tokens[name]
	if s == nil {
		return
	}
	if s.record.Revision > record.Revision {
		record = s.record // an inventory has learned more meanwhile
	}
	now := e.now()
	due := e.rotator.Due(s.token, record)
	if earliest := now.Add(floor); floor > 0 && due.At.Before(earliest) {
		due.At = earliest
	}
	wake := due.Wake
	switch { // it may have passed while something else was waited for
	case wake.IsZero(), wake.After(now):
	case due.Slot.IsZero():
		wake = now.Add(retryCeiling)
	case !due.Slot.After(now):
		wake = time.Time{} // it is consumed with the slot that is due
	case floor > 0:
		wake = now.Add(floor)
	}
	s.record, s.due = record, due
	switch {
	case !wake.IsZero() && (due.Held || wake.Before(due.At)):
		e.queue.Set(name, wake)
	case due.Held:
		e.queue.Remove(name)
	default:
		e.queue.Set(name, due.At)
	}
}

// replanOne queues a token anew, or with rotation.AllTokens all of them, because what holds
// it up has changed.
func (e *engine) replanOne(name string) {
	names := []string{name}
	if name == rotation.AllTokens {
		names = e.names(nil)
	}
	for _, name := range names {
		if s, ok := e.view(name); ok && !s.working {
			e.plan(name, s.record, 0)
		}
	}
}

// resolve carries out what an operator decides about a token in doubt, and queues it anew:
// if the doubt is over, what follows begins at once.
func (e *engine) resolve(ctx context.Context, name string, how rotation.Resolution) (rotation.Record, rotation.Verdict, error) {
	s, ok := e.view(name)
	if !ok {
		return rotation.Record{}, rotation.Verdict{}, errNoToken(name)
	}
	record, verdict, err := e.rotator.Resolve(ctx, s.token, how)
	if verdict.Reason != "" && !errors.Is(err, rotation.ErrLedger) { // else the ledger has what it had
		e.plan(name, record, 0)
	}
	return record, verdict, err
}

// rotateNow rotates a token for an operator.
func (e *engine) rotateNow(ctx context.Context, name string, o rotation.Overrides) (rotation.Record, error) {
	s, ok := e.view(name)
	if !ok {
		return rotation.Record{}, errNoToken(name)
	}
	record, err := e.rotator.RotateNow(ctx, s.token, o)
	if record.Revision > 0 {
		e.plan(name, record, 0)
	}
	return record, err
}

func errNoToken(name string) error { return fmt.Errorf("no token %q is configured", name) }

// learn hands what an inventory saw to the rotator.
func (e *engine) learn(ctx context.Context, name string, facts rotation.TokenFacts) error {
	s, ok := e.view(name)
	if !ok {
		return nil
	}
	record, err := e.rotator.Learn(ctx, s.token, facts)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.tokens[name]; s != nil && record.Revision > s.record.Revision {
		s.record = record
	}
	return nil
}

// Observe implements [rotation.Observer]: the state that is shown is that of the last
// step, also while a rotation is under way.
func (e *engine) Observe(event rotation.Event) {
	if reached, ok := event.(rotation.Reached); ok {
		e.mu.Lock()
		defer e.mu.Unlock()
		if s := e.tokens[reached.Record.Token]; s != nil {
			s.record = reached.Record
		}
	}
}

func (e *engine) setWorking(name string, working bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.tokens[name]; s != nil {
		s.working = working
		s.unrecovered = s.unrecovered && working
	}
}

// countUnrecorded keeps the number of errors in a row that the ledger could not count, and
// returns it.
func (e *engine) countUnrecorded(name string, err error) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.tokens[name]
	switch {
	case s == nil:
		return 0
	case !errors.Is(err, rotation.ErrLedger):
		s.unrecorded = 0
	default:
		s.unrecorded++
	}
	return s.unrecorded
}

// view returns what is known of a token now, and false if there is none of that name.
func (e *engine) view(name string) (scheduled, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.tokens[name]
	if s == nil {
		return scheduled{}, false
	}
	return *s, true
}

// recovering returns how many unfinished rotations were not looked at yet.
func (e *engine) recovering() int {
	return len(e.names(func(s *scheduled) bool { return s.unrecovered }))
}

// names returns the sorted names of the tokens that fit; nil means all.
func (e *engine) names(fit func(*scheduled) bool) []string {
	var names []string
	e.mu.Lock()
	for name, s := range e.tokens {
		if fit == nil || fit(s) {
			names = append(names, name)
		}
	}
	e.mu.Unlock() // nothing that fires waits for the sorting
	slices.Sort(names)
	return names
}
