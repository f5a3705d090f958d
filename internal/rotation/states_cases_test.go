package rotation_test

import (
	"errors"
	"fmt"
	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
	"rotatord/internal/secret"
	"slices"
	"strings"
	"testing"
	"time"
)

// stateCase is a state of a token that an operator may have to handle, as a row of the tables in docs/states.md.
type stateCase struct {
	name  string
	state rotation.State
	// in runs a test with a token of the kind that the state needs.
	in func(*testing.T, func(*world, rotation.Token, *rotation.Rotator))
	// prepare brings the token into the state. What it breaks stays broken until repair.
	prepare func(p *stateTest)
	repair  func(p *stateTest)
	// needsOperator is set if the state does not end by itself, even after repair. gone is set if the service
	// token is deleted, so that none of its secrets works.
	needsOperator, gone bool
}

// stateTest is one test of a stateCase.
type stateTest struct {
	*world
	token rotation.Token
	r     *rotation.Rotator
}

const statesGrace = 40 * time.Minute

func inSingle(t *testing.T, test func(*world, rotation.Token, *rotation.Rotator)) {
	inBubble(t, statesGrace, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.gone = map[string]bool{}
		test(w, token, r)
	})
}

func inPairCase(t *testing.T, test func(*world, rotation.Token, *rotation.Rotator)) {
	inPair(t, statesGrace, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.gone = map[string]bool{}
		test(w, token, r)
	})
}

func inCreated(t *testing.T, test func(*world, rotation.Token, *rotation.Rotator)) {
	inFresh(t, nil, test)
}

func inReplaced(t *testing.T, test func(*world, rotation.Token, *rotation.Rotator)) {
	inFresh(t, func(token *rotation.Token) { token.Replace = true }, func(w *world, token rotation.Token, r *rotation.Rotator) {
		test(w, token, w.runUntilIdle(r, token))
	})
}

// failAndAdvance makes every call of that name fail from now on, and advances the token once.
func (p *stateTest) failAndAdvance(call, why string) {
	p.failAll(call, fault{before: errors.New(why)})
	p.advance(p.r, p.token)
}

// loseAnswer advances the token once, and loses the answer to the call.
func (p *stateTest) loseAnswer(call string) {
	p.failOnce(call, fault{after: &rotation.IssuerError{Class: rotation.Unknown, Operation: call}})
	p.advance(p.r, p.token)
	p.fault = nil
}

// crashAt advances the token, makes the process die at a call, and starts the next process.
func (p *stateTest) crashAt(call string, f fault) {
	f.crash = true
	p.failAll(call, f)
	if _, died := p.advance(p.r, p.token); !died {
		p.t.Fatal("it did not die")
	}
	p.fault = nil
	p.r = p.start()
	if _, err := p.r.Enroll(p.t.Context(), p.token); err != nil {
		p.t.Fatal(err)
	}
}

// refuseNewSecret makes verify refuse the new secret for longer than the edge needs to know a secret.
func (p *stateTest) refuseNewSecret() {
	p.token = verifying(p.world, p.token)
	p.fault = func(_ int, call string) fault {
		if call == "probe" && p.rotates == 1 {
			return fault{before: errors.New("401")}
		}
		return fault{}
	}
	for p.record().Failures == 0 {
		p.advance(p.r, p.token)
	}
}

// clearFaults makes all calls work again.
func clearFaults(p *stateTest) { p.fault = nil }

const errPolicy = "permission denied"

