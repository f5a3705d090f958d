package scheduler

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// wallClockInterval is how often the wall clock is read anew while nothing is due.
// Timers run on the monotonic clock, which stands still while a machine sleeps and
// does not see the wall clock being set.
const wallClockInterval = 30 * time.Second

// Queue holds at most one due time for each key, and fires each when it comes. One
// heap, one timer: the cost of an entry is one heap slot, whatever its distance.
//
// The zero Queue is not usable; call [NewQueue]. All methods are safe for concurrent
// use, also from within the fire function.
type Queue struct {
	now func() time.Time // the wall clock

	mu      sync.Mutex
	entries entryHeap
	byKey   map[string]*entry
	wake    chan struct{}
}

// NewQueue returns an empty queue. now is the wall clock; nil means the system's.
func NewQueue(now func() time.Time) *Queue {
	if now == nil {
		now = wallClock
	}
	return &Queue{now: now, byKey: make(map[string]*entry), wake: make(chan struct{}, 1)}
}

// Set makes key fire at the wall-clock time at, once, in place of any time that was
// set before. A time in the past fires at once.
func (q *Queue) Set(key string, at time.Time) {
	q.mu.Lock()
	if e, ok := q.byKey[key]; ok {
		e.at = at
		heap.Fix(&q.entries, e.index)
	} else {
		e := &entry{key: key, at: at}
		q.byKey[key] = e
		heap.Push(&q.entries, e)
	}
	first := q.entries[0].key == key
	q.mu.Unlock()
	if first {
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
}

// Remove forgets key. Removing an absent key is no error.
func (q *Queue) Remove(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if e, ok := q.byKey[key]; ok {
		heap.Remove(&q.entries, e.index)
		delete(q.byKey, key)
	}
}

// Len returns how many keys wait.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.entries)
}

// Run fires keys in the order of their times until ctx ends. A fired key is no longer
// in the queue; whoever wants it again calls Set. fire is called on Run's goroutine,
// one at a time, and must return quickly.
//
// beat, if not nil, is called at least every 30 seconds: it is the proof that the
// queue is alive, for a watchdog.
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

// wallClock is the time without its monotonic reading, so that differences are those
// of the wall clock.
func wallClock() time.Time { return time.Now().Round(0) }

func (q *Queue) popDue(now time.Time) (key string, at time.Time, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.entries) == 0 || q.entries[0].at.After(now) {
		return "", time.Time{}, false
	}
	e := heap.Pop(&q.entries).(*entry)
	delete(q.byKey, e.key)
	return e.key, e.at, true
}

func (q *Queue) untilNext(now time.Time) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.entries) == 0 {
		return wallClockInterval
	}
	return min(max(q.entries[0].at.Sub(now), 0), wallClockInterval)
}

type entry struct {
	key   string
	at    time.Time
	index int
}

type entryHeap []*entry

func (h entryHeap) Len() int           { return len(h) }
func (h entryHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }

func (h entryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *entryHeap) Push(x any) {
	e := x.(*entry)
	e.index = len(*h)
	*h = append(*h, e)
}

func (h *entryHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return last
}
