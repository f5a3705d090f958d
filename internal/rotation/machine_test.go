package rotation_test

import (
	"context"
	"flag"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"rotatord/internal/event"
	"rotatord/internal/racedetector"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

// scenario is one run of a token: its configuration, and everything that goes wrong.
type scenario struct {
	Paired  bool
	Grace   time.Duration
	Frozen  bool   // updated_at does not move on a rotate
	Hooks   string // whether the hooks of the token work
	Faults  []plannedFault
	Answers []string // what is wrong with each of the first answers
	Acts    []act
}

// act is an event between two attempts.
type act struct {
	At   int // before which attempt
	What string
}

// draw draws a scenario. Everything is drawn before the run, so that rapid can shrink a failing scenario.
func draw(t *rapid.T) scenario {
	anyAct := rapid.Custom(func(t *rapid.T) act {
		return act{
			At: rapid.IntRange(1, 6).Draw(t, "at"),
			What: rapid.SampledFrom([]string{
				"restart", "down for 5h", "overwrite the sink", "empty the sink", "empty the sink",
				string(rotation.ResolveLook), string(rotation.ResolveRotateNow), string(rotation.ResolveAssumeNotRotated), string(rotation.ResolveDeliver),
			}).Draw(t, "what"),
		}
	})
	return scenario{
		Paired:  rapid.Bool().Draw(t, "paired"),
		Grace:   rapid.SampledFrom([]time.Duration{0, 10 * time.Minute, 40 * time.Minute}).Draw(t, "grace"),
		Frozen:  rapid.Bool().Draw(t, "frozen"),
		Hooks:   rapid.SampledFrom([]string{"work", "fail", "fail at times"}).Draw(t, "hooks"),
		Faults:  rapid.SliceOfN(drawPlannedFault(14), 0, 4).Draw(t, "faults"),
		Answers: rapid.SliceOfN(rapid.SampledFrom([]string{"", "", "wrong client", "damaged", "unfamiliar", "empty"}), 0, 2).Draw(t, "answers"),
		Acts:    rapid.SliceOfN(anyAct, 0, 2).Draw(t, "acts"),
	}
}

// machine runs one scenario. It is between the rotator and the world, and checks at each call what must always
// be true.
type machine struct {
	*world
	findings
	faultPlan
	scenario scenario
	token    rotation.Token
	rotator  *rotation.Rotator

	passed         map[string]bool // the steps that succeeded since the claim, in this process
	believedUntil  time.Time       // until when the old secret works, as far as the ledger knows
	unsealedSecret string          // a secret that was received and is not sealed yet
	everInSink     map[string]bool // every secret that was ever in the sink
	wantDoubts     int             // how many rotations were carried out and lost their answer
	lastFault      time.Time       // when something went wrong last
	lastRotate     time.Time       // when the last rotate was carried out
	blind          bool            // a second rotate cut the sink's secret off, and the ledger did not know that the first was carried out
	restores       map[string]bool // rotations that make up for a secret that another writer removed, by ID
	operatorOrder  bool            // an operator has ordered a rotate that may cut off the old secret
	hookRuns       int
}

// setFaults makes the world's calls fail as the scenario has planned.
func (m *machine) setFaults() {
	m.faultPlan = faultPlan{
		all: m.scenario.Faults, issuer: []string{"rotate", "inspect", "extend", "ready"},
		onFault: func(how, call string) (late bool) {
			m.lastFault = time.Now()
			// Without a grace consumers are down already, so the daemon does not wait for a late request, as the
			// documentation says.
			if late = how == "late" && call == "rotate" && (m.scenario.Grace > 0 || m.scenario.Paired); late {
				m.wantDoubts++
			}
			return late
		},
	}
	m.world.fault = m.faultPlan.next()
}

// The following methods are the rotator's ports, with the checks at each call.

func (m *machine) Save(ctx context.Context, r rotation.Record) (rotation.Record, error) {
	m.sync()
	defer func() { // runs also if the process dies at this call
		switch {
		case m.record().Revision != r.Revision+1: // it was not saved; only the answer may be lost
		case r.Doubt != nil: // includes the extensions that the ledger knows of
			m.believedUntil = r.Doubt.OldWorksUntil
		case r.Work != nil && !r.Work.GraceEndsAt.IsZero():
			m.believedUntil = r.Work.GraceEndsAt
		}
	}()
	saved, err := m.world.Save(ctx, r)
	if err == nil && r.Step == rotation.StepClaimed {
		m.passed = map[string]bool{}
		m.restores[r.Work.RotationID] = r.Order != nil && r.Order.Restores
		if end := m.promised(r); (r.Work.Trigger != rotation.TriggerRecovery || r.Order != nil && r.Order.Restores) && r.Work.Trigger != rotation.TriggerManual && time.Now().Before(end) {
			m.Errorf("claimed for %s although the last grace was promised until %s", r.Work.Trigger, end)
		}
	}
	if err == nil && r.Step == rotation.StepIntent {
		m.passed["intent"] = true
	}
	return saved, err
}

func (m *machine) promised(r rotation.Record) time.Time {
	if r.Last == nil {
		return time.Time{}
	}
	return r.Last.GraceEndsAt
}

func (m *machine) Ready(ctx context.Context) error {
	err := m.world.Ready(ctx)
	m.passed["ready"] = err == nil
	return err
}

func (m *machine) Reserve(ctx context.Context, key rotation.PendingKey) error {
	err := m.world.Reserve(ctx, key)
	m.passed["reserve"] = err == nil
	return err
}

func (m *machine) Rotate(ctx context.Context, req rotation.RotateRequest) (rotation.Issued, error) {
	m.sync()
	for _, what := range []string{"sink preflight", "reserve", "ready", "intent"} {
		if !m.passed[what] {
			m.Errorf("a rotate request was sent without %s", what)
		}
	}
	m.passed = map[string]bool{} // each intent allows one request
	c, used := m.tokenByID(req.TokenID), m.sink.ClientSecret.Reveal()
	if used == c.previous && time.Now().Before(c.previousUntil) && c.tooEarly(m.believedUntil) && !m.operatorOrder {
		m.Errorf("the daemon rotated again while the sink's secret, which is the previous one, still worked")
	}
	if m.scenario.Paired && used == c.current {
		m.Errorf("the service token in use was rotated")
	}
	if m.unsealedSecret != "" {
		m.Errorf("the daemon rotated again while a received secret was not sealed")
	}
	m.blind = m.blind || used == c.previous && m.record().OldDiesBy.IsZero()
	m.checkDoubtsRaised("before another rotate")
	m.mayCutOff = true // the check above replaces the world's own check, which runs too late for a late request
	issuedBefore := len(m.issued)
	defer func() {
		if len(m.issued) > issuedBefore {
			m.operatorOrder, m.lastRotate = false, time.Now()
			m.believedUntil = c.previousUntil
			if m.unsealedSecret == "" {
				m.wantDoubts++
			}
		}
	}()
	issued, err := m.world.Rotate(ctx, req)
	if err != nil {
		return issued, err
	}
	switch m.answer() {
	case "wrong client":
		issued.ClientID = "another"
	case "damaged":
		issued.ClientSecret = secret.New(issued.ClientSecret.Reveal()[:30])
	case "unfamiliar":
		c.current = "a third format " + c.current
		issued.ClientSecret = secret.New(c.current)
		m.issued[len(m.issued)-1] = c.current
	case "empty":
		issued.ClientSecret = secret.Value{}
	}
	m.unsealedSecret = issued.ClientSecret.Reveal()
	return issued, nil
}

// answer returns what is wrong with the answer to the rotate that was just carried out.
func (m *machine) answer() string {
	if n := len(m.issued) - 2; n < len(m.scenario.Answers) {
		return m.scenario.Answers[n]
	}
	return ""
}

func (m *machine) Seal(ctx context.Context, key rotation.PendingKey, issued rotation.Issued) error {
	err := m.world.Seal(ctx, key, issued)
	if err == nil && m.unsealedSecret == issued.ClientSecret.Reveal() {
		m.unsealedSecret = ""
	}
	return err
}

func (m *machine) Erase(ctx context.Context, id string) error {
	if p, ok := m.world.pending[id]; ok && !m.everInSink[p.ClientSecret.Reveal()] {
		m.Errorf("a sealed secret was erased that was never in the sink")
	}
	return m.world.Erase(ctx, id)
}

type machineSink struct{ *machine }

func (s machineSink) Name() string { return "memory:sink" }

func (s machineSink) Preflight(ctx context.Context) (rotation.Stored, error) {
	stored, err := memorySink{s.world}.Preflight(ctx)
	s.passed["sink preflight"] = err == nil
	return stored, err
}

func (s machineSink) Store(ctx context.Context, d rotation.Delivery) (rotation.Stored, error) {
	defer func() { s.everInSink[s.sink.ClientSecret.Reveal()] = true }()
	return memorySink{s.world}.Store(ctx, d)
}

func (s machineSink) ReadBack(ctx context.Context) (rotation.Credential, error) {
	return memorySink{s.world}.ReadBack(ctx)
}

// checkDoubtsRaised checks that a doubt was raised for each rotation that was carried out and lost its answer.
func (m *machine) checkDoubtsRaised(when string) {
	raised := map[string]bool{}
	for _, e := range m.events {
		switch e := e.Detail.(type) {
		case event.RotationEnded:
			raised[e.RotationID] = raised[e.RotationID] || e.Result == event.ResultInDoubt
		case event.Verdict:
			raised[e.RotationID] = true
		}
	}
	n := 0
	for _, r := range raised {
		if r {
			n++
		}
	}
	if n < m.wantDoubts {
		m.Errorf("%s: %d answers were lost and %d doubts were raised", when, m.wantDoubts, n)
	}
}

// longestRefusal is how long consumers may be refused after the last fault: no request can be under way after
// one minute, and the longest back-off is ten minutes.
const longestRefusal = 12 * time.Minute

// checkRefused checks that consumers do not have a refused secret for too long. If updated_at does not move,
// the daemon cannot know that they are refused.
func (m *machine) checkRefused() {
	c, used := &m.world.cfToken, m.sink.ClientSecret.Reveal()
	overwritten := m.sink.ClientID != c.clientID || !slices.Contains(m.issued, used)
	if m.scenario.Paired || m.scenario.Frozen || m.blind || overwritten || c.accepted(used) {
		return
	}
	since := m.lastFault
	if m.lastRotate.After(since) {
		since = m.lastRotate
	}
	if used == c.previous && c.previousUntil.After(since) {
		since = c.previousUntil
	}
	if refused := time.Since(since); refused > longestRefusal {
		m.Errorf("consumers have been refused for %s", refused)
	}
}

// attempt waits until the token is due, and advances it once.
func (m *machine) attempt() {
	m.sync()
	answers := len(m.issued)
	_, died := m.world.advance(m.rotator, m.token)
	m.sync()
	if len(m.issued) > answers && len(m.issued)-2 < len(m.scenario.Answers) {
		m.lastFault = time.Now()
	}
	m.checkRefused()
	m.revive(died)
	if m.unsealedSecret != "" {
		if m.rotator.Unsealed() == 0 {
			m.Errorf("a secret was received, and is neither sealed nor kept in memory")
		}
	}
}

// runHooks runs the hooks that are due.
func (m *machine) runHooks(fails func() bool) {
	died := m.world.runHooks(m.rotator, m.token, fails)
	m.sync()
	m.revive(died)
}

// hooksFail says whether the next run of a hook fails.
func (m *machine) hooksFail() bool {
	m.hookRuns++
	return m.scenario.Hooks == "fail" || m.scenario.Hooks == "fail at times" && m.hookRuns%2 == 1
}

// revive starts another process if the last one has died.
func (m *machine) revive(died bool) {
	if died {
		if m.unsealedSecret != "" && !m.sealed(m.unsealedSecret) && !m.everInSink[m.unsealedSecret] { // it was only in memory
			m.wantDoubts++
		}
		m.unsealedSecret = ""
		m.restart()
	}
}

func (m *machine) sealed(value string) bool {
	for _, p := range m.world.pending {
		if p.ClientSecret.Reveal() == value {
			return true
		}
	}
	return false
}

func (m *machine) restart() {
	m.passed = map[string]bool{}
	m.rotator = rotation.New(rotation.Options{Ledger: m, Pending: m, Events: m, Record: m.newRecord(), Saved: m.saved, Owner: "x", Started: time.Now()})
}

// perform carries out an act between two attempts.
func (m *machine) perform(what string) {
	m.sync()
	switch what {
	case "restart":
		if m.unsealedSecret == "" { // a daemon that stops seals the secret first
			m.restart()
		}
	case "down for 5h":
		m.sleep(5 * time.Hour)
	case "overwrite the sink":
		// With the same secret, as if a person had edited another field.
		m.version++
	case "empty the sink":
		m.emptySink()
	default:
		m.sleep(time.Second) // otherwise two rotates would have the same updated_at
		how := rotation.Resolution(what)
		record := m.record()
		if record.Step != rotation.StepInDoubt {
			return
		}
		// Operators use --assume-not-rotated only if it is true.
		if carriedOut := !record.Work.Before.UpdatedAt.Equal(m.tokenByID(record.Work.TokenID).updatedAt) || m.scenario.Frozen; how == rotation.ResolveAssumeNotRotated && carriedOut {
			return
		}
		if slices.ContainsFunc(m.scenario.Faults, func(f plannedFault) bool { return f.How == "late" }) && how != rotation.ResolveLook {
			return // operators resolve only if no request is under way
		}
		ordered := m.operatorOrder
		m.operatorOrder = ordered || how == rotation.ResolveRotateNow
		defer func() {
			if p := recover(); p != nil {
				if _, ok := p.(crashed); !ok {
					panic(p)
				}
				m.restart()
			}
		}()
		// After an error the resolution may still be saved: perhaps only the ledger's answer was lost.
		if _, _, err := m.rotator.Resolve(m.Context(), m.token, how); err != nil && m.record().Step == rotation.StepInDoubt {
			m.operatorOrder = ordered
		}
	}
}

// emptySink is another writer who removes the secret. The watch finds that, and a rotation is ordered, because no
// other sink has a copy.
func (m *machine) emptySink() {
	if m.record().Step != rotation.StepIdle {
		return // the secret in the sink may be the only copy of one that could not be sealed
	}
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(crashed); !ok {
				panic(p)
			}
			m.restart()
		}
	}()
	m.sink, m.version = rotation.Credential{}, m.version+1
	before := m.record()
	stored, err := machineSink{m}.Preflight(m.Context())
	if err != nil {
		return
	}
	_, _ = m.rotator.RecordLook(m.Context(), m.token, rotation.Look{Sink: "memory:sink", Before: before, Stored: stored})
	_, _ = m.rotator.Restore(m.Context(), m.token)
	if record := m.record(); record.Order != nil && (m.scenario.Paired || m.scenario.Frozen || m.rotator.Due(m.token, record).At.Before(m.promised(record))) {
		m.Errorf("a rotation was ordered to restore: %+v", record)
	}
}

