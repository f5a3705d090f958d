package crash

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"rotatord/internal/cloudflare/cfsim"
)

// points are all boundaries of steps, and "" for no kill.
func points() []string {
	all := []string{""}
	for _, step := range []string{
		"claim", "preflight", "intent", "rotate", "seal", "store", "commit", "erase", "extend",
		"ledger.claimed", "ledger.intent", "ledger.sealed", "ledger.stored", "ledger.idle", "ledger.in_doubt",
	} {
		all = append(all, step+".before", step+".after")
	}
	return all
}

// What Cloudflare does with the one rotate request that it is to spoil.
var cloudflareFaults = map[string]cfsim.Fault{
	"normal":                {},
	"answer lost":           {Kind: cfsim.KindDrop, When: cfsim.After},
	"500 before":            {Kind: cfsim.KindStatus, Status: 500, When: cfsim.Before},
	"500 after":             {Kind: cfsim.KindStatus, Status: 500, When: cfsim.After},
	"cut in the body":       {Kind: cfsim.KindCut, When: cfsim.After},
	"unreadable":            {Kind: cfsim.KindGarbage, When: cfsim.After},
	"success: false":        {Kind: cfsim.KindRefuse, When: cfsim.After},
	"slower than the bound": {Kind: cfsim.KindDelay, When: cfsim.After, Delay: cfsim.Duration(2 * time.Second)},
	"wrong client ID":       {Kind: cfsim.KindWrongClientID},
	// And in random rounds:
	"connection lost before": {Kind: cfsim.KindDrop, When: cfsim.Before},
	"throttled":              {Kind: cfsim.KindStatus, Status: 429, RetryAfter: 2, When: cfsim.Before},
	"refused":                {Kind: cfsim.KindStatus, Status: 403, When: cfsim.Before},
	"damaged secret":         {Kind: cfsim.KindMalformedSecret},
	"no secret":              {Kind: cfsim.KindMissingSecret},
}

var inMatrix = []string{
	"normal", "answer lost", "500 before", "500 after", "cut in the body", "unreadable", "success: false", "slower than the bound", "wrong client ID",
}

// plan is one round.
type plan struct {
	number            int
	point             string
	cloudflare, vault string
	graces            []time.Duration // of each token
	pairs             []int           // 1 for a pair
	frozen            bool            // updated_at does not move on a rotate
	moved             int             // what the ledger knows of that
	incarnations      []incarnation   // of a random round
	sealOff           bool
}

// incarnation is one life of the daemon in a random round.
type incarnation struct {
	failpoints string
	kill       time.Duration // from outside, if it still lives then
	cloudflare string
	vault      string
}

func (p plan) String() string {
	if p.incarnations != nil {
		return fmt.Sprintf("round %d: random %+v, graces %v, pairs %v, frozen %t", p.number, p.incarnations, p.graces, p.pairs, p.frozen)
	}
	return fmt.Sprintf("round %d: killed at %q, Cloudflare %q, Vault %q, graces %v, pairs %v, frozen %t, moved %d",
		p.number, p.point, p.cloudflare, p.vault, p.graces, p.pairs, p.frozen, p.moved)
}

