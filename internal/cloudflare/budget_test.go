package cloudflare

import (
	"context"
	"errors"
	"math"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/rotation"
)

// spend takes requests one after the other for d, each of which takes a while, and returns
// when they were sent.
func spend(t *testing.T, b *budget, d, takes time.Duration) (sent []time.Time) {
	t.Helper()
	for start := time.Now(); time.Since(start) < d; {
		if err := b.take(t.Context()); err != nil {
			t.Fatal(err)
		}
		end := b.begin()
		sent = append(sent, time.Now())
		time.Sleep(takes)
		end(answer{})
	}
	return sent
}

// fullest is the most of some moments within any five minutes.
func fullest(at []time.Time) int {
	most, first := 0, 0
	for i := range at {
		for at[i].Sub(at[first]) >= budgetWindow {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// TestBudgetHoldsWithoutHeaders spends as fast as the budget lets it for half an hour, and
// counts the fullest five minutes. No header says anything.
func TestBudgetHoldsWithoutHeaders(t *testing.T) {
	for _, limit := range []int{1, 2, 7, 1000} {
		synctest.Test(t, func(t *testing.T) {
			sent := spend(t, newBudget(limit), 30*time.Minute, 0)
			if most := fullest(sent); most > limit {
				t.Errorf("budget %d: %d requests in five minutes", limit, most)
			}
			if least := limit * 59 / 10; len(sent) < least {
				t.Errorf("budget %d: only %d requests in 30 minutes, want at least %d", limit, len(sent), least)
			}
		})
	}
}

func TestBudgetGivesUpAtOnceWhenItWouldTakeTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(2)
		spend(t, b, time.Minute, time.Minute)
		spend(t, b, time.Minute, time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		var none *errNoRoom
		if err := b.take(ctx); !errors.As(err, &none) || none.wait != 4*time.Minute || time.Since(start) != 0 {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}

// TestRetryAfter: nothing is sent before the time that Cloudflare asked for is over, who waits
// is told at once, and a later answer does not shorten it.
func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(1200)
		client, beside := c.shared(t, 4)
		waits := make(chan error)
		spend(t, client.mustBudget(t), time.Second, 300*time.Millisecond) // all four
		go func() { waits <- client.Ready(rotation.WithUrgency(t.Context(), rotation.UrgencyDoubt)) }()
		synctest.Wait()
		start := time.Now()
		client.mustBudget(t).begin()(answer{answered: true, throttle: budgetWindow})
		client.mustBudget(t).begin()(answer{answered: true, throttle: time.Second})
		for what, err := range map[string]error{
			"who waited": <-waits, "a new one": client.Ready(t.Context()),
			"another account's": beside.Ready(rotation.WithUrgency(t.Context(), rotation.UrgencyDoubt)),
		} {
			e, ok := errors.AsType[*rotation.IssuerError](err)
			if !ok || e.Class != rotation.Throttled || e.RetryAfter != budgetWindow || time.Since(start) != 0 {
				t.Errorf("%s was told %v after %s", what, err, time.Since(start))
			}
		}
		if requests, wait := client.Room(time.Hour, rotation.UrgencyDoubt); requests != 0 || wait != budgetWindow {
			t.Errorf("room for %d, and a wait of %s", requests, wait)
		}
		time.Sleep(budgetWindow - time.Nanosecond)
		if err := client.Ready(t.Context()); err == nil {
			t.Error("admitted a moment too early")
		}
		time.Sleep(time.Nanosecond)
		if err := client.Ready(t.Context()); err != nil || time.Since(start) > budgetWindow+10*time.Second { // two reads for the clock
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}

func (c *Client) mustBudget(t *testing.T) *budget {
	t.Helper()
	b, err := c.budget(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestUrgentFirst: who waits is served by urgency, then in the order of coming, and a little
// is kept back for doubts and operators.
func TestUrgentFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 200
		b := newBudget(limit)
		admit := func(u rotation.Urgency) bool {
			ctx, cancel := context.WithTimeout(rotation.WithUrgency(t.Context(), u), 2*budgetWindow/3)
			defer cancel()
			if b.take(ctx) != nil {
				return false
			}
			end := b.begin()
			time.Sleep(10 * time.Millisecond)
			end(answer{})
			return true
		}
		start := time.Now()
		for spent := 0; admit(rotation.UrgencySlot); spent++ {
			if spent > limit {
				t.Fatal("more than the limit")
			}
		}
		for i := range limit / 100 {
			if !admit(rotation.UrgencyManual) {
				t.Errorf("the %d. urgent one was not admitted after %s", i+1, time.Since(start))
			}
		}
		b = newBudget(1)
		b.begin()(answer{})
		var mu sync.Mutex
		var order []rotation.Urgency
		var all sync.WaitGroup
		for _, u := range []rotation.Urgency{rotation.UrgencySlot, rotation.UrgencyRoutine, rotation.UrgencyDoubt, rotation.UrgencyClosing,
			rotation.UrgencyManual, rotation.UrgencyCatchUp, rotation.UrgencyEmergency, rotation.UrgencyDoubt, rotation.UrgencySlot} {
			all.Go(func() {
				if err := b.take(rotation.WithUrgency(t.Context(), u)); err != nil {
					t.Error(err)
				}
				b.begin()(answer{})
				mu.Lock()
				order = append(order, u)
				mu.Unlock()
			})
			synctest.Wait()
		}
		all.Wait()
		if len(order) != 9 || !slices.IsSortedFunc(order, func(x, y rotation.Urgency) int { return int(y - x) }) {
			t.Errorf("served in the order %v", order)
		}
	})
}

// TestEmergency: consumers are cut off, and the estimates say to wait. An emergency goes first and
// at once. Only Cloudflare's refusal and requests_per_5m hold it up.
func TestEmergency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 200
		b := newBudget(limit)
		said := func(left int) answer {
			return answer{answered: true, limit: ratelimit{said: true, left: left, reset: budgetWindow, quota: 1200, length: budgetWindow}}
		}
		at := func(u rotation.Urgency) time.Duration {
			start := time.Now()
			if err := b.take(rotation.WithUrgency(t.Context(), u)); err != nil {
				t.Error(err)
			}
			return time.Since(start)
		}
		b.begin()(said(1)) // others have used the rest
		var others atomic.Int32
		var all sync.WaitGroup
		for _, u := range []rotation.Urgency{rotation.UrgencySlot, rotation.UrgencyManual, rotation.UrgencyDoubt} {
			all.Go(func() {
				at(u)
				others.Add(1)
				b.begin()(said(1000))
			})
			synctest.Wait()
		}
		for n := range 50 {
			if requests, wait := b.room(30*time.Second, rotation.UrgencyEmergency); requests != limit-n-1 || wait != 0 {
				t.Errorf("room for %d emergencies, after %s", requests, wait)
			}
			if waited := at(rotation.UrgencyEmergency); waited > 0 || others.Load() > 0 {
				t.Fatalf("emergency %d waited %s, after %d others", n+1, waited, others.Load())
			}
			b.begin()(said(0))
		}
		all.Wait()
		for b.spent(time.Now()) < limit {
			at(rotation.UrgencyEmergency)
			b.begin()(said(1000))
		}
		if waited := at(rotation.UrgencyEmergency); waited == 0 {
			t.Error("more than requests_per_5m were sent")
		}
		b.begin()(answer{answered: true, refused: true, throttle: time.Minute})
		var none *errNoRoom
		if err := b.take(rotation.WithUrgency(t.Context(), rotation.UrgencyEmergency)); !errors.As(err, &none) || !none.blocked || none.wait != time.Minute {
			t.Errorf("while Cloudflare asks to be left alone: %v", err)
		}
	})
}

