package rotation_test

import (
	"context"
	"errors"
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

// This file lives through random lives of a token of strategy replace: what fails, where the
// process dies, what operators order, and what somebody does to its clock and to its sinks.

// replaceScenario is one such life.
type replaceScenario struct {
	Named  bool // an id is configured, and not how it is made
	Grace  time.Duration
	Verify bool
	Cut    bool // answers to a create are cut off behind the secret
	Faults []trouble
	Acts   []act
}

func drawReplace(t *rapid.T) replaceScenario {
	happening := rapid.Custom(func(t *rapid.T) act {
		return act{
			At: rapid.IntRange(1, 12).Draw(t, "at"),
			What: rapid.SampledFrom([]string{
				"restart", "down for 5h", "clock ahead", "clock behind", "clock right", "order", "order to revoke", "cancel", "rotate", "revoke now",
				"revoke previous", "extend grace", "listing", "put back", string(rotation.ResolveLook), string(rotation.ResolveRotateNow), string(rotation.ResolveAccept),
			}).Draw(t, "what"),
		}
	})
	return replaceScenario{
		Named:  rapid.Bool().Draw(t, "named"),
		Grace:  rapid.SampledFrom([]time.Duration{0, 20 * time.Minute}).Draw(t, "grace"),
		Verify: rapid.Bool().Draw(t, "verify"),
		Cut:    rapid.Bool().Draw(t, "cut"),
		Faults: rapid.SliceOfN(drawPlannedFault(20), 0, 4).Draw(t, "faults"),
		Acts:   rapid.SliceOfN(happening, 0, 4).Draw(t, "acts"),
	}
}

// factory is what stands between the rotator and the world.
type factory struct {
	*world
	findings
	troubles
	life    replaceScenario
	token   rotation.Token
	rotator *rotation.Rotator
	side    rotation.Credential  // what the second sink holds
	left    map[string]time.Time // when a client ID was last in a sink
	revoked bool                 // an operator has cut somebody off
	late    time.Time            // until when a request may be under way that nobody waits for
}

// maxClockDifference is from where on a clock is known to be wrong.
const maxClockDifference = 5 * time.Minute

func (m *factory) Ready(ctx context.Context) error {
	if err := m.world.Ready(ctx); err != nil {
		return err
	}
	if m.offset.Abs() > maxClockDifference {
		return &rotation.IssuerError{Class: rotation.NotCarriedOut, Operation: "rotate", Err: rotation.ErrClock}
	}
	return nil
}

func (m *factory) Create(ctx context.Context, req rotation.CreateRequest) (rotation.Issued, error) {
	issued, err := m.world.Create(ctx, req)
	if m.life.Cut {
		issued.Facts = rotation.TokenFacts{}
	}
	return issued, err
}

func (m *factory) Delete(ctx context.Context, id string) error {
	client := m.tokenByID(id).clientID
	for _, held := range []rotation.Credential{m.sink, m.side} {
		if held.ClientID == client {
			m.Errorf("%s is deleted, and a sink holds it", client)
		}
	}
	if left, was := m.left[client]; was && !m.revoked && time.Since(left) < m.life.Grace {
		m.Errorf("%s is deleted %s after a sink held it, and %s were promised", client, time.Since(left), m.life.Grace)
	}
	return m.world.Delete(ctx, id)
}

// Inspect tells of those that are gone.
func (m *factory) Inspect(ctx context.Context, id string) (rotation.TokenFacts, error) {
	facts, err := m.world.Inspect(ctx, id)
	if err == nil && m.gone[id] {
		err = &rotation.IssuerError{Class: rotation.Refused, Status: 404, Err: rotation.ErrGone}
	}
	return facts, err
}

// replaceSink is one of two.
type replaceSink struct {
	*factory
	name string
	held *rotation.Credential
}

func (s replaceSink) Name() string { return s.name }

func (s replaceSink) stored() rotation.Stored {
	return rotation.Stored{Exists: true, ClientID: s.held.ClientID, Digest: s.held.ClientSecret.Digest()}
}

func (s replaceSink) Preflight(context.Context) (st rotation.Stored, err error) {
	err = s.do(s.name+" preflight", func() error { st = s.stored(); return nil })
	return st, err
}

func (s replaceSink) Store(_ context.Context, c rotation.Credential, _ rotation.Stored) (st rotation.Stored, err error) {
	err = s.do(s.name+" store", func() error {
		s.put(s.held, c)
		st = s.stored()
		return nil
	})
	return st, err
}

// put has a sink hold another credential.
func (m *factory) put(held *rotation.Credential, c rotation.Credential) {
	if held.ClientID != c.ClientID {
		m.left[held.ClientID] = time.Now()
	}
	*held = c
}

func (m *factory) arm() {
	m.troubles = troubles{
		all: m.life.Faults, issuer: []string{"create", "find", "delete", "inspect", "ready"},
		strike: func(how, call string) (late bool) {
			if late = how == "late" && call == "create"; late {
				m.late = time.Now().Add(lateBy + time.Second)
			}
			return late
		},
	}
	m.world.fault = m.troubles.next()
}

func (m *factory) restart() {
	m.rotator = rotation.New(rotation.Options{Ledger: m, Pending: m, Observer: m, Now: m.now, Owner: "x", Started: m.now()})
	for range 8 { // one that cannot be enrolled is not scheduled, and is tried again
		if m.survives(func() error { _, err := m.rotator.Enroll(m.Context(), m.token); return err }) == nil {
			return
		}
	}
}

// survives runs something in which the process may die.
func (m *factory) survives(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(crashed); !ok {
				panic(p)
			}
			err = errors.New("crashed")
			m.rotator = rotation.New(rotation.Options{Ledger: m, Pending: m, Observer: m, Now: m.now, Owner: "x", Started: m.now()})
		}
	}()
	return do()
}

