package audit

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// This file keeps a disk that does not answer, such as one behind a network, from keeping who asks. A system call that
// hangs cannot be ended, so it is left to a goroutine of its own.

const (
	// Patience is how long a request waits for its line at most.
	Patience = 30 * time.Second
	// hungAfter is how long a step that was given up must have taken so that the next ones are not tried.
	hungAfter = 5 * time.Second
)

// errGivenUp is the error of a step that found out that nothing waits for it any more. Nothing sees it.
var errGivenUp = errors.New("the step was given up")

// step is something that is done on the disk for a caller that may give it up. Exactly one of both happens: the caller
// has its result, or the caller has given it up.
type step struct{ state atomic.Int32 }

const (
	running = iota
	ended
	givenUp
)

// givenUp reports whether the caller no longer waits. A nil step was not given up.
func (s *step) givenUp() bool { return s != nil && s.state.Load() == givenUp }

// within does something on the disk, and waits for it until ctx ends, and at most for Patience. undo is called if it was done
// after it was given up; it may be nil.
func (r *Recorder) within(ctx context.Context, do func(*step) error, undo func()) error {
	if err := r.Hung(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s, began, result := &step{}, time.Now(), make(chan error, 1)
	go func() {
		err := do(s)
		if s.state.CompareAndSwap(running, ended) {
			result <- err
			return
		}
		if err == nil && undo != nil {
			undo()
		}
		r.late.Remove(s)
	}()
	patience := time.NewTimer(Patience)
	defer patience.Stop()
	var cause error
	select {
	case err := <-result:
		return err
	case <-patience.C:
	case <-ctx.Done():
		cause = ctx.Err()
	}
	r.late.Add(s, began) // before it is given up, so that its end finds it there
	if !s.state.CompareAndSwap(running, givenUp) {
		r.late.Remove(s)
		return <-result
	}
	if errors.Is(cause, context.Canceled) {
		return fmt.Errorf("waiting for the record of events: %w", cause)
	}
	return r.noAnswer(began)
}

// Hung returns an error if the disk of the record has not answered for a long time; else nil. It never waits.
func (r *Recorder) Hung() error {
	if began := r.late.Oldest(); !began.IsZero() && time.Since(began) >= hungAfter {
		return r.noAnswer(began)
	}
	return nil
}

func (r *Recorder) noAnswer(began time.Time) error {
	return fmt.Errorf("%w for %s: look at the disk of %s. Until it answers, nothing that changes a secret is sent. A request that was given up is not sent later", ErrNoAnswer, time.Since(began).Round(time.Second), r.o.File)
}

// ErrNoAnswer is in the error about a disk that does not answer.
var ErrNoAnswer = errors.New("the disk with the record of events has not answered")

// turn is a lock. In a test whose time is simulated, time goes on while a goroutine waits for it.
type turn chan struct{}

func newTurn() turn  { return make(turn, 1) }
func (t turn) take() { t <- struct{}{} }
func (t turn) give() { <-t }