// TestWhoLeavesTakesNothing: a request whose context ends gives its place away, also if it was
// admitted in that very moment, and one that was admitted and never sent is forgotten.
func TestWhoLeavesTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(2)
		for range 2 {
			if err := b.take(t.Context()); err != nil { // and is never sent
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error)
		go func() { left <- b.take(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("who left was told %v", err)
		}
		start := time.Now()
		if err := b.take(t.Context()); err != nil || time.Since(start) > ticketLife {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		b = newBudget(1)
		for range 3 { // whichever of both is seen first
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if b.take(ctx) == nil {
				b.begin()(answer{unsent: true})
			}
		}
		if n := b.spent(time.Now()); n != 0 {
			t.Errorf("%d are spent by requests that were not sent", n)
		}
	})
}

// TestSharedByAccounts: accounts of one credential have one budget, the smaller one; another
// credential and another API have their own, and who has left counts no more.
func TestSharedByAccounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(-1)
		large, small := c.shared(t, 1000)
		small.account.RequestsPer5m = 10
		if large.mustBudget(t) != small.mustBudget(t) || large.mustBudget(t).limit != 10 {
			t.Errorf("two budgets, or not the smaller one: %d", large.mustBudget(t).limit)
		}
		other, _ := c.shared(t, 1000)
		other.budgets, other.account.BaseURL = large.budgets, "http://elsewhere"
		if other.mustBudget(t) == large.mustBudget(t) {
			t.Error("two APIs share a budget")
		}
		all(t, 15, large, small)
		if most := fullest(c.sent); most > 10 {
			t.Errorf("%d requests in five minutes", most)
		}
		small.Close()
		if limit := large.mustBudget(t).limit; limit != 1000 {
			t.Errorf("the limit is still %d", limit)
		}
		before := large.mustBudget(t)
		before.begin()(answer{})
		large.replaceCredential(t)
		if after := large.mustBudget(t); after == before || after.spent(time.Now()) != 0 {
			t.Error("a new credential has the budget of the old one")
		}
		time.Sleep(2 * budgetWindow)
		other.replaceCredential(t)
		other.mustBudget(t)
		if n := len(large.budgets.all); n != 2 {
			t.Errorf("%d budgets are kept, want the two in use", n)
		}
	})
}

