package rotation_test

import (
	"context"
	"flag"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

// scenario is one life of a token: what is configured, and all that goes wrong.
type scenario struct {
	Paired  bool
	Grace   time.Duration
	Frozen  bool // updated_at does not move on a rotate
	Faults  []trouble
	Answers []string // what is wrong with the first answers
	Acts    []act
}

// act is what happens between two attempts.
type act struct {
	At   int // attempt
	What string
}

// draw makes a scenario. All is drawn before anything runs, so that a failing one shrinks.
func draw(t *rapid.T) scenario {
	happening := rapid.Custom(func(t *rapid.T) act {
		return act{
			At: rapid.IntRange(1, 6).Draw(t, "at"),
			What: rapid.SampledFrom([]string{
				"restart", "down for 5h", "overwrite the sink",
				string(rotation.ResolveLook), string(rotation.ResolveRotateNow), string(rotation.ResolveAssumeNotRotated), string(rotation.ResolveDeliver),
			}).Draw(t, "what"),
		}
	})
	return scenario{
		Paired:  rapid.Bool().Draw(t, "paired"),
		Grace:   rapid.SampledFrom([]time.Duration{0, 10 * time.Minute, 40 * time.Minute}).Draw(t, "grace"),
		Frozen:  rapid.Bool().Draw(t, "frozen"),
		Faults:  rapid.SliceOfN(drawPlannedFault(14), 0, 4).Draw(t, "faults"),
		Answers: rapid.SliceOfN(rapid.SampledFrom([]string{"", "", "wrong client", "damaged", "unfamiliar", "empty"}), 0, 2).Draw(t, "answers"),
		Acts:    rapid.SliceOfN(happening, 0, 2).Draw(t, "acts"),
	}
}

// machine runs one scenario. It stands between the rotator and the world and holds, at each
// call, what must never be otherwise.
type machine struct {
	*world
	findings
	troubles
	scenario scenario
	token    rotation.Token
	rotator  *rotation.Rotator

	proven         map[string]bool // since the claim, by this process
	believed       time.Time       // until when the old secret works, as far as the ledger knows
	unsealedSecret string          // a secret that was received and not sealed yet
	inSink         map[string]bool // every secret that the sink ever held
	wantDoubts     int             // rotations that were carried out and whose answer was not kept
	quiet          time.Time       // since when nothing has gone wrong any more
	cutOff         time.Time       // when the last rotate was carried out
	blind          bool            // it was rotated again, and Cloudflare could not be asked why
	operator       bool            // an operator has asked for a rotate, whatever it cuts off
}

// seeLate makes visible what a late request has changed: it ran in a goroutine of its own, and
// ended before this one went on.
func (m *machine) seeLate() {
	m.mu.Lock()
	defer m.mu.Unlock()
}

// arm turns the scenario's troubles into faults at calls.
func (m *machine) arm() {
	m.troubles = troubles{
		all: m.scenario.Faults, issuer: []string{"rotate", "inspect", "extend", "ready"},
		strike: func(how, call string) (late bool) {
			m.quiet = time.Now()
			// Without a grace consumers are down already and the daemon does not wait for a late
			// request, which the documentation says.
			if late = how == "late" && call == "rotate" && (m.scenario.Grace > 0 || m.scenario.Paired); late {
				m.wantDoubts++
			}
			return late
		},
	}
	m.world.fault = m.troubles.next()
}

// The rotator's ports, with what must hold at each call.

func (m *machine) Save(ctx context.Context, r rotation.Record) (rotation.Record, error) {
	m.seeLate()
	defer func() { // also if the process dies with the answer
		switch {
		case m.record().Revision != r.Revision+1: // not kept; only the answer may be lost
		case r.Doubt != nil: // with the extensions that the ledger knows of
			m.believed = r.Doubt.OldWorksUntil
		case r.Work != nil && !r.Work.GraceEndsAt.IsZero():
			m.believed = r.Work.GraceEndsAt
		}
	}()
	saved, err := m.world.Save(ctx, r)
	if err == nil && r.Step == rotation.StepClaimed {
		m.proven = map[string]bool{}
		if end := m.promised(r); r.Work.Trigger != rotation.TriggerRecovery && r.Work.Trigger != rotation.TriggerManual && time.Now().Before(end) {
			m.Errorf("claimed for %s although the last grace was promised until %s", r.Work.Trigger, end)
		}
	}
	if err == nil && r.Step == rotation.StepIntent {
		m.proven["intent"] = true
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
	m.proven["ready"] = err == nil
	return err
}

func (m *machine) Reserve(ctx context.Context, key rotation.PendingKey) error {
	err := m.world.Reserve(ctx, key)
	m.proven["reserve"] = err == nil
	return err
}

func (m *machine) Rotate(ctx context.Context, req rotation.RotateRequest) (rotation.Issued, error) {
	m.seeLate()
	for _, what := range []string{"sink preflight", "reserve", "ready", "intent"} {
		if !m.proven[what] {
			m.Errorf("a rotate request left without %s", what)
		}
	}
	m.proven = map[string]bool{} // one intent, one request
	c, used := m.tokenByID(req.TokenID), m.sink.ClientSecret.Reveal()
	if used == c.previous && time.Now().Before(c.previousUntil) && c.tooEarly(m.believed) && !m.operator {
		m.Errorf("rotated again while the old secret, which is the one that the sink holds, still worked")
	}
	if m.scenario.Paired && used == c.current {
		m.Errorf("the service token in use was rotated")
	}
	if m.unsealedSecret != "" {
		m.Errorf("rotated again with a secret in hand")
	}
	m.blind = m.blind || used == c.previous && m.record().OldDiesBy.IsZero()
	m.checkDoubtsRaised("before another rotate")
	m.mayCutOff = true // the world's own check knows nothing of beliefs, and comes late with a late request
	issuedBefore := len(m.issued)
	defer func() {
		if len(m.issued) > issuedBefore {
			m.operator, m.cutOff = false, time.Now()
			m.believed = c.previousUntil
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

// answer is what is wrong with the answer to the rotate that was just carried out.
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
	if p, ok := m.world.pending[id]; ok && !m.inSink[p.ClientSecret.Reveal()] {
		m.Errorf("a sealed secret is erased that no sink ever confirmed")
	}
	return m.world.Erase(ctx, id)
}

type machineSink struct{ *machine }

func (s machineSink) Name() string { return "memory:sink" }

func (s machineSink) Preflight(ctx context.Context) (rotation.Stored, error) {
	stored, err := memorySink{s.world}.Preflight(ctx)
	s.proven["sink preflight"] = err == nil
	return stored, err
}

func (s machineSink) Store(ctx context.Context, c rotation.Credential, base rotation.Stored) (rotation.Stored, error) {
	defer func() { s.inSink[s.sink.ClientSecret.Reveal()] = true }()
	return memorySink{s.world}.Store(ctx, c, base)
}

func (s machineSink) ReadBack(ctx context.Context) (rotation.Credential, error) {
	return memorySink{s.world}.ReadBack(ctx)
}

// checkDoubtsRaised wants an alarm for each rotation that was carried out and not kept.
func (m *machine) checkDoubtsRaised(when string) {
	raised := map[string]bool{}
	for _, e := range m.events {
		switch e := e.(type) {
		case rotation.Attempted:
			raised[e.RotationID] = raised[e.RotationID] || e.Result == rotation.ResultInDoubt
		case rotation.DoubtJudged:
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

// longestRefusal is how long consumers may be refused once nothing goes wrong any more: a
// doubt settles for a minute, and the longest back-off is ten.
const longestRefusal = 12 * time.Minute

// checkRefused holds that consumers are not left with a secret that is refused. Where
// updated_at stands still, nobody can know that they are.
func (m *machine) checkRefused() {
	c, used := &m.world.cfToken, m.sink.ClientSecret.Reveal()
	overwritten := m.sink.ClientID != c.clientID || !slices.Contains(m.issued, used)
	if m.scenario.Paired || m.scenario.Frozen || m.blind || overwritten || c.accepted(used) {
		return
	}
	since := m.quiet
	if m.cutOff.After(since) {
		since = m.cutOff
	}
	if used == c.previous && c.previousUntil.After(since) {
		since = c.previousUntil
	}
	if refused := time.Since(since); refused > longestRefusal {
		m.Errorf("consumers have been refused for %s", refused)
	}
}

// attempt waits until the token is due and works on it.
func (m *machine) attempt() {
	m.seeLate()
	answers := len(m.issued)
	_, died := m.world.advance(m.rotator, m.token)
	m.seeLate()
	if len(m.issued) > answers && len(m.issued)-2 < len(m.scenario.Answers) {
		m.quiet = time.Now()
	}
	m.checkRefused()
	if died {
		if m.unsealedSecret != "" && !m.sealed(m.unsealedSecret) && !m.inSink[m.unsealedSecret] { // it was in memory alone
			m.wantDoubts++
		}
		m.unsealedSecret = ""
		m.restart()
	}
	if m.unsealedSecret != "" {
		if m.rotator.Unsealed() == 0 {
			m.Errorf("a secret was received, and is neither sealed nor held")
		}
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
	m.proven = map[string]bool{}
	m.rotator = rotation.New(rotation.Options{Ledger: m, Pending: m, Observer: m, Owner: "x", Started: time.Now()})
}

// happen is what happens between two attempts.
func (m *machine) happen(what string) {
	m.seeLate()
	switch what {
	case "restart":
		if m.unsealedSecret == "" { // a stop waits for that
			m.restart()
		}
	case "down for 5h":
		time.Sleep(5 * time.Hour)
	case "overwrite the sink":
		// By the same secret, as somebody does who edits another field.
		m.version++
	default:
		time.Sleep(time.Second) // or two rotates would have one updated_at
		how := rotation.Resolution(what)
		record := m.record()
		if record.Step != rotation.StepInDoubt {
			return
		}
		// Operators say what is true.
		if carriedOut := !record.Work.Before.UpdatedAt.Equal(m.tokenByID(record.Work.TokenID).updatedAt) || m.scenario.Frozen; how == rotation.ResolveAssumeNotRotated && carriedOut {
			return
		}
		if slices.ContainsFunc(m.scenario.Faults, func(f trouble) bool { return f.How == "late" }) && how != rotation.ResolveLook {
			return // and know that nothing is under way
		}
		m.operator = m.operator || how == rotation.ResolveRotateNow
		defer func() {
			if p := recover(); p != nil {
				if _, ok := p.(crashed); !ok {
					panic(p)
				}
				m.restart()
			}
		}()
		// An error may also mean that only the answer of the ledger was lost.
		if _, _, err := m.rotator.Resolve(m.Context(), m.token, how); err != nil && m.record().Step == rotation.StepInDoubt {
			m.operator = false
		}
	}
}

// run lives through the scenario, and returns what was wrong.
func (m *machine) run() []string {
	m.token = m.world.token(m.scenario.Grace)
	m.token.Issuer, m.token.Sinks = m, []rotation.Sink{machineSink{m}}
	if m.scenario.Paired {
		m.token.Partner = partnerID
	}
	m.frozenUpdatedAt = m.scenario.Frozen
	m.restart()
	if _, err := m.rotator.Enroll(m.Context(), m.token); err != nil {
		m.Fatal(err)
	}
	m.world.calls = nil
	m.arm()
	good := 0
	for n := range 150 {
		for _, a := range m.scenario.Acts {
			if a.At == n {
				m.happen(a.What)
				m.quiet = time.Now()
			}
		}
		before := len(m.events)
		m.attempt()
		for _, e := range m.events[before:] {
			if a, ok := e.(rotation.Attempted); ok && a.Result == rotation.ResultSuccess {
				good++
			}
		}
		if m.calls[len(m.calls)-1] != "save " || m.struck < len(m.scenario.Faults) {
			good = 0 // one that is whole comes after all trouble
		}
		if m.struck == len(m.scenario.Faults) && len(m.issued) > len(m.scenario.Answers) && good > 0 && m.record().Step == rotation.StepIdle {
			break
		}
		if record := m.record(); record.Step == rotation.StepInDoubt && record.Doubt.Decision == rotation.ReasonUnfamiliarKept {
			return m.problems // it waits for an operator, as it should
		}
		if len(m.problems) > 0 {
			return m.problems
		}
	}
	m.end()
	return m.problems
}

// end holds what must be true once nothing goes wrong any more.
func (m *machine) end() {
	time.Sleep(2 * time.Minute) // for what is late
	m.seeLate()
	record := m.record()
	used := m.sink.ClientSecret.Reveal()
	switch {
	case record.Step != rotation.StepIdle || record.Last == nil:
		m.Errorf("it does not recover: step %q, %d failures, %s", record.Step, record.Failures, record.LastError)
	case m.sink.ClientID != m.tokenByID(record.TokenID).clientID || used != m.tokenByID(record.TokenID).current:
		m.Errorf("the sink does not hold the secret that works")
	}
	m.checkDoubtsRaised("at the end")
	slots := map[time.Time]bool{}
	for _, e := range m.events {
		if a, ok := e.(rotation.Attempted); ok && a.Result == rotation.ResultSuccess {
			if slots[a.Record.Last.Slot] {
				m.Errorf("the slot %s was served twice", a.Record.Last.Slot)
			}
			slots[a.Record.Last.Slot] = true
		}
	}
	for id, p := range m.world.pending {
		if m.inSink[p.ClientSecret.Reveal()] {
			m.Errorf("rotation %s is delivered and still sealed", id)
		}
	}
}

// machineChecks is how many scenarios TestMachine tries, unless -rapid.checks says otherwise.
var machineChecks = "10000"

// TestMachine lives through thousands of random scenarios. A failing one is made as small as
// it goes, and kept in testdata/rapid to be run again.
func TestMachine(t *testing.T) {
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue {
		if err := checks.Value.Set(machineChecks); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]int{} // so that it is known what was tried
	rapid.Check(t, func(rt *rapid.T) {
		s := draw(rt)
		var problems []string
		var m *machine
		synctest.Test(t, func(*testing.T) {
			m = &machine{scenario: s, inSink: map[string]bool{}}
			m.world = newWorld(m)
			m.inSink[m.sink.ClientSecret.Reveal()] = true
			problems = m.run()
		})
		for _, a := range m.attempts() {
			seen[a[strings.Index(a, "/")+1:]]++
		}
		for _, r := range m.reasons() {
			seen[r]++
		}
		if len(problems) > 0 {
			rt.Fatalf("%s\n%+v\ncalls: %q\nattempts: %q\nverdicts: %q", strings.Join(problems, "\n"), s, m.calls, m.attempts(), m.reasons())
		}
	})
	for _, what := range []string{
		"success/", "in_doubt/outcome_unknown", "in_doubt/interrupted", "in_doubt/answer_invalid", "in_doubt/unfamiliar_secret",
		"failed/refused", "failed/not_carried_out", "failed/throttled", "failed/seal", "failed/store", "failed/ledger", "failed/commit", "skipped/preflight",
		rotation.ReasonUnderWay, rotation.ReasonOldSecretWorks, rotation.ReasonGraceEnding, rotation.ReasonOldSecretRevoked, rotation.ReasonSpare,
		rotation.ReasonOperatorRotateNow, rotation.ReasonUnfamiliarKept, // the rarer ones have tests of their own
	} {
		if seen[what] == 0 && !t.Failed() && machineChecks == "10000" {
			t.Errorf("%s did not happen once: the scenarios prove less than they seem to", what)
		}
	}
	t.Logf("%v", seen)
}
