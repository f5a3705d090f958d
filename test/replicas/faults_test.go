package replicas

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// fault is something that goes wrong for a while.
type fault struct {
	kind   string
	strike func(w *world, r *rand.Rand)
}

// Each lane does one fault after the other. The lanes run side by side, so that up to four faults are there at once, and
// of the replicas one is always left alone by the first two lanes.
var lanes = [][]fault{
	{ // the processes of replicas
		{"killed", func(w *world, r *rand.Rand) { w.downFor(w.victim(r), between(r, time.Second, 15*time.Second), false) }},
		{"killed", func(w *world, r *rand.Rand) { w.downFor(w.victim(r), 0, false) }},
		{"killed, disk empty", func(w *world, r *rand.Rand) {
			w.downFor(w.victim(r), between(r, time.Second, 10*time.Second), true)
		}},
		{"suspended", func(w *world, r *rand.Rand) { w.victim(r).suspended(w.longerThanClaim(r)) }},
		{"suspended at its intent", func(w *world, r *rand.Rand) { w.suspendedAtIntent(w.victim(r), w.longerThanClaim(r)) }},
		{"suspended at its intent", func(w *world, r *rand.Rand) { w.suspendedAtIntent(w.victim(r), w.longerThanClaim(r)) }},
		{"rolling update", func(w *world, r *rand.Rand) { w.rollingUpdate() }},
	},
	{ // the ways of replicas
		{"one Vault refused", func(w *world, r *rand.Rand) { w.cut(r, w.victim(r), 1, refused, w.longerThanClaim(r)) }},
		{"one Vault silent", func(w *world, r *rand.Rand) { w.cut(r, w.victim(r), 1, silent, w.longerThanClaim(r)) }},
		{"two Vaults silent", func(w *world, r *rand.Rand) { w.cut(r, w.victim(r), 2, silent, w.longerThanClaim(r)) }},
		{"all Vaults refused", func(w *world, r *rand.Rand) { w.cut(r, w.victim(r), 3, refused, w.longerThanClaim(r)) }},
		{"all Vaults silent", func(w *world, r *rand.Rand) { w.cut(r, w.victim(r), 3, silent, w.longerThanClaim(r)) }},
		{"Cloudflare refused", func(w *world, r *rand.Rand) { w.withoutCloudflare(w.victim(r), refused, w.longerThanClaim(r)) }},
		{"Cloudflare silent", func(w *world, r *rand.Rand) { w.withoutCloudflare(w.victim(r), silent, w.longerThanClaim(r)) }},
	},
	{ // Vault
		{"a Vault killed", func(w *world, r *rand.Rand) { w.vaultKilled(r.IntN(vaults), between(r, time.Second, 8*time.Second)) }},
		{"the leading Vault killed", func(w *world, r *rand.Rand) { w.vaultKilled(w.leader(), between(r, time.Second, 8*time.Second)) }},
		{"the leading Vault suspended", func(w *world, r *rand.Rand) { w.vaultSuspended(w.leader(), between(r, 2*time.Second, 8*time.Second)) }},
		{"the leading Vault separated", func(w *world, r *rand.Rand) {
			w.vaultSeparated(w.leader(), refused, between(r, 3*time.Second, 12*time.Second))
		}},
		{"the leading Vault separated", func(w *world, r *rand.Rand) {
			w.vaultSeparated(w.leader(), silent, between(r, 3*time.Second, 12*time.Second))
		}},
	},
	{ // what is slow, and what is lost
		{"Vault slow", func(w *world, r *rand.Rand) {
			w.slowVault(w.victim(r), w.claim/4, between(r, 3*time.Second, 10*time.Second))
		}},
		{"Cloudflare slow", func(w *world, r *rand.Rand) {
			w.slowCloudflare(w.victim(r), w.claim, between(r, 3*time.Second, 10*time.Second))
		}},
		{"answers of Vault lost", func(w *world, r *rand.Rand) { w.lossyVault(w.victim(r), between(r, 3*time.Second, 10*time.Second)) }},
		{"answers of Cloudflare lost", func(w *world, r *rand.Rand) { w.lossyCloudflare(between(r, 3*time.Second, 10*time.Second)) }},
	},
}

