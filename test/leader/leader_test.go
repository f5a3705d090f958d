package leader

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rotatord/test/program"
	"rotatord/test/realvault"
)

var (
	rounds   = flag.Int("rounds", 6, "how many rounds")
	seed     = flag.Uint64("seed", 1, "which rounds")
	only     = flag.Int("round", -1, "this round alone")
	clusters = flag.Int("clusters", 2, "how many rounds at a time")
)

// site is a cluster with what the daemon logs in with.
type site struct {
	*realvault.Cluster
	roleID, secretID string
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{Cluster: realvault.StartCluster(t, 3)}
	leader := s.Leader(t)
	leader.MountKV(t, mount, 2, true)
	s.roleID, s.secretID = leader.AppRole(t, realvault.LeastPolicy(t), "1h", "2h")
	return s
}

// result is what came of a round.
type result struct {
	plan
	wrong  []string
	looks  int
	rested time.Duration
	log    string
}

func (s *site) play(t *testing.T, p plan, path string) (r result) {
	w := newWorld(t, s.Cluster, p, path)
	r = result{plan: p, wrong: w.play(s.roleID, s.secretID), looks: w.looks, rested: w.rested, log: w.log.String()}
	_ = os.RemoveAll(w.dir)
	return r
}

// playAll plays rounds, some at a time, each worker on a cluster of its own.
func playAll(t *testing.T, all []plan, done func(result)) {
	t.Helper()
	if _, err := binary(); err != nil {
		t.Fatal(err)
	}
	queue := make(chan plan, len(all))
	for _, p := range all {
		queue <- p
	}
	close(queue)
	var workers sync.WaitGroup
	for range min(*clusters, len(all)) {
		s := newSite(t)
		workers.Go(func() {
			for p := range queue {
				done(isolated(p, func() result { return s.play(t, p, fmt.Sprintf("%s-%d", t.Name(), p.number)) }))
			}
		})
	}
	workers.Wait()
}

// isolated plays a round in a goroutine of its own. A t.Fatal ends that goroutine and not the worker.
func isolated(p plan, play func() result) result {
	came := make(chan result, 1)
	go func() {
		r := result{plan: p, wrong: []string{"the round was broken off, see above"}}
		defer func() { came <- r }()
		r = play()
	}()
	return <-came
}

// TestLeader is `make leader ROUNDS=N SEED=S`, with ROUND=K that one alone.
func TestLeader(t *testing.T) {
	t.Parallel() // it mostly waits
	all := plans(max(*rounds, *only+1), *seed)
	if *only >= 0 {
		all = all[*only : *only+1]
	}
	var mu sync.Mutex
	rested, looks, bad, finished := map[string][]time.Duration{}, 0, 0, 0
	began := time.Now()
	playAll(t, all, func(r result) {
		mu.Lock()
		defer mu.Unlock()
		finished++
		looks += r.looks
		if len(r.wrong) > 0 {
			bad++
			t.Errorf("%s\n  %s\nagain: make leader SEED=%d ROUND=%d\n%s", r.plan, strings.Join(r.wrong, "\n  "), *seed, r.number, program.Tail(r.log))
			return
		}
		rested[r.manner] = append(rested[r.manner], r.rested)
		t.Logf("%s: at rest %s after the strike", r.plan, r.rested.Round(100*time.Millisecond))
	})
	t.Logf("seed %d: %d rounds in %s, %d bad; %d looks at what Vault held, none refused in good rounds", *seed, finished, time.Since(began).Round(time.Second), bad, looks)
	for _, manner := range slices.Sorted(maps.Keys(rested)) {
		d := rested[manner]
		slices.Sort(d)
		t.Logf("%-12s %3d rounds; from the strike to a finished rotation: median %s, longest %s", manner, len(d), d[len(d)/2].Round(100*time.Millisecond), d[len(d)-1].Round(100*time.Millisecond))
	}
}

// TestOracle breaks something on purpose. An oracle that finds nothing wrong here would prove nothing in the rounds.
func TestOracle(t *testing.T) {
	t.Parallel()
	all := []plan{
		{number: 0, point: "write.arrives", manner: killed, away: time.Second, sabotage: trusting},
		{number: 1, point: "rotate.arrives", manner: steppedDown, away: time.Second, sabotage: repeating},
	}
	finds := []string{"versions of", "versions of"}
	playAll(t, all, func(r result) {
		if !strings.Contains(strings.Join(r.wrong, "\n"), finds[r.number]) {
			t.Errorf("%s: it was not found: %q\n%s", r.plan, r.wrong, program.Tail(r.log))
		}
	})
}
