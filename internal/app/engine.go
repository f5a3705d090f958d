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

	"rotatord/internal/admission"
	"rotatord/internal/event"
	"rotatord/internal/moment"
	"rotatord/internal/packed"
	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
)

// If even the ledger record of a token cannot be written, the token is tried again after retryFloor. The
// pause doubles up to retryCeiling.
const (
	retryFloor   = time.Second
	retryCeiling = 30 * time.Second
)

// clockStep is the smallest step of the wall clock after which all tokens are planned again. A token
// that is found due later than this is late because no daemon ran, or because of such a step: the queue
// itself is never so slow.
const clockStep = time.Minute

// engine connects when to what. It keeps one time for each token in the queue: when something is due for
// it. At that time the token gets a turn, the rotator works on it, and the engine plans the next time.
// Tokens can be added, removed and changed while it runs; the queue does not stop for that.
type engine struct {
	rotator *rotation.Rotator
	queue   *scheduler.Queue
	clock   *scheduler.Clock
	now     func() time.Time // the wall clock
	log     *slog.Logger
	events  *event.Stream
	workers sync.WaitGroup
	started time.Time
	beat    atomic.Int64                          // the queue's last sign of life, in nanoseconds since started
	peers   peers                                 // nil if no other daemon shares the ledger
	planned func(token string, r rotation.Record) // is told of each record that is planned; it waits for nothing. nil: it is not told
	within  time.Duration                         // in which the requests of a turn must be expected to leave; 0 for the default

	mu          sync.Mutex
	tokens      map[string]*kept
	unrecovered int                         // how many of them are
	turns       map[string]*admission.Turns // by account
	total       admission.Total             // of all turns
	passed      []string                    // tokens with slots that passed, to be caught up together
	catchingUp  bool                        // a worker is doing that
}

// newEngine returns an engine. The caller sets its rotator, which in turn tells the engine which steps
// were reached. now is the wall clock.
func newEngine(now func() time.Time, log *slog.Logger, events *event.Stream) *engine {
	return &engine{
		queue: scheduler.NewQueue(now), clock: scheduler.NewClock(now), now: now, started: time.Now(), log: log, events: events,
		tokens: make(map[string]*kept), turns: make(map[string]*admission.Turns),
	}
}

// add adds or replaces one token, and queues it.
func (e *engine) add(token rotation.Token, record rotation.Record) {
	e.mu.Lock()
	s := e.tokens[token.Name]
	isNew := s == nil
	if isNew {
		s = &kept{}
		e.tokens[token.Name] = s
	}
	s.token = lean(token)
	e.openTurns(token)
	unfinished := (isNew || s.joining) && record.Step != rotation.StepIdle && !e.heldByOther(record)
	s.joining = false
	var at time.Time
	if unfinished {
		at = e.rotator.Due(token, record).At
		// If it waits, because it is in doubt or after a failure, a process before this one has
		// already worked on it.
		e.setUnrecovered(s, !at.After(e.now()))
	}
	e.mu.Unlock()
	if unfinished {
		e.tellUnfinished(token.Name, record, at)
	}
	e.plan(token.Name, record, 0)
}

// tellUnfinished tells that a process before this one left a rotation unfinished, which is due at a time.
// It repeats alarms: they may have been lost with that process.
func (e *engine) tellUnfinished(name string, record rotation.Record, at time.Time) {
	work := record.Work
	if doubt := record.Doubt; doubt != nil {
		e.tell(name, event.OldDoubt{RotationID: work.RotationID, Reason: doubt.Reason, Since: doubt.Since, OldWorksUntil: doubt.OldWorksUntil})
	}
	if work.Overtaken != nil {
		e.tell(name, event.OldOvertaken{RotationID: work.RotationID, Since: work.Overtaken.Since})
	}
	e.tell(name, event.Leftover{RotationID: work.RotationID, Step: string(record.Step), In: max(at.Sub(e.now()), 0)})
}

