package cloudflare

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestBudgetHoldsInAnyWindow spends as fast as the budget lets it for half an hour, and
// counts the fullest five minutes.
func TestBudgetHoldsInAnyWindow(t *testing.T) {
	for _, perWindow := range []int{1, 2, 7, 1000} {
		synctest.Test(t, func(t *testing.T) {
			b := newBudget(perWindow)
			start := time.Now()
			var spent []time.Time
			for time.Since(start) < 30*time.Minute {
				if err := b.take(t.Context()); err != nil {
					t.Fatal(err)
				}
				spent = append(spent, time.Now())
			}
			fullest, first := 0, 0
			for i := range spent {
				for spent[i].Sub(spent[first]) >= budgetWindow {
					first++
				}
				fullest = max(fullest, i-first+1)
			}
			if fullest > perWindow {
				t.Errorf("budget %d: %d requests in five minutes", perWindow, fullest)
			}
			if minimum := perWindow * 3; len(spent) < minimum {
				t.Errorf("budget %d: only %d requests in 30 minutes, want at least %d", perWindow, len(spent), minimum)
			}
		})
	}
}

func TestBudgetGivesUpAtOnceWhenItWouldTakeTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(2)
		if err := b.take(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		if err := b.take(ctx); err == nil || time.Since(start) != 0 {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}

func TestBlockIsNeverShortened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(10)
		b.block(5 * time.Minute)
		b.block(time.Second)
		time.Sleep(4 * time.Minute)
		if left := b.blocked(); left != time.Minute {
			t.Errorf("%s left", left)
		}
		time.Sleep(time.Minute)
		if left := b.blocked(); left != 0 {
			t.Errorf("%s left", left)
		}
	})
}

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
