package rotation_test

import (
	"cmp"
	"context"
	"flag"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/racedetector"
	"rotatord/internal/rotation"
)

// sharedScenario is one run of several replicas, and everything that goes wrong in it. It follows from its seed.
type sharedScenario struct {
	Seed         uint64
	Replicas     int
	Claim, Grace time.Duration
	Eager        bool // every replica begins at once, whoever comes first
	SinkApart    bool // the sink is not in the Vault of the ledger
	HooksFail    int  // of 4 runs of a hook, how many fail
	Faults       []sharedFault
	Acts         []sharedAct
}

// sharedFault is what happens to one call.
type sharedFault struct {
	Gap    int    // how many calls succeed after the previous fault
	On     string // it waits for a call of that name; empty for any
	Repeat int    // how many more calls of the same name and replica fail
	planned
}

// sharedAct is something that happens at a time.
type sharedAct struct {
	At   time.Duration
	Host int
	What string
	For  time.Duration
}

// How long a scenario is troubled, how long it may recover after that, and how often the token is due.
const (
	sharedTrouble = 2 * time.Hour
	sharedRest    = 75 * time.Minute
	sharedEvery   = 12 * time.Minute
)

func drawShared(seed uint64) sharedScenario {
	r := rand.New(rand.NewPCG(seed, 16))
	oneOf := func(of ...string) string { return of[r.IntN(len(of))] }
	s := sharedScenario{
		Seed: seed, Replicas: 2 + r.IntN(2), Eager: r.IntN(3) == 0, SinkApart: r.IntN(2) == 0,
		Claim: []time.Duration{5 * time.Second, 20 * time.Second, 2 * time.Minute}[r.IntN(3)],
		Grace: []time.Duration{0, 2 * time.Minute, 6 * time.Minute}[r.IntN(3)],
	}
	long := func() time.Duration { // compared with the claim
		return time.Duration(float64(s.Claim) * []float64{0.3, 0.95, 1.1, 3, 20}[r.IntN(5)])
	}
	for range r.IntN(12) {
		f := sharedFault{Gap: r.IntN([]int{6, 25, 60}[r.IntN(3)]), Repeat: []int{0, 0, 0, 1, 4}[r.IntN(5)]}
		f.how = oneOf("before", "refused", "after", "after", "late", "twice", "crash before", "crash after",
			"stop before", "stop before", "stop after", "suspend before", "suspend after", "cut")
		f.class = []rotation.Class{rotation.NotCarriedOut, rotation.Refused, rotation.Throttled}[r.IntN(3)]
		switch f.how {
		case "late":
			f.for_ = time.Duration(r.IntN(30)) * time.Second
		case "stop before", "stop after", "suspend before", "suspend after", "cut":
			f.for_, f.Repeat = long(), 0
		}
		if r.IntN(2) == 0 { // at one of the calls that matter most
			f.On = oneOf("save intent", "rotate", "rotate", "seal", "save sealed", "sink store", "sink store", "save stored", "save in_doubt", "extend", "copy", "open copy", "inspect")
			f.Gap = r.IntN(2)
		}
		s.Faults = append(s.Faults, f)
	}
	hooks := rand.New(rand.NewPCG(seed, 17))
	s.HooksFail = []int{0, 1, 3, 4}[hooks.IntN(4)]
	for range hooks.IntN(3) { // between the note that a hook runs and the last check
		s.Faults = slices.Insert(s.Faults, hooks.IntN(len(s.Faults)+1), sharedFault{On: "hook prepare", Gap: hooks.IntN(3),
			planned: planned{how: []string{"stop before", "suspend after"}[hooks.IntN(2)], for_: time.Duration(1+hooks.IntN(6)) * time.Minute}})
	}
	for range r.IntN(5) {
		s.Acts = append(s.Acts, sharedAct{
			At: time.Duration(r.Int64N(int64(sharedTrouble))), Host: r.IntN(s.Replicas), For: long(),
			What: oneOf("kill", "kill", "kill and lose disk", "restart", "stop", "cut vault", "cut cloudflare", "cut sink", "wall clock", "vault clock",
				"resolve look", "resolve rotate_now", "resolve assume_not_rotated", "revoke previous", "extend", "revoke in use", "order", "order that revokes", "rotate", "cancel"),
		})
	}
	return s
}

// sharedMachine runs one scenario.
type sharedMachine struct {
	*cluster
	sharedScenario
	token   rotation.Token
	workers sync.WaitGroup
	over    bool
	rest    bool // nothing goes wrong any more
	asked   map[*host][]string
	// refusedSince is since when consumers are seen to have a secret that is refused; zero if they have not.
	refusedSince time.Time
	results      map[string]int // counts what happened
}