// vaultLane is the number of the lane of the Vaults.
const vaultLane = 2

func between(r *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(r.Int64N(int64(most-least)))
}

// longerThanClaim is for how long a replica is suspended or cut off.
func (w *world) longerThanClaim(r *rand.Rand) time.Duration {
	return w.claim + between(r, time.Second, max(w.claim, 5*time.Second))
}

func (w *world) victim(r *rand.Rand) *replica { return w.replicas[r.IntN(len(w.replicas))] }

// disturb lets faults happen for so long, in every lane. It returns when all is mended again.
//
// gap is the longest time between two faults of a lane. For Vaults it is three times as long: with a leader that is always
// struck again before the next one leads, nothing would happen.
func (w *world) disturb(length, gap time.Duration, only string) {
	end := time.Now().Add(length)
	var running sync.WaitGroup
	for n, lane := range lanes {
		gap := gap
		if n == vaultLane {
			gap *= 3
		}
		random := rand.New(rand.NewPCG(w.seed, uint64(n)))
		running.Go(func() {
			time.Sleep(between(random, 0, gap))
			for time.Now().Before(end) {
				f := lane[random.IntN(len(lane))]
				chosen := rand.New(rand.NewPCG(random.Uint64(), 0)) // what one fault draws does not change the next one
				if strings.Contains(f.kind, only) {
					w.t.Logf("%s %s", time.Now().Format(clock), f.kind)
					w.mu.Lock()
					w.tally.faults[f.kind]++
					w.mu.Unlock()
					f.strike(w, chosen)
				}
				time.Sleep(between(random, gap/4, gap))
			}
		})
	}
	running.Wait()
}

// downFor kills a replica and starts it again after so long, on its disk or on an empty one.
func (w *world) downFor(r *replica, d time.Duration, empty bool) {
	r.kill()
	if empty {
		if err := r.empty(); err != nil {
			w.say("emptying the disk of %s: %v", r.name, err)
		}
	}
	time.Sleep(d)
	w.up(r)
}

func (w *world) up(r *replica) {
	if err := r.start(); err != nil {
		w.say("starting %s: %v", r.name, err)
	}
}

func (w *world) suspendedAtIntent(r *replica, d time.Duration) {
	r.mu.Lock()
	r.armed = d
	r.mu.Unlock()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		r.mu.Lock()
		waits := r.armed != 0
		r.mu.Unlock()
		if !waits {
			time.Sleep(d + 100*time.Millisecond)
			return
		}
	}
	r.mu.Lock()
	r.armed = 0
	r.mu.Unlock()
}

// rollingUpdate stops and starts all replicas in turn, as a StatefulSet does. One that cannot get ready because another
// fault is there is not waited for.
func (w *world) rollingUpdate() {
	for _, r := range w.replicas {
		if err := r.terminate(); err != nil {
			w.say("%v", err)
		}
		w.up(r)
		for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline) && !r.ready(); {
			time.Sleep(100 * time.Millisecond)
		}
	}
}

func (w *world) cut(random *rand.Rand, r *replica, ways int, m mode, d time.Duration) {
	chosen := random.Perm(vaults)[:ways]
	for _, n := range chosen {
		r.vaults[n].set(m)
	}
	time.Sleep(d)
	for _, n := range chosen {
		r.vaults[n].set(open)
	}
}

func (w *world) withoutCloudflare(r *replica, m mode, d time.Duration) {
	r.cloudflare.set(m)
	time.Sleep(d)
	r.cloudflare.set(open)
}

