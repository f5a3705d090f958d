package rotation_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

// This file runs random scenarios of a token with strategy replace: calls fail, the process dies, operators
// give orders, and the clock and the sinks are changed from outside.

// replaceScenario is one run: the configuration of the token, and everything that goes wrong.
type replaceScenario struct {
	ByID    bool // the configuration names a service token, instead of how to create one
	Grace   time.Duration
	Verify  bool
	NoFacts bool // answers to a create end after the secret, so they contain no facts
	Faults  []plannedFault
	Acts    []act
}

func drawReplace(t *rapid.T) replaceScenario {
	anyAct := rapid.Custom(func(t *rapid.T) act {
		return act{
			At: rapid.IntRange(1, 12).Draw(t, "at"),
			What: rapid.SampledFrom([]string{
				"restart", "down for 5h", "clock ahead", "clock behind", "clock right", "order", "order to revoke", "cancel", "rotate", "revoke now",
				"revoke previous", "extend grace", "listing", "put back", string(rotation.ResolveLook), string(rotation.ResolveRotateNow), string(rotation.ResolveAccept),
			}).Draw(t, "what"),
		}
	})
	return replaceScenario{
		ByID:    rapid.Bool().Draw(t, "by ID"),
		Grace:   rapid.SampledFrom([]time.Duration{0, 20 * time.Minute}).Draw(t, "grace"),
		Verify:  rapid.Bool().Draw(t, "verify"),
		NoFacts: rapid.Bool().Draw(t, "no facts"),
		Faults:  rapid.SliceOfN(drawPlannedFault(20), 0, 4).Draw(t, "faults"),
		Acts:    rapid.SliceOfN(anyAct, 0, 4).Draw(t, "acts"),
	}
}

// replaceMachine runs one scenario. It is between the rotator and the world, and checks each deletion.
type replaceMachine struct {
	*world
	findings
	faultPlan
	scenario   replaceScenario
	token      rotation.Token
	rotator    *rotation.Rotator
	second     rotation.Credential  // what is in the second sink
	leftSinkAt map[string]time.Time // when a client ID was replaced in a sink
	revoked    bool                 // an operator has ordered to revoke, so a grace may end early
	lateUntil  time.Time            // until when a late request may be under way
}

// maxClockDifference is the difference to Cloudflare's clock from which on the daemon knows that its own is wrong.
const maxClockDifference = 5 * time.Minute

func (m *replaceMachine) Ready(ctx context.Context) error {
	if err := m.world.Ready(ctx); err != nil {
		return err
	}
	if m.offset.Abs() > maxClockDifference {
		return &rotation.IssuerError{Class: rotation.NotCarriedOut, Operation: "rotate", Err: rotation.ErrClock}
	}
	return nil
}

func (m *replaceMachine) Create(ctx context.Context, req rotation.CreateRequest) (rotation.Issued, error) {
	issued, err := m.world.Create(ctx, req)
	if m.scenario.NoFacts {
		issued.Facts = rotation.TokenFacts{}
	}
	return issued, err
}

func (m *replaceMachine) Delete(ctx context.Context, id string) error {
	client := m.tokenByID(id).clientID
	for _, content := range []rotation.Credential{m.sink, m.second} {
		if content.ClientID == client {
			m.Errorf("%s is deleted while it is in a sink", client)
		}
	}
	if left, was := m.leftSinkAt[client]; was && !m.revoked && time.Since(left) < m.scenario.Grace {
		m.Errorf("%s is deleted %s after it was replaced in a sink, and %s were promised", client, time.Since(left), m.scenario.Grace)
	}
	return m.world.Delete(ctx, id)
}

// Inspect answers that a deleted service token is gone.
func (m *replaceMachine) Inspect(ctx context.Context, id string) (rotation.TokenFacts, error) {
	facts, err := m.world.Inspect(ctx, id)
	if err == nil && m.gone[id] {
		err = &rotation.IssuerError{Class: rotation.Refused, Status: 404, Err: rotation.ErrGone}
	}
	return facts, err
}

// replaceSink is one of the two sinks.
type replaceSink struct {
	*replaceMachine
	name    string
	content *rotation.Credential
}

func (s replaceSink) Name() string { return s.name }

func (s replaceSink) stored() rotation.Stored {
	return rotation.Stored{Exists: true, ClientID: s.content.ClientID, Digest: s.content.ClientSecret.Digest()}
}