// tell publishes something that the daemon finds about a token.
func (e *engine) tell(token string, d event.Detail) { e.events.Tell(token, event.Daemon, d) }

// openTurns makes sure that the account of a token has turns. e.mu must be held.
func (e *engine) openTurns(token rotation.Token) {
	if e.turns[token.Account] == nil {
		turns := admission.NewTurns(e.now, &e.total, token.Account, func(d event.Detail) { e.tell("", d) })
		if e.within > 0 {
			turns.Within(e.within)
		}
		e.turns[token.Account] = turns
	}
	e.turns[token.Account].LimitBy(token.Issuer)
}

// run starts what is due until ctx ends, and returns when no new work will begin. Rotations in progress
// go on; finish waits for them.
func (e *engine) run(ctx context.Context) {
	e.queue.Run(ctx, func(name string, at time.Time) {
		e.startDue(ctx, name, e.now().Sub(at) > clockStep)
	}, func() {
		e.beat.Store(int64(time.Since(e.started)))
		if step := e.clock.Step(); step.Abs() >= clockStep {
			e.tell("", event.ClockStep{Step: step})
			e.workers.Go(func() { e.replanAll(ctx) })
		}
	})
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, turns := range e.turns {
		turns.Close()
	}
}

// finish waits within ctx for the rotations in progress, and returns the names of the tokens that were
// still being worked on at its end.
func (e *engine) finish(ctx context.Context) []string {
	done := make(chan struct{})
	go func() { e.workers.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return e.names(func(s *kept) bool { return s.active > 0 })
	}
}

// startDue starts whatever is due for a token whose time in the queue has come. late says that it came
// more than clockStep ago.
func (e *engine) startDue(ctx context.Context, name string, late bool) {
	if e.leaveToOthers(name) {
		return
	}
	s, ok := e.view(name)
	switch {
	case !ok:
	case !s.chore.IsZero() && !s.chore.After(e.now()): // after the chore, the engine plans again what else is due
		e.enqueue(ctx, name)
	case late, s.due.Unscheduled, s.due.At.After(e.now()), s.due.Reason == rotation.DuePaused:
		// Slots have passed. Tokens that are late together must not all begin at once.
		e.catchUp(ctx, name)
	default:
		e.enqueue(ctx, name)
	}
}

// acquire returns a token as it is configured now, for work on it. Until release is called, no reload
// removes it. ok is false if there is no such token, or if its record is not ready.
func (e *engine) acquire(name string) (token rotation.Token, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.tokens[name]
	if s == nil || s.enrolling {
		return rotation.Token{}, false
	}
	s.active++
	s.waiting = false
	return s.token.token(), true
}

// acquireAlone does the same as acquire, but only if no other work is done on the token. Otherwise the
// token is looked at again after retryFloor: a turn that only waits for its own token would delay
// other tokens.
func (e *engine) acquireAlone(name string) (token rotation.Token, skipBackOff, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.tokens[name]
	if s == nil || s.enrolling {
		return rotation.Token{}, false, false
	}
	s.waiting = false
	if s.active > 0 {
		e.queue.Set(name, e.now().Add(retryFloor))
		return rotation.Token{}, false, false
	}
	s.active++
	skipBackOff, s.skipBackOff = s.skipBackOff, false
	return s.token.token(), skipBackOff, true
}

// release ends the work on a token that acquire or acquireAlone began.
func (e *engine) release(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.tokens[name]; s != nil {
		s.active--
		e.setUnrecovered(s, false)
	}
}

// retryPending makes all tokens with a pending secret due now, because what they wait for has returned.
func (e *engine) retryPending() {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.now()
	for name, s := range e.tokens {
		if s.active > 0 || s.waiting || s.enrolling || !s.record.Get().Unfinished() {
			continue
		}
		due := s.due.Get()
		if !due.At.After(now) {
			continue
		}
		due.At = now
		s.skipBackOff, s.due = true, packed.Of(due)
		e.queue.Set(name, now)
	}
}