// setFaults makes the calls fail as the scenario has planned: those that wait for a call of some name in their order, and
// beside them the others in theirs.
func (m *sharedMachine) setFaults() {
	named, others := m.planOf(true), m.planOf(false)
	m.fault = func(p *process, call string) planned {
		if f := named(p, call); f.how != "" {
			return f
		}
		return others(p, call)
	}
}

func (m *sharedMachine) planOf(named bool) func(p *process, call string) planned {
	faults := slices.DeleteFunc(slices.Clone(m.Faults), func(f sharedFault) bool { return (f.On != "") != named })
	gap, again := 0, 0
	var last sharedFault
	var of *process
	var what string
	return func(p *process, call string) planned {
		switch {
		case again > 0 && p == of && call == what:
			again--
			return last.planned
		case len(faults) == 0 || named && faults[0].On != call:
			return planned{}
		case gap < faults[0].Gap:
			gap++
			return planned{}
		}
		last, of, what, gap = faults[0], p, call, 0
		faults, again = faults[1:], last.Repeat
		return last.planned
	}
}

// run runs the scenario, and returns the problems.
func (m *sharedMachine) run() {
	m.hooks = newHooksModel(m.Errorf, reload, ping)
	m.token = m.hooks.of(sharedTokenOf(m.Grace, sharedEvery))
	m.asked, m.results = map[*host][]string{}, map[string]int{}
	m.setFaults()
	for _, h := range m.hosts {
		h.wallOffset = time.Duration(h.random.IntN(8000)-4000) * time.Millisecond
		m.launch(h)
	}
	acts := slices.Clone(m.Acts)
	slices.SortFunc(acts, func(a, b sharedAct) int { return int(a.At - b.At) })
	began := time.Now()
	for _, act := range acts {
		time.Sleep(time.Until(began.Add(act.At)))
		m.perform(act)
	}
	time.Sleep(time.Until(began.Add(sharedTrouble)))
	m.mu.Lock()
	m.fault, m.rest, m.lastFault = nil, true, moreRecent(m.lastFault, time.Now())
	for _, h := range m.hosts {
		clear(h.cutOff)
		h.stopped = time.Time{}
	}
	m.mu.Unlock()
	time.Sleep(sharedRest)
	if m.view().Step != rotation.StepIdle { // a slot has just begun
		time.Sleep(4 * time.Minute)
	}
	if !m.isOver() {
		m.checkEnd()
	}
	m.mu.Lock()
	m.over = true
	m.mu.Unlock()
	m.workers.Wait()
}

// perform carries out an act.
func (m *sharedMachine) perform(act sharedAct) {
	h := m.hosts[act.Host]
	m.mu.Lock()
	m.note(h.name, "act %s", act.What)
	m.lastFault = moreRecent(m.lastFault, time.Now().Add(act.For))
	m.mu.Unlock()
	switch act.What {
	case "kill":
		h.kill()
	case "kill and lose disk":
		h.kill()
		h.loseDisk()
	case "stop":
		h.stop(act.For, false)
	case "cut vault":
		h.cut("vault", act.For)
	case "cut sink":
		h.cut("sink", act.For)
	case "cut cloudflare":
		h.cut("cloudflare", act.For)
	case "wall clock":
		m.mu.Lock()
		h.wallOffset = time.Duration(h.random.IntN(8000)-4000) * time.Millisecond
		m.mu.Unlock()
	case "vault clock":
		m.mu.Lock()
		m.jumps = append(m.jumps, jump{time.Now(), time.Duration(rand.New(rand.NewPCG(m.Seed, uint64(act.At))).IntN(1200)-600) * time.Second})
		m.mu.Unlock()
	default:
		m.mu.Lock()
		m.asked[h] = append(m.asked[h], act.What)
		m.mu.Unlock()
	}
}

// launch starts a process on a host, and another one whenever that has ended.
func (m *sharedMachine) launch(h *host) {
	m.workers.Go(func() {
		for !m.isOver() {
			p := h.start(m.token)
			m.workers.Go(func() { m.workOnHooks(p) })
			func() {
				defer func() {
					if e := recover(); e != nil {
						if _, ok := e.(crashed); !ok {
							panic(e)
						}
						p.dead = true
					}
				}()
				m.work(p)
				p.mu.Lock()
				p.dead = true // and so ends the work on hooks
				p.mu.Unlock()
			}()
			m.mu.Lock()
			down := time.Duration(h.random.IntN(120)) * time.Second
			if !m.rest {
				m.lastFault = moreRecent(m.lastFault, time.Now().Add(down))
			}
			m.mu.Unlock()
			time.Sleep(down + p.jitter())
		}
	})
}