// stateCases are all cases, in the order of the tables.
var stateCases = []stateCase{
	{name: "idle", state: rotation.StateIdle, in: inSingle},
	{name: "idle, the previous secret in its grace", state: rotation.StateIdle, in: inSingle, prepare: func(p *stateTest) { p.advance(p.r, p.token) }},
	{name: "paused", state: rotation.StateIdle, in: inSingle, prepare: func(p *stateTest) {
		_ = p.r.Pause(p.t.Context(), p.token.Name, rotation.Pause{Since: time.Now()})
	}, repair: func(p *stateTest) { _, _ = p.r.Resume(p.t.Context(), p.token.Name) }},
	{name: "in a freeze", state: rotation.StateIdle, in: inSingle, prepare: func(p *stateTest) {
		p.token.Timetable.Freezes = []scheduler.Freeze{{Name: "f", From: time.Now().Add(-time.Hour), To: time.Now().Add(3 * time.Hour)}}
	}},
	{name: "rotated by others", state: rotation.StateIdle, in: inSingle, needsOperator: true, prepare: func(p *stateTest) {
		time.Sleep(10 * time.Minute)
		p.previous, p.previousUntil, p.current, p.updatedAt = p.current, time.Now().Add(time.Hour), p.secretOf(700), time.Now().UTC()
		if record, err := p.r.RecordListing(p.t.Context(), p.token, p.facts()); err != nil || record.Outside.IsZero() {
			p.t.Fatal(record, err)
		}
	}},
	{name: "a sink holds another secret", state: rotation.StateIdle, in: inSingle, needsOperator: true, prepare: func(p *stateTest) {
		p.advance(p.r, p.token)
		p.sink = rotation.Credential{ClientID: clientID, ClientSecret: secret.New(p.secretOf(900))}
		p.current, p.version = p.secretOf(900), p.version+1 // the person who rotated by hand knows it
		p.look(p.r, p.token)
	}},
	{name: "a sink was emptied", state: rotation.StateIdle, in: inSingle, needsOperator: true, prepare: func(p *stateTest) {
		p.advance(p.r, p.token)
		p.sink = rotation.Credential{}
		p.look(p.r, p.token)
	}},
	{name: "gone at Cloudflare", state: rotation.StateIdle, in: inSingle, gone: true, needsOperator: true, prepare: func(p *stateTest) { p.gone[tokenID] = true }},
	{name: "idle, the last attempt failed: Vault is away", state: rotation.StateIdle, in: inSingle, prepare: func(p *stateTest) {
		p.failAndAdvance("sink preflight", "connection refused")
	}, repair: clearFaults},
	{name: "not created yet: the name is taken", state: rotation.StateUncreated, in: inCreated, prepare: func(p *stateTest) {
		p.mayLeave["create ci"] = true // another program has created it
		if _, err := p.Create(p.t.Context(), rotation.CreateRequest{Name: "ci"}); err != nil {
			p.t.Fatal(err)
		}
		p.advance(p.r, p.token)
	}, repair: func(p *stateTest) { p.gone[p.created[0].id] = true }},
	{name: "a reissue is owed: Vault is away", state: rotation.StateOwed, in: inSingle, prepare: func(p *stateTest) {
		p.loseAnswer("rotate")
		if _, _, err := p.r.Resolve(p.t.Context(), p.token, rotation.ResolveRotateNow); err != nil {
			p.t.Fatal(err)
		}
		p.failAndAdvance("sink preflight", "connection refused")
	}, repair: clearFaults},
	{name: "ordered: Vault is away", state: rotation.StateOrdered, in: inSingle, prepare: func(p *stateTest) {
		p.failAll("sink preflight", fault{before: errors.New("connection refused")})
		_, _ = p.r.RotateNow(p.t.Context(), p.token, rotation.Overrides{RevokeNow: true}, "ops")
	}, repair: clearFaults},
	{name: "ordered, and gone at Cloudflare", state: rotation.StateOrdered, in: inSingle, gone: true, needsOperator: true, prepare: func(p *stateTest) {
		p.gone[tokenID] = true
		_, _ = p.r.RotateNow(p.t.Context(), p.token, rotation.Overrides{RevokeNow: true}, "ops")
	}},
	{name: "claimed, and the process died", state: rotation.StateClaimed, in: inSingle, prepare: func(p *stateTest) {
		p.crashAt("ready", fault{before: errors.New("x")})
	}},
	{name: "intent, and the process died", state: rotation.StateIntent, in: inSingle, prepare: func(p *stateTest) {
		p.crashAt("rotate", fault{after: errors.New("x")})
	}},
	{name: "the disk refuses the seal", state: rotation.StateUnsealed, in: inSingle, prepare: func(p *stateTest) {
		p.failAndAdvance("seal", "no space left on device")
	}, repair: clearFaults},
	{name: "sealed: Vault refuses the write", state: rotation.StateSealed, in: inSingle, prepare: func(p *stateTest) {
		p.failAndAdvance("sink store", errPolicy)
	}, repair: clearFaults},
	{name: "sealed, a pair: Vault refuses the write", state: rotation.StateSealed, in: inPairCase, prepare: func(p *stateTest) {
		p.failAndAdvance("sink store", errPolicy)
	}, repair: clearFaults},
	{name: "sealed, strategy replace: Vault refuses the write", state: rotation.StateSealed, in: inReplaced, prepare: func(p *stateTest) {
		p.failAndAdvance("sink store", errPolicy)
	}, repair: clearFaults},
	{name: "sealed, and gone at Cloudflare", state: rotation.StateSealed, in: inSingle, gone: true, needsOperator: true, prepare: func(p *stateTest) {
		p.failAndAdvance("sink store", errPolicy)
		p.gone[tokenID] = true
	}},
	{name: "overtaken", state: rotation.StateOvertaken, in: inSingle, needsOperator: true, prepare: func(p *stateTest) {
		p.overtake(p.r, p.token, time.Hour)
	}},
	{name: "overtaken, a pair", state: rotation.StateOvertaken, in: inPairCase, needsOperator: true, prepare: func(p *stateTest) {
		p.failAndAdvance("sink store", errPolicy)
		time.Sleep(2 * time.Second)
		p.partner.previous, p.partner.previousUntil = p.partner.current, time.Now().Add(time.Hour)
		p.partner.current, p.partner.updatedAt = p.secretOf(800), time.Now().UTC()
		p.sink = rotation.Credential{ClientID: p.partner.clientID, ClientSecret: secret.New(p.partner.current)}
		p.fault = nil
		p.advance(p.r, p.token)
	}},
	{name: "overtaken, and gone at Cloudflare", state: rotation.StateOvertaken, in: inSingle, needsOperator: true, gone: true, prepare: func(p *stateTest) {
		p.failAndAdvance("sink store", errPolicy)
		p.rotateOutside(time.Hour)
		p.gone[tokenID] = true
		p.fault = nil
		p.advance(p.r, p.token)
	}},
	{name: "stored: the ledger cannot be written", state: rotation.StateStored, in: inSingle, prepare: func(p *stateTest) {
		p.failAndAdvance("erase", "input/output error")
	}, repair: clearFaults},
	{name: "stored: the new secret is refused", state: rotation.StateUnverified, in: inSingle, needsOperator: true, prepare: func(p *stateTest) { p.refuseNewSecret() }},
	{name: "stored: the new secret is refused, and cannot be opened any more", state: rotation.StateUnverified, in: inSingle, needsOperator: true, prepare: func(p *stateTest) {
		p.refuseNewSecret()
		p.unreadable = true
		p.advance(p.r, p.token)
	}, repair: func(p *stateTest) { p.unreadable = false }},
	{name: "in doubt, carried out", state: rotation.StateDoubt, in: inSingle, prepare: func(p *stateTest) { p.loseAnswer("rotate") }},
	{name: "in doubt, shown to be carried out", state: rotation.StateDoubt, in: inSingle, prepare: func(p *stateTest) {
		p.loseAnswer("rotate")
		if _, _, err := p.r.Resolve(p.t.Context(), p.token, rotation.ResolveLook); err != nil {
			p.t.Fatal(err)
		}
	}},
	{name: "in doubt, not carried out", state: rotation.StateDoubt, in: inSingle, prepare: func(p *stateTest) {
		p.failOnce("rotate", fault{before: &rotation.IssuerError{Class: rotation.Unknown, Operation: "rotate"}})
		p.advance(p.r, p.token)
		p.fault = nil
	}},
	{name: "in doubt, Cloudflare does not answer", state: rotation.StateDoubt, in: inSingle, prepare: func(p *stateTest) {
		p.loseAnswer("rotate")
		p.failAll("inspect", fault{before: &rotation.IssuerError{Class: rotation.NotCarriedOut, Operation: "get"}})
	}, repair: clearFaults},
	{name: "in doubt, a secret of a third format", state: rotation.StateDoubt, in: inSingle, prepare: func(p *stateTest) {
		p.secretOf = func(n int) string { return fmt.Sprint("a third format ", n) }
		p.advance(p.r, p.token)
	}},
	{name: "in doubt, what was sealed cannot be opened", state: rotation.StateDoubt, in: inSingle, prepare: func(p *stateTest) {
		p.failAndAdvance("sink store", errPolicy)
		p.fault, p.unreadable = nil, true
		p.advance(p.r, p.token)
		p.unreadable = false
	}},
	{name: "in doubt, a pair", state: rotation.StateDoubt, in: inPairCase, prepare: func(p *stateTest) { p.loseAnswer("rotate") }},
	{name: "in doubt, to be created", state: rotation.StateDoubt, in: inCreated, prepare: func(p *stateTest) { p.loseAnswer("create") }},
	{name: "in doubt, strategy replace", state: rotation.StateDoubt, in: inReplaced, prepare: func(p *stateTest) { p.loseAnswer("create") }},
	{name: "in doubt, and gone at Cloudflare", state: rotation.StateDoubt, in: inSingle, needsOperator: true, gone: true, prepare: func(p *stateTest) {
		p.loseAnswer("rotate")
		p.gone[tokenID] = true
	}},
	{name: "replaced, and a policy names the old one", state: rotation.StateIdle, in: inReplaced, prepare: func(p *stateTest) {
		p.namedByPolicy[p.created[0].id] = true
		p.advance(p.r, p.token)
		time.Sleep(time.Until(rotation.NextChore(p.token, p.record())))
		p.advance(p.r, p.token)
		if len(p.record().Replaced) != 1 || p.record().Replaced[0].Failures == 0 {
			p.t.Fatal(p.record())
		}
	}, repair: func(p *stateTest) { clear(p.namedByPolicy) }},
}

