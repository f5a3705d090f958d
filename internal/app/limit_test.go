package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudflare/cloudflare-go/v7/option"
	"github.com/cloudflare/cloudflare-go/v7/zero_trust"

	"rotatord/internal/cloudflare"
	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/config"
	"rotatord/internal/event"
	"rotatord/internal/httpapi"
	"rotatord/internal/racedetector"
	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
)

// In this file thousands of tokens rotate under Cloudflare's limit, in simulated time: with the daemon's own
// engine, rotator and client, and with the loop that one would write instead. `make bench` shows the tables;
// docs/benchmarks.md has them.

const (
	limitQuota  = 1200                   // of Cloudflare, in five minutes
	limitWindow = 5 * time.Minute        // of Cloudflare
	limitTakes  = 200 * time.Millisecond // a request to Cloudflare
	limitToken  = "token-of-the-test"
)

// limited is a Cloudflare with its limit, and a memory in place of ledger, disk and Vault.
type limited struct {
	sim   *cfsim.Simulator
	every time.Duration // a listing; an hour if it is 0
	takes time.Duration // a request to Cloudflare; limitTakes if it is 0

	ledger   *memoryLedger
	mu       sync.Mutex
	sealed   map[string]rotation.Issued
	requests map[string]int // by who sent them, and "... refused"
	done     []time.Time    // rotations
	failed   map[string]int // attempts without a rotation, by result and reason
}

func newLimited(tokens int) *limited {
	return &limited{
		sim:    cfsim.New(cfsim.Options{SeedTokens: tokens, RateLimit: limitQuota, Seed: 7}),
		ledger: newMemoryLedger(), sealed: make(map[string]rotation.Issued),
		requests: make(map[string]int), failed: make(map[string]int),
	}
}

// limitedBy is the transport of one user to Cloudflare.
type limitedBy struct {
	*limited
	who string
}

func (l limitedBy) RoundTrip(r *http.Request) (*http.Response, error) {
	time.Sleep(cmp.Or(l.takes, limitTakes) / 2)
	res, err := l.sim.RoundTripper().RoundTrip(r)
	time.Sleep(cmp.Or(l.takes, limitTakes) / 2)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.requests[l.who]++; err == nil && res.StatusCode == http.StatusTooManyRequests {
		l.requests[l.who+" refused"]++
	}
	return res, err
}

// other is another user who uses half of the limit, evenly, until ctx ends.
func (l *limited) other(ctx context.Context) {
	tick := time.NewTicker(limitWindow / (limitQuota / 2))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			req, err := http.NewRequest(http.MethodGet, "http://sim"+cfsim.BasePath+"/user/tokens/verify", nil)
			must(err)
			req.Header.Set("Authorization", "Bearer "+limitToken)
			_, err = limitedBy{l, "other"}.RoundTrip(req)
			must(err)
		}
	}
}

func (l *limited) account(t *testing.T, perWindow int) config.Account {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	must(os.WriteFile(path, []byte(limitToken), 0o600))
	return config.Account{Name: "prod", AccountID: cfsim.DefaultAccountID, BaseURL: "http://sim" + cfsim.BasePath,
		APIToken: config.SecretSource{File: path}, RequestsPer5m: perWindow}
}

func (l *limited) Reserve(context.Context, rotation.PendingKey) error { return nil }

func (l *limited) Seal(_ context.Context, key rotation.PendingKey, issued rotation.Issued) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sealed[key.RotationID] = issued
	return nil
}

func (l *limited) Open(_ context.Context, id string) (rotation.Issued, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	issued, ok := l.sealed[id]
	return issued, ok, nil
}

func (l *limited) Erase(_ context.Context, id string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.sealed, id)
	return nil
}

func (l *limited) Publish(e event.Event) {
	if a, ok := e.Detail.(event.RotationEnded); ok {
		l.mu.Lock()
		defer l.mu.Unlock()
		if a.Result == event.ResultSuccess {
			l.done = append(l.done, time.Now())
		} else {
			l.failed[string(a.Result)+"/"+a.Reason]++
		}
	}
}

// limitedSink is a Vault that takes ten milliseconds.
type limitedSink struct{}

func (limitedSink) Name() string { return "memory:sink" }

