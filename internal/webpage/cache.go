package webpage

import (
	"sync"
	"time"
)

// restFactor is how many times as long as it took to make a value it is used: so however often pages are asked for, they cost
// at most a fifth of one core.
const restFactor = 4

// cache keeps the last value of something that is costly to make. Its zero value is empty.
type cache[T any] struct {
	mu     sync.Mutex
	value  T
	made   time.Time // on the monotonic clock, as the process's own time is what counts
	cost   time.Duration
	making bool
	there  bool
	err    error // of the last try, of getSoon
}

// get returns a value that is fresh, or made now. Requests that come meanwhile wait for it.
func (c *cache[T]) get(build func() T) T {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.there && time.Since(c.made) < restFactor*c.cost {
		return c.value
	}
	start := time.Now()
	c.value = build()
	c.made, c.cost, c.there = time.Now(), time.Since(start), true
	return c.value
}

// getSoon returns the last value and begins to make a new one if the last try is older than it may be. It waits for at most
// that long; ok is false if there is no value yet. The error is that of the last try: the value is from before it.
func (c *cache[T]) getSoon(maxAge, wait time.Duration, build func() (T, error)) (value T, ok bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.making && (c.made.IsZero() || time.Since(c.made) > max(maxAge, restFactor*c.cost)) {
		c.making = true
		done := c.start(build)
		c.mu.Unlock()
		select {
		case <-done:
		case <-time.After(wait):
		}
		c.mu.Lock()
	}
	return c.value, c.there, c.err
}

// start makes a value in the background. The channel is closed when it is there.
func (c *cache[T]) start(build func() (T, error)) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		start := time.Now()
		value, err := build()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.making = false
		c.made, c.cost, c.err = time.Now(), time.Since(start), err
		if err == nil {
			c.value, c.there = value, true
		}
	}()
	return done
}
