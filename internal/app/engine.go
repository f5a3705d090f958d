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
	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
)

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
	born    time.Time
	beat    atomic.Int64 // the queue's last sign of life, in nanoseconds since born

	mu     sync.Mutex
	tokens map[string]*scheduled
	turns  map[string]*admission.Turns // by account
	late   []string                    // tokens whose slots passed, to be looked at together
	atLate bool                        // somebody is at it
}

// scheduled is a token and what is known of it.
type scheduled struct {
	token   rotation.Token
	record  rotation.Record
	due     rotation.Due
	chore   time.Time // when there is something to be done beside rotations; zero if never
	gone    bool      // the last inventory did not have the service token
	waiting bool      // for its turn
	working int       // rotations of it that are under way, or about to be
	hurried bool      // something that was missing has returned: its back-off does not count
	// enrolling is set from when a reload has brought or changed it until the ledger knows.
	enrolling bool
	// unrecorded counts the failures in a row that the ledger, being what failed, does not;
	// unrecordedErr is the last of them, nil if there is none.
	unrecorded    int
	unrecordedErr error
	// unrecovered is set while its unfinished rotation was not looked at yet.
	unrecovered bool
}

// newEngine returns an engine whose rotator is still to be set: the rotator tells the
// engine which steps were reached. now is the wall clock.
func newEngine(now func() time.Time, log *slog.Logger) *engine {
	return &engine{
		queue: scheduler.NewQueue(now), clock: scheduler.NewClock(now), now: now, born: time.Now(), log: log,
		tokens: make(map[string]*scheduled), turns: make(map[string]*admission.Turns),
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
	e.takesTurns(token)
	if isNew && record.Step != rotation.StepIdle {
		at := e.rotator.Due(token, record).At
		// One that waits, in doubt or for a back-off, was looked at already.
		s.unrecovered = !at.After(e.now())
		if record.Doubt != nil { // the alarm may have died with the process before this one
			e.log.Error("the token is in doubt, and has been since before this start", "token", token.Name, "rotation_id", record.Work.RotationID,
				"reason", record.Doubt.Reason, "since", record.Doubt.Since, "old_works_until", record.Doubt.OldWorksUntil)
		}
		if work := record.Work; work != nil && work.Overtaken != nil {
			e.log.Error("the new secret of the token was overtaken, and has been since before this start: an operator has to decide: rotatord status "+token.Name,
				"token", token.Name, "rotation_id", work.RotationID, "since", work.Overtaken.Since)
		}
		e.log.Info("a rotation was left unfinished; it is continued first", "token", token.Name,
			"rotation_id", record.Work.RotationID, "step", record.Step, "in", max(at.Sub(e.now()), 0).Round(time.Second).String())
	}
	e.mu.Unlock()
	e.plan(token.Name, record, 0)
}

// takesTurns makes sure that there are turns for a token's account. e.mu must be held.
func (e *engine) takesTurns(token rotation.Token) {
	if e.turns[token.Account] == nil {
		e.turns[token.Account] = admission.NewTurns(e.now, e.log.With("account", token.Account))
	}
	e.turns[token.Account].LimitBy(token.Issuer)
}

// run fires tokens until ctx ends, and returns when no new work will begin. Rotations in
// hand go on; wait for them with finish.
func (e *engine) run(ctx context.Context) {
	e.queue.Run(ctx, func(name string, at time.Time) {
		e.fire(ctx, name, e.now().Sub(at) > clockStep)
	}, func() {
		e.beat.Store(int64(time.Since(e.born)))
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
		return e.names(func(s *scheduled) bool { return s.working > 0 })
	}
}

// fire has done what a token that fired is due for.
func (e *engine) fire(ctx context.Context, name string, late bool) {
	s, ok := e.view(name)
	switch {
	case !ok:
	case !s.chore.IsZero() && !s.chore.After(e.now()): // what else is due is planned anew after it
		e.begins(ctx, name)
	case late, s.due.Unscheduled, s.due.At.After(e.now()), s.due.Reason == rotation.DuePaused:
		// Slots have passed, and what was late together must not begin together.
		e.catchUp(ctx, name)
	default:
		e.begins(ctx, name)
	}
}

// catchUp has the tokens looked at whose slots passed without being served, and queued anew.
// There may be very many at once: those that come while some are looked at are next, and
// all of them are one write.
func (e *engine) catchUp(ctx context.Context, names ...string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.late = append(e.late, names...)
	if !e.atLate && len(e.late) > 0 {
		e.atLate = true
		e.workers.Go(func() { e.catchUpLate(ctx) })
	}
}

func (e *engine) catchUpLate(ctx context.Context) {
	for {
		e.mu.Lock()
		var tokens []rotation.Token
		for _, name := range e.late {
			if s := e.tokens[name]; s != nil && !s.enrolling {
				tokens = append(tokens, s.token)
			}
		}
		e.late = nil
		e.atLate = len(tokens) > 0 && ctx.Err() == nil
		if !e.atLate {
			e.mu.Unlock()
			return
		}
		e.mu.Unlock()
		records, err := e.rotator.CatchUpAll(ctx, tokens)
		if err != nil {
			e.log.Warn("slots that passed could not be looked at", "error", err)
		}
		for _, token := range tokens {
			record, looked := records[token.Name]
			if !looked && err != nil { // its record could not be read or written
				s, _ := e.view(token.Name)
				record = s.record
			}
			switch due := e.rotator.Due(token, record); {
			case looked && (due.Unscheduled || due.At.After(e.now())):
				e.plan(token.Name, record, 0)
				continue
			case err != nil && (due.Unscheduled || due.At.After(e.now())):
				e.queue.Set(token.Name, e.now().Add(retryCeiling)) // and is looked at again
				continue
			}
			e.begins(ctx, token.Name) // it is due now, or was not looked at
		}
	}
}

// replan looks at all tokens after the wall clock was set.
func (e *engine) replan(ctx context.Context) {
	e.catchUp(ctx, e.names(func(s *scheduled) bool { return s.working == 0 })...)
}

// begin returns a token as it is configured now, for work that no reload may take from under
// its hands until end is called; false if there is none of that name, or its record is not
// ready.
func (e *engine) begin(name string) (rotation.Token, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.tokens[name]
	if s == nil || s.enrolling {
		return rotation.Token{}, false
	}
	s.working++
	s.waiting = false
	return s.token, true
}

// beginAlone does the same for a token that nothing else works on. While something does, it is looked
// at again soon: a turn that only waited for the token itself would hold up other tokens.
func (e *engine) beginAlone(name string) (token rotation.Token, hurried, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.tokens[name]
	if s == nil || s.enrolling {
		return rotation.Token{}, false, false
	}
	s.waiting = false
	if s.working > 0 {
		e.queue.Set(name, e.now().Add(retryFloor))
		return rotation.Token{}, false, false
	}
	s.working++
	hurried, s.hurried = s.hurried, false
	return s.token, hurried, true
}

// hurry has all tokens tried now whose secret is pending: what they wait for has returned.
func (e *engine) hurry() {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.now()
	for name, s := range e.tokens {
		if !s.record.Unfinished() || s.working > 0 || s.waiting || s.enrolling || !s.due.At.After(now) {
			continue
		}
		s.hurried, s.due.At = true, now
		e.queue.Set(name, now)
	}
}

func (e *engine) end(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.tokens[name]; s != nil {
		s.working--
		s.unrecovered = false
	}
}

// begins asks for a turn for what a token is due for, and has it done then.
func (e *engine) begins(ctx context.Context, name string) {
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
	wait := turns.Ask(s.turn(e.now()))
	e.workers.Go(func() { e.work(ctx, name, wait) })
}

func (e *engine) work(ctx context.Context, name string, turn func(context.Context) (rotation.Urgency, func(), error)) {
	urgency, release, err := turn(ctx)
	if err != nil {
		return // stopping: the ledger knows what is due
	}
	defer release()
	token, hurried, ok := e.beginAlone(name)
	if !ok {
		return // it was taken away while this waited; or a reload plans it anew; or it is worked on
	}
	ctx = rotation.WithUrgency(ctx, urgency)
	if hurried {
		ctx = rotation.WithoutBackOff(ctx)
	}
	record, err := e.rotator.Advance(ctx, token)
	e.end(name)
	var floor time.Duration
	if err != nil {
		floor = min(retryFloor<<min(e.countUnrecorded(token.Name, err), 5), retryCeiling)
		if record.Revision == 0 { // not even loaded
			s, _ := e.view(token.Name)
			record = s.record
		}
		if record.Emergency(e.now()) {
			floor = min(floor, rotation.EmergencyWait)
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
	if s == nil || s.enrolling {
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
	s.record, s.due, s.chore = record, due, rotation.NextChore(s.token, record)
	if earliest := now.Add(floor); floor > 0 && !s.chore.IsZero() && s.chore.Before(earliest) {
		s.chore = earliest
	}
	at := due.At
	if due.Unscheduled {
		at = time.Time{}
	}
	for _, other := range []time.Time{wake, s.chore} {
		if !other.IsZero() && (at.IsZero() || other.Before(at)) {
			at = other
		}
	}
	if at.IsZero() && due.Unscheduled {
		e.queue.Remove(name)
	} else {
		e.queue.Set(name, at)
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
		if s, ok := e.view(name); ok && s.working == 0 {
			e.plan(name, s.record, 0)
		}
	}
}

// resolve carries out what an operator decides about a token in doubt, and queues it anew:
// if the doubt is over, what follows begins at once.
func (e *engine) resolve(ctx context.Context, name string, how rotation.Resolution) (rotation.Record, rotation.Verdict, error) {
	token, ok := e.begin(name)
	if !ok {
		return rotation.Record{}, rotation.Verdict{}, errNoToken(name)
	}
	defer e.end(name)
	record, verdict, err := e.rotator.Resolve(ctx, token, how)
	if verdict.Reason != "" && !errors.Is(err, rotation.ErrLedger) { // else the ledger has what it had
		e.plan(name, record, 0)
	}
	return record, verdict, err
}

// rotateNow rotates a token for an operator.
func (e *engine) rotateNow(ctx context.Context, name string, o rotation.Overrides, by string) (rotation.Record, error) {
	return e.do(name, func(token rotation.Token) (rotation.Record, error) {
		return e.rotator.RotateNow(rotation.WithUrgency(ctx, rotation.UrgencyManual), token, o, by)
	})
}

// do has an operator's order about one token carried out, and plans the token anew.
func (e *engine) do(name string, order func(rotation.Token) (rotation.Record, error)) (rotation.Record, error) {
	token, ok := e.begin(name)
	if !ok {
		return rotation.Record{}, errNoToken(name)
	}
	e.workers.Add(1) // a stop waits for it as for any other
	defer e.workers.Done()
	defer e.end(name)
	record, err := order(token)
	if record.Revision > 0 {
		e.plan(name, record, 0)
	}
	return record, err
}

func errNoToken(name string) error {
	return fmt.Errorf("no token %q is configured, or a reload is just bringing it", name)
}

// Observe implements [rotation.Observer]: the state that is shown is that of the last
// step, also while a rotation is under way.
func (e *engine) Observe(event rotation.Event) {
	if reached, ok := event.(rotation.Reached); ok {
		e.mu.Lock()
		defer e.mu.Unlock()
		if s := e.tokens[reached.Record.Token]; s != nil {
			if s.record.TokenID != reached.Record.TokenID && !s.token.Owns(reached.Record.TokenID) {
				s.gone = false // of this one no inventory has told yet
			}
			s.record = reached.Record
		}
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
		s.unrecorded, s.unrecordedErr = 0, nil
	default:
		s.unrecorded++
		s.unrecordedErr = err
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
