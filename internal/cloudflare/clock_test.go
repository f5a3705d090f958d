package cloudflare

import (
	"net/http"
	"testing"
	"time"
)

var clockStart = time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC)

// show lets a clock see an answer whose date is this far ahead.
func show(c *clock, ahead time.Duration) {
	now := time.Now()
	c.observe(now, now, now.Add(ahead).Round(0).Truncate(time.Second))
}

func TestClockNarrowsDown(t *testing.T) {
	var c clock
	const ahead = 90*time.Second + 700*time.Millisecond
	now := time.Now()
	see := func(d time.Duration) {
		// The samples are given, so the test need not wait for the answers one after the other.
		sent := clockStart.Add(d)
		date := sent.Add(50 * time.Millisecond).Add(ahead).Truncate(time.Second)
		c.observe(now, now.Add(100*time.Millisecond), now.Round(0).Add(date.Sub(sent)))
	}
	if low, high := c.bounds(); low != 0 || high != 0 {
		t.Error("a skew before the first answer")
	}
	see(0)
	if _, ok := c.skew(); ok || c.missing() == 0 {
		t.Error("one answer is taken for proof")
	}
	for i := range 20 {
		see(time.Duration(i) * 1137 * time.Millisecond)
		if low, high := c.bounds(); low > ahead || high < ahead {
			t.Fatalf("the true skew %s is not between %s and %s", ahead, low, high)
		}
	}
	if _, high := c.bounds(); high > ahead+200*time.Millisecond || c.missing() != 0 {
		t.Errorf("20 answers narrowed it down to %s only; the truth is %s", high, ahead)
	}
}

// TestClockBelievesAgreement: what a clock concludes from answers in this order. The differences are those of
// Cloudflare's clock.
func TestClockBelievesAgreement(t *testing.T) {
	const far = 48 * time.Hour
	ahead := func(all ...time.Duration) []time.Duration { return all }
	for name, test := range map[string]struct {
		answers []time.Duration
		known   bool
		want    time.Duration // the most that a grace is moved by
	}{
		"none":                           {nil, false, 0},
		"one that agrees with ours":      {ahead(0), false, 0},
		"two that agree with ours":       {ahead(0, 0), true, 0},
		"two that are ten minutes ahead": {ahead(10*time.Minute, 10*time.Minute), true, 10 * time.Minute},
		"one far off":                    {ahead(-far), false, 0},
		"two far off":                    {ahead(far, far), false, 0},
		"three far off":                  {ahead(far, far, far), true, far},
		"one far off among good ones":    {ahead(0, far, 0), true, 0},
		"most far off beside good ones":  {ahead(0, 0, far, far, far, far, far), true, 0},
		"two that take turns, one good":  {ahead(0, far, 0, far, 0, far), true, 0},
		"two that take turns, both far":  {ahead(far, -far, far, -far, far, -far), false, 0},
		"two that take turns, both near": {ahead(5*time.Minute, -5*time.Minute, 5*time.Minute, -5*time.Minute), true, 5 * time.Minute},
		"none that agree":                {ahead(time.Minute, 2*time.Minute, 3*time.Minute, 4*time.Minute), false, 0},
		"the clocks of two machines":     {ahead(0, time.Second, 0), true, 0},
		"three years off":                {ahead(3*8760*time.Hour, 3*8760*time.Hour, 3*8760*time.Hour), true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var c Client
			for _, d := range test.answers {
				show(&c.clock, d)
			}
			low, high := c.clock.bounds()
			if _, ok := c.Apart(); ok != test.known || high < test.want || high > test.want+3*time.Second && test.want > 0 || low > high {
				t.Errorf("known: %v; between %s and %s, want %s", ok, low, high, test.want)
			}
			if apart, _ := c.Apart(); name == "three years off" && apart < 2*8760*time.Hour {
				t.Errorf("a clock that is years off is not noticed: %s", apart)
			}
		})
	}
}