func (m *sharedMachine) isOver() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.over || len(m.problems) > 0
}

// work is what package app does with a token: it asks what is due and works on it, unless another replica comes first.
func (m *sharedMachine) work(p *process) {
	ctx := context.Background()
	for !m.isOver() {
		var err error
		if p.inTurn(func() { _, err = p.rotator.Enroll(ctx, p.token) }); err == nil {
			break
		}
		time.Sleep(time.Second + p.jitter())
	}
	for !m.isOver() {
		p.awake()
		for _, what := range m.wishes(p.host) {
			if what == "restart" {
				return
			}
			p.inTurn(func() { m.carryOut(ctx, p, what) })
		}
		p.inTurn(func() { m.judgeLate(ctx, p) })
		record := p.view()
		p.sees(record)
		at := m.beginsAt(p, record)
		if !at.After(time.Now()) {
			p.inTurn(func() { _, _ = p.rotator.Advance(ctx, p.token) })
			at = time.Now().Add(time.Second)
		}
		wait := min(max(time.Until(at), 0), 20*time.Second)
		if record.Step == rotation.StepIdle && len(p.sealedOn()) == 0 && m.rest {
			wait = min(max(time.Until(at), 0), 2*time.Minute)
		}
		m.checkRefused()
		time.Sleep(wait + p.jitter())
	}
}

// workOnHooks is what package app does with the hooks of a token, beside the work on it.
func (m *sharedMachine) workOnHooks(p *process) {
	defer func() {
		if e := recover(); e != nil {
			if _, ok := e.(crashed); !ok {
				panic(e)
			}
		}
	}()
	ctx, wait := context.Background(), time.Second
	for !m.isOver() {
		time.Sleep(wait + p.jitter())
		wait = time.Duration(20+p.random.IntN(20)) * time.Second
		p.awake()
		record := p.view()
		p.sees(record)
		for _, h := range record.OwedHooks() {
			at := p.rotator.HookAt(sharedToken, h).Add(-p.wallOffset)
			if !m.Eager {
				m.mu.Lock()
				at = moreRecent(at, m.savedAt).Add(time.Duration(m.rank(p, record)) * m.claim)
				m.mu.Unlock()
			}
			if !at.After(time.Now()) {
				fails := !m.rest && p.random.IntN(4) < m.HooksFail
				p.runHook(ctx, h.Name, fails, time.Duration(p.random.IntN(20))*time.Second)
			}
		}
	}
}

// beginsAt returns when a replica may begin with what is due.
func (m *sharedMachine) beginsAt(p *process, r rotation.Record) time.Time {
	at := p.rotator.Due(p.token, r).At.Add(-p.wallOffset)
	if r.Hold != nil && r.Hold.Process != p.id && !m.Eager {
		at = moreRecent(at, time.Now().Add(p.HoldLeft(r)))
	}
	if m.Eager {
		return at
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return moreRecent(at, m.savedAt).Add(time.Duration(m.rank(p, r)) * m.claim)
}

// rank returns how many replicas come before p.
func (m *sharedMachine) rank(p *process, r rotation.Record) (rank int) {
	place := func(h *host) int {
		if r.Work != nil && !r.Work.Copied && h.name == r.Work.Replica {
			return -1
		}
		return (h.hash + r.Failures) % len(m.hosts)
	}
	for _, h := range m.hosts {
		if h != p.host && h.up != nil && place(h) < place(p.host) {
			rank++
		}
	}
	return rank
}

// judgeLate looks at the sealed answers whose rotation is not in progress.
func (m *sharedMachine) judgeLate(ctx context.Context, p *process) {
	record := p.view()
	for _, id := range p.sealedOn() {
		j := p.judged[id]
		if record.Work != nil && record.Work.RotationID == id || slices.Contains(record.Abandoned, id) || time.Since(j.at) < 15*time.Second {
			continue
		}
		result, _, err := p.rotator.JudgeLate(ctx, p.token, id, p.sealedAt[id], j.told)
		p.judged[id] = judgement{time.Now(), j.told || result == rotation.LateSuperseded}
		if err == nil {
			m.mu.Lock()
			m.note(p.name, "late answer %s: %s", id, result)
			m.results["late "+string(result)]++
			m.mu.Unlock()
		}
	}
}

// wishes takes what operators have asked a host for.
func (m *sharedMachine) wishes(h *host) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	asked := m.asked[h]
	delete(m.asked, h)
	return asked
}