func (s replaceSink) Preflight(context.Context) (st rotation.Stored, err error) {
	err = s.do(s.name+" preflight", func() error { st = s.stored(); return nil })
	return st, err
}

func (s replaceSink) Store(_ context.Context, d rotation.Delivery) (st rotation.Stored, err error) {
	err = s.do(s.name+" store", func() error {
		if err := d.MayReplace(s.stored()); err != nil {
			return err
		}
		s.checkReplaced(d)
		s.put(s.content, d.Credential)
		st = s.stored()
		return nil
	})
	return st, err
}

// put stores a credential in a sink.
func (m *replaceMachine) put(content *rotation.Credential, c rotation.Credential) {
	if content.ClientID != c.ClientID {
		m.leftSinkAt[content.ClientID] = time.Now()
	}
	*content = c
}

func (m *replaceMachine) setFaults() {
	m.faultPlan = faultPlan{
		all: m.scenario.Faults, issuer: []string{"create", "find", "delete", "inspect", "ready"},
		onFault: func(how, call string) (late bool) {
			if late = how == "late" && call == "create"; late {
				m.lateUntil = time.Now().Add(lateBy + time.Second)
			}
			return late
		},
	}
	m.world.fault = m.faultPlan.next()
}

func (m *replaceMachine) restart() {
	m.rotator = rotation.New(rotation.Options{Ledger: m, Pending: m, Events: m, Record: m.newRecord(), Saved: m.saved, Now: m.now, Owner: "x", Started: m.now()})
	for range 8 { // the daemon tries again to enroll a token, and does not schedule it before
		if m.catchCrash(func() error { _, err := m.rotator.Enroll(m.Context(), m.token); return err }) == nil {
			return
		}
	}
}

// catchCrash runs do. If the process dies in it, it starts the next one.
func (m *replaceMachine) catchCrash(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(crashed); !ok {
				panic(p)
			}
			err = errors.New("crashed")
			m.rotator = rotation.New(rotation.Options{Ledger: m, Pending: m, Events: m, Record: m.newRecord(), Saved: m.saved, Now: m.now, Owner: "x", Started: m.now()})
		}
	}()
	return do()
}

// advanceNext waits until a rotation or a chore is due, and advances the token.
func (m *replaceMachine) advanceNext() {
	record := m.record()
	at := rotation.NextDue(m.token, record, rotation.Pause{}).At
	if chore := rotation.NextChore(m.token, record); !chore.IsZero() && chore.Before(at) {
		at = chore
	}
	m.sleep(min(max(at.Sub(m.now()), time.Millisecond), 6*time.Hour))
	_ = m.catchCrash(func() error { _, err := m.rotator.Advance(m.Context(), m.token); return err })
	if m.runHooks(m.rotator, m.token, func() bool { return false }) {
		m.restart()
	}
}

func (m *replaceMachine) perform(what string) {
	m.sleep(time.Second)
	tokens := []rotation.Token{m.token}
	clock := func(offset time.Duration) {
		m.sleep(time.Until(m.lateUntil)) // the daemon measures on this clock how long a request may be under way
		m.offset = offset
		_ = m.catchCrash(func() error { _, err := m.rotator.CatchUp(m.Context(), m.token); return err })
	}
	_ = m.catchCrash(func() (err error) {
		switch what {
		case "restart":
			m.restart()
		case "down for 5h":
			m.sleep(5 * time.Hour)
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
				m.put(&m.second, rotation.Credential{ClientID: m.created[i].clientID, ClientSecret: secret.New(m.created[i].current)})
			}
		default:
			_, _, err = m.rotator.Resolve(m.Context(), m.token, rotation.Resolution(what))
		}
		return err
	})
}

