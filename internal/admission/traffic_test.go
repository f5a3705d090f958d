package admission

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/moment"
	"rotatord/internal/racedetector"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

// traffic is a random load: our own requests, and those of other users of the credential.
type traffic struct {
	Quota, Limit int
	Takes        [2]time.Duration // of a request, at least and at most
	Lost         int              // percent of our requests whose answers are lost
	Rushes       []rush
	Others       []neighbour
	Seed         uint64
}

// rush is a number of our requests that are due at once.
type rush struct {
	At       time.Duration
	Requests int
	Parallel int
	Urgency  rotation.Urgency
}

// neighbour is another user of the credential. It never uses more in five minutes than our limit leaves;
// or it is polite, and takes half of what it sees is left, spread over the time; or it is steady, was
// there before us, and takes what it always takes: up to two thirds of the quota. We see what it takes
// only in our own answers.
type neighbour struct {
	At     time.Duration
	Polite bool
	Burst  int // at once, again and again
	Steady int // in five minutes; 0: it is not steady
}

func drawTraffic(t *rapid.T) traffic {
	steady := rapid.Bool().Draw(t, "steady")
	quota := rapid.IntRange(60, 300).Draw(t, "quota")
	if steady {
		// We see what others use only in our own answers, so a request leaves every few seconds while that is
		// not known. If a neighbour never pauses, this leaves enough for all its requests only if a probe is
		// a small part of the quota. Cloudflare's quota is 1200.
		quota = rapid.IntRange(300, 900).Draw(t, "larger quota")
	}
	r := traffic{Quota: quota, Limit: rapid.IntRange(quota/4, quota*5/6).Draw(t, "limit"), Seed: rapid.Uint64().Draw(t, "seed")}
	r.Takes[0] = rapid.SampledFrom([]time.Duration{time.Millisecond, 50 * time.Millisecond, 300 * time.Millisecond}).Draw(t, "takes")
	r.Takes[1] = r.Takes[0] * time.Duration(rapid.IntRange(1, 8).Draw(t, "up to"))
	r.Lost = rapid.SampledFrom([]int{0, 0, 3, 30}).Draw(t, "lost")
	minutes := func(name string, most int) time.Duration {
		return time.Duration(rapid.IntRange(0, most*60).Draw(t, name)) * time.Second
	}
	r.Rushes = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) rush {
		return rush{minutes("at", 25), rapid.IntRange(1, 2*quota).Draw(t, "requests"), rapid.IntRange(1, 20).Draw(t, "parallel"),
			rotation.Urgency(rapid.IntRange(0, 5).Draw(t, "urgency"))}
	}), 1, 4).Draw(t, "rushes")
	r.Others = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) neighbour {
		return neighbour{At: minutes("at", 15), Polite: rapid.Bool().Draw(t, "polite"), Burst: rapid.IntRange(1, 20).Draw(t, "burst")}
	}), 0, 2).Draw(t, "others")
	for i := range r.Others { // two of them would have to know about each other
		r.Others[i].Polite = r.Others[i].Polite && len(r.Others) == 1
	}
	if steady {
		r.Limit = rapid.IntRange(quota/4, quota).Draw(t, "whole limit")
		r.Others = []neighbour{{Steady: rapid.IntRange(quota/10, quota*2/3).Draw(t, "takes")}}
		for i := range r.Rushes {
			r.Rushes[i].At += Window
		}
	}
	return r
}

// flow is the world in which a traffic happens.
type flow struct {
	traffic
	sim    *cfsim.Simulator
	budget *Budget
	began  time.Time

	mu      sync.Mutex
	random  *rand.Rand
	arrived []time.Time // ours
	denied  []string
	done    int
}

// request sends one request, and returns the headers of its answer.
func (f *flow) request(who string) http.Header {
	f.mu.Lock()
	way, back := f.takes(), f.takes()
	f.mu.Unlock()
	time.Sleep(way)
	req, _ := http.NewRequest(http.MethodGet, "http://sim"+cfsim.BasePath+"/user/tokens/verify", nil)
	req.Header.Set("Authorization", "Bearer token-of-the-test")
	res, err := f.sim.RoundTripper().RoundTrip(req)
	if err != nil {
		panic(err)
	}
	f.mu.Lock()
	if who == "we" {
		f.arrived = append(f.arrived, time.Now())
	}
	if res.StatusCode == http.StatusTooManyRequests {
		f.denied = append(f.denied, fmt.Sprintf("%s at %s", who, time.Now().Format(time.TimeOnly)))
	}
	f.mu.Unlock()
	time.Sleep(back)
	return res.Header
}