// enqueue asks for a turn for a token. A worker begins when it is given; until then nothing waits.
func (e *engine) enqueue(ctx context.Context, name string) {
	s, ok := e.view(name)
	if !ok {
		return
	}
	e.mu.Lock()
	turns := e.turns[s.token.Account]
	if now := e.tokens[name]; now != nil {
		now.waiting = true
	}
	e.mu.Unlock()
	turns.Ask(s.turn(e.now()), func(urgency rotation.Urgency, endTurn func()) {
		e.workers.Go(func() { e.runTurn(ctx, name, urgency, endTurn) })
	})
}

// runTurn lets the rotator work on a token that was given a turn.
func (e *engine) runTurn(ctx context.Context, name string, urgency rotation.Urgency, endTurn func()) {
	defer endTurn()
	if ctx.Err() != nil {
		return // the daemon stops; the ledger knows what is due
	}
	token, skipBackOff, ok := e.acquireAlone(name)
	if !ok {
		return // it was removed, or a reload plans it, or other work is done on it
	}
	ctx = rotation.WithUrgency(ctx, urgency)
	if skipBackOff {
		ctx = rotation.WithoutBackOff(ctx)
	}
	record, err := e.rotator.Advance(ctx, token)
	e.release(name)
	if e.lost(err) {
		e.learn([]rotation.Record{record})
		s, _ := e.view(name)
		e.plan(name, s.record, lostRetry)
		return
	}
	if record.Revision == 0 && err != nil { // the record could not even be loaded
		s, _ := e.view(name)
		record = s.record
	}
	e.plan(name, record, e.pauseAfter(name, record, err))
}

// pauseAfter returns how long to leave a token alone at least after a turn that ended with an error. A failure
// that the ledger recorded has its own back-off as well, which is mostly longer.
func (e *engine) pauseAfter(name string, record rotation.Record, err error) time.Duration {
	failures := e.countUnrecorded(name, err)
	if err == nil {
		return 0
	}
	pause := min(retryFloor<<min(failures, 5), retryCeiling)
	if record.Emergency(e.now()) {
		pause = min(pause, rotation.EmergencyWait)
	}
	return pause
}

// plan queues a token for when something is due next, but not earlier than floor from now. A token that
// was removed stays removed.
func (e *engine) plan(name string, record rotation.Record, floor time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.tokens[name]
	if s == nil || s.enrolling {
		return
	}
	if known := s.record.Get(); known.Revision > record.Revision {
		record = known // a listing has recorded more meanwhile
	}
	now := e.now()
	token := s.token.token()
	due := e.rotator.Due(token, record)
	s.record, s.chore = packed.Of(record), rotation.NextChore(token, record)
	if e.planned != nil {
		e.planned(name, record)
	}
	wake := wakeAt(due, now, floor)
	if floor > 0 {
		due.At = moment.Max(due.At, now.Add(floor))
		if !s.chore.IsZero() {
			s.chore = moment.Max(s.chore, now.Add(floor))
		}
	}
	s.due = packed.Of(due)
	at := due.At
	switch {
	case due.Unscheduled:
		at = time.Time{} // never
	case at.IsZero():
		at = now // it does not wait for a back-off
	}
	if s.unsaved {
		at = moment.MinNonZero(at, now.Add(retryCeiling))
	}
	if at = moment.MinNonZero(at, wake, s.chore); at.IsZero() && due.Unscheduled {
		e.queue.Remove(name)
	} else {
		e.queue.Set(name, at)
	}
}

// wakeAt returns when a token must be looked at because slots pass while something else is waited for;
// zero for never.
func wakeAt(due rotation.Due, now time.Time, floor time.Duration) time.Time {
	switch wake := due.Wake; {
	case wake.IsZero(), wake.After(now):
		return wake
	case due.Slot.IsZero(): // it has passed
		return now.Add(retryCeiling)
	case !due.Slot.After(now): // the slot that is due consumes it
		return time.Time{}
	case floor > 0:
		return now.Add(floor)
	default:
		return wake
	}
}

