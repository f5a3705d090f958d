package scheduler

import (
	"sync"
	"time"
)

// Clock compares the wall clock with the monotonic one, which nobody sets. They drift apart
// when the wall clock is set, and when a machine sleeps.
//
// The zero Clock is not usable; call [NewClock]. Its methods are safe for concurrent use.
type Clock struct {
	wall, monotonic func() time.Time

	mu            sync.Mutex
	start, last   time.Time // monotonic
	startW, lastW time.Time // wall
}

// NewClock begins to compare. wall is the wall clock; nil means the system's.
func NewClock(wall func() time.Time) *Clock {
	c := &Clock{wall: wall, monotonic: time.Now}
	if c.wall == nil {
		c.wall = wallClock
	}
	c.start, c.startW = c.monotonic(), c.wall().Round(0)
	c.last, c.lastW = c.start, c.startW
	return c
}

// Step returns by how much the wall clock went ahead of the monotonic one since the last
// call, or since the clock was made. It is negative if the wall clock was put back.
func (c *Clock) Step() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, nowW := c.monotonic(), c.wall().Round(0)
	step := nowW.Sub(c.lastW) - now.Sub(c.last)
	c.last, c.lastW = now, nowW
	return step
}

// Drift returns the same since the clock was made. It changes nothing.
func (c *Clock) Drift() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wall().Round(0).Sub(c.startW) - c.monotonic().Sub(c.start)
}
