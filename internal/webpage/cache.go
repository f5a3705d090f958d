package webpage

import (
	"fmt"
	"sync"
	"time"
)

// cache keeps something that is costly to make, and makes it in the background: one at a time, again and again while it is
// asked for, and at most for a fifth of one core. It forgets the value when nothing has asked for it for a while. A request
// never waits longer than it wants to.
//
// Only make, every and idle are set by the owner. Times are on the monotonic clock, as the process's own time is what counts.
type cache[T any] struct {
	// make makes a value. It gets the last one, or a zero one if there is none. If it panics, the error says so.
	make func(last T) (T, error)
	// every is how old a value becomes before the next one is made, and idle for how long values are made after the last one
	// was asked for.
	every, idle time.Duration

	mu     sync.Mutex
	value  T
	there  bool
	made   time.Time     // when making the value began
	err    error         // of the last try; the value is from before it
	ended  time.Time     // when the last try ended
	cost   time.Duration // of the last try
	making chan struct{} // closed when the try in progress ends; nil if there is none
	asked  time.Time
	timer  *time.Timer // for the next try; nil if there is none
}

// restFactor is how many times as long as making a value took no other one is made.
const restFactor = 4

// get returns the last value. If there is none, it waits for one, but not longer than wait; ok is
// false if there is none then. The error is that of the last try: then the value, if there is one, is from before it.
func (c *cache[T]) get(wait time.Duration) (value T, ok bool, err error) {
	c.mu.Lock()
	c.asked = time.Now()
	c.mu.Unlock()
	return c.peek(wait)
}

// peek does the same, but does not count as a request.
func (c *cache[T]) peek(wait time.Duration) (value T, ok bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.there && time.Since(c.made) > c.idle+2*restFactor*c.cost { // a value that takes long is made rarely
		c.forget()
	}
	if !c.there {
		c.await(wait)
	}
	return c.value, c.there, c.err
}

// renew makes a value that begins now, also if the last one was made a moment ago, and waits for it, but not longer than wait.
func (c *cache[T]) renew(wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	start := time.Now()
	c.join(wait) // with the one in progress, which has begun before
	if c.making == nil && c.made.Before(start) && c.err == nil {
		c.begin()
	}
	c.join(wait - time.Since(start))
}

// update replaces the value, if there is one.
func (c *cache[T]) update(with func(T) T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.there {
		c.value = with(c.value)
	}
}

// forget drops the value. c.mu must be held.
func (c *cache[T]) forget() {
	var none T
	c.value, c.there = none, false
}

// rest returns for how long no value is made now. c.mu must be held.
func (c *cache[T]) rest() time.Duration {
	if c.ended.IsZero() {
		return 0
	}
	pause := restFactor * c.cost
	if c.err != nil { // what fails is not tried by each request
		pause = max(pause, c.every)
	}
	return pause - time.Since(c.ended)
}

// await begins to make a value, if that is not in progress and not too early, and waits for it. c.mu must be held.
func (c *cache[T]) await(wait time.Duration) {
	if c.making == nil && c.rest() <= 0 {
		c.begin()
	}
	c.join(wait)
}

// join waits for the try in progress, if there is one. c.mu must be held.
func (c *cache[T]) join(wait time.Duration) {
	done := c.making
	if done == nil {
		return
	}
	c.mu.Unlock()
	defer c.mu.Lock()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// begin makes a value in the background. c.mu must be held, and no value be in the making.
func (c *cache[T]) begin() {
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	done := make(chan struct{})
	c.making = done
	last := c.value
	go func() {
		defer close(done)
		start := time.Now()
		value, err := c.try(last)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.making, c.err, c.ended, c.cost = nil, err, time.Now(), time.Since(start)
		if err == nil {
			c.value, c.made, c.there = value, start, true
		}
		c.timer = time.AfterFunc(max(c.every-c.cost, c.rest(), 0), c.again)
	}()
}

// try makes a value. A panic is an error: it must not end the daemon.
func (c *cache[T]) try(last T) (value T, err error) {
	defer func() {
		if v := recover(); v != nil { // its value may be anything, so only its type is shown
			err = fmt.Errorf("a fault in the program (%T): please report it", v)
		}
	}()
	return c.make(last)
}

// again makes the next value, or forgets the last one if nothing asks for it any more.
func (c *cache[T]) again() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timer = nil
	switch {
	case c.making != nil:
	case time.Since(c.asked) > c.idle:
		c.forget()
	default:
		c.begin()
	}
}