// TestClockIsUnknownAfterAStep sets the wall clock between two answers.
func TestClockIsUnknownAfterAStep(t *testing.T) {
	var c clock
	for _, step := range []time.Duration{time.Hour, -time.Hour, 3 * time.Second} {
		for range 3 {
			show(&c, 0)
		}
		if _, ok := c.skew(); !ok || c.missing() != 0 {
			t.Error("it is not known after three answers")
		}
		c.wall = c.wall.Add(-step)
		if _, ok := c.skew(); ok || c.missing() == 0 {
			t.Errorf("it is still known after a step of %s", step)
		}
	}
}

// TestClockIsNotAskedForever: if answers do not show the clock, they are not asked for at every rotation.
func TestClockIsNotAskedForever(t *testing.T) {
	var c clock
	if c.missing() == 0 {
		t.Error("nothing is asked for")
	}
	if c.noteAsked(); c.missing() != 0 {
		t.Error("it is asked for again at once")
	}
	if c.askedAt = c.askedAt.Add(-askAgain); c.missing() == 0 {
		t.Error("it is never asked for again")
	}
}

// TestDates: which answers say what time it is.
func TestDates(t *testing.T) {
	const good = "Mon, 23 Nov 2026 04:00:00 GMT"
	for name, test := range map[string]struct {
		header http.Header
		ok     bool
	}{
		"plain":           {http.Header{"Date": {good}}, true},
		"none":            {http.Header{}, false},
		"malformed":       {http.Header{"Date": {"2026-11-23T04:00:00Z"}}, false},
		"two":             {http.Header{"Date": {good, good}}, false},
		"the year 9999":   {http.Header{"Date": {"Fri, 31 Dec 9999 23:59:59 GMT"}}, false},
		"the year 1":      {http.Header{"Date": {"Mon, 01 Jan 0001 00:00:00 GMT"}}, false},
		"1970":            {http.Header{"Date": {"Thu, 01 Jan 1970 00:00:00 GMT"}}, false},
		"no age":          {http.Header{"Date": {good}, "Age": {"0"}}, true},
		"an age":          {http.Header{"Date": {good}, "Age": {"172800"}}, false},
		"an age unlike":   {http.Header{"Date": {good}, "Age": {"old"}}, false},
		"from a cache":    {http.Header{"Date": {good}, "Cf-Cache-Status": {"HIT"}}, false},
		"stale":           {http.Header{"Date": {good}, "Cf-Cache-Status": {"stale"}}, false},
		"past a cache":    {http.Header{"Date": {good}, "Cf-Cache-Status": {"DYNAMIC"}}, true},
		"another's cache": {http.Header{"Date": {good}, "X-Cache": {"TCP_HIT from proxy"}}, false},
	} {
		if _, ok := dateOf(test.header); ok != test.ok {
			t.Errorf("%s: %v", name, ok)
		}
	}
}

// TestGraceEndIsNeverEarly: whatever the answers said, the end that is sent is not before the local time plus
// the grace. The end that is reported is not before that either, nor before what was sent as seen on the
// known clock. No arithmetic overflows.
func TestGraceEndIsNeverEarly(t *testing.T) {
	offsets := []time.Duration{0, time.Second, -time.Second, 14 * time.Minute, -14 * time.Minute, 48 * time.Hour, -48 * time.Hour,
		87600 * time.Hour, -87600 * time.Hour, 1<<63 - 1, -1 << 63}
	for _, first := range offsets {
		for _, second := range offsets {
			var c Client
			for _, d := range []time.Duration{first, first, first, second, second, second, second, second} {
				c.clock.samples = append(c.clock.samples, sample{within(d), within(d)})
			}
			now := time.Now()
			c.clock.wall, c.clock.monotonic = now.Round(0), now
			for _, grace := range []time.Duration{time.Second, time.Hour, 30 * 24 * time.Hour} {
				before := time.Now()
				theirs, ours := c.graceEnd(grace)
				if theirs.Before(before.Add(grace)) || ours.Before(before.Add(grace)) {
					t.Errorf("%s, then %s: a grace of %s is told as %s and believed as %s from now", first, second, grace, theirs.Sub(before), ours.Sub(before))
				}
				if theirs.After(before.Add(grace + maxOffset + time.Minute)) {
					t.Errorf("%s, then %s: a grace of %s is told as %s from now", first, second, grace, theirs.Sub(before))
				}
			}
		}
	}
}
