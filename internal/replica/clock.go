package replica

import (
	"sync"
	"time"
)

// Clock follows the clock of Vault, as the timestamps of our own writes show it. It measures on the monotonic clock, so
// that a wall clock that is set does not matter. The zero Clock knows nothing yet. It is safe for concurrent use.
type Clock struct {
	tolerance time.Duration // by how much Vault's clock may be off without counting as set

	mu sync.Mutex
	// Between these bounds Vault's time was at that moment.
	low, high time.Time
	at        time.Time // on the monotonic clock; zero before the first timestamp
	steady    time.Time // since which time of Vault it was followed without a jump
}

// drift is how much faster or slower than ours Vault's clock may run: one part in so many.
const drift = 2000

// observe takes in a timestamp that Vault made between two moments. jump is by how much its clock was set; 0 if it was
// not.
func (c *Clock) observe(sent, received, stamp time.Time) (jump time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	low, high := stamp, stamp.Add(received.Sub(sent)) // at the moment of received
	if c.at.IsZero() {
		c.low, c.high, c.at, c.steady = low, high, received, stamp
		return 0
	}
	passed := received.Sub(c.at)
	wider := passed.Abs() / drift
	lowest, highest := c.low.Add(passed-wider), c.high.Add(passed+wider)
	c.at = received
	switch {
	case low.After(highest):
		jump = low.Sub(highest)
	case high.Before(lowest):
		jump = high.Sub(lowest)
	}
	if jump.Abs() > c.tolerance {
		c.low, c.high, c.steady = low, high, stamp
		return jump
	}
	c.low, c.high = latest(low, lowest), earliest(high, highest)
	if c.high.Before(c.low) { // it is off by less than the tolerance
		c.low, c.high = low, high
	}
	return 0
}

// Bound returns a time that Vault's clock has reached for certain, unless it was set since the last timestamp, and since
// which time on it the clock was followed without a jump. ok is false if nothing is known yet.
func (c *Clock) Bound() (now, steadySince time.Time, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at.IsZero() {
		return time.Time{}, time.Time{}, false
	}
	passed := time.Since(c.at)
	return c.low.Add(passed - passed.Abs()/drift), c.steady, true
}

// estimate returns what Vault's clock shows most probably; zero if nothing is known yet.
func (c *Clock) estimate() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at.IsZero() {
		return time.Time{}
	}
	return c.low.Add(c.high.Sub(c.low) / 2).Add(time.Since(c.at))
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
