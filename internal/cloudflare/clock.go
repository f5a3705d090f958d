package cloudflare

import (
	"sync"
	"time"
)

// clock estimates how far Cloudflare's clock is ahead of ours, from the Date header of
// its answers. Date has whole seconds, so one answer gives an interval of a second and
// the time the answer took; intervals of later answers narrow it down.
type clock struct {
	mu       sync.Mutex
	low      time.Duration
	high     time.Duration
	observed bool

	// When the last answer was here, on the wall clock and on the monotonic one.
	wall, monotonic time.Time
}

// maxUnnoticedStep is by how much the wall clock may be set between two answers without
// their being worth nothing.
const maxUnnoticedStep = 2 * time.Second

// observe takes in one answer: it was asked for at sent, was here at received, and was
// dated date.
func (c *clock) observe(sent, received, date time.Time) {
	low, high := date.Sub(received.Round(0)), date.Add(time.Second).Sub(sent.Round(0))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.observed {
		if l, h := max(low, c.low), min(high, c.high); l <= h {
			low, high = l, h
		} // else one of the clocks was set: start anew
	}
	c.low, c.high, c.observed = low, high, true
	c.wall, c.monotonic = received.Round(0), received
}

// bounds are the smallest and the largest difference that fit all answers so far; both 0
// before the first. Counting a grace on Cloudflare's clock takes the largest, so that it
// is never too short; saying when it has ended on ours takes the smallest.
func (c *clock) bounds() (low, high time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.low, c.high
}

// known reports whether an answer was seen and is still worth something: the wall clock was
// not set since, and the machine did not sleep.
func (c *clock) known() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	step := now.Round(0).Sub(c.wall) - now.Sub(c.monotonic)
	return c.observed && step.Abs() <= maxUnnoticedStep
}

// Apart says by how much the local clock and Cloudflare's differ, at least, as far as the
// answers so far show it; ok is false before the first.
func (c *Client) Apart() (apart time.Duration, ok bool) {
	return c.clock.apart(), c.clock.seen()
}

// seen reports whether there was an answer.
func (c *clock) seen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.observed
}

// apart is how far the two clocks are from each other, at least.
func (c *clock) apart() time.Duration {
	low, high := c.bounds()
	if low <= 0 && high >= 0 {
		return 0
	}
	return min(low.Abs(), high.Abs())
}