// run runs the scenario, and returns the problems.
func (m *replaceMachine) run() []string {
	m.token = m.world.token(m.scenario.Grace)
	m.token.Issuer, m.token.Creator, m.token.Replace = m, m, true
	m.token.Sinks = []rotation.Sink{replaceSink{m, "main", &m.sink}, replaceSink{m, "second", &m.second}}
	m.gone, m.namedByPolicy, m.leftSinkAt = map[string]bool{}, map[string]bool{}, map[string]time.Time{}
	m.second = m.sink
	if !m.scenario.ByID {
		m.sink, m.second = rotation.Credential{}, rotation.Credential{}
		m.token.ID, m.token.Create = "", &rotation.Creation{Name: "ci"}
	}
	m.hooks = newHooksModel(m.Errorf, reload)
	m.token = m.hooks.of(m.token)
	if m.scenario.Verify {
		m.token.Prober, m.token.VerifyWithin = m, time.Minute
	}
	m.restart()
	m.world.calls = nil
	m.setFaults()
	for n := range 16 {
		for _, a := range m.scenario.Acts {
			if a.At == n {
				m.perform(a.What)
			}
		}
		m.advanceNext()
		if len(m.problems) > 0 {
			return m.problems
		}
	}
	m.perform("clock right")
	for end := time.Now().Add(12 * time.Hour); time.Now().Before(end) || m.record().Step != rotation.StepIdle && time.Since(end) < time.Hour; {
		m.advanceNext()
	}
	m.checkEnd()
	return m.problems
}

// checkEnd checks what must be true after the last fault.
func (m *replaceMachine) checkEnd() {
	record := m.record()
	if record.Step != rotation.StepIdle || record.Order != nil || record.Failures > 0 {
		m.Errorf("the token does not become idle: %q, %d failures, %s, %+v", record.Step, record.Failures, record.LastError, record.Order)
		return
	}
	for _, content := range []rotation.Credential{m.sink, m.second} {
		if c := m.tokenByID(record.TokenID); m.gone[c.id] || content.ClientID != c.clientID || content.ClientSecret.Reveal() != c.current {
			m.Errorf("a sink has %s, and %s is in use", content.ClientID, c.clientID)
		}
	}
	for _, c := range append([]*cfToken{&m.cfToken}, m.created...) {
		waits := slices.ContainsFunc(record.Replaced, func(r rotation.Replaced) bool { return r.TokenID == c.id })
		if !m.gone[c.id] && !waits && c.id != record.TokenID && (m.scenario.ByID || c.id != tokenID) {
			m.Errorf("%s (%s) is never deleted", c.clientID, c.name)
		}
	}
	if len(record.Replaced) > 1 {
		m.Errorf("%d replaced service tokens are not deleted yet: %+v", len(record.Replaced), record.Replaced)
	}
	if n := len(m.world.pending); n > 0 {
		m.Errorf("%d answers are still sealed", n)
	}
	slots := map[time.Time]bool{}
	for _, e := range m.events {
		if a, ok := e.Detail.(event.RotationEnded); ok && a.Result == event.ResultSuccess {
			if slots[a.Slot] {
				m.Errorf("the slot %s was served twice", a.Slot)
			}
			slots[a.Slot] = true
		}
	}
	m.hooks.end(record, 2*time.Hour)
}

// TestReplaceMachine runs many random scenarios.
func TestReplaceMachine(t *testing.T) {
	scenarios(t, 150)
	rapid.Check(t, func(rt *rapid.T) {
		scenario := drawReplace(rt)
		var problems []string
		var m *replaceMachine
		synctest.Test(t, func(*testing.T) {
			m = &replaceMachine{scenario: scenario}
			m.world = newWorld(m)
			problems = m.run()
		})
		if len(problems) > 0 {
			rt.Fatalf("%s\n%+v\ncalls: %q\nattempts: %q", strings.Join(problems, "\n"), scenario, m.calls, m.attempts())
		}
	})
}

// TestReplacedTokenKeepsItsGraceAfterTwoLostAnswers: the disk refuses the seals of two rotations, their service tokens
// are delivered from memory, and each time the process dies. The first one is in the sinks until the second replaces
// it there. It is not deleted before its grace is over, although the answers of both are lost.
func TestReplacedTokenKeepsItsGraceAfterTwoLostAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &replaceMachine{scenario: replaceScenario{
			ByID: true, Grace: 20 * time.Minute, NoFacts: true,
			Faults: []plannedFault{{Gap: 7, How: "late", Class: rotation.Throttled, Repeat: 5}},
			Acts:   []act{{At: 1, What: "down for 5h"}, {At: 2, What: "down for 5h"}, {At: 3, What: "restart"}},
		}}
		m.world = newWorld(m)
		if problems := m.run(); len(problems) > 0 {
			t.Error(strings.Join(problems, "\n"))
		}
	})
}
