package replicas

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// mode is what happens to whoever uses a link.
type mode int

const (
	open    mode = iota
	refused      // the connection breaks at once
	silent       // nothing arrives, until the link is open again
)

func (m mode) String() string { return [...]string{"open", "refused", "silent"}[m] }

var errCut = errors.New("the link is cut")

// link is one way from a program to another. The zero link is open. A link can be cut more than once at a time.
type link struct {
	mu      sync.Mutex
	mode    mode
	slow    time.Duration // each request and answer takes up to so long
	lossy   float64       // how many answers of a write are lost, of 1
	changed chan struct{} // closed at a change; nil: nobody waits
}

// set changes the link.
func (l *link) set(m mode) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mode = m
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

func (l *link) setSlow(d time.Duration) { l.mu.Lock(); l.slow = d; l.mu.Unlock() }
func (l *link) setLossy(of float64)     { l.mu.Lock(); l.lossy = of; l.mu.Unlock() }

// loses decides about one answer.
func (l *link) loses() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return rand.Float64() < l.lossy
}

// state returns the mode, and what is closed when that changes.
func (l *link) state() (mode, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.mode, l.changed
}

// pass lets something through, or returns an error.
func (l *link) pass(ctx context.Context) error {
	l.mu.Lock()
	slow := l.slow
	l.mu.Unlock()
	if slow > 0 {
		select {
		case <-time.After(rand.N(slow)):
		case <-ctx.Done():
		}
	}
	for {
		m, changed := l.state()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case m == open:
			return nil
		case m == refused:
			return errCut
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}
