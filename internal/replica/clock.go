package replica

import (
	"sync"
	"time"

	"rotatord/internal/moment"
)

// Clock follows the clock of Vault, as the timestamps of our own writes show it. It measures on the monotonic clock, so
// that a wall clock that is set does not matter. The zero Clock knows nothing yet. It is safe for concurrent use.
type Clock struct {
	mu sync.Mutex
	// Between these bounds Vault's time was at that moment.
	low, high time.Time
	at        time.Time     // on the monotonic clock; zero before the first timestamp
	steady    time.Time     // since which time of Vault it was followed without a jump
	moved     time.Duration // by how much it was set since steady, within the tolerance
}

// tolerance is by how much Vault's clock may be set without voiding anything: a twentieth of the shortest claim. A
// replica leaves a tenth of its own claim unused.
const tolerance = 250 * time.Millisecond

// drift is how much faster or slower than ours Vault's clock may run: one part in so many.
const drift = 2000

// observe takes in a timestamp that Vault made between two moments. jump is by how much its clock was certainly set; 0
// if everything can be explained without that. A jump of up to the tolerance voids nothing.
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
	c.moved += jump
	switch {
	case c.moved.Abs() > tolerance:
		c.low, c.high, c.steady, c.moved = low, high, stamp, 0
	case jump != 0:
		c.low, c.high = low, high
	default:
		c.low, c.high = moment.Max(low, lowest), earliest(high, highest)
	}
	return jump
}

// Reading is what a [Clock] knows.
type Reading struct {
	// Now is a time that Vault's clock has reached for certain, unless it was set after At.
	Now time.Time
	// Since is a time on Vault's clock: from then until At it was not set by more than the tolerance.
	Since time.Time
	// At is when the last timestamp arrived, on the monotonic clock of this process.
	At time.Time
}

// Read returns what is known of Vault's clock; false if that is nothing.
func (c *Clock) Read() (Reading, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at.IsZero() {
		return Reading{}, false
	}
	passed := time.Since(c.at)
	return Reading{Now: c.low.Add(passed - passed.Abs()/drift), Since: c.steady, At: c.at}, true
}

// Bound returns what Read does, without when that was measured.
func (c *Clock) Bound() (now, steadySince time.Time, ok bool) {
	r, ok := c.Read()
	return r.Now, r.Since, ok
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

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