func (limitedSink) Preflight(context.Context) (rotation.Stored, error) {
	time.Sleep(10 * time.Millisecond)
	return rotation.Stored{Exists: true, Version: 1}, nil
}

func (limitedSink) Store(_ context.Context, d rotation.Delivery) (rotation.Stored, error) {
	time.Sleep(10 * time.Millisecond)
	return rotation.Stored{Exists: true, Version: 2, ClientID: d.ClientID, Digest: d.ClientSecret.Digest()}, nil
}

// run starts a daemon without its files and listeners: engine, rotator, client and listings. tokens is the
// number of tokens, all with the same schedule.
func (l *limited) run(t *testing.T, n, perWindow int, schedule *scheduler.Schedule, jitter time.Duration) (stop func()) {
	t.Helper()
	_, stop = l.start(t, n, perWindow, schedule, jitter)
	return stop
}

// start does that, and returns the daemon.
func (l *limited) start(t *testing.T, n, perWindow int, schedule *scheduler.Schedule, jitter time.Duration) (a *App, stop func()) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	client := cloudflare.New(l.account(t, perWindow), cloudflare.Options{
		WrapTransport: func(http.RoundTripper) http.RoundTripper { return limitedBy{l, "rotatord"} },
	})
	a = &App{log: log, now: time.Now, config: &config.Config{}, metrics: httpapi.NewMetrics(httpapi.Build{}), engine: newEngine(time.Now, log, nil)}
	a.engine.rotator = rotation.New(rotation.Options{
		Ledger: l.ledger, Pending: l, Events: l, Saved: a.engine.show, Owner: "test", Started: time.Now(),
	})
	tokens := make([]rotation.Token, n)
	for i := range tokens {
		name := fmt.Sprintf("token-%04d", i+1)
		table := scheduler.Timetable{Schedule: schedule, Jitter: jitter, Key: name}
		id := cfsim.SeedTokenID(i + 1)
		tokens[i] = rotation.Token{Name: name, Account: "prod", ID: id, Timetable: table, Issuer: client, Sinks: []rotation.Sink{limitedSink{}}}
		a.config.Tokens = append(a.config.Tokens, config.Token{Name: name, Account: "prod", ID: id, Schedule: schedule, Jitter: jitter})
	}
	must(a.engine.enroll(t.Context(), tokens))
	listed := &account{client: client, every: cmp.Or(l.every, time.Hour)}
	a.accounts = map[string]*account{"prod": listed}
	records, err := l.ledger.All(t.Context())
	must(err)
	earlier := a.earlierRequests()
	for _, r := range records {
		earlier.add(r)
	}
	a.countEarlier(earlier)
	a.startInventory("prod", listed)
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan struct{})
	go func() { defer close(ran); a.engine.run(ctx) }()
	return a, func() {
		cancel()
		<-ran
		a.engine.workers.Wait()
		must(listed.stop(context.Background()))
	}
}

// limitResult is the result for 5,000 tokens that are due at once.
type limitResult struct {
	took            time.Duration // until the last was rotated, or given up
	rotated, gaveUp int
	refused, others int // 429s: ours, and those of the other users of the credential
	requests        int
}

func (l *limited) result(took time.Duration) limitResult {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := limitResult{took: took, refused: l.requests["rotatord refused"] + l.requests["loop refused"], others: l.requests["other refused"]}
	r.requests = l.requests["rotatord"] + l.requests["loop"]
	for _, n := range l.sim.Stats().Rotations {
		if n > 0 {
			r.rotated++
		}
	}
	return r
}

// byRotatord lets the daemon rotate n tokens whose slot comes at the same moment.
func byRotatord(t *testing.T, n, perWindow int, shared bool) (r limitResult) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimited(n)
		at := time.Now().Add(30 * time.Minute)
		stop := l.run(t, n, perWindow, parsed(fmt.Sprintf("%d %d * * *", at.Minute(), at.Hour()), "UTC"), 0)
		ctx, cancel := context.WithCancel(t.Context())
		var others sync.WaitGroup
		if shared {
			others.Go(func() { l.other(ctx) })
		}
		start := time.Now().Truncate(time.Minute).Add(30 * time.Minute)
		for deadline := start.Add(3 * time.Hour); len(l.finished()) < n && time.Now().Before(deadline); {
			time.Sleep(time.Second)
		}
		cancel()
		others.Wait()
		stop()
		done := l.finished()
		r = l.result(done[len(done)-1].Sub(start))
		r.gaveUp = n - len(done)
		if len(l.failed) > 0 {
			t.Errorf("attempts that came to nothing: %v", l.failed)
		}
	})
	return r
}

