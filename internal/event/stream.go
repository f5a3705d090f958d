package event

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"rotatord/internal/patience"
)

// queueSize is how many events wait for a queued subscriber at most. A rotation has about fifteen.
const queueSize = 4096

// Stream hands events to subscribers. See the package comment for what it guarantees. It is safe for
// concurrent use. A subscriber must not publish. A nil Stream has no subscribers.
type Stream struct {
	now      func() time.Time
	panicked func(subscriber, what string)
	table    []*Subscriber
	queues   map[*Subscriber]*queue
	repeats  repeats
}

// NewStream returns a stream to these subscribers; nil ones are left out. now is the wall clock.
// panicked is told the name of a subscriber that panics, and the type of what it panicked with; it may be nil.
func NewStream(now func() time.Time, panicked func(subscriber, what string), table ...*Subscriber) *Stream {
	if panicked == nil {
		panicked = func(string, string) {}
	}
	s := &Stream{now: now, panicked: panicked, queues: make(map[*Subscriber]*queue)}
	for _, subscriber := range table {
		if subscriber == nil {
			continue
		}
		s.table = append(s.table, subscriber)
		if subscriber.queued {
			s.queues[subscriber] = &queue{reader: patience.Reader{Patience: subscriber.patience}, handle: func(e Event, drops int) {
				if drops > 0 && subscriber.dropped != nil {
					s.survive(subscriber, func() { subscriber.dropped(drops) })
				}
				s.survive(subscriber, func() { subscriber.Handle(e) })
			}}
		}
	}
	return s
}

// Tell publishes what a detail tells of, at this moment.
func (s *Stream) Tell(token string, by Actor, d Detail) {
	if s != nil {
		s.Publish(New(s.now(), token, by, d))
	}
}

// Publish hands an event to all subscribers. One that leaves the event out is not waited for.
func (s *Stream) Publish(e Event) {
	if s == nil {
		return
	}
	e = s.repeats.named(e)
	for _, subscriber := range s.table {
		s.survive(subscriber, func() {
			if q := s.queues[subscriber]; q == nil {
				subscriber.Handle(e)
			} else if subscriber.handlerOf(e) != nil {
				q.put(e)
			}
		})
	}
}

// survive calls what a subscriber does, and reports its panic.
func (s *Stream) survive(subscriber *Subscriber, do func()) {
	defer func() {
		if v := recover(); v != nil { // its value may be anything, so only its type is shown
			s.panicked(subscriber.name, fmt.Sprintf("%T", v))
		}
	}()
	do()
}

// Subscribers returns the table.
func (s *Stream) Subscribers() []*Subscriber { return slices.Clone(s.table) }

// Flush waits within ctx until no queue has an event left.
func (s *Stream) Flush(ctx context.Context) error {
	for _, q := range s.queues {
		if err := q.flush(ctx); err != nil {
			return err
		}
	}
	return nil
}

// queue holds the events that a queued subscriber has yet to handle. A goroutine handles them while
// there are any.
type queue struct {
	handle func(e Event, drops int)

	mu      sync.Mutex
	reader  patience.Reader
	waiting []queued
	drops   int           // since the last event that was handled
	idle    chan struct{} // closed when the goroutine ends; nil while there is none
}

// queued is an event, and what is closed once it is handled.
type queued struct {
	event Event
	done  chan struct{}
}

// put adds an event, and waits until it is handled or patience is over.
func (q *queue) put(e Event) {
	q.mu.Lock()
	if len(q.waiting) >= queueSize {
		q.drops++
		q.mu.Unlock()
		return
	}
	one := queued{e, make(chan struct{})}
	q.waiting = append(q.waiting, one)
	if q.idle == nil {
		q.idle = make(chan struct{})
		go q.drain()
	}
	behind := q.reader.IsBehind()
	q.mu.Unlock()
	if behind || q.reader.Patience <= 0 {
		return
	}
	timer := time.NewTimer(q.reader.Patience)
	defer timer.Stop()
	select {
	case <-one.done:
	case <-timer.C:
		q.mu.Lock()
		if q.idle != nil {
			q.reader.Late()
		}
		q.mu.Unlock()
	}
}

// drain handles what waits until nothing does.
func (q *queue) drain() {
	for {
		q.mu.Lock()
		q.reader.Next(len(q.waiting))
		if len(q.waiting) == 0 {
			close(q.idle)
			q.idle = nil
			q.mu.Unlock()
			return
		}
		one, drops := q.waiting[0], q.drops
		q.waiting, q.drops = q.waiting[1:], 0
		q.mu.Unlock()
		q.handle(one.event, drops)
		close(one.done)
	}
}

// flush waits until the queue is empty.
func (q *queue) flush(ctx context.Context) error {
	q.mu.Lock()
	idle := q.idle
	q.mu.Unlock()
	if idle == nil {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