// plans makes n rounds: first the matrix, in an order that covers much early, then random
// ones. The same seed makes the same rounds, whatever n is.
func plans(n int, seed uint64) []plan {
	var all []plan
	for _, point := range points() {
		for _, fault := range inMatrix {
			all = append(all, plan{point: point, cloudflare: fault, vault: vaultNormal})
		}
		for _, fault := range vaultFaults {
			all = append(all, plan{point: point, cloudflare: "normal", vault: fault})
		}
	}
	rand.New(rand.NewPCG(seed, 0)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for len(all) < n {
		all = append(all, plan{incarnations: []incarnation{}})
	}
	for i := range all {
		all[i].number = i
		all[i].complete(rand.New(rand.NewPCG(seed, uint64(i+1))))
	}
	return all[:n]
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

func (p *plan) complete(r *rand.Rand) {
	tokens := 1
	if p.incarnations != nil {
		tokens = 3
	}
	for range tokens {
		pair := pick(r, 0, 0, 0, 1)
		grace := pick(r, 0, 2*time.Second, 3*time.Second, 3*time.Second)
		if pair == 1 {
			grace = 2 * time.Second
		}
		p.pairs, p.graces = append(p.pairs, pair), append(p.graces, grace)
	}
	p.frozen, p.moved = r.IntN(4) == 0, r.IntN(2)
	if p.frozen {
		p.moved = 0
	}
	if p.incarnations == nil {
		return
	}
	faults := slices.Sorted(maps.Keys(cloudflareFaults))
	for range 2 + r.IntN(3) {
		i := incarnation{kill: time.Duration(200+r.IntN(3800)) * time.Millisecond, cloudflare: pick(r, faults...)}
		if point := pick(r, points()...); point != "" && r.IntN(3) > 0 {
			i.failpoints = fmt.Sprintf("%s=kill#%d", point, 1+r.IntN(3))
		}
		i.vault = pick(r, vaultNormal, vaultNormal, vault500, vaultSlow, vaultDenied, vaultConflict, vaultLostWrite)
		p.incarnations = append(p.incarnations, i)
	}
}

// result is what came of a round.
type result struct {
	plan
	wrong   []string
	reached bool // the failpoint struck
	log     string
	refused int
	polls   int
}

// bound of rotate requests in the daemon under test, so that a slow answer need not be slower
// than the real bound of 20 s.
const shortBound = "rotate.timeout=bound:1s"

// play runs one round.
func play(t *testing.T, s *server, p plan, run string, patience time.Duration) result {
	if needsAlone(p.vault) {
		s.alone.Lock()
		defer s.alone.Unlock()
	} else {
		s.alone.RLock()
		defer s.alone.RUnlock()
	}
	w := newWorld(t, s, fmt.Sprintf("%s-%d", run, p.number), p)
	defer w.close()
	stop := w.poll()
	res := result{plan: p}
	if p.incarnations != nil {
		for _, i := range p.incarnations {
			w.live(i)
		}
	} else {
		res.reached = w.liveOnce(p)
	}

	w.healthy()
	since := time.Now()
	d := w.start(shortBound)
	waiting := d.atRest(since, patience)
	err := d.terminate()
	stop()
	switch {
	case waiting != "":
		res.wrong = append(res.wrong, "it does not come to rest: "+waiting)
	case err != nil:
		res.wrong = append(res.wrong, err.Error())
	}
	res.wrong = append(res.wrong, w.judge()...)
	_, res.log = w.lines()
	res.refused, res.polls = len(w.refusals), w.polls
	if len(res.wrong) == 0 {
		_ = os.RemoveAll(w.dir)
	}
	return res
}

// liveOnce is the first life of the daemon in a round of the matrix.
func (w *world) liveOnce(p plan) (reached bool) {
	w.spoil(p.cloudflare, 0)
	ended := w.whileRotating(p.vault)
	defer ended()
	failpoints := shortBound
	if p.point != "" {
		failpoints += "," + p.point + "=kill"
	}
	if p.sealOff {
		failpoints += ",seal=off"
	}
	d := w.start(failpoints)
	within := 3500 * time.Millisecond
	if p.point == "" {
		within = 2 * time.Second
	}
	if d.dies(within) {
		return true
	}
	if p.point == "" {
		_ = d.terminate()
	} else {
		d.kill() // the point is not on the way that this round takes
	}
	return false
}

// live is one life of the daemon in a random round.
func (w *world) live(i incarnation) {
	w.spoil(i.cloudflare, -1)
	ended := w.whileRotating(i.vault)
	defer ended()
	d := w.start(strings.TrimSuffix(shortBound+","+i.failpoints, ","))
	if !d.dies(i.kill) {
		d.kill()
	}
}

// spoil arms a fault for the next rotate request; of one subject, or of any.
func (w *world) spoil(name string, subject int) {
	fault := cloudflareFaults[name]
	if fault == (cfsim.Fault{}) {
		return
	}
	fault.Operation = cfsim.OpRotate
	if subject >= 0 {
		fault.Count = 1
	}
	if err := w.sim.Inject(fault); err != nil {
		w.t.Error(err)
	}
}

// whileRotating lets Vault misbehave from the next rotate request on, for a while. Call what it
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
				switch fault {
				case vaultSealed:
					w.server.Unseal(w.t)
				case vaultRestarted:
					w.server.Resume(w.t)
				}
				close(over)
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
				done(play(t, server, p, run, patience))
			}
		})
	}
	var others []plan
	for _, p := range all {
		if needsAlone(p.vault) {
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
				done(play(t, private, p, run, patience))
			}
		})
	}
	for _, p := range others {
		shared <- p
	}
	close(shared)
	workers.Wait()
}