func (l *limited) finished() []time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done
}

// byLoop lets a loop over the tokens rotate them with the SDK: either with its two retries, or patiently,
// with Retry-After obeyed and another try.
func byLoop(t *testing.T, n int, patient, shared bool) (r limitResult) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimited(n)
		ctx, cancel := context.WithCancel(t.Context())
		var others sync.WaitGroup
		if shared {
			others.Go(func() { l.other(ctx) })
			time.Sleep(limitWindow) // it was there before
		}
		options := []option.RequestOption{
			option.WithBaseURL("http://sim" + cfsim.BasePath + "/"), option.WithAPIToken(limitToken),
			option.WithHTTPClient(&http.Client{Transport: limitedBy{l, "loop"}}),
		}
		if patient {
			options = append(options, option.WithMaxRetries(0))
		}
		service := zero_trust.NewAccessServiceTokenService(options...)
		var params zero_trust.AccessServiceTokenRotateParams
		params.AccountID.Value, params.AccountID.Present = cfsim.DefaultAccountID, true
		start, gaveUp := time.Now(), 0
		for i := 1; i <= n; i++ {
			_, err := service.Rotate(t.Context(), cfsim.SeedTokenID(i), params)
			if e, ok := errors.AsType[*zero_trust.Error](err); patient && ok && e.StatusCode == http.StatusTooManyRequests {
				wait, _ := time.ParseDuration(e.Response.Header.Get("Retry-After") + "s")
				time.Sleep(wait)
				i--
			} else if err != nil {
				gaveUp++
			}
		}
		r = l.result(time.Since(start))
		r.gaveUp = gaveUp
		cancel()
		others.Wait()
	})
	return r
}

// TestUnderTheLimit compares what the daemon needs for 5,000 tokens that are due at once with the best that
// is possible: of each window everything that others leave, at its very beginning.
func TestUnderTheLimit(t *testing.T) {
	if testing.Short() || racedetector.On {
		t.Skip("it takes seconds")
	}
	const n = 5000
	row := func(what string, share int, r limitResult) float64 {
		best := limitWindow * time.Duration((n-1)/share)
		ratio, evenly := r.took.Seconds()/best.Seconds(), r.took.Seconds()/(limitWindow.Seconds()*n/float64(share))
		t.Logf("%-44s %8s  %.3f of the best, %.3f of evenly; %d rotated, %d given up; 429s: %d, others' %d; %d requests",
			what, r.took.Round(time.Second), ratio, evenly, r.rotated, r.gaveUp, r.refused, r.others, r.requests)
		return ratio
	}
	for _, shared := range []bool{false, true} {
		share, who := limitQuota, "alone"
		if shared {
			share, who = limitQuota/2, "half is taken"
		}
		r := byRotatord(t, n, limitQuota, shared)
		if ratio := row("rotatord, "+who, share, r); ratio > 1.03 || r.refused+r.others+r.gaveUp > 0 || r.rotated != n {
			t.Errorf("%s: %+v, %.3f of the best time", who, r, ratio)
		}
		if !testing.Verbose() { // the results of the loops would not be shown
			continue
		}
		row("loop with the SDK as it is, "+who, share, byLoop(t, n, false, shared))
		row("patient loop, "+who, share, byLoop(t, n, true, shared))
	}
}

