package cloudflare

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// clock estimates how far Cloudflare's clock is ahead of ours, from the Date headers of its answers.
//
// One header proves nothing: a proxy may have a wrong clock, and a cache answers with an old date. So answers
// have to agree:
//
//   - If answers that are close to the local clock agree with each other, they are right: two clocks that
//     were set by different people show the same. Answers that are far off are ignored.
//   - Otherwise, if most answers agree on a time that is far off, the local clock is wrong.
//   - Otherwise nothing is known, and the local clock is used.
//
// Date has whole seconds, so one answer gives an interval of a second plus the time that the answer took.
// Intervals of answers that agree narrow each other.
type clock struct {
	mu      sync.Mutex
	samples []sample // the last ones, oldest first

	// When the last answer arrived, on the wall clock and on the monotonic clock.
	wall, monotonic time.Time
	// askedAt is when answers were last asked for and did not show the clock.
	askedAt time.Time
}

// sample is one answer: how far Cloudflare's clock is ahead, at least and at most.
type sample struct{ low, high time.Duration }

const (
	// maxSamples is how many answers are kept.
	maxSamples = 16
	// agreeNear and agreeFar are how many answers have to agree on a clock that is close to the local one,
	// and on one that is not.
	agreeNear, agreeFar = 2, 3
	// edgeBlur is how much the clocks of Cloudflare's machines may differ.
	edgeBlur = time.Second
	// maxOffset is the largest difference of the clocks that is used to correct a grace. A larger one would
	// keep a secret alive for years. A machine whose clock is further off cannot verify certificates either.
	maxOffset = 30 * 24 * time.Hour
	// askAgain is how long answers are not asked for again after they did not show the clock.
	askAgain = 5 * time.Minute
	// maxUnnoticedStep is how far the wall clock may be set between two answers before the earlier answer is
	// dropped.
	maxUnnoticedStep = 2 * time.Second
)

// dateOf returns the time at which an answer was created. ok is false if the answer does not say so, if it
// says a time that no clock shows, or if it comes from a cache and is older.
func dateOf(h http.Header) (date time.Time, ok bool) {
	if age := strings.TrimSpace(h.Get("Age")); age != "" {
		if seconds, err := strconv.Atoi(age); err != nil || seconds != 0 {
			return time.Time{}, false
		}
	}
	for _, header := range []string{"CF-Cache-Status", "X-Cache"} {
		for _, served := range []string{"HIT", "STALE", "UPDATING", "REVALIDATED"} {
			if strings.Contains(strings.ToUpper(h.Get(header)), served) {
				return time.Time{}, false
			}
		}
	}
	if len(h.Values("Date")) != 1 {
		return time.Time{}, false
	}
	date, err := http.ParseTime(h.Get("Date"))
	return date, err == nil && plausible(date)
}

// observe takes in one answer, which was requested at sent, arrived at received, and has the date date.
func (c *clock) observe(sent, received, date time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stepped(received) {
		c.samples = nil
	}
	c.samples = append(c.samples, sample{within(date.Sub(received.Round(0))), within(date.Add(time.Second).Sub(sent.Round(0)))})
	if len(c.samples) > maxSamples {
		c.samples = c.samples[len(c.samples)-maxSamples:]
	}
	c.wall, c.monotonic = received.Round(0), received
}

// within limits a difference to 100 years, so that it can be calculated with.
func within(d time.Duration) time.Duration {
	const century = 100 * 365 * 24 * time.Hour
	return min(max(d, -century), century)
}

// stepped reports whether the local clock was set since the last answer, or the machine slept. The answers
// before that say nothing.
func (c *clock) stepped(now time.Time) bool {
	if len(c.samples) == 0 {
		return false
	}
	step := now.Round(0).Sub(c.wall) - now.Sub(c.monotonic)
	return step.Abs() > maxUnnoticedStep
}

// cluster is a number of answers that agree.
type cluster struct {
	sample
	n int
}

// distance returns how far the clock that a cluster shows is from the local one, at least.
func (s sample) distance() time.Duration {
	if s.low <= 0 && s.high >= 0 {
		return 0
	}
	return min(s.low.Abs(), s.high.Abs())
}

// clusters groups the answers by what they agree on, beginning with the group of the last answer. The caller
// holds mu.
func (c *clock) clusters(near bool) (all []cluster) {
next:
	for i := len(c.samples) - 1; i >= 0; i-- {
		s := c.samples[i]
		if (s.distance() <= MaxApart) != near {
			continue
		}
		for k := range all {
			known := &all[k]
			low, high := max(s.low, known.low), min(s.high, known.high)
			switch {
			case low <= high:
			case low-high <= edgeBlur: // they do not overlap, but are as close as the clocks of two machines
				low, high = high, low
			default:
				continue
			}
			known.low, known.high = low, high
			known.n++
			continue next
		}
		all = append(all, cluster{s, 1})
	}
	return all
}

// estimates returns what Cloudflare's clock may show, the newest first; none if it is not known. The caller
// holds mu.
func (c *clock) estimates() (all []cluster) {
	if c.stepped(time.Now()) {
		return nil
	}
	for _, near := range c.clusters(true) {
		if near.n >= agreeNear {
			all = append(all, near)
		}
	}
	if len(all) > 0 {
		return all
	}
	for _, far := range c.clusters(false) {
		if far.n >= agreeFar && 2*far.n > len(c.samples) {
			return []cluster{far}
		}
	}
	return nil
}

// bounds returns the smallest and the largest plausible difference, for the end of a grace. Both are 0 if
// nothing is known, or if what is known is beyond maxOffset.
func (c *clock) bounds() (low, high time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, e := range c.estimates() {
		if e.distance() > maxOffset {
			continue
		}
		if i == 0 {
			low, high = e.low, e.high
		}
		low, high = min(low, e.low), max(high, e.high)
	}
	return low, high
}

// skew returns how far Cloudflare's clock is ahead, at most. ok is false while that is not known.
func (c *clock) skew() (skew time.Duration, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if all := c.estimates(); len(all) > 0 {
		return all[0].high, true
	}
	return 0, false
}

// missing returns how many more answers may have to be asked for until the clock is known. It is 0 if the
// clock is known, or if asking did not help a short time ago.
func (c *clock) missing() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	switch {
	case c.stepped(now):
		return agreeFar
	case len(c.estimates()) > 0, !c.askedAt.IsZero() && now.Sub(c.askedAt) < askAgain:
		return 0
	case len(c.samples) > 0 && c.samples[len(c.samples)-1].distance() <= MaxApart:
		return agreeNear
	}
	return agreeFar
}

// close reports whether the last answer showed no great difference, although more answers would have to
// agree.
func (c *clock) close() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.samples) > 0 && !c.stepped(time.Now()) && c.samples[len(c.samples)-1].distance() <= MaxApart
}

// noteAsked notes that answers were asked for.
func (c *clock) noteAsked() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.askedAt = time.Time{}
	if len(c.estimates()) == 0 {
		c.askedAt = time.Now()
	}
}

// Apart returns how much the local clock and Cloudflare's differ, at least, as far as answers that agree show
// it. ok is false if too few agree.
func (c *Client) Apart() (apart time.Duration, ok bool) {
	c.clock.mu.Lock()
	defer c.clock.mu.Unlock()
	if all := c.clock.estimates(); len(all) > 0 {
		return all[0].distance(), true
	}
	return 0, false
}
