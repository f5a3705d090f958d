package cloudflare

import (
	"context"
	"errors"
	"math"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/admission"
	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/rotation"
)

// spend sends requests one after the other for d, each of which takes a while, and returns when they were
// sent.
func spend(t *testing.T, b *admission.Budget, d, takes time.Duration) (sent []time.Time) {
	t.Helper()
	for start := time.Now(); time.Since(start) < d; {
		if err := b.Take(t.Context()); err != nil {
			t.Fatal(err)
		}
		end := b.Begin()
		sent = append(sent, time.Now())
		time.Sleep(takes)
		end(admission.Answer{})
	}
	return sent
}

// fullest returns the largest number of these times within any five minutes.
func fullest(at []time.Time) int {
	most, first := 0, 0
	for i := range at {
		for at[i].Sub(at[first]) >= admission.Window {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// TestRetryAfter: nothing is sent before the time that Cloudflare asked for is over. Waiting requests are
// told at once, and a later answer does not shorten the time.
func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(1200)
		client, beside := c.shared(t, 4)
		waits := make(chan error)
		spend(t, client.mustBudget(t), time.Second, 300*time.Millisecond) // all four
		go func() { waits <- client.Ready(rotation.WithUrgency(t.Context(), rotation.UrgencyDoubt)) }()
		synctest.Wait()
		start := time.Now()
		client.mustBudget(t).Begin()(admission.Answer{Answered: true, Throttle: admission.Window})
		client.mustBudget(t).Begin()(admission.Answer{Answered: true, Throttle: time.Second})
		for what, err := range map[string]error{
			"who waited": <-waits, "a new one": client.Ready(t.Context()),
			"another account's": beside.Ready(rotation.WithUrgency(t.Context(), rotation.UrgencyDoubt)),
		} {
			e, ok := errors.AsType[*rotation.IssuerError](err)
			if !ok || e.Class != rotation.Throttled || e.RetryAfter != admission.Window || time.Since(start) != 0 {
				t.Errorf("%s was told %v after %s", what, err, time.Since(start))
			}
		}
		if requests, wait := client.Capacity(time.Hour, rotation.UrgencyDoubt); requests != 0 || wait != admission.Window {
			t.Errorf("capacity for %d, and a wait of %s", requests, wait)
		}
		time.Sleep(admission.Window - time.Nanosecond)
		if err := client.Ready(t.Context()); err == nil {
			t.Error("admitted a moment too early")
		}
		time.Sleep(time.Nanosecond)
		if err := client.Ready(t.Context()); err != nil || time.Since(start) > admission.Window+10*time.Second { // two reads for the clock
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}

func (c *Client) mustBudget(t *testing.T) *admission.Budget {
	t.Helper()
	b, err := c.budget(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSharedByAccounts: accounts of one credential share one budget, the smaller one. Another
// credential and another API have their own. A client that was closed no longer counts.
func TestSharedByAccounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(-1)
		budgets := admission.NewBudgets()
		large, small, other := c.client(t, "prod", 1000, budgets), c.client(t, "test", 10, budgets), c.client(t, "other", 1000, budgets)
		other.account.BaseURL = "http://elsewhere"
		left := func(c *Client) int {
			c.mustBudget(t)
			requests, _ := c.Capacity(0, rotation.UrgencyEmergency)
			return requests
		}
		if small.mustBudget(t) != large.mustBudget(t) || left(large) != 10 {
			t.Errorf("two budgets, or not the smaller one: %d", left(large))
		}
		if other.mustBudget(t) == large.mustBudget(t) || left(other) != 1000 {
			t.Error("two APIs share a budget")
		}
		all(t, 15, large, small)
		if most := fullest(c.sent); most > 10 {
			t.Errorf("%d requests in five minutes", most)
		}
		small.Close()
		if n := left(large); n < 980 || n >= 1000 {
			t.Errorf("after the client with the smaller limit was closed, %d requests are left", n)
		}
		before := large.mustBudget(t)
		large.replaceCredential(t)
		if after := large.mustBudget(t); after == before || left(large) != 1000 {
			t.Error("a new credential has the budget of the old one")
		}
	})
}

// TestHeadersThatLie: whatever the headers say or leave out, the limit holds, and requests are sent.
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

// TestSlidingWindow uses a Cloudflare that counts the last five minutes. Until that is noticed, the budget
// waits once for a window to end.
func TestSlidingWindow(t *testing.T) {
	for _, reset := range []time.Duration{admission.Window, 0} { // everything becomes free at once, or one request after the other
		synctest.Test(t, func(t *testing.T) {
			var w sliding
			w.reset = reset
			c := newCloud(-1)
			c.change = w.count
			took := all(t, 3000, c.client(t, "prod", 1200, nil))
			if w.denied > 0 {
				t.Errorf("%d refused", w.denied)
			}
			if ratio := took.Seconds() / (2 * admission.Window).Seconds(); ratio > 1.6 {
				t.Errorf("it took %s, %.3f of the best time", took, ratio)
			}
		})
	}
}

// sliding counts the requests of the last five minutes. Its caller serialises.
type sliding struct {
	at     []time.Time
	reset  time.Duration
	denied int
}

func (w *sliding) count(h http.Header) {
	now := time.Now()
	w.at = slices.DeleteFunc(w.at, func(at time.Time) bool { return now.Sub(at) >= admission.Window })
	if w.at = append(w.at, now); len(w.at) > 1200 {
		w.denied++
	}
	reset := w.reset
	if reset == 0 {
		reset = admission.Window - now.Sub(w.at[0])
	}
	h.Set("Ratelimit", `"default";r=`+strconv.Itoa(max(1200-len(w.at), 0))+`;t=`+strconv.Itoa(int(math.Ceil(reset.Seconds()))))
	h.Set("Ratelimit-Policy", `"default";q=1200;w=300`)
}
