package cloudflare

import (
	"testing"
	"time"
)

func TestClockNarrowsDownAndStartsAnew(t *testing.T) {
	var c clock
	local := time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC)
	const ahead = 90*time.Second + 700*time.Millisecond
	see := func(d time.Duration, ahead time.Duration) {
		sent := local.Add(d)
		c.observe(sent, sent.Add(100*time.Millisecond), sent.Add(50*time.Millisecond).Add(ahead).Truncate(time.Second))
	}
	high := func() time.Duration { _, h := c.bounds(); return h }
	if low, high := c.bounds(); low != 0 || high != 0 {
		t.Error("a skew before the first answer")
	}
	see(0, ahead)
	first := high()
	for i := range 20 {
		see(time.Duration(i)*1137*time.Millisecond, ahead)
		if low, high := c.bounds(); low > ahead || high < ahead {
			t.Fatalf("the true skew %s is not between %s and %s", ahead, low, high)
		}
	}
	if high() >= first || high() > ahead+200*time.Millisecond {
		t.Errorf("20 answers narrowed %s down to %s only; the truth is %s", first, high(), ahead)
	}
	see(30*time.Second, -time.Hour)
	if s := high(); s < -time.Hour || s > -time.Hour+2*time.Second {
		t.Errorf("after a clock was set the skew is %s", s)
	}
}

// TestClockIsUnknownAfterAStep sets the wall clock between two answers.
func TestClockIsUnknownAfterAStep(t *testing.T) {
	var c clock
	see := func() {
		now := time.Now()
		c.observe(now, now, now.Truncate(time.Second))
	}
	if c.known() {
		t.Error("it is known before the first answer")
	}
	for _, step := range []time.Duration{time.Hour, -time.Hour, 3 * time.Second} {
		if see(); !c.known() {
			t.Error("it is not known after an answer")
		}
		c.wall = c.wall.Add(-step)
		if c.known() {
			t.Errorf("it is still known after a step of %s", step)
		}
	}
}