// carryOut carries out an operator's command.
func (m *sharedMachine) carryOut(ctx context.Context, p *process, what string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	record := p.view()
	m.mu.Lock()
	cutsOff := slices.Contains([]string{"resolve rotate_now", "revoke previous", "revoke in use", "order that revokes"}, what)
	m.mayCutOff = m.mayCutOff || cutsOff
	carriedOut := record.Step == rotation.StepInDoubt && slices.ContainsFunc(m.issued, func(i issue) bool { return i.rotationID == record.Work.RotationID })
	m.mu.Unlock()
	var err error
	switch how, isResolve := strings.CutPrefix(what, "resolve "); {
	case isResolve && how == string(rotation.ResolveAssumeNotRotated) && (carriedOut || record.Step != rotation.StepInDoubt || time.Since(record.Doubt.Since) < 2*time.Minute):
		return // operators use it only if it is true
	case isResolve:
		_, _, err = p.rotator.Resolve(ctx, p.token, rotation.Resolution(how))
	case what == "revoke previous":
		_, err = p.rotator.RevokePrevious(ctx, p.token)
	case what == "revoke in use":
		_, err = p.rotator.RevokeInUse(ctx, p.token)
	case what == "extend":
		_, err = p.rotator.ExtendGrace(ctx, p.token, 2*m.Grace)
	case what == "order":
		err = p.rotator.OrderAll(ctx, []rotation.Token{p.token}, rotation.Overrides{}, "alice")[0].Err
	case what == "order that revokes":
		err = p.rotator.OrderAll(ctx, []rotation.Token{p.token}, rotation.Overrides{RevokeNow: true}, "alice")[0].Err
	case what == "rotate":
		_, err = p.rotator.RotateNow(ctx, p.token, rotation.Overrides{}, "alice")
	case what == "cancel":
		_, err = p.rotator.CancelOrders(ctx, []rotation.Token{p.token})
	}
	m.mu.Lock()
	m.note(p.name, "%s: %v", what, err)
	m.mu.Unlock()
}

// checkRefused checks that consumers do not have a refused secret for too long.
func (m *sharedMachine) checkRefused() {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.mayCutOff || m.unsteady || m.blind || m.cf.accepted(m.sink.ClientSecret.Reveal()):
		m.refusedSince = time.Time{}
		return
	case m.refusedSince.IsZero():
		m.refusedSince = time.Now()
	}
	since := moreRecent(m.lastFault, m.refusedSince)
	if refused := time.Since(since); refused > longestRefusal+4*m.claim {
		m.Errorf("consumers have been refused for %s", refused)
	}
}

// checkEnd checks what must be true after the last fault.
func (m *sharedMachine) checkEnd() {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.current()
	switch {
	case r.Step != rotation.StepIdle || r.Last == nil:
		m.Errorf("the token does not recover: step %q, %d failures, %s", r.Step, r.Failures, r.LastError)
		return
	case m.sink.ClientSecret.Reveal() != m.cf.current:
		m.Errorf("the sink does not have the secret that works")
	case r.Hold != nil:
		m.Errorf("nothing is in progress, and %s", holdText(r.Hold))
	case time.Since(r.Last.Slot) > 2*sharedEvery:
		m.Errorf("the last slot that was served is %s ago", time.Since(r.Last.Slot))
	}
	for _, h := range m.hosts {
		for _, id := range h.sealedOn() {
			m.Errorf("the answer of rotation %s is still on the disk of %s", id, h.name)
		}
	}
	for id := range m.copies {
		if !m.lateCopies[id] {
			m.Errorf("a copy of the answer of rotation %s is left", id)
		}
	}
	m.hooks.end(r, 4*m.claim+3*time.Minute)
}

var (
	sharedSeeds = flag.Int("shared.seeds", 0, "how many scenarios of several replicas are run; 0 for the default")
	sharedSeed  = flag.Uint64("shared.seed", 0, "the only scenario that is run, with its log; 0 for all")
)

// sharedChecks is how many scenarios TestSharedMachine runs, unless -shared.seeds is given: all of ten thousand take
// five minutes of one processor.
const sharedChecks = 2000

// skipUnderRace skips a test under the race detector, for which this world is not made: its replicas and what strikes them share
// hosts without a lock, because in simulated time they never run at once.
func skipUnderRace(t *testing.T) {
	t.Helper()
	if racedetector.On {
		t.Skip("not under the race detector")
	}
}