// run runs the scenario, and returns the problems.
func (m *machine) run() []string {
	m.token = m.world.token(m.scenario.Grace)
	m.token.Issuer, m.token.Sinks, m.token.Restore = m, []rotation.Sink{machineSink{m}}, true
	if m.scenario.Paired {
		m.token.Partner = partnerID
	}
	m.hooks = newHooksModel(m.Errorf, reload, ping)
	m.token = m.hooks.of(m.token)
	m.frozenUpdatedAt = m.scenario.Frozen
	m.restart()
	if _, err := m.rotator.Enroll(m.Context(), m.token); err != nil {
		m.Fatal(err)
	}
	m.world.calls = nil
	m.setFaults()
	successes := 0
	for n := range 150 {
		for _, a := range m.scenario.Acts {
			if a.At == n {
				m.perform(a.What)
				m.lastFault = time.Now()
			}
		}
		before := len(m.events)
		m.attempt()
		for _, e := range m.events[before:] {
			if a, ok := e.Detail.(event.RotationEnded); ok && a.Result == event.ResultSuccess {
				successes++
			}
		}
		if m.calls[len(m.calls)-1] != "save " || m.begun < len(m.scenario.Faults) {
			successes = 0 // one whole rotation must succeed after the last fault
		}
		m.runHooks(m.hooksFail)
		if m.begun == len(m.scenario.Faults) && len(m.issued) > len(m.scenario.Answers) && successes > 0 && m.record().Step == rotation.StepIdle {
			break
		}
		if record := m.record(); record.Step == rotation.StepInDoubt && record.Doubt.Decision == rotation.ReasonUnfamiliarKept {
			return m.problems // the token waits for an operator, as it should
		}
		if len(m.problems) > 0 {
			return m.problems
		}
	}
	m.checkEnd()
	return m.problems
}

