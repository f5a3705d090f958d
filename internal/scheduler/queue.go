package scheduler

import (
	"context"
	"sync"
	"time"
)

// wallClockInterval is how often the wall clock is read again while nothing is due.
// Timers run on the monotonic clock, which stands still while a machine sleeps and
// does not see the wall clock being set.
const wallClockInterval = 30 * time.Second

// Queue has at most one due time for each key, and fires each key at its time. It has one heap and one timer, so an
// entry costs the same however far away its time is.
//
// The zero Queue is not usable; call [NewQueue]. All methods are safe for concurrent
// use, also from within the fire function.
type Queue struct {
	now func() time.Time // the wall clock

	mu    sync.Mutex
	heap  dueHeap
	byKey map[string]*entry
	wake  chan struct{}
}

// NewQueue returns an empty queue. now is the wall clock; nil means the system's.
func NewQueue(now func() time.Time) *Queue {
	if now == nil {
		now = wallClock
	}
	return &Queue{now: now, byKey: make(map[string]*entry), wake: make(chan struct{}, 1)}
}

// Set makes key fire once at the wall-clock time at. It replaces an earlier time. A time in the past fires at
// once.
func (q *Queue) Set(key string, at time.Time) {
	at = at.Round(0) // two that have a monotonic reading would be compared by it
	q.mu.Lock()
	e, ok := q.byKey[key]
	if ok {
		q.heap.move(e.index, at)
	} else {
		e = &entry{key: key}
		q.byKey[key] = e
		q.heap.push(due{at, e})
	}
	first := e.index == 0
	q.mu.Unlock()
	if first {
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
}

// Remove forgets key. Removing an absent key is not an error.
func (q *Queue) Remove(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if e, ok := q.byKey[key]; ok {
		q.heap.remove(e.index)
		delete(q.byKey, key)
	}
}

// Len returns how many keys wait.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.heap)
}

// Run fires keys in the order of their times until ctx ends. A key that has fired is no longer in the queue; call
// Set to add it again. fire is called on Run's goroutine, for one key at a time, and must return quickly.
//
// beat, if not nil, is called at least every 30 seconds, for a watchdog.
func (q *Queue) Run(ctx context.Context, fire func(key string, at time.Time), beat func()) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if beat != nil {
			beat()
		}
		for ctx.Err() == nil {
			key, at, ok := q.popDue(q.now())
			if !ok {
				break
			}
			fire(key, at)
		}
		timer.Reset(q.untilNext(q.now()))
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-q.wake:
		}
	}
}

// wallClock returns the time without its monotonic reading, so that differences are those of the wall clock.
func wallClock() time.Time { return time.Now().Round(0) }

func (q *Queue) popDue(now time.Time) (key string, at time.Time, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.heap) == 0 || q.heap[0].at.After(now) {
		return "", time.Time{}, false
	}
	first := q.heap[0]
	q.heap.remove(0)
	delete(q.byKey, first.key)
	return first.key, first.at, true
}

func (q *Queue) untilNext(now time.Time) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.heap) == 0 {
		return wallClockInterval
	}
	return min(max(q.heap[0].at.Sub(now), 0), wallClockInterval)
}

// A dueHeap is a heap in which no element is later than its four children, which begin at 4i+1. It is half as deep as
// container/heap's. The times to compare are next to each other and not behind pointers, because with 100,000
// entries most pointers would miss the cache.
type dueHeap []due

// due is when an entry is due.
type due struct {
	at time.Time
	*entry
}

// An entry is a key that waits, and where in the heap.
type entry struct {
	key   string
	index int
}

const children = 4

func (h *dueHeap) push(d due) {
	*h = append(*h, d)
	h.up(len(*h)-1, d)
}

// move gives the element at i another time.
func (h dueHeap) move(i int, at time.Time) {
	d := due{at, h[i].entry}
	if at.Before(h[i].at) {
		h.up(i, d)
	} else {
		h.down(i, d)
	}
}

func (h *dueHeap) remove(i int) {
	last := len(*h) - 1
	d, gone := (*h)[last], (*h)[i]
	(*h)[last] = due{}
	*h = (*h)[:last]
	switch {
	case i == last:
	case d.at.Before(gone.at):
		h.up(i, d)
	default:
		h.down(i, d)
	}
}

// up puts d at i or above. Ancestors that are later than d move down.
func (h dueHeap) up(i int, d due) {
	for i > 0 {
		parent := (i - 1) / children
		if !d.at.Before(h[parent].at) {
			break
		}
		h.put(i, h[parent])
		i = parent
	}
	h.put(i, d)
}

// down puts d at i or below. Children that are earlier than d move up.
func (h dueHeap) down(i int, d due) {
	for {
		first := children*i + 1
		if first >= len(h) {
			break
		}
		earliest := first
		for c := first + 1; c < min(first+children, len(h)); c++ {
			if h[c].at.Before(h[earliest].at) {
				earliest = c
			}
		}
		if !h[earliest].at.Before(d.at) {
			break
		}
		h.put(i, h[earliest])
		i = earliest
	}
	h.put(i, d)
}

func (h dueHeap) put(i int, d due) { h[i], d.index = d, i }