// step waits for what is due next, and has it done.
func (m *factory) step() {
	record := m.record()
	at := rotation.NextDue(m.token, record, rotation.Pause{}).At
	if chore := rotation.NextChore(m.token, record); !chore.IsZero() && chore.Before(at) {
		at = chore
	}
	time.Sleep(min(max(at.Sub(m.now()), time.Millisecond), 6*time.Hour))
	_ = m.survives(func() error { _, err := m.rotator.Advance(m.Context(), m.token); return err })
}

func (m *factory) happen(what string) {
	time.Sleep(time.Second)
	tokens := []rotation.Token{m.token}
	clock := func(offset time.Duration) {
		time.Sleep(time.Until(m.late)) // the settling time is measured by it
		m.offset = offset
		_ = m.survives(func() error { _, err := m.rotator.CatchUp(m.Context(), m.token); return err })
	}
	_ = m.survives(func() (err error) {
		switch what {
		case "restart":
			m.restart()
		case "down for 5h":
			time.Sleep(5 * time.Hour)
			m.restart()
		case "clock ahead":
			clock(3 * time.Hour)
		case "clock behind":
			clock(-3 * time.Hour)
		case "clock right":
			clock(0)
		case "order":
			m.rotator.OrderAll(m.Context(), tokens, rotation.Overrides{Grace: true}, "ops")
		case "order to revoke":
			m.revoked = true
			m.rotator.OrderAll(m.Context(), tokens, rotation.Overrides{RevokeNow: true}, "ops")
		case "cancel":
			_, err = m.rotator.CancelOrders(m.Context(), tokens)
		case "rotate":
			_, err = m.rotator.RotateNow(m.Context(), m.token, rotation.Overrides{}, "ops")
		case "revoke now":
			m.revoked = true
			_, err = m.rotator.RotateNow(m.Context(), m.token, rotation.Overrides{RevokeNow: true}, "ops")
		case "revoke previous":
			m.revoked = true
			_, err = m.rotator.RevokePrevious(m.Context(), m.token)
		case "extend grace":
			_, err = m.rotator.ExtendGrace(m.Context(), m.token, 30*time.Minute)
		case "listing":
			if id := m.token.ServiceToken(m.record()); id != "" {
				_, err = m.rotator.RecordListing(m.Context(), m.token, m.tokenByID(id).facts())
			}
		case "put back":
			if i := slices.IndexFunc(m.created, func(c *cfToken) bool { return !m.gone[c.id] }); i >= 0 && m.record().Step == rotation.StepIdle {
				m.put(&m.side, rotation.Credential{ClientID: m.created[i].clientID, ClientSecret: secret.New(m.created[i].current)})
			}
		default:
			_, _, err = m.rotator.Resolve(m.Context(), m.token, rotation.Resolution(what))
		}
		return err
	})
}

