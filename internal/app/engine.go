package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
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

// engine connects when to what: it keeps one due time for each token in the queue, lets
// the rotator work on those that fire, and asks for the next due time.
type engine struct {
	rotator *rotation.Rotator
	queue   *scheduler.Queue
	tokens  map[string]rotation.Token
	log     *slog.Logger
	slots   map[string]*semaphore.Weighted // by account
	workers sync.WaitGroup
	beat    atomic.Int64 // Unix nanoseconds of the queue's last sign of life

	mu      sync.Mutex
	records map[string]rotation.Record
	due     map[string]rotation.Due
	working map[string]bool
	// unrecorded counts the failures in a row that the ledger, being what failed, does not.
	unrecorded map[string]int
	// unrecovered are the tokens whose unfinished rotation was not looked at yet.
	unrecovered map[string]bool
}

// newEngine returns an engine whose rotator is still to be set: the rotator tells the
// engine which steps were reached.
func newEngine(tokens []rotation.Token, log *slog.Logger) *engine {
	e := &engine{
		queue: scheduler.NewQueue(nil), log: log,
		slots:  make(map[string]*semaphore.Weighted),
		tokens: make(map[string]rotation.Token, len(tokens)), records: make(map[string]rotation.Record, len(tokens)),
		due: make(map[string]rotation.Due, len(tokens)), working: make(map[string]bool), unrecovered: make(map[string]bool), unrecorded: make(map[string]int),
	}
	for _, t := range tokens {
		e.tokens[t.Name] = t
		if e.slots[t.Account] == nil {
			e.slots[t.Account] = semaphore.NewWeighted(maxInHand)
		}
	}
	return e
}

// enroll makes every token known to the ledger and queues it. It must have returned
// before run is called.
func (e *engine) enroll(ctx context.Context) error {
	for _, name := range e.names() {
		record, err := e.rotator.Enroll(ctx, e.tokens[name])
		if err != nil {
			return fmt.Errorf("token %s: %w", name, err)
		}
		if record.Step != rotation.StepIdle {
			at := rotation.NextDue(e.tokens[name], record).At
			// One that waits, in doubt or for a back-off, was looked at already.
			if !at.After(time.Now()) {
				e.unrecovered[name] = true
			}
			if record.Doubt != nil { // the alarm may have died with the process before this one
				e.log.Error("the token is in doubt, and has been since before this start", "token", name, "rotation_id", record.Work.RotationID,
					"reason", record.Doubt.Reason, "since", record.Doubt.Since, "old_works_until", record.Doubt.OldWorksUntil)
			}
			e.log.Info("a rotation was left unfinished; it is continued first", "token", name,
				"rotation_id", record.Work.RotationID, "step", record.Step, "in", max(time.Until(at), 0).Round(time.Second).String())
		}
		e.plan(name, record, 0)
	}
	return nil
}

// run fires tokens until ctx ends, and returns when no new work will begin. Rotations in
// hand go on; wait for them with finish.
func (e *engine) run(ctx context.Context) {
	e.queue.Run(ctx, func(name string, _ time.Time) {
		e.workers.Go(func() { e.work(ctx, name) })
	}, func() { e.beat.Store(time.Now().UnixNano()) })
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
		e.mu.Lock()
		defer e.mu.Unlock()
		return slices.Sorted(maps.Keys(e.working))
	}
}

func (e *engine) work(ctx context.Context, name string) {
	token := e.tokens[name]
	slots := e.slots[token.Account]
	if slots.Acquire(ctx, 1) != nil {
		return // stopping: the ledger knows what is due
	}
	defer slots.Release(1)
	e.setWorking(name, true)
	record, err := e.rotator.Advance(ctx, token)
	e.setWorking(name, false)
	var floor time.Duration
	if err != nil {
		floor = min(retryFloor<<min(e.countUnrecorded(name, err), 5), retryCeiling)
		if record.Revision == 0 { // not even loaded
			record = e.record(name)
		}
	} else {
		e.countUnrecorded(name, nil)
	}
	e.plan(name, record, floor)
}

// plan queues a token for when it is due next, and not before floor from now.
func (e *engine) plan(name string, record rotation.Record, floor time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if seen := e.records[name]; seen.Revision > record.Revision {
		record = seen // an inventory has learned more meanwhile
	}
	due := rotation.NextDue(e.tokens[name], record)
	if earliest := time.Now().Add(floor); floor > 0 && due.At.Before(earliest) {
		due.At = earliest
	}
	e.records[name], e.due[name] = record, due
	e.queue.Set(name, due.At)
}

// resolve carries out what an operator decides about a token in doubt, and queues it anew:
// if the doubt is over, what follows begins at once.
func (e *engine) resolve(ctx context.Context, name string, how rotation.Resolution) (rotation.Record, rotation.Verdict, error) {
	token, ok := e.tokens[name]
	if !ok {
		return rotation.Record{}, rotation.Verdict{}, fmt.Errorf("no token %q is configured", name)
	}
	record, verdict, err := e.rotator.Resolve(ctx, token, how)
	if verdict.Reason != "" && !errors.Is(err, rotation.ErrLedger) { // else the ledger has what it had
		e.plan(name, record, 0)
	}
	return record, verdict, err
}

// learn hands what an inventory saw to the rotator.
func (e *engine) learn(ctx context.Context, name string, facts rotation.TokenFacts) error {
	record, err := e.rotator.Learn(ctx, e.tokens[name], facts)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if record.Revision > e.records[name].Revision {
		e.records[name] = record
	}
	return nil
}

// Observe implements [rotation.Observer]: the state that is shown is that of the last
// step, also while a rotation is under way.
func (e *engine) Observe(event rotation.Event) {
	if reached, ok := event.(rotation.Reached); ok {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.records[reached.Record.Token] = reached.Record
	}
}

func (e *engine) setWorking(name string, working bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if working {
		e.working[name] = true
	} else {
		delete(e.working, name)
		delete(e.unrecovered, name)
	}
}

// countUnrecorded keeps the number of errors in a row that the ledger could not count, and
// returns it.
func (e *engine) countUnrecorded(name string, err error) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !errors.Is(err, rotation.ErrLedger) {
		delete(e.unrecorded, name)
		return 0
	}
	e.unrecorded[name]++
	return e.unrecorded[name]
}

func (e *engine) record(name string) rotation.Record {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.records[name]
}

// view returns what is known of a token now.
func (e *engine) view(name string) (rotation.Record, rotation.Due) {
	e.mu.Lock()
	defer e.mu.Unlock()
	record := e.records[name]
	record.Failures += e.unrecorded[name]
	return record, e.due[name]
}

// recovering returns how many unfinished rotations were not looked at yet.
func (e *engine) recovering() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.unrecovered)
}

func (e *engine) names() []string { return slices.Sorted(maps.Keys(e.tokens)) }