// replan plans a token again, or all tokens for rotation.AllTokens, because what blocks it has
// changed.
func (e *engine) replan(name string) {
	names := []string{name}
	if name == rotation.AllTokens {
		names = e.names(nil)
	}
	for _, name := range names {
		if s, ok := e.view(name); ok && s.active == 0 {
			e.plan(name, s.record, 0)
		}
	}
}

// resolve carries out an operator's decision about a token in doubt, and plans the token again: if the
// doubt is resolved, what follows begins at once.
func (e *engine) resolve(ctx context.Context, name string, how rotation.Resolution) (rotation.Record, rotation.Verdict, error) {
	if err := e.mayBegin(); err != nil {
		return rotation.Record{}, rotation.Verdict{}, err
	}
	token, ok := e.acquire(name)
	if !ok {
		return rotation.Record{}, rotation.Verdict{}, errNoToken(name)
	}
	defer e.release(name)
	record, verdict, err := e.rotator.Resolve(ctx, token, how)
	if verdict.Reason != "" && !errors.Is(err, rotation.ErrLedger) { // otherwise the ledger is unchanged
		e.plan(name, record, 0)
	}
	return record, verdict, err
}

// rotateNow rotates a token for an operator.
func (e *engine) rotateNow(ctx context.Context, name string, o rotation.Overrides, by string) (rotation.Record, error) {
	return e.runCommand(name, func(token rotation.Token) (rotation.Record, error) {
		return e.rotator.RotateNow(rotation.WithUrgency(ctx, rotation.UrgencyManual), token, o, by)
	})
}

// runCommand carries out an operator's command about one token, and plans the token again.
func (e *engine) runCommand(name string, command func(rotation.Token) (rotation.Record, error)) (rotation.Record, error) {
	if err := e.mayBegin(); err != nil {
		return rotation.Record{}, err
	}
	token, ok := e.acquire(name)
	if !ok {
		return rotation.Record{}, errNoToken(name)
	}
	e.workers.Add(1) // a stop waits for it as for any other work
	defer e.workers.Done()
	defer e.release(name)
	record, err := command(token)
	if record.Revision > 0 {
		e.plan(name, record, 0)
	}
	return record, err
}

func errNoToken(name string) error {
	return fmt.Errorf("no token %q is configured, or it is being added by a reload; try again", name)
}

// show takes a record that was saved: the state that is shown is that of the last step, also while a
// rotation is in progress.
func (e *engine) show(record rotation.Record) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.tokens[record.Token]; s != nil {
		s.take(record)
	}
}

// setSaved notes that the ledger has what is known of a token.
func (e *engine) setSaved(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.tokens[name]; s != nil {
		s.unsaved = false
	}
}

// countUnrecorded counts the failures in a row that the ledger could not record, and returns the count.
func (e *engine) countUnrecorded(name string, err error) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.tokens[name]
	switch {
	case s == nil:
		return 0
	case !errors.Is(err, rotation.ErrLedger):
		s.unrecorded, s.unrecordedErr, s.unsaved = 0, nil, false
	default:
		s.unsaved = true
		s.unrecorded++
		s.unrecordedErr = err
	}
	return int(s.unrecorded)
}

// view returns a copy of what is known about a token, and false if there is no such token.
func (e *engine) view(name string) (scheduled, bool) {
	e.mu.Lock()
	s := e.tokens[name]
	if s == nil {
		e.mu.Unlock()
		return scheduled{}, false
	}
	known := *s
	e.mu.Unlock()
	return known.scheduled(), true // no token waits for the unpacking
}

// names returns the sorted names of the tokens that fit. A nil fit means all.
func (e *engine) names(fit func(*kept) bool) []string {
	var names []string
	e.mu.Lock()
	for name, s := range e.tokens {
		if fit == nil || fit(s) {
			names = append(names, name)
		}
	}
	e.mu.Unlock() // no token waits for the sorting
	slices.Sort(names)
	return names
}