func (f *flow) takes() time.Duration {
	return (f.Takes[0] + time.Duration(f.random.Int64N(int64(f.Takes[1]-f.Takes[0])+1))) / 2
}

// ours sends the requests of a rush.
func (f *flow) ours(t *testing.T, r rush) {
	ctx := rotation.WithUrgency(t.Context(), r.Urgency)
	var workers sync.WaitGroup
	for i := range r.Parallel {
		workers.Go(func() {
			for range (r.Requests + i) / r.Parallel {
				if err := f.budget.Take(ctx); err != nil {
					return // one was refused, which is reported elsewhere
				}
				end := f.budget.Begin()
				h := f.request("we")
				f.mu.Lock()
				f.done++
				lost := f.random.IntN(100) < f.Lost
				f.mu.Unlock()
				if lost {
					end(Answer{})
				} else {
					end(Answer{Answered: true, Limit: ReadReport(h)})
				}
			}
		})
	}
	workers.Wait()
}

// other sends requests of another user until end.
func (f *flow) other(n neighbour, share int, end <-chan struct{}) {
	limit := NewBudget(max(share, 1)) // it knows its own limit
	for i := 0; n.Steady > 0; i++ {
		each := Window / time.Duration(n.Steady)
		f.mu.Lock()
		next := time.Duration(i)*each + time.Duration(f.random.Int64N(int64(each))) - time.Since(f.began)
		f.mu.Unlock()
		select {
		case <-end:
			return
		case <-time.After(next):
			f.request("another")
		}
	}
	for {
		var pause time.Duration
		burst := min(n.Burst, share)
		if n.Polite {
			burst = 1
		}
		for range burst {
			limit.mu.Lock()
			pause = limit.limitWait(time.Now(), rotation.UrgencyDoubt)
			limit.mu.Unlock()
			if !n.Polite && pause > 0 {
				break
			}
			done := limit.Begin()
			report := ReadReport(f.request("another"))
			done(Answer{})
			if n.Polite { // as if half of what is left were spent evenly
				pause = report.Reset + time.Second
				if report.Left > f.Quota/10 {
					pause = 2 * report.Reset / time.Duration(report.Left)
				}
			}
		}
		if !n.Polite {
			pause = max(pause, time.Duration(n.Burst)*7*time.Second)
		}
		select {
		case <-end:
			return
		case <-time.After(pause):
		}
	}
}

// fewChecks makes rapid do fewer checks in short tests, unless the number was set on the command line.
func fewChecks(t *testing.T, n int) {
	t.Helper()
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue && (testing.Short() || racedetector.On) {
		if err := checks.Value.Set(strconv.Itoa(n)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = checks.Value.Set(checks.DefValue) })
	}
}

// seeds returns how many random worlds a test plays. The race detector sees few of them; make test plays all without it.
func seeds() uint64 {
	if racedetector.On {
		return 4
	}
	return 20
}

// run runs the traffic, in a bubble.
func (r traffic) run(t *testing.T) *flow {
	f := &flow{traffic: r, sim: cfsim.New(cfsim.Options{SeedTokens: 1, RateLimit: r.Quota}), budget: NewBudget(r.Limit), began: time.Now()}
	f.random = rand.New(rand.NewPCG(r.Seed, 0))
	f.budget.join(nil, r.Limit)
	var ours, others sync.WaitGroup
	end := make(chan struct{})
	for _, n := range r.Others {
		others.Go(func() {
			time.Sleep(n.At)
			f.other(n, (r.Quota-r.Limit)/len(r.Others)-1, end)
		})
	}
	for _, rush := range r.Rushes {
		ours.Go(func() {
			time.Sleep(rush.At)
			f.ours(t, rush)
		})
	}
	ours.Wait()
	close(end)
	others.Wait()
	return f
}

// TestRandomTraffic: whatever comes when, at most limit of our requests arrive within any five minutes, and
// no request is refused while the others use only what is left to them.
func TestRandomTraffic(t *testing.T) {
	fewChecks(t, 15)
	rapid.Check(t, func(rt *rapid.T) {
		r := drawTraffic(rt)
		var f *flow
		synctest.Test(t, func(t *testing.T) {
			f = r.run(t)
		})
		want := 0
		for _, rush := range r.Rushes {
			want += rush.Requests
		}
		if most := fullest(f.arrived); most > r.Limit || len(f.denied) > 0 || f.done != want {
			rt.Fatalf("%d of %d requests, at most %d in five minutes, refused: %v\n%+v", f.done, want, most, f.denied, r)
		}
	})
}