// checkEnd checks what must be true after the last fault.
func (m *machine) checkEnd() {
	m.sleep(2 * time.Minute) // until late requests are carried out
	m.sync()
	record := m.record()
	used := m.sink.ClientSecret.Reveal()
	switch {
	case record.Step != rotation.StepIdle || record.Last == nil:
		m.Errorf("the token does not recover: step %q, %d failures, %s", record.Step, record.Failures, record.LastError)
	case m.sink.ClientID != m.tokenByID(record.TokenID).clientID || used != m.tokenByID(record.TokenID).current:
		m.Errorf("the sink does not have the secret that works")
	}
	m.checkDoubtsRaised("at the end")
	slots := map[time.Time]bool{}
	for _, e := range m.events {
		if a, ok := e.Detail.(event.RotationEnded); ok && a.Result == event.ResultSuccess {
			if m.restores[a.RotationID] {
				continue // it serves no slot
			}
			if slots[a.Slot] {
				m.Errorf("the slot %s was served twice", a.Slot)
			}
			slots[a.Slot] = true
		}
	}
	for id, p := range m.world.pending {
		if m.everInSink[p.ClientSecret.Reveal()] {
			m.Errorf("the answer of rotation %s is delivered and still sealed", id)
		}
	}
	m.world.fault = nil
	for i := 0; i < 40 && len(m.record().OwedHooks()) > 0; i++ {
		m.runHooks(func() bool { return false })
		m.sleep(5 * time.Minute)
	}
	m.hooks.end(m.record(), 0)
}

