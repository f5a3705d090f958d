package replicas

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"rotatord/internal/rotation"
	"rotatord/test/program"
)

var figures = flag.Bool("figures", false, "measure what several replicas cost, and how soon they take over")

func measured(t *testing.T) {
	t.Helper()
	if !*figures {
		t.Skip("make replicas-figures runs it")
	}
}

// rotationsOf returns the rotations that were carried out since a time.
func (w *world) rotationsOf(since time.Time) (all []*request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.requests {
		if r.carriedOut() && r.at.After(since) {
			all = append(all, r)
		}
	}
	return all
}

func (w *world) vaultRequests() (n int64) {
	for _, r := range w.replicas {
		n += r.vaultRequests.Load()
	}
	return n
}

// memory returns the resident memory of a replica in MiB.
func (r *replica) memory() float64 {
	p := r.current()
	if p == nil {
		return 0
	}
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	for line := range strings.Lines(string(b)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "VmRSS:" {
			kib, _ := strconv.ParseFloat(fields[1], 64)
			return kib / 1024
		}
	}
	return 0
}

func quantiles(all []time.Duration) string {
	if len(all) == 0 {
		return "none"
	}
	slices.Sort(all)
	return fmt.Sprintf("%d: median %s, worst %s", len(all), all[len(all)/2].Round(100*time.Millisecond), all[len(all)-1].Round(100*time.Millisecond))
}

// busy reports whether a replica was in the middle of a rotation of a token, as far as it has saved that.
func (w *world) busy(replica, token string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range slices.Backward(w.saves) {
		if s.token == token {
			return s.replica == replica && s.record.Step != rotation.StepIdle
		}
	}
	return false
}

// fail kills a replica. It returns when, and the tokens that it had served last since a time: whether it was in the middle
// of a rotation of them.
func (w *world) fail(victim *replica, since time.Time) (killed time.Time, served map[*subject]bool) {
	last := map[*subject]*request{}
	for _, r := range w.rotationsOf(since) {
		last[r.subject] = r
	}
	victim.kill()
	killed, served = time.Now(), map[*subject]bool{}
	for s, r := range last {
		if r.replica == victim {
			served[s] = w.busy(victim.name, s.name)
		}
	}
	return killed, served
}

// servedAgain waits until all these tokens are rotated, and returns how long after a time each of them was: those that were
// idle, and those in the middle of a rotation.
func (w *world) servedAgain(t *testing.T, waiting map[*subject]bool, killed time.Time) (idle, busy []time.Duration) {
	t.Helper()
	for deadline := killed.Add(4 * time.Minute); len(waiting) > 0 && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		for _, r := range w.rotationsOf(killed) {
			inProgress, ok := waiting[r.subject]
			switch delete(waiting, r.subject); {
			case ok && inProgress:
				busy = append(busy, r.at.Sub(killed))
			case ok:
				idle = append(idle, r.at.Sub(killed))
			}
		}
	}
	for s := range waiting {
		t.Errorf("%s was not served again", s.name)
	}
	return idle, busy
}

// TestTakeoverTime kills one of three replicas, again and again, and counts from then until each token that it served
// last is rotated by another one. All tokens are always due.
func TestTakeoverTime(t *testing.T) {
	measured(t)
	for _, claim := range []time.Duration{5 * time.Second, 30 * time.Second} {
		kills := 4
		if claim < 10*time.Second {
			kills = 10
		}
		t.Run(claim.String(), func(t *testing.T) {
			w := newWorld(t, settings{replicas: 3, tokens: 24, claim: claim, plain: true, tokensOfAccount: 1, schedule: func(int) string { return "@every 2s" }})
			w.startAll()
			time.Sleep(3 * time.Second)
			var idle, busy []time.Duration
			for n := range kills {
				victim := w.replicas[n%3]
				began := time.Now()
				time.Sleep(max(claim, 10*time.Second)) // all prefer again what they prefer
				killed, served := w.fail(victim, began)
				idleNow, busyNow := w.servedAgain(t, served, killed)
				idle, busy = append(idle, idleNow...), append(busy, busyNow...)
				w.must(victim.start())
				program.Eventually(t, time.Minute, "the replica is ready", victim.ready)
			}
			t.Logf("claim %s, %d kills: tokens that were idle, %s; tokens in the middle of a rotation, %s", claim, kills, quantiles(idle), quantiles(busy))
		})
	}
}

