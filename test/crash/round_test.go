package crash

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"rotatord/internal/cloudflare/cfsim"
)

// result is the result of a round.
type result struct {
	plan
	wrong    []string
	struck   []string // the points at which it was killed
	log      string
	refusals []refusal
	polls    int
	excused  []string
	longest  time.Duration // for which consumers were refused after a single lost answer
}

// rotateBound is that of rotate requests in the daemon under test, so that a slow answer need not be
// slower than the real bound of 20 s.
const rotateBound = time.Second

// play runs one round.
func play(t *testing.T, s *server, p plan, run string, patience time.Duration) result {
	w := newWorld(t, s, fmt.Sprintf("%s-%d", run, p.number), p)
	defer w.close()
	stop := w.poll()
	res := result{plan: p}
	if p.extended != nil {
		w.liveExtended(p.extended)
	} else if p.incarnations != nil {
		for _, i := range p.incarnations {
			w.live(i, p.sabotage)
		}
	} else {
		w.liveOnce(p)
	}

	w.healthy()
	if p.sabotage.between != nil {
		p.sabotage.between(w)
	}
	if !p.sabotage.noRecovery {
		w.recover(patience)
	}
	stop()
	if p.sabotage.before != nil {
		p.sabotage.before(w)
	}
	res.wrong = append(append(res.wrong, w.wrong...), w.violations()...)
	_, res.log = w.lines()
	res.struck, res.refusals, res.polls, res.excused = w.struck(), w.refusals, w.polls, w.excused
	res.longest = w.longestRun
	if len(res.wrong) == 0 {
		_ = os.RemoveAll(w.dir)
	}
	return res
}

// recover is the last life of the daemon, in a world that is healthy again.
func (w *world) recover(patience time.Duration) {
	since := time.Now()
	d := w.start(arm())
	waiting := d.atRest(since, patience)
	err := d.terminate()
	switch {
	case waiting != "":
		w.wrong = append(w.wrong, "it does not come to rest: "+waiting)
	case err != nil:
		w.wrong = append(w.wrong, err.Error())
	}
}

// liveOnce is the first life of the daemon in a round of the matrix.
func (w *world) liveOnce(p plan) {
	w.spoil(p.cloudflare, 0)
	ended := w.whileRotating(p.vault)
	defer ended()
	kill := ""
	if p.point != "" {
		kill = p.point + "=kill"
	}
	d := w.start(arm(kill, p.sabotage.failpoint))
	within := 3500 * time.Millisecond
	switch {
	case p.point == "":
		within = 2 * time.Second
	case strings.HasPrefix(p.point, "delete."): // when a grace is over
		within = 6 * time.Second
	}
	if d.dies(within) {
		if fate := d.fate(); fate != "" {
			w.wrong = append(w.wrong, fate)
		}
		return
	}
	if p.point == "" {
		_ = d.terminate()
	} else {
		d.kill() // the point is not on the way that this round takes
	}
}

// arm is what the daemon gets to know of failpoints.
func arm(failpoints ...string) string {
	all := []string{"rotate.timeout=bound:" + rotateBound.String()}
	for _, f := range failpoints {
		if f != "" {
			all = append(all, f)
		}
	}
	return strings.Join(all, ",")
}

// struck are the failpoints that killed, as the logs have them.
func (w *world) struck() (all []string) {
	lines, _ := w.lines()
	for _, l := range lines {
		if l.Msg == "failpoint" && l.Action == "kill" {
			all = append(all, l.Point)
		}
	}
	return all
}

// live is one life of the daemon in a random round.
func (w *world) live(i incarnation, broken sabotage) {
	w.spoil(i.cloudflare, -1)
	ended := w.whileRotating(i.vault)
	defer ended()
	d := w.start(arm(i.failpoints, broken.failpoint))
	if !d.dies(i.kill) {
		d.kill()
	}
	if fate := d.fate(); fate != "" {
		w.wrong = append(w.wrong, fate)
	}
}

// spoil arms a fault for the next request that issues a secret; of one subject, or of any.
func (w *world) spoil(name string, subject int) {
	fault := cloudflareFaults[name]
	if fault == (cfsim.Fault{}) {
		return
	}
	operations := []string{cfsim.OpRotate, cfsim.OpCreate}
	if subject >= 0 {
		fault.Count, operations = 1, []string{w.subjects[subject].first()}
	}
	for _, fault.Operation = range operations {
		if fault.Operation == cfsim.OpCreate && fault.Kind == cfsim.KindWrongClientID {
			continue // nothing is known that it could be compared with
		}
		if err := w.sim.Inject(fault); err != nil {
			w.t.Error(err)
		}
	}
}

// whileRotating lets Vault misbehave from the next request for a secret on, for a while. Call what it
// returns before the world is to be healthy.
func (w *world) whileRotating(fault string) (ended func()) {
	if fault == vaultNormal {
		return func() {}
	}
	var once sync.Once
	over := make(chan struct{})
	began := false
	w.mu.Lock()
	w.onRotate = func() {
		once.Do(func() {
			began = true
			switch fault {
			case vaultSealed:
				w.server.Seal(w.t)
			case vaultRestarted:
				w.server.Kill()
			default:
				w.proxy.set(fault)
			}
			time.AfterFunc(1500*time.Millisecond, func() {
				defer close(over)
				switch fault {
				case vaultSealed:
					w.server.Unseal(w.t)
				case vaultRestarted:
					w.server.Resume(w.t)
				}
			})
		})
	}
	w.mu.Unlock()
	return func() {
		w.mu.Lock()
		w.onRotate = nil
		w.mu.Unlock()
		once.Do(func() {})
		if began {
			<-over
		}
		w.proxy.set(vaultNormal)
	}
}

// healthy ends all faults.
func (w *world) healthy() {
	w.sim.ClearFaults()
	w.proxy.set(vaultNormal)
}

// playAll runs rounds, several at once: they mostly wait. Those that need Vault alone have one
// of their own.
func playAll(t *testing.T, all []plan, patience time.Duration, done func(result)) {
	t.Helper()
	if _, err := binary(); err != nil {
		t.Fatal(err)
	}
	run := strconv.FormatInt(time.Now().UnixNano(), 36)
	shared := make(chan plan)
	alone := make(chan plan, len(all))
	var workers sync.WaitGroup
	server := newServer(t)
	for range 6 {
		workers.Go(func() {
			for p := range shared {
				done(isolated(p, func() result { return play(t, server, p, run, patience) }))
			}
		})
	}
	var others []plan
	for _, p := range all {
		if p.needsAlone() {
			alone <- p
		} else {
			others = append(others, p)
		}
	}
	close(alone)
	if len(alone) > 0 {
		private := newServer(t)
		workers.Go(func() {
			for p := range alone {
				done(isolated(p, func() result { return play(t, private, p, run, patience) }))
			}
		})
	}
	for _, p := range others {
		shared <- p
	}
	close(shared)
	workers.Wait()
}

// isolated plays a round in a goroutine of its own. A t.Fatal ends that goroutine and not the worker: without the worker
// the others would wait forever.
func isolated(p plan, play func() result) result {
	came := make(chan result, 1)
	go func() {
		res := result{plan: p, wrong: []string{"the round was broken off, see above"}}
		defer func() { came <- res }()
		res = play()
	}()
	return <-came
}