// run lives through the life, and returns what was wrong.
func (m *factory) run() []string {
	m.token = m.world.token(m.life.Grace)
	m.token.Issuer, m.token.Creator, m.token.Replace = m, m, true
	m.token.Sinks = []rotation.Sink{replaceSink{m, "main", &m.sink}, replaceSink{m, "side", &m.side}}
	m.gone, m.namedByPolicy, m.left = map[string]bool{}, map[string]bool{}, map[string]time.Time{}
	m.side = m.sink
	if !m.life.Named {
		m.sink, m.side = rotation.Credential{}, rotation.Credential{}
		m.token.ID, m.token.Create = "", &rotation.Creation{Name: "ci"}
	}
	if m.life.Verify {
		m.token.Prober, m.token.VerifyWithin = m, time.Minute
	}
	m.restart()
	m.world.calls = nil
	m.arm()
	for n := range 16 {
		for _, a := range m.life.Acts {
			if a.At == n {
				m.happen(a.What)
			}
		}
		m.step()
		if len(m.problems) > 0 {
			return m.problems
		}
	}
	m.happen("clock right")
	for end := time.Now().Add(12 * time.Hour); time.Now().Before(end) || m.record().Step != rotation.StepIdle && time.Since(end) < time.Hour; {
		m.step()
	}
	m.end()
	return m.problems
}

// end holds what must be true once nothing goes wrong any more.
func (m *factory) end() {
	record := m.record()
	if record.Step != rotation.StepIdle || record.Order != nil || record.Failures > 0 {
		m.Errorf("it does not come to rest: %q, %d failures, %s, %+v", record.Step, record.Failures, record.LastError, record.Order)
		return
	}
	for _, held := range []rotation.Credential{m.sink, m.side} {
		if c := m.tokenByID(record.TokenID); m.gone[c.id] || held.ClientID != c.clientID || held.ClientSecret.Reveal() != c.current {
			m.Errorf("a sink holds %s, and %s is in use", held.ClientID, c.clientID)
		}
	}
	for _, c := range append([]*cfToken{&m.cfToken}, m.created...) {
		waits := slices.ContainsFunc(record.Replaced, func(r rotation.Replaced) bool { return r.TokenID == c.id })
		if !m.gone[c.id] && !waits && c.id != record.TokenID && (m.life.Named || c.id != tokenID) {
			m.Errorf("%s (%s) is left for good", c.clientID, c.name)
		}
	}
	if len(record.Replaced) > 1 {
		m.Errorf("%d are still to be deleted: %+v", len(record.Replaced), record.Replaced)
	}
	if n := len(m.world.pending); n > 0 {
		m.Errorf("%d are still sealed", n)
	}
	slots := map[time.Time]bool{}
	for _, e := range m.events {
		if a, ok := e.(rotation.Attempted); ok && a.Result == rotation.ResultSuccess {
			if slots[a.Record.Last.Slot] {
				m.Errorf("the slot %s was served twice", a.Record.Last.Slot)
			}
			slots[a.Record.Last.Slot] = true
		}
	}
}

// replaceChecks is how many lives TestReplaceMachine tries, unless -rapid.checks says otherwise.
const replaceChecks = "150"

// TestReplaceMachine lives through many of them.
func TestReplaceMachine(t *testing.T) {
	checks := flag.Lookup("rapid.checks").Value
	if before := checks.String(); before == flag.Lookup("rapid.checks").DefValue || before == machineChecks {
		if err := checks.Set(replaceChecks); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = checks.Set(before) }()
	}
	rapid.Check(t, func(rt *rapid.T) {
		life := drawReplace(rt)
		var problems []string
		var m *factory
		synctest.Test(t, func(*testing.T) {
			m = &factory{life: life}
			m.world = newWorld(m)
			problems = m.run()
		})
		if len(problems) > 0 {
			rt.Fatalf("%s\n%+v\ncalls: %q\nattempts: %q", strings.Join(problems, "\n"), life, m.calls, m.attempts())
		}
	})
}