// fewer returns n, and about a tenth of it with the race detector, which makes random scenarios ten times slower. That is enough
// for it, because nearly everything in them runs in one goroutine.
func fewer(n int) int {
	if racedetector.On {
		return max(n/10, 15)
	}
	return n
}

// scenarios has rapid run n scenarios in a test, or fewer, unless -rapid.checks is given.
func scenarios(t *testing.T, n int) {
	t.Helper()
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue {
		if err := checks.Value.Set(strconv.Itoa(fewer(n))); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = checks.Value.Set(checks.DefValue) })
	}
}

// runMachine runs a scenario.
func runMachine(t *testing.T, s scenario, breaks sabotage) (m *machine, problems []string) {
	synctest.Test(t, func(*testing.T) {
		m = &machine{scenario: s, everInSink: map[string]bool{}, restores: map[string]bool{}}
		m.world = newWorld(m)
		m.sabotage = breaks
		m.everInSink[m.sink.ClientSecret.Reveal()] = true
		problems = m.run()
	})
	return m, problems
}

// TestMachineSabotaged runs scenarios in which the account of hooks is broken. The machine must find that.
func TestMachineSabotaged(t *testing.T) {
	for _, breaks := range []sabotage{notedFirst, forgotten} {
		found, of := 0, 50
		for seed := range of {
			if _, problems := runMachine(t, rapid.Custom(draw).Example(seed), breaks); len(problems) > 0 {
				found++
			}
		}
		if t.Logf("%s: found in %d of %d scenarios", breaks, found, of); found == 0 {
			t.Errorf("no scenario found that %s", breaks)
		}
	}
}

