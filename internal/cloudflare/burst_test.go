package cloudflare

import (
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/admission"
	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/config"
	"rotatord/internal/racedetector"
)

// cloud is a simulated Cloudflare that takes a while to answer.
type cloud struct {
	sim   *cfsim.Simulator
	takes time.Duration

	mu     sync.Mutex
	sent   []time.Time // requests of our clients
	denied int         // 429s to all users
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

// another sends one request of another user with the same credential, and returns what is left.
func (c *cloud) another() int {
	req, _ := http.NewRequest(http.MethodGet, "http://sim"+cfsim.BasePath+"/user/tokens/verify", nil)
	req.Header.Set("Authorization", "Bearer "+testToken)
	res, err := c.reach(req)
	if err != nil {
		panic(err)
	}
	return admission.ReadReport(res.Header).Left
}

const testToken = "token-of-the-test"

// client returns the client of an account that uses the credential.
func (c *cloud) client(t *testing.T, name string, limit int, budgets *admission.Budgets) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(testToken), 0o600); err != nil {
		t.Fatal(err)
	}
	return New(config.Account{Name: name, AccountID: cfsim.DefaultAccountID, BaseURL: "http://sim" + cfsim.BasePath,
		APIToken: config.SecretSource{File: path}, RequestsPer5m: limit},
		Options{Budgets: budgets, WrapTransport: func(http.RoundTripper) http.RoundTripper { return c }})
}

// shared returns the clients of two accounts that use one credential.
func (c *cloud) shared(t *testing.T, limit int) (one, another *Client) {
	t.Helper()
	budgets := admission.NewBudgets()
	return c.client(t, "prod", limit, budgets), c.client(t, "test", limit, budgets)
}

// replaceCredential gives the account a new credential.
func (c *Client) replaceCredential(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(c.account.APIToken.File, []byte("another-token"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// all sends n requests as fast as the budget allows, 16 at a time, and returns how long that took.
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
					for range jobs { // the test has failed
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

// evenly returns another user who sends so many requests in each window.
func evenly(each int) func(*cloud, <-chan struct{}) {
	return func(c *cloud, end <-chan struct{}) {
		tick := time.NewTicker(admission.Window / time.Duration(each))
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

// TestBurstIsDoneInTime sends some 5,000 requests at once, alone and beside other users, and compares the
// time with the best that is possible: everything that is left of each window, at its beginning.
func TestBurstIsDoneInTime(t *testing.T) {
	if testing.Short() || racedetector.On {
		t.Skip("it takes seconds")
	}
	const quota = 1200
	inBursts := func(each, parallel int, from time.Duration) func(*cloud, <-chan struct{}) {
		return func(c *cloud, end <-chan struct{}) {
			next := time.After(from)
			for {
				select {
				case <-end:
					return
				case <-next:
					next = time.After(admission.Window)
					var workers sync.WaitGroup
					for range parallel {
						workers.Go(func() {
							for range each / parallel {
								if c.another() < 3*parallel { // it uses only what is left
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
		share  int // of the quota, which the others leave
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
				end := make(chan struct{})
				var other sync.WaitGroup
				if test.others != nil {
					other.Go(func() { test.others(c, end) })
				}
				n := 4*test.limit + 200
				if test.others != nil {
					n = 5000
				}
				took := all(t, n, c.client(t, "prod", test.limit, nil))
				close(end)
				other.Wait()
				ideal := admission.Window * time.Duration((n-1)/test.share)
				ratio := took.Seconds() / ideal.Seconds()
				t.Logf("%s, ideal %s: %.3f; %d refused", took, ideal, ratio, c.denied)
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

// TestRestartInARush: a process that starts during a rush takes the requests of the process before it for
// another user's. It watches for a while whether they go on, and no longer.
func TestRestartInARush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(1200)
		rush := all(t, 200, c.client(t, "prod", 1000, nil))
		took := all(t, 60, c.client(t, "prod", 1000, nil))
		t.Logf("200 requests in %s, and after a restart 60 in %s", rush, took)
		if took > 20*time.Second || c.denied > 0 {
			t.Errorf("after a restart 60 requests take %s; %d were refused", took, c.denied)
		}
	})
}

// TestStartBesideASteadyNeighbour: a process that starts late in a window leaves enough for another user who
// sends evenly all the time.
func TestStartBesideASteadyNeighbour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(1200)
		end := make(chan struct{})
		var other sync.WaitGroup
		other.Go(func() { evenly(1100)(c, end) })
		time.Sleep(4 * time.Minute)
		took := all(t, 300, c.client(t, "prod", 1000, nil))
		close(end)
		other.Wait()
		t.Logf("300 requests in %s", took)
		if c.denied > 0 {
			t.Errorf("%d requests were refused", c.denied)
		}
	})
}