// leader is the number of the member that leads, or of any if there is none now.
func (w *world) leader() int {
	for range 20 {
		for n, v := range w.cluster.Members {
			if v.Running() && v.Leads() {
				return n
			}
		}
		time.Sleep(250 * time.Millisecond)
	}
	return 0
}

func (w *world) vaultKilled(n int, d time.Duration) {
	w.cluster.Members[n].Kill()
	time.Sleep(d)
	w.cluster.Members[n].Resume(w.t)
}

func (w *world) vaultSuspended(n int, d time.Duration) {
	w.cluster.Members[n].Pause()
	time.Sleep(d)
	w.cluster.Members[n].Continue()
}

func (w *world) vaultSeparated(n int, m mode, d time.Duration) {
	w.peers.separate(n, m)
	time.Sleep(d)
	w.peers.separate(n, open)
}

func (w *world) slowVault(r *replica, by, d time.Duration) {
	r.anyVault.setSlow(by)
	time.Sleep(d)
	r.anyVault.setSlow(0)
}

func (w *world) slowCloudflare(r *replica, by, d time.Duration) {
	r.cloudflare.setSlow(by)
	time.Sleep(d)
	r.cloudflare.setSlow(0)
}

func (w *world) lossyVault(r *replica, d time.Duration) {
	r.anyVault.setLossy(0.2)
	time.Sleep(d)
	r.anyVault.setLossy(0)
}

func (w *world) lossyCloudflare(d time.Duration) {
	w.mu.Lock()
	w.loss = 0.1
	w.mu.Unlock()
	time.Sleep(d)
	w.mu.Lock()
	w.loss = 0
	w.mu.Unlock()
}

// comeToRest waits until all is well again: every replica is ready, no token is in doubt or owed a rotation, and every token
// was rotated after that time, if rotated says so. Then it pauses all tokens through one replica, and waits until every
// replica shows that, and every token as idle. With decide, doubts are decided as an operator does, because the run has
// no time to wait for the daemon's own decision.
func (w *world) comeToRest(since time.Time, rotated, decide bool, within time.Duration) {
	w.t.Helper()
	w.cluster.Heal(w.t)
	w.awaitReady()
	waiting := ""
	deadline := time.Now().Add(within)
	good, decided := map[string]bool{}, map[string]bool{} // tokens that were seen well once, and those that were decided
	for ; time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		all, err := w.replicas[0].tokens()
		if waiting = fmt.Sprint(err); err != nil {
			continue
		}
		waiting = ""
		for _, s := range all {
			if s.State == "in_doubt" && decide && !decided[s.Name] {
				decided[s.Name] = true
				if out, err := w.replicas[0].command("resolve", s.Name, "--rotate-now"); err != nil {
					w.t.Logf("resolve %s: %v: %s", s.Name, err, out)
				}
			}
			if s.State == "idle" && s.ReissueOwed.IsZero() && s.Failures == 0 && (!rotated || s.LastSuccess.After(since)) {
				good[s.Name] = true
			}
			if !good[s.Name] {
				waiting += fmt.Sprintf("%s: %s, last success %s, %d failures, %s; ", s.Name, s.State, s.LastSuccess.Format(clock), s.Failures, s.LastError)
			}
		}
		if waiting == "" {
			break
		}
	}
	if waiting != "" {
		w.say("it did not come to rest in %s: %s", within, waiting)
	}
	if out, err := w.replicas[1%len(w.replicas)].command("pause", "--all"); err != nil {
		w.say("pause --all: %v: %s", err, out)
	}
	w.await(15*time.Second, "a replica does not show what the others show", w.agree)
	w.await(time.Minute, "the ledger is not at rest", w.atRest)
	w.await(15*time.Second, "a replica does not show what the others show", w.agree)
}

// await waits until a check finds nothing, or says what it finds.
func (w *world) await(within time.Duration, what string, check func() string) {
	found := ""
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(250 * time.Millisecond) {
		if found = check(); found == "" {
			return
		}
	}
	w.say("%s: %s", what, found)
}