// TestMachine runs thousands of random scenarios. Rapid shrinks a failing scenario, and saves it in
// testdata/rapid, to run it again.
func TestMachine(t *testing.T) {
	scenarios(t, 10000)
	seen := map[string]int{} // counts what happened, so that the test can check its own coverage
	rapid.Check(t, func(rt *rapid.T) {
		s := draw(rt)
		m, problems := runMachine(t, s, "")
		for _, a := range m.attempts() {
			seen[a[strings.Index(a, "/")+1:]]++
		}
		for _, r := range m.reasons() {
			seen[r]++
		}
		m.hooks.count(seen)
		if len(problems) > 0 {
			rt.Fatalf("%s\n%+v\ncalls: %q\nattempts: %q\nverdicts: %q", strings.Join(problems, "\n"), s, m.calls, m.attempts(), m.reasons())
		}
	})
	for _, what := range []string{
		"success/", "in_doubt/outcome_unknown", "in_doubt/interrupted", "in_doubt/answer_invalid", "in_doubt/unfamiliar_secret",
		"failed/refused", "failed/not_carried_out", "failed/throttled", "failed/seal", "failed/store", "failed/ledger", "failed/commit", "skipped/preflight",
		rotation.ReasonUnderWay, rotation.ReasonOldSecretWorks, rotation.ReasonGraceEnding, rotation.ReasonOldSecretRevoked, rotation.ReasonSpare,
		rotation.ReasonOperatorRotateNow, rotation.ReasonUnfamiliarKept, "hooks run", "hooks repeated", "hooks replaced", // other tests cover the rarer ones
	} {
		if seen[what] == 0 && !t.Failed() && !racedetector.On {
			t.Errorf("%s never happened, so the scenarios do not test it", what)
		}
	}
	t.Logf("%v", seen)
}