// TestHeadersThatLie: whatever the headers say or leave out, the limit holds, and requests get
// through.
func TestHeadersThatLie(t *testing.T) {
	for name, test := range map[string]struct {
		headers [2]string
		least   int // in 20 minutes
	}{
		"absent":             {[2]string{"", ""}, 300},
		"garbage":            {[2]string{"\x00;;r=;t=x", "q=w"}, 300},
		"no end":             {[2]string{`"default";r=5`, ""}, 300},
		"negative":           {[2]string{`"default";r=-5;t=-9`, `"default";q=-1;w=-1`}, 300},
		"too much left":      {[2]string{`"default";r=999999999;t=300`, `"default";q=1200;w=300`}, 300},
		"a huge quota":       {[2]string{`"default";r=999999;t=300`, `"default";q=1000000;w=300`}, 300},
		"another quota":      {[2]string{`"default";r=1000;t=300`, `"default";q=1000000;w=300`}, 4},
		"never ends":         {[2]string{`"default";r=1000;t=99999999999`, `"default";q=1200;w=99999999999`}, 20},
		"ends at once":       {[2]string{`"default";r=1000;t=0`, `"default";q=1200;w=300`}, 300},
		"overflows":          {[2]string{`"default";r=99999999999999999999;t=9`, `"default";q=1;w=1`}, 300},
		"several policies":   {[2]string{`"burst";r=1;t=1, "default";r=900;t=300`, `"burst";q=10;w=1, "default";q=1200;w=300`}, 20},
		"nothing, all along": {[2]string{`"default";r=0;t=300`, `"default";q=1200;w=300`}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCloud(-1)
				c.change = func(h http.Header) {
					h.Set("Ratelimit", test.headers[0])
					h.Set("Ratelimit-Policy", test.headers[1])
				}
				client, _ := c.shared(t, 100)
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
				defer cancel()
				for ctx.Err() == nil {
					if _, err := client.Inspect(ctx, cfsim.SeedTokenID(1)); err != nil {
						time.Sleep(time.Second)
					}
				}
				if most := fullest(c.sent); most > 100 || len(c.sent) < test.least {
					t.Errorf("%d requests in five minutes, %d in all", most, len(c.sent))
				}
			})
		})
	}
}

// TestSlidingWindow has a Cloudflare that counts the last five minutes. Until that is seen, one
// window that is spent is waited out.
func TestSlidingWindow(t *testing.T) {
	for _, reset := range []time.Duration{budgetWindow, 0} { // all is back, or the next one is
		synctest.Test(t, func(t *testing.T) {
			var w sliding
			w.reset = reset
			c := newCloud(-1)
			c.change = w.count
			took := all(t, 3000, c.client(t, "prod", 1200, nil))
			if w.denied > 0 {
				t.Errorf("%d refused", w.denied)
			}
			if ratio := took.Seconds() / (2 * budgetWindow).Seconds(); ratio > 1.6 {
				t.Errorf("it took %s, %.3f of the best time", took, ratio)
			}
		})
	}
}

// sliding counts what was asked for in the last five minutes. Its caller serialises.
type sliding struct {
	at     []time.Time
	reset  time.Duration
	denied int
}

func (w *sliding) count(h http.Header) {
	now := time.Now()
	w.at = slices.DeleteFunc(w.at, func(at time.Time) bool { return now.Sub(at) >= budgetWindow })
	if w.at = append(w.at, now); len(w.at) > 1200 {
		w.denied++
	}
	reset := w.reset
	if reset == 0 {
		reset = budgetWindow - now.Sub(w.at[0])
	}
	h.Set("Ratelimit", `"default";r=`+strconv.Itoa(max(1200-len(w.at), 0))+`;t=`+strconv.Itoa(int(math.Ceil(reset.Seconds()))))
	h.Set("Ratelimit-Policy", `"default";q=1200;w=300`)
}
