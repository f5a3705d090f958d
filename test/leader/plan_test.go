package leader

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// points are where the leader is struck. Those at the end are Cloudflare's.
var points = []string{
	"login.arrives", "login.answered", "renewal.arrives", "renewal.answered",
	"read.arrives", "read.answered", "probe.arrives", "probe.answered",
	"write.arrives", "write.under way", "write.answered", "read-back.arrives", "read-back.answered",
	"rotate.arrives", "rotate.answered",
}

// How the leader is struck.
const (
	killed      = "killed"
	paused      = "paused"
	stopped     = "stopped"
	steppedDown = "stepped down"
)

// plan is one round.
type plan struct {
	number int
	point  string
	manner string
	sticky bool // the balancer sends everything to the first leader
	// away is after how long a member that was struck comes back; delay is that of a strike under way.
	away, delay time.Duration
	sabotage    string
}

// Sabotage that the oracle must find.
const (
	trusting  = "the read-back is left out"
	repeating = "the balancer repeats writes"
)

func (p plan) String() string {
	return fmt.Sprintf("round %d: the leader is %s at %q for %s (delay %s), sticky %t, sabotage %q", p.number, p.manner, p.point, p.away, p.delay, p.sticky, p.sabotage)
}

// plans returns n rounds: every combination of point, manner and balancer in an order that covers much early, and
// again from the start. The same seed gives the same rounds, for every n.
func plans(n int, seed uint64) (all []plan) {
	for pass := uint64(0); len(all) < n; pass++ {
		var some []plan
		for _, point := range points {
			for _, manner := range []string{killed, paused, stopped, steppedDown} {
				some = append(some, plan{point: point, manner: manner}, plan{point: point, manner: manner, sticky: true})
			}
		}
		r := rand.New(rand.NewPCG(seed, pass))
		r.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
		all = append(all, some...)
	}
	for i := range all {
		r := rand.New(rand.NewPCG(seed, uint64(1000+i)))
		all[i].number = i
		all[i].away = time.Duration(500+r.IntN(4500)) * time.Millisecond
		all[i].delay = time.Duration(r.IntN(12000)) * time.Microsecond
	}
	return all[:n]
}