// operatorCommand is a command that an operator can type, as a column of the tables.
type operatorCommand struct {
	name string
	do   func(p *stateTest) (rotation.Record, bool, error) // the bool is set if the command only looked
}

// resolving returns the command that resolves a doubt in that way.
func resolving(how rotation.Resolution) func(*stateTest) (rotation.Record, bool, error) {
	return func(p *stateTest) (rotation.Record, bool, error) {
		record, verdict, err := p.r.Resolve(p.t.Context(), p.token, how)
		return record, err == nil && !verdict.Resolved, err
	}
}

// changing returns the command that does something which changes the record.
func changing(do func(*stateTest) (rotation.Record, error)) func(*stateTest) (rotation.Record, bool, error) {
	return func(p *stateTest) (rotation.Record, bool, error) {
		record, err := do(p)
		return record, false, err
	}
}

// allCommands are all commands that change something, in the groups of the tables.
var allCommands = [][]operatorCommand{{
	{"rotate", changing(func(p *stateTest) (rotation.Record, error) {
		return p.r.RotateNow(p.t.Context(), p.token, rotation.Overrides{}, "ops")
	})},
	{"rotate --revoke-now", changing(func(p *stateTest) (rotation.Record, error) {
		return p.r.RotateNow(p.t.Context(), p.token, rotation.Overrides{RevokeNow: true}, "ops")
	})},
	{"rotate --all --revoke-now", changing(func(p *stateTest) (rotation.Record, error) {
		all := p.r.OrderAll(p.t.Context(), []rotation.Token{p.token}, rotation.Overrides{RevokeNow: true}, "ops")
		return all[0].Record, all[0].Err
	})},
	{"rotate --cancel", changing(func(p *stateTest) (rotation.Record, error) {
		return p.r.CancelOrder(p.t.Context(), p.token)
	})},
}, {
	{"resolve", resolving(rotation.ResolveLook)},
	{"--deliver", resolving(rotation.ResolveDeliver)},
	{"--drop", resolving(rotation.ResolveDrop)},
	{"--rotate-now", resolving(rotation.ResolveRotateNow)},
	{"--assume-not-rotated", resolving(rotation.ResolveAssumeNotRotated)},
	{"--accept", resolving(rotation.ResolveAccept)},
}, {
	{"revoke-previous", changing(func(p *stateTest) (rotation.Record, error) { return p.r.RevokePrevious(p.t.Context(), p.token) })},
	{"revoke-previous --override-in-use", changing(func(p *stateTest) (rotation.Record, error) { return p.r.RevokeInUse(p.t.Context(), p.token) })},
	{"extend-grace 2h", changing(func(p *stateTest) (rotation.Record, error) {
		return p.r.ExtendGrace(p.t.Context(), p.token, 2*time.Hour)
	})},
	{"pause", changing(func(p *stateTest) (rotation.Record, error) {
		return rotation.Record{}, p.r.Pause(p.t.Context(), p.token.Name, rotation.Pause{Since: time.Now()})
	})},
	{"resume", changing(func(p *stateTest) (rotation.Record, error) {
		_, err := p.r.Resume(p.t.Context(), p.token.Name)
		return rotation.Record{}, err
	})},
}}

// commandNamed returns the operatorCommand for a command line that status shows.
func commandNamed(t *testing.T, command string) operatorCommand {
	t.Helper()
	fields := strings.Fields(command)
	name := fields[1]
	if len(fields) > 3 {
		name += " " + strings.Join(fields[3:], " ")
	}
	switch {
	case strings.HasPrefix(name, "resolve --"):
		name = strings.TrimPrefix(name, "resolve ")
	case strings.HasPrefix(name, "extend-grace"):
		name = "extend-grace 2h"
	}
	for _, c := range slices.Concat(allCommands...) {
		if c.name == name {
			return c
		}
	}
	t.Fatalf("status shows %q, which no test types", command)
	return operatorCommand{}
}