// TestCost counts requests to Vault: for each rotation, and for a token that waits for its slot. It measures the
// throughput when all tokens are always due, and the memory.
func TestCost(t *testing.T) {
	measured(t)
	const tokens = 120
	for _, replicas := range []int{0, 1, 3, 10} {
		t.Run(fmt.Sprintf("%d replicas", replicas), func(t *testing.T) {
			s := settings{replicas: max(1, replicas), tokens: tokens, plain: true, tokensOfAccount: 1, schedule: func(int) string { return "@every 1s" }}
			if replicas > 0 {
				s.claim = 2 * time.Minute
			}
			w := newWorld(t, s)
			w.startAll()
			time.Sleep(15 * time.Second) // all have found each other
			began, before := time.Now(), w.vaultRequests()
			time.Sleep(30 * time.Second)
			rotations, took := len(w.rotationsOf(began)), time.Since(began)
			requests := w.vaultRequests() - before
			most := 0.0
			for _, r := range w.replicas {
				most = max(most, r.memory())
			}
			t.Logf("%d replicas (0: local state), %d tokens always due: %.1f rotations/s, %.1f requests to Vault for each, %.0f MiB at most of one process", replicas, tokens,
				float64(rotations)/took.Seconds(), float64(requests)/float64(rotations), most)
		})
	}
}

// TestIdle counts requests to Vault of tokens that wait for their slots.
func TestIdle(t *testing.T) {
	measured(t)
	for _, replicas := range []int{0, 3} {
		t.Run(fmt.Sprintf("%d replicas", replicas), func(t *testing.T) {
			var perMinute []float64
			for _, tokens := range []int{20, 520} {
				s := settings{replicas: max(1, replicas), tokens: tokens, plain: true, tokensOfAccount: 1000, schedule: func(int) string { return "@every 720h" }}
				if replicas > 0 {
					s.claim = 2 * time.Minute
				}
				w := newWorld(t, s)
				w.startAll()
				time.Sleep(45 * time.Second)
				before := w.vaultRequests()
				const minutes = 2
				time.Sleep(minutes * time.Minute)
				perMinute = append(perMinute, float64(w.vaultRequests()-before)/minutes)
			}
			t.Logf("%d replicas (0: local state): %.1f requests a minute with 20 idle tokens, %.1f with 520: %.0f for each token and day, and %.0f a day for all", replicas,
				perMinute[0], perMinute[1], (perMinute[1]-perMinute[0])/500*1440, perMinute[0]*1440)
		})
	}
}

// TestTenThousand measures the start of a replica, and the failover of one of three, with 10,000 tokens.
func TestTenThousand(t *testing.T) {
	measured(t)
	const all, often = 10_000, 30
	w := newWorld(t, settings{replicas: 3, tokens: all, claim: 30 * time.Second, plain: true, tokensOfAccount: 5000, schedule: func(n int) string {
		if n%(all/often) == 0 {
			return "@every 5s"
		}
		return "@every 720h"
	}})
	began := time.Now()
	for _, r := range w.replicas {
		w.must(r.start())
	}
	for _, r := range w.replicas {
		program.Eventually(t, 10*time.Minute, r.name+" is ready", r.ready)
		t.Logf("first start, all three enrol the same 10,000 tokens: %s is ready after %s", r.name, time.Since(began).Round(time.Second))
	}
	program.Eventually(t, 5*time.Minute, "every token is enrolled", func() bool {
		views, err := w.replicas[0].tokens()
		return err == nil && len(views) == all && !slices.ContainsFunc(views, func(s shown) bool { return s.Next.IsZero() })
	})
	t.Logf("all enrolled after %s", time.Since(began).Round(time.Second))
	time.Sleep(20 * time.Second)
	for n := range 3 { // a restart
		r := w.replicas[n]
		if err := r.terminate(); err != nil {
			t.Error(err)
		}
		before := r.vaultRequests.Load()
		began := time.Now()
		w.must(r.start())
		program.Eventually(t, time.Minute, "ready", r.ready)
		t.Logf("start of %s: ready after %s, with %d requests to Vault; %.0f MiB", r.name, time.Since(began).Round(100*time.Millisecond), r.vaultRequests.Load()-before, r.memory())
	}
	time.Sleep(30 * time.Second)
	var took []time.Duration
	for n := range 3 { // a failover
		victim := w.replicas[n]
		began := time.Now()
		time.Sleep(15 * time.Second)
		before := w.vaultRequests()
		killed, served := w.fail(victim, began)
		maps.DeleteFunc(served, func(_ *subject, inProgress bool) bool { return inProgress })
		idle, _ := w.servedAgain(t, served, killed)
		took = append(took, idle...)
		t.Logf("failover of %s: %d requests to Vault until its tokens were served", victim.name, w.vaultRequests()-before)
		w.must(victim.start())
		program.Eventually(t, time.Minute, "ready", victim.ready)
		time.Sleep(20 * time.Second)
	}
	t.Logf("10,000 tokens, claim 30s: from the death of a replica until its due tokens were served, %s", quantiles(took))
}