// TestCrash is `make crash ROUNDS=N SEED=S`, and with ROUND=K that one alone.
func TestCrash(t *testing.T) {
	rounds := 24
	if testing.Short() {
		rounds = 6
	}
	rounds = number(t, "CRASH_ROUNDS", rounds)
	seed := uint64(number(t, "CRASH_SEED", int(time.Now().Unix()%1_000_000)))
	all := plans(rounds, seed)
	if only := number(t, "CRASH_ROUND", -1); only >= 0 {
		all = plans(max(rounds, only+1), seed)[only : only+1]
	}
	sealOff := os.Getenv("CRASH_SEAL") == "off" // then violations are what is wanted
	for i := range all {
		all[i].sealOff = sealOff
	}
	t.Logf("seed %d, %d rounds", seed, len(all))
	began := time.Now()
	var mu sync.Mutex
	violations, finished, reached, refused, polls := 0, 0, 0, 0, 0
	playAll(t, all, 60*time.Second, func(r result) {
		mu.Lock()
		defer mu.Unlock()
		finished++
		refused, polls = refused+r.refused, polls+r.polls
		if r.reached {
			reached++
		}
		if finished%50 == 0 {
			t.Logf("%d rounds, %d violations, %s", finished, violations, time.Since(began).Round(time.Second))
		}
		violations += len(r.wrong)
		if len(r.wrong) > 0 && !sealOff {
			t.Errorf("%s\n  %s\nagain: make crash SEED=%d ROUND=%d\n%s", r.plan, strings.Join(r.wrong, "\n  "), seed, r.number, tail(r.log))
		}
	})
	t.Logf("%d rounds with seed %d in %s: %d violations; the failpoint struck in %d; %d of %d looks at what Vault held were refused",
		finished, seed, time.Since(began).Round(time.Second), violations, reached, refused, polls)
	if sealOff && violations == 0 {
		t.Error("nothing was found wrong although the seal was switched off: the oracle proves nothing")
	}
	if reached == 0 && len(all) > 20 {
		t.Error("no failpoint ever struck: the rounds prove little")
	}
}

// TestOracleFindsWhatTheSealPrevents switches the seal off. An oracle that finds nothing wrong
// then would prove nothing above.
func TestOracleFindsWhatTheSealPrevents(t *testing.T) {
	all := plans(6, 1)
	for i := range all {
		all[i].point = []string{"", "store.before", "ledger.sealed.after"}[i%3]
		all[i].cloudflare, all[i].vault, all[i].sealOff = "normal", vaultNormal, true
		all[i].graces, all[i].pairs = []time.Duration{2 * time.Second}, []int{0}
	}
	var mu sync.Mutex
	violations, clean := 0, 0
	playAll(t, all, 8*time.Second, func(r result) {
		mu.Lock()
		defer mu.Unlock()
		violations += len(r.wrong)
		if len(r.wrong) == 0 {
			clean++
		}
		if os.Getenv("CRASH_VERBOSE") != "" {
			t.Logf("%s\n  %s", r.plan, strings.Join(r.wrong, "\n  "))
		}
	})
	t.Logf("with the seal switched off the oracle finds %d violations in %d rounds", violations, len(all))
	if clean > 0 {
		t.Errorf("%d of %d rounds without a seal were found to be in order", clean, len(all))
	}
}

func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv(name), strconv.Itoa(otherwise)))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

func tail(s string) string { return s[max(len(s)-60000, 0):] }

// TestPointsExist arms each point in a build of the daemon's own code: a name that is misspelt
// here would never strike.
func TestPointsExist(t *testing.T) {
	source := ""
	files, err := filepath.Glob("../../internal/rotation/*.go")
	if err != nil || len(files) < 5 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		source += string(b)
	}
	for _, point := range points() {
		name, _, _ := strings.Cut(strings.TrimPrefix(point, "ledger."), ".")
		if name != "" && name != "idle" && !strings.Contains(source, `"`+name+`"`) && !strings.Contains(source, `"`+name+`.`) {
			t.Errorf("nothing in the core is called %q", name)
		}
	}
}