// TestSteadyNeighbourOfASmallQuota: a user who takes two thirds of a small quota evenly is seen, and our
// requests leave all that it will need, to the last one. That we did not ask for a while does not mean that
// it has stopped.
func TestSteadyNeighbourOfASmallQuota(t *testing.T) {
	for _, test := range []struct {
		quota, limit, steady int
		from                 time.Duration
	}{
		{60, 23, 40, 304 * time.Second}, {60, 47, 40, 301 * time.Second}, {60, 60, 40, 400 * time.Second},
		{66, 25, 44, 325 * time.Second}, {90, 50, 60, 302 * time.Second}, {109, 57, 72, 374 * time.Second},
		{300, 250, 200, 310 * time.Second},
	} {
		for seed := range seeds() {
			synctest.Test(t, func(t *testing.T) {
				f := traffic{Quota: test.quota, Limit: test.limit, Takes: [2]time.Duration{time.Millisecond, 50 * time.Millisecond}, Seed: seed,
					Rushes: []rush{{At: test.from, Requests: test.quota, Parallel: 1}}, Others: []neighbour{{Steady: test.steady}}}.run(t)
				if len(f.denied) > 0 || f.done != test.quota {
					t.Errorf("%+v: %d of %d requests, refused: %v", f.traffic, f.done, test.quota, f.denied)
				}
			})
		}
	}
}

// TestFirstRequestAtTheEndOfAWindow: a few seconds without requests of others, before a window ends, do not
// mean that users of much of the quota have gone.
func TestFirstRequestAtTheEndOfAWindow(t *testing.T) {
	const quota, used = 1200, 600
	start := time.Now()
	var p pacer
	at := func(d time.Duration, left int, reset time.Duration) {
		p.observe(observation{sent: start.Add(d), at: start.Add(d), answered: true,
			Report: Report{Said: true, Left: left, Reset: reset, Quota: quota, Length: Window}}, []time.Time{start.Add(d)}, 0)
	}
	at(0, quota-used-1, 2*time.Second)
	at(3*time.Second, quota-1, Window)
	if kept := p.others.reserve(&p.reported, start.Add(3*time.Second), quota, careful); kept < used/2 {
		t.Errorf("%.0f of %d are left to others, who have used %d", kept, quota, used)
	}
}

// burst sends n requests at once, at most parallel at a time, after quiet. Before that one request every 30 seconds sees
// what others do. It returns how long they took, and the flow.
func burst(t *testing.T, tr traffic, n, parallel int, quiet time.Duration, u rotation.Urgency) (took time.Duration, f *flow) {
	t.Helper()
	for at := time.Duration(0); at < quiet; at += 30 * time.Second {
		tr.Rushes = append(tr.Rushes, rush{At: at, Requests: 1, Parallel: 1})
	}
	tr.Rushes = append(tr.Rushes, rush{At: quiet, Requests: n, Parallel: parallel, Urgency: u})
	synctest.Test(t, func(t *testing.T) {
		f = tr.run(t)
		last := f.arrived[0]
		for _, at := range f.arrived {
			last = moment.Max(last, at)
		}
		took = last.Sub(f.began.Add(quiet))
	})
	return took, f
}

// TestNoOtherUserIsSeen: what is due at once leaves at once, if no other user was seen. A process that has just started
// leaves two thirds of the quota to those whom it may not have seen yet. What is urgent leaves at once also where another
// user is seen, but for what that one can need.
func TestNoOtherUserIsSeen(t *testing.T) {
	steady := []neighbour{{Steady: 300}}
	for _, test := range []struct {
		name     string
		n, limit int
		quiet    time.Duration
		urgency  rotation.Urgency
		others   []neighbour
		most     time.Duration
		least    time.Duration
	}{
		// A loop of sixteen takes 100/16 times 200 ms: 1.4 s.
		{name: "alone", n: 100, limit: 1000, quiet: time.Minute, urgency: rotation.UrgencySlot, most: 1600 * time.Millisecond},
		{name: "alone in a new window", n: 100, limit: 1000, quiet: 6 * time.Minute, urgency: rotation.UrgencySlot, most: 1600 * time.Millisecond},
		{name: "alone, a whole window", n: 1150, limit: 1200, quiet: 6 * time.Minute, urgency: rotation.UrgencySlot, most: 15500 * time.Millisecond},
		{name: "just started", n: 100, limit: 1000, urgency: rotation.UrgencySlot, most: 1600 * time.Millisecond},
		{name: "another is seen", n: 100, limit: 1000, quiet: 6 * time.Minute, urgency: rotation.UrgencySlot, others: steady, most: 20 * time.Second, least: 3 * time.Second},
		{name: "another is seen, urgent", n: 100, limit: 1000, quiet: 6 * time.Minute, urgency: rotation.UrgencyManual, others: steady, most: 1600 * time.Millisecond},
		{name: "another is seen, urgent, too many", n: 900, limit: 1200, quiet: 6 * time.Minute, urgency: rotation.UrgencyManual, others: steady, most: 6 * time.Minute, least: 15 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			took, f := burst(t, traffic{Quota: 1200, Limit: test.limit, Takes: [2]time.Duration{200 * time.Millisecond, 200 * time.Millisecond}, Others: test.others, Seed: 3},
				test.n, 16, test.quiet, test.urgency)
			if took > test.most || took < test.least || len(f.denied) > 0 {
				t.Errorf("%d requests took %s, want %s to %s; refused: %v", test.n, took, test.least, test.most, f.denied)
			}
			t.Logf("%d requests took %s", test.n, took)
		})
	}
}