// TestLeftAlone: another user brings the penalty on the credential. One of our requests is refused, nothing
// is sent for five minutes, and the tokens that are due meanwhile wait without any attempt.
func TestLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 200
		l := newLimited(n)
		at := time.Now().Add(30 * time.Minute)
		stop := l.run(t, n, limitQuota, parsed(fmt.Sprintf("%d %d * * *", at.Minute(), at.Hour()), "UTC"), 0)
		time.Sleep(time.Until(at.Truncate(time.Minute)) - 10*time.Second)
		for range limitQuota + 1 {
			req, err := http.NewRequest(http.MethodGet, "http://sim"+cfsim.BasePath+"/user/tokens/verify", nil)
			must(err)
			req.Header.Set("Authorization", "Bearer "+limitToken)
			_, err = l.sim.RoundTripper().RoundTrip(req)
			must(err)
		}
		penalty := time.Now()
		time.Sleep(10 * time.Minute)
		stop()
		if len(l.done) != n || l.requests["rotatord refused"] != 1 {
			t.Errorf("%d of %d were rotated, with %d requests refused", len(l.done), n, l.requests["rotatord refused"])
		}
		if slices.MinFunc(l.done, time.Time.Compare).Sub(penalty) < limitWindow {
			t.Error("one was rotated while Cloudflare had to be left alone")
		}
		tries := 0
		for _, n := range l.failed {
			tries += n
		}
		if tries > 32 { // those that had begun
			t.Errorf("attempts that came to nothing: %v", l.failed)
		}
	})
}

// TestRequestsForEachRotation counts the requests of 1,000 tokens; of a week in a verbose run.
func TestRequestsForEachRotation(t *testing.T) {
	if testing.Short() || racedetector.On {
		t.Skip("it takes seconds")
	}
	for _, test := range []struct {
		schedule string
		days     int
		every    time.Duration // a listing
		most     float64
	}{
		{"0 4 * * *", 2, time.Hour, 1.05}, {"0 4 * * *", 7, time.Hour, 1.05},
		{"0 4 * * 1", 7, time.Hour, 1.2}, {"0 4 * * 1", 7, 4 * time.Hour, 1.05},
	} {
		if test.days > 2 && !testing.Verbose() {
			continue
		}
		synctest.Test(t, func(t *testing.T) {
			const n = 1000
			l := newLimited(n)
			l.every = test.every
			stop := l.run(t, n, 1000, parsed(test.schedule, "UTC"), 30*time.Minute)
			time.Sleep(time.Duration(test.days) * 24 * time.Hour)
			stop()
			rotations, requests := len(l.done), l.requests["rotatord"]
			each := float64(requests) / float64(rotations)
			t.Logf("%s, %d days, a listing each %s: %d requests for %d rotations: %.3f", test.schedule, test.days, test.every, requests, rotations, each)
			if each > test.most || l.requests["rotatord refused"] > 0 || len(l.failed) > 0 {
				t.Errorf("%.3f requests for each, want at most %.2f; %d refused; %v",
					each, test.most, l.requests["rotatord refused"], l.failed)
			}
		})
	}
}

// TestDueAtOnceIsAsFastAsALoop: tokens of one credential that no other user has are done in at most 1.3 times the time of a
// loop with sixteen workers, which rotates and stores and does nothing else, as far as one window allows.
func TestDueAtOnceIsAsFastAsALoop(t *testing.T) {
	for _, test := range []struct{ n, perWindow int }{{100, 1000}, {1000, limitQuota}} {
		r := byRotatord(t, test.n, test.perWindow, false)
		var loop time.Duration
		synctest.Test(t, func(t *testing.T) {
			l := newLimited(test.n)
			began := time.Now()
			var workers sync.WaitGroup
			for w := range 16 {
				workers.Go(func() {
					for i := w; i < test.n; i += 16 {
						req, err := http.NewRequest(http.MethodPost, fmt.Sprintf("http://sim%s/accounts/%s/access/service_tokens/%s/rotate",
							cfsim.BasePath, cfsim.DefaultAccountID, cfsim.SeedTokenID(i+1)), nil)
						must(err)
						req.Header.Set("Authorization", "Bearer "+limitToken)
						res, err := limitedBy{l, "loop"}.RoundTrip(req)
						must(err)
						if res.StatusCode != http.StatusOK {
							t.Errorf("the loop is answered %s", res.Status)
						}
						time.Sleep(20 * time.Millisecond) // what it takes to store
					}
				})
			}
			workers.Wait()
			loop = time.Since(began)
		})
		t.Logf("%d tokens: %s, and a loop of sixteen %s: %.2f", test.n, r.took, loop, r.took.Seconds()/loop.Seconds())
		if r.took > loop*13/10 || r.refused > 0 || r.rotated != test.n {
			t.Errorf("%d tokens: %+v, and the loop took %s", test.n, r, loop)
		}
	}
}
