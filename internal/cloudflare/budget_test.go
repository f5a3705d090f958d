package cloudflare

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/config"
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

// TestRetryAfterIsNeverShortened has two answers say how long to stay away.
func TestRetryAfterIsNeverShortened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(10)
		b.begin()(answer{throttle: 5 * time.Minute})
		b.begin()(answer{throttle: time.Second})
		var none *errNoRoom
		for _, left := range []time.Duration{5 * time.Minute, time.Minute, time.Second} {
			time.Sleep(4*time.Minute*time.Duration(min(1, 5*time.Minute-left)) - 0)
			_ = left
		}
		time.Sleep(time.Minute)
		if err := b.take(t.Context()); err != nil {
			t.Errorf("after five minutes: %v", err)
		}
		_ = none
	})
}

// cloud is a simulated Cloudflare that takes a while to answer.
type cloud struct {
	sim   *cfsim.Simulator
	takes time.Duration

	mu     sync.Mutex
	sent   []time.Time // by clients of the budget
	denied int         // 429s, whoever got them
	change func(http.Header)
}

func newCloud(quota int) *cloud {
	return &cloud{sim: cfsim.New(cfsim.Options{SeedTokens: 1, RateLimit: quota}), takes: 200 * time.Millisecond}
}

// RoundTrip implements http.RoundTripper for clients.
func (c *cloud) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	c.sent = append(c.sent, time.Now())
	c.mu.Unlock()
	return c.reach(r)
}

func (c *cloud) reach(r *http.Request) (*http.Response, error) {
	time.Sleep(c.takes / 2)
	res, err := c.sim.RoundTripper().RoundTrip(r)
	time.Sleep(c.takes / 2)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && res.StatusCode == http.StatusTooManyRequests {
		c.denied++
	}
	if err == nil && c.change != nil {
		c.change(res.Header)
	}
	return res, err
}

// another makes one request with the same credential, and returns what is left.
func (c *cloud) another() int {
	req, _ := http.NewRequest(http.MethodGet, "http://sim"+cfsim.BasePath+"/user/tokens/verify", nil)
	req.Header.Set("Authorization", "Bearer "+testToken)
	res, err := c.reach(req)
	if err != nil {
		panic(err)
	}
	return readRatelimit(res.Header).left
}

const testToken = "token-of-the-test"

// client returns one of an account that uses the credential.
func (c *cloud) client(t *testing.T, name string, limit int, budgets *Budgets) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(testToken), 0o600); err != nil {
		t.Fatal(err)
	}
	return New(config.Account{Name: name, AccountID: cfsim.DefaultAccountID, BaseURL: "http://sim" + cfsim.BasePath,
		APIToken: config.SecretSource{File: path}, RequestsPer5m: limit},
		Options{Budgets: budgets, WrapTransport: func(http.RoundTripper) http.RoundTripper { return c }})
}

// all makes n requests as fast as the budget allows, 16 at a time, and returns how long that
// took.
func all(t *testing.T, n int, clients ...*Client) time.Duration {
	t.Helper()
	start := time.Now()
	var workers sync.WaitGroup
	jobs := make(chan int)
	for range 16 {
		workers.Go(func() {
			for i := range jobs {
				if _, err := clients[i%len(clients)].Inspect(t.Context(), cfsim.SeedTokenID(1)); err != nil {
					t.Errorf("request %d after %s: %v", i, time.Since(start), err)
					for range jobs { // it is over
					}
				}
			}
		})
	}
	for i := range n {
		if t.Failed() {
			break
		}
		jobs <- i
	}
	close(jobs)
	workers.Wait()
	return time.Since(start)
}

// TestBurstIsDoneInTime has 5,000 requests at once, alone and beside others, and holds the
// time against the best that could be: all that is left of each window at its beginning.
func TestBurstIsDoneInTime(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	const n, quota = 5000, 1200
	evenly := func(each int) func(*cloud, <-chan struct{}) {
		return func(c *cloud, end <-chan struct{}) {
			tick := time.NewTicker(budgetWindow / time.Duration(each))
			defer tick.Stop()
			for {
				select {
				case <-end:
					return
				case <-tick.C:
					c.another()
				}
			}
		}
	}
	inBursts := func(each, parallel int, from time.Duration) func(*cloud, <-chan struct{}) {
		return func(c *cloud, end <-chan struct{}) {
			next := time.After(from)
			for {
				select {
				case <-end:
					return
				case <-next:
					next = time.After(budgetWindow)
					var workers sync.WaitGroup
					for range parallel {
						workers.Go(func() {
							for range each / parallel {
								if c.another() < 3*parallel { // it keeps to what is left
									return
								}
							}
						})
					}
					workers.Wait()
				}
			}
		}
	}
	for _, test := range []struct {
		name   string
		limit  int
		share  int // of the quota, that others leave
		others func(*cloud, <-chan struct{})
		within float64
	}{
		{"alone", quota, quota, nil, 1.03},
		{"alone with the default limit", 1000, 1000, nil, 1.03},
		{"half is taken evenly", quota, quota / 2, evenly(quota / 2), 1.03},
		{"half is taken evenly, default limit", 1000, quota / 2, evenly(quota / 2), 1.03},
		{"half is taken in bursts at the beginning", 1000, quota / 2, inBursts(quota/2, 20, time.Second), 1.1},
		{"half is taken in bursts in the middle", 1000, quota / 2, inBursts(quota/2, 20, 150*time.Second), 1.1},
		{"half is taken in bursts at the end", 1000, quota / 2, inBursts(quota/2, 20, 270*time.Second), 1.1},
		{"half is taken in long bursts", 1000, quota / 2, inBursts(quota/2, 1, 100*time.Second), 1.1},
		{"half is taken in long bursts at the end", 1000, quota / 2, inBursts(quota/2, 1, 270*time.Second), 1.1},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCloud(quota)
				began := time.Now()
				end := make(chan struct{})
				var other sync.WaitGroup
				if test.others != nil {
					other.Go(func() { test.others(c, end) })
				}
				took := all(t, n, c.client(t, "prod", test.limit, nil))
				close(end)
				other.Wait()
				ideal := budgetWindow * time.Duration((n-1)/test.share)
				ratio := took.Seconds() / ideal.Seconds()
				t.Logf("%s, ideal %s: %.3f; %d refused", took, ideal, ratio, c.denied)
				var per [12]int
				for _, at := range c.sent {
					per[min(int(at.Sub(began)/budgetWindow), 11)]++
				}
				t.Log(per)
				if c.denied > 0 {
					t.Errorf("%d requests were refused", c.denied)
				}
				if ratio > test.within {
					t.Errorf("it took %.3f of the best time, want at most %.2f", ratio, test.within)
				}
				if most := fullest(c.sent); most > test.limit {
					t.Errorf("%d requests within five minutes", most)
				}
			})
		})
	}
}

var _ = slices.Max[[]int]
var _ = fmt.Sprint
var _ rotation.Class