// TestUrgentAfterARestart: the process before has just used a part of the window, which looks like another user's. The first
// listing of the new process is urgent, and does not wait for that: a hundred pages leave at once. Two thirds of the quota are left to others
// as in a process that has seen nobody, and what is not urgent waits until it has been seen whether they go on.
func TestUrgentAfterARestart(t *testing.T) {
	const quota, ago = 1200, 15 * time.Second
	start := time.Now()
	for _, test := range []struct {
		used        int
		urgent      bool
		least, most float64
	}{
		{used: 200, urgent: true, least: 99, most: 160},
		{used: 330, urgent: true, most: 20},
		{used: 700, urgent: true, most: 0},
		{used: 200, most: 0},
	} {
		var p pacer
		p.observe(observation{sent: start, at: start, answered: true,
			Report: Report{Said: true, Left: quota - test.used - 1, Reset: Window - ago, Quota: quota, Length: Window}}, []time.Time{start}, 0)
		if n := max(p.atOnce(start, load{finished: 1, limit: 1000, urgent: test.urgent}), 0); n < test.least || n > test.most {
			t.Errorf("%d used before, urgent %t: %.0f requests leave at once, want %.0f to %.0f", test.used, test.urgent, n, test.least, test.most)
		}
	}
}

// TestUrgentAfterAnOldAnswer: others may have used since what the last answer said was left. So one urgent request asks, and
// the others wait for its answer.
func TestUrgentAfterAnOldAnswer(t *testing.T) {
	start := time.Now()
	for left := 5; left < 1200; left += 5 {
		for _, reset := range []time.Duration{10 * time.Second, 20 * time.Second, time.Minute, 4 * time.Minute} {
			var p pacer
			p.observe(observation{sent: start, at: start, answered: true,
				Report: Report{Said: true, Left: left, Reset: reset, Quota: 1200, Length: Window}}, []time.Time{start}, 0)
			later := freshSpan + time.Second
			if got := p.pace(start.Add(later), load{finished: 1, limit: 1000, urgent: true, sinceLast: later}); (got.allowed || got.atOnce) && !got.oneByOne {
				t.Errorf("%d left for %s, %s after the answer: %+v, want one by one", left, reset, later, got)
			}
		}
	}
}

// TestOneAddress: the requests of all credentials to one server are at most 160 within any second, whatever their urgency.
// Another server does not count.
func TestOneAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budgets := NewBudgets()
		budgets.Share(1)
		var mu sync.Mutex
		var sent []time.Time
		var workers sync.WaitGroup
		rushOn := func(baseURL, credential string, n int, u rotation.Urgency, note bool) {
			user := budgets.Join(1000)
			b := user.Budget(Key{BaseURL: baseURL, Credential: secret.New(credential).Digest()})
			ctx := rotation.WithUrgency(t.Context(), u)
			for range n {
				workers.Go(func() {
					if err := b.Take(ctx); err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					if note {
						sent = append(sent, time.Now())
					}
					mu.Unlock()
					end := b.Begin()
					time.Sleep(10 * time.Millisecond)
					end(Answer{Answered: true})
				})
			}
		}
		for i := range 10 {
			rushOn("https://api.cloudflare.com/client/v4"+strings.Repeat("/", i%2), fmt.Sprint("credential-", i), 100, rotation.UrgencyEmergency, true)
		}
		synctest.Wait()
		began := time.Now()
		rushOn("https://elsewhere.example/client/v4", "credential-0", perSecond, rotation.UrgencyEmergency, false)
		workers.Wait()
		slices.SortFunc(sent, time.Time.Compare)
		for i := perSecond; i < len(sent); i++ {
			if apart := sent[i].Sub(sent[i-perSecond]); apart < time.Second {
				t.Fatalf("%d requests within %s", perSecond+1, apart)
			}
		}
		if took := sent[len(sent)-1].Sub(began); len(sent) != 1000 || took > 7*time.Second {
			t.Errorf("%d requests took %s", len(sent), took)
		}
	})
}