// runShared runs the scenario of a seed.
func runShared(t *testing.T, seed uint64, change func(*cluster)) (m *sharedMachine) {
	synctest.Test(t, func(*testing.T) {
		s := drawShared(seed)
		m = &sharedMachine{sharedScenario: s}
		m.cluster = newCluster(s.Replicas, s.Claim, seed)
		if s.SinkApart {
			m.sinkPeer = "sink"
		}
		change(m.cluster)
		m.run()
	})
	return m
}

// TestSharedMachine runs thousands of random scenarios with several replicas. To run one again with its log:
//
//	go test ./internal/rotation -run TestSharedMachine -shared.seed N
//	go test ./internal/rotation -run TestSharedMachine -shared.seeds 10000 -timeout 30m
func TestSharedMachine(t *testing.T) {
	if seed := *sharedSeed; seed != 0 {
		m := runShared(t, seed, func(c *cluster) { c.logs = true })
		t.Logf("%+v\n%s", m.sharedScenario, strings.Join(m.log, "\n"))
		for _, problem := range m.problems {
			t.Error(problem)
		}
		return
	}
	skipUnderRace(t)
	seeds := cmp.Or(*sharedSeeds, sharedChecks)
	if testing.Short() {
		seeds = min(seeds, 60)
	}
	var mu sync.Mutex
	seen, next, failed := map[string]int{}, 0, 0
	t.Run("seeds", func(t *testing.T) {
		for range runtime.GOMAXPROCS(0) {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				for {
					mu.Lock()
					next++
					seed, over := uint64(next), next > seeds || failed == 10
					mu.Unlock()
					if over {
						return
					}
					m := runShared(t, seed, func(*cluster) {})
					mu.Lock()
					m.count(seen)
					if len(m.problems) > 0 {
						failed++
						t.Errorf("-shared.seed %d: %s", seed, strings.Join(m.problems, "\n"))
					}
					mu.Unlock()
				}
			})
		}
	})
	for _, what := range []string{
		"taken over claimed", "taken over intent", "taken over sealed", "taken over stored", "taken over in_doubt", "copied",
		"late over", "late superseded", "late delivered", "in_doubt interrupted", "in_doubt outcome_unknown", "in_doubt sealed_elsewhere", "failed taken_over",
		"hooks run", "hooks repeated", "hooks replaced", "hooks taken over", "resolved answer_returned", "resolved grace_ending", "resolved old_secret_revoked", "resolved updated_at_unchanged",
	} {
		if seen[what] == 0 && seeds >= 1000 && !t.Failed() {
			t.Errorf("%s never happened, so the scenarios do not test it", what)
		}
	}
	t.Logf("%d scenarios: %v", seeds, seen)
}

// count counts what happened, so that the test can check its own coverage.
func (m *sharedMachine) count(seen map[string]int) {
	m.hooks.count(seen)
	for what, n := range m.results {
		seen[what] += n
	}
	for _, e := range m.events {
		switch d := e.Detail.(type) {
		case event.RotationEnded:
			seen[string(d.Result)+" "+d.Reason]++
		case event.ClaimTakenOver:
			seen["taken over "+d.Step]++
		case event.Resolution:
			seen["resolved "+d.Reason]++
		case event.AnswerCopied:
			seen["copied"]++
		}
	}
}

// TestSharedMachineSabotaged runs scenarios in which no replica looks at a hold. The machine must find that.
func TestSharedMachineSabotaged(t *testing.T) {
	skipUnderRace(t)
	for seed := uint64(1); seed < 200; seed++ {
		if m := runShared(t, seed, func(c *cluster) { c.unsafeHold = true }); len(m.problems) > 0 {
			t.Logf("seed %d: %s", seed, m.problems[0])
			return
		}
	}
	t.Error("no scenario found that no replica looked at a hold")
}

// TestSharedHooksSabotaged runs scenarios in which the account of hooks is broken. The machine must find that.
func TestSharedHooksSabotaged(t *testing.T) {
	skipUnderRace(t)
	for _, breaks := range []sabotage{startsLate, lostByHold} {
		found, seed := 0, uint64(0)
		for found < 2 && seed < 200 {
			seed++
			if m := runShared(t, seed, func(c *cluster) { c.sabotage = breaks }); len(m.problems) > 0 {
				found++
				t.Logf("seed %d: %s", seed, m.problems[0])
			}
		}
		if found < 2 {
			t.Errorf("%d of %d scenarios found that %s", found, seed, breaks)
		}
	}
}
