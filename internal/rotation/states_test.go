package rotation_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
	"rotatord/internal/secret"
)

// update rewrites the tables of docs/states.md with what is seen.
var update = flag.Bool("update", false, "rewrite the tables of docs/states.md")

// faced is a state that an operator can be faced with, as a row of the tables in docs/states.md.
type faced struct {
	name  string
	state rotation.State
	// in runs a test with a token of that kind.
	in func(*testing.T, func(*world, rotation.Token, *rotation.Rotator))
	// prepare brings it about. What it breaks stays broken until mend.
	prepare func(p *facing)
	mend    func(p *facing)
	// operator is set if it does not end by itself even when all is mended. gone: its service token
	// is gone, so that no secret of it works.
	operator, gone bool
}

// facing is one test of such a state.
type facing struct {
	*world
	token rotation.Token
	r     *rotation.Rotator
}

const statesGrace = 40 * time.Minute

func single(t *testing.T, test func(*world, rotation.Token, *rotation.Rotator)) {
	inBubble(t, statesGrace, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.gone = map[string]bool{}
		test(w, token, r)
	})
}

func pair(t *testing.T, test func(*world, rotation.Token, *rotation.Rotator)) {
	inPair(t, statesGrace, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.gone = map[string]bool{}
		test(w, token, r)
	})
}

func created(t *testing.T, test func(*world, rotation.Token, *rotation.Rotator)) {
	inFresh(t, nil, test)
}

func replaced(t *testing.T, test func(*world, rotation.Token, *rotation.Rotator)) {
	inFresh(t, func(token *rotation.Token) { token.Replace = true }, func(w *world, token rotation.Token, r *rotation.Rotator) {
		test(w, token, w.runUntilIdle(r, token))
	})
}

// away has every call of that name fail from now on, and advances until that was met.
func (p *facing) away(call, why string) {
	p.failAll(call, fault{before: errors.New(why)})
	p.advance(p.r, p.token)
}

func (p *facing) lose(call string) {
	p.failOnce(call, fault{after: &rotation.IssuerError{Class: rotation.Unknown, Operation: call}})
	p.advance(p.r, p.token)
	p.fault = nil
}

// die has the process die at a call, and starts the next.
func (p *facing) die(call string, f fault) {
	f.crash = true
	p.failAll(call, f)
	if _, died := p.advance(p.r, p.token); !died {
		p.t.Fatal("it survived")
	}
	p.fault = nil
	p.r = p.start()
	if _, err := p.r.Enroll(p.t.Context(), p.token); err != nil {
		p.t.Fatal(err)
	}
}

// refuse has the new secret be refused where it is tried, for longer than the edge takes.
func (p *facing) refuse() {
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

// back has everything work again.
func back(p *facing) { p.fault = nil }

const errPolicy = "permission denied"

// stateCases are all of them, in the order of the tables.
var stateCases = []faced{
	{name: "idle", state: rotation.StateIdle, in: single},
	{name: "idle, the previous secret in its grace", state: rotation.StateIdle, in: single, prepare: func(p *facing) { p.advance(p.r, p.token) }},
	{name: "paused", state: rotation.StateIdle, in: single, prepare: func(p *facing) {
		_ = p.r.Pause(p.t.Context(), p.token.Name, rotation.Pause{Since: time.Now()})
	}, mend: func(p *facing) { _, _ = p.r.Resume(p.t.Context(), p.token.Name) }},
	{name: "in a freeze", state: rotation.StateIdle, in: single, prepare: func(p *facing) {
		p.token.Timetable.Freezes = []scheduler.Freeze{{Name: "f", From: time.Now().Add(-time.Hour), To: time.Now().Add(3 * time.Hour)}}
	}},
	{name: "rotated by others", state: rotation.StateIdle, in: single, operator: true, prepare: func(p *facing) {
		time.Sleep(10 * time.Minute)
		p.previous, p.previousUntil, p.current, p.updatedAt = p.current, time.Now().Add(time.Hour), p.secretOf(700), time.Now().UTC()
		if record, err := p.r.RecordListing(p.t.Context(), p.token, p.facts()); err != nil || record.Outside.IsZero() {
			p.t.Fatal(record, err)
		}
	}},
	{name: "gone at Cloudflare", state: rotation.StateIdle, in: single, gone: true, operator: true, prepare: func(p *facing) { p.gone[tokenID] = true }},
	{name: "idle, the last attempt failed: Vault is away", state: rotation.StateIdle, in: single, prepare: func(p *facing) {
		p.away("sink preflight", "connection refused")
	}, mend: back},
	{name: "not made yet: the name is taken", state: rotation.StateUncreated, in: created, prepare: func(p *facing) {
		if _, err := p.Create(p.t.Context(), rotation.CreateRequest{Name: "ci"}); err != nil {
			p.t.Fatal(err)
		}
		p.advance(p.r, p.token)
	}, mend: func(p *facing) { p.gone[p.created[0].id] = true }},
	{name: "a lost secret is made up for: Vault is away", state: rotation.StateOwed, in: single, prepare: func(p *facing) {
		p.lose("rotate")
		if _, _, err := p.r.Resolve(p.t.Context(), p.token, rotation.ResolveRotateNow); err != nil {
			p.t.Fatal(err)
		}
		p.away("sink preflight", "connection refused")
	}, mend: back},
	{name: "ordered: Vault is away", state: rotation.StateOrdered, in: single, prepare: func(p *facing) {
		p.failAll("sink preflight", fault{before: errors.New("connection refused")})
		_, _ = p.r.RotateNow(p.t.Context(), p.token, rotation.Overrides{RevokeNow: true}, "ops")
	}, mend: back},
	{name: "ordered, and gone at Cloudflare", state: rotation.StateOrdered, in: single, gone: true, operator: true, prepare: func(p *facing) {
		p.gone[tokenID] = true
		_, _ = p.r.RotateNow(p.t.Context(), p.token, rotation.Overrides{RevokeNow: true}, "ops")
	}},
	{name: "claimed, and the process died", state: rotation.StateClaimed, in: single, prepare: func(p *facing) {
		p.die("ready", fault{before: errors.New("x")})
	}},
	{name: "intent, and the process died", state: rotation.StateIntent, in: single, prepare: func(p *facing) {
		p.die("rotate", fault{after: errors.New("x")})
	}},
	{name: "the disk refuses the seal", state: rotation.StateUnsealed, in: single, prepare: func(p *facing) {
		p.away("seal", "no space left on device")
	}, mend: back},
	{name: "sealed: Vault refuses the write", state: rotation.StateSealed, in: single, prepare: func(p *facing) {
		p.away("sink store", errPolicy)
	}, mend: back},
	{name: "sealed, a pair: Vault refuses the write", state: rotation.StateSealed, in: pair, prepare: func(p *facing) {
		p.away("sink store", errPolicy)
	}, mend: back},
	{name: "sealed, strategy replace: Vault refuses the write", state: rotation.StateSealed, in: replaced, prepare: func(p *facing) {
		p.away("sink store", errPolicy)
	}, mend: back},
	{name: "sealed, and gone at Cloudflare", state: rotation.StateSealed, in: single, gone: true, operator: true, prepare: func(p *facing) {
		p.away("sink store", errPolicy)
		p.gone[tokenID] = true
	}},
	{name: "overtaken", state: rotation.StateOvertaken, in: single, operator: true, prepare: func(p *facing) {
		p.overtake(p.r, p.token, time.Hour)
	}},
	{name: "overtaken, a pair", state: rotation.StateOvertaken, in: pair, operator: true, prepare: func(p *facing) {
		p.away("sink store", errPolicy)
		time.Sleep(2 * time.Second)
		p.partner.previous, p.partner.previousUntil = p.partner.current, time.Now().Add(time.Hour)
		p.partner.current, p.partner.updatedAt = p.secretOf(800), time.Now().UTC()
		p.sink = rotation.Credential{ClientID: p.partner.clientID, ClientSecret: secret.New(p.partner.current)}
		p.fault = nil
		p.advance(p.r, p.token)
	}},
	{name: "overtaken, and gone at Cloudflare", state: rotation.StateOvertaken, in: single, operator: true, gone: true, prepare: func(p *facing) {
		p.away("sink store", errPolicy)
		p.rotateOutside(time.Hour)
		p.gone[tokenID] = true
		p.fault = nil
		p.advance(p.r, p.token)
	}},
	{name: "stored: the ledger cannot be written", state: rotation.StateStored, in: single, prepare: func(p *facing) {
		p.away("erase", "input/output error")
	}, mend: back},
	{name: "stored: the new secret is refused", state: rotation.StateUnverified, in: single, operator: true, prepare: func(p *facing) { p.refuse() }},
	{name: "stored: the new secret is refused, and cannot be opened any more", state: rotation.StateUnverified, in: single, operator: true, prepare: func(p *facing) {
		p.refuse()
		p.unreadable = true
		p.advance(p.r, p.token)
	}, mend: func(p *facing) { p.unreadable = false }},
	{name: "in doubt, carried out", state: rotation.StateDoubt, in: single, prepare: func(p *facing) { p.lose("rotate") }},
	{name: "in doubt, shown to be carried out", state: rotation.StateDoubt, in: single, prepare: func(p *facing) {
		p.lose("rotate")
		if _, _, err := p.r.Resolve(p.t.Context(), p.token, rotation.ResolveLook); err != nil {
			p.t.Fatal(err)
		}
	}},
	{name: "in doubt, not carried out", state: rotation.StateDoubt, in: single, prepare: func(p *facing) {
		p.failOnce("rotate", fault{before: &rotation.IssuerError{Class: rotation.Unknown, Operation: "rotate"}})
		p.advance(p.r, p.token)
		p.fault = nil
	}},
	{name: "in doubt, Cloudflare does not answer", state: rotation.StateDoubt, in: single, prepare: func(p *facing) {
		p.lose("rotate")
		p.failAll("inspect", fault{before: &rotation.IssuerError{Class: rotation.NotCarriedOut, Operation: "get"}})
	}, mend: back},
	{name: "in doubt, a secret of a third format", state: rotation.StateDoubt, in: single, prepare: func(p *facing) {
		p.secretOf = func(n int) string { return fmt.Sprint("a third format ", n) }
		p.advance(p.r, p.token)
	}},
	{name: "in doubt, what was sealed cannot be opened", state: rotation.StateDoubt, in: single, prepare: func(p *facing) {
		p.away("sink store", errPolicy)
		p.fault, p.unreadable = nil, true
		p.advance(p.r, p.token)
		p.unreadable = false
	}},
	{name: "in doubt, a pair", state: rotation.StateDoubt, in: pair, prepare: func(p *facing) { p.lose("rotate") }},
	{name: "in doubt, to be made", state: rotation.StateDoubt, in: created, prepare: func(p *facing) { p.lose("create") }},
	{name: "in doubt, strategy replace", state: rotation.StateDoubt, in: replaced, prepare: func(p *facing) { p.lose("create") }},
	{name: "in doubt, and gone at Cloudflare", state: rotation.StateDoubt, in: single, operator: true, gone: true, prepare: func(p *facing) {
		p.lose("rotate")
		p.gone[tokenID] = true
	}},
	{name: "replaced, and a policy names the old one", state: rotation.StateIdle, in: replaced, prepare: func(p *facing) {
		p.namedByPolicy[p.created[0].id] = true
		p.advance(p.r, p.token)
		time.Sleep(time.Until(rotation.NextChore(p.token, p.record())))
		p.advance(p.r, p.token)
		if len(p.record().Replaced) != 1 || p.record().Replaced[0].Failures == 0 {
			p.t.Fatal(p.record())
		}
	}, mend: func(p *facing) { clear(p.namedByPolicy) }},
}

// typed is a command that can be typed, as a column of the tables.
type typed struct {
	name string
	do   func(p *facing) (rotation.Record, bool, error) // looks: nothing was decided
}

func resolving(how rotation.Resolution) func(*facing) (rotation.Record, bool, error) {
	return func(p *facing) (rotation.Record, bool, error) {
		record, verdict, err := p.r.Resolve(p.t.Context(), p.token, how)
		return record, err == nil && !verdict.Resolved, err
	}
}

func granting(do func(*facing) (rotation.Record, error)) func(*facing) (rotation.Record, bool, error) {
	return func(p *facing) (rotation.Record, bool, error) {
		record, err := do(p)
		return record, false, err
	}
}

// allCommands are all commands that change something, in the groups of the tables.
var allCommands = [][]typed{{
	{"rotate", granting(func(p *facing) (rotation.Record, error) {
		return p.r.RotateNow(p.t.Context(), p.token, rotation.Overrides{}, "ops")
	})},
	{"rotate --revoke-now", granting(func(p *facing) (rotation.Record, error) {
		return p.r.RotateNow(p.t.Context(), p.token, rotation.Overrides{RevokeNow: true}, "ops")
	})},
	{"rotate --all --revoke-now", granting(func(p *facing) (rotation.Record, error) {
		all := p.r.OrderAll(p.t.Context(), []rotation.Token{p.token}, rotation.Overrides{RevokeNow: true}, "ops")
		return all[0].Record, all[0].Err
	})},
	{"rotate --cancel", granting(func(p *facing) (rotation.Record, error) {
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
	{"revoke-previous", granting(func(p *facing) (rotation.Record, error) { return p.r.RevokePrevious(p.t.Context(), p.token) })},
	{"revoke-previous --override-in-use", granting(func(p *facing) (rotation.Record, error) { return p.r.RevokeInUse(p.t.Context(), p.token) })},
	{"extend-grace 2h", granting(func(p *facing) (rotation.Record, error) {
		return p.r.ExtendGrace(p.t.Context(), p.token, 2*time.Hour)
	})},
	{"pause", granting(func(p *facing) (rotation.Record, error) {
		return rotation.Record{}, p.r.Pause(p.t.Context(), p.token.Name, rotation.Pause{Since: time.Now()})
	})},
	{"resume", granting(func(p *facing) (rotation.Record, error) {
		_, err := p.r.Resume(p.t.Context(), p.token.Name)
		return rotation.Record{}, err
	})},
}}

// face runs a test in a state.
func (f faced) face(t *testing.T, test func(p *facing)) {
	t.Helper()
	f.in(t, func(w *world, token rotation.Token, r *rotation.Rotator) {
		p := &facing{w, token, r}
		w.mayCutOff = true
		if f.prepare != nil {
			f.prepare(p)
		}
		if got := p.r.StateOf(p.token, p.record()); got != f.state {
			p.t.Fatal(f.name, ": the state is", got)
		}
		test(p)
	})
}

// isRefusal reports whether nothing was changed because a command does not fit the state.
func isRefusal(err error) bool {
	return slices.ContainsFunc([]error{rotation.ErrNotRotated, rotation.ErrNotInDoubt, rotation.ErrUnfit, rotation.ErrNoPrevious, rotation.ErrNoOrder},
		func(kind error) bool { return errors.Is(err, kind) })
}

// outcome is what came of a command, as the tables have it.
func (p *facing) outcome(command typed) string {
	record, looks, err := command.do(p)
	switch {
	case isRefusal(err):
		if p.r.StateOf(p.token, record) != rotation.StateIdle && !strings.Contains(err.Error(), "rotatord ") && !strings.Contains(err.Error(), "ends by itself") {
			p.t.Errorf("%s: the refusal names nothing to type: %v", command.name, err)
		}
		return "refused"
	case err != nil && record.Order == nil:
		return "fails"
	case record.Order != nil:
		return "ordered"
	case looks:
		return "looks"
	}
	return "done"
}

// ends mends what is broken, lets the daemon work, and reports whether nothing is left in progress
// and consumers have a secret that works.
func (p *facing) ends(f faced) error {
	if f.mend != nil {
		f.mend(p)
	}
	_, _ = p.r.Resume(p.t.Context(), p.token.Name)
	began := time.Now()
	for range 80 {
		record := p.record()
		due := rotation.NextDue(p.token, record, rotation.Pause{})
		chore := rotation.NextChore(p.token, record)
		calm := due.Reason == rotation.DueSlot || due.Reason == rotation.DueGrace || due.Reason == rotation.DueFreeze || f.gone
		if record.Step == rotation.StepIdle && record.Order == nil && calm && (record.Outside.IsZero() || f.gone) && (chore.IsZero() || f.gone) {
			if f.gone {
				return nil
			}
			for _, c := range append([]*cfToken{&p.cfToken, &p.partner}, p.created...) {
				if c.clientID == p.sink.ClientID && !p.world.gone[c.id] && c.accepted(p.sink.ClientSecret.Reveal()) {
					return nil
				}
			}
			return fmt.Errorf("consumers have a secret that does not work: %+v", record)
		}
		at := due.At
		if !chore.IsZero() && chore.Before(at) {
			at = chore
		}
		if record.Step == rotation.StepIdle && record.Order == nil && calm && chore.IsZero() { // until an operator does something
			break
		}
		time.Sleep(time.Until(at))
		if _, died := p.advanceNow(p.r, p.token); died {
			p.t.Fatal("it died")
		}
	}
	return fmt.Errorf("after %s it has not ended (%s): %+v", time.Since(began), p.r.StateOf(p.token, p.record()), p.record())
}

// troubles are what an inventory and the operators have shown.
func (p *facing) troubles() rotation.Troubles {
	return rotation.Troubles{Gone: len(p.world.gone) > 0 && p.world.gone[tokenID], Pause: p.r.PauseOf(p.token.Name)}
}

// TestStatesAreDocumented has every command typed in every state, and compares what comes of it with
// the tables of docs/states.md. With -update it rewrites them.
func TestStatesAreDocumented(t *testing.T) {
	const path = "../../docs/states.md"
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, group := range allCommands {
		names := make([]string, len(group))
		for j, command := range group {
			names[j] = "`" + command.name + "`"
		}
		rows := []string{"| state | " + strings.Join(names, " | ") + " |"}
		rows = append(rows, "| --- |"+strings.Repeat(" --- |", len(group)))
		for _, f := range stateCases {
			var row strings.Builder
			row.WriteString("| " + f.name + " |")
			for _, command := range group {
				f.face(t, func(p *facing) { row.WriteString(" " + p.outcome(command) + " |") })
			}
			rows = append(rows, row.String())
		}
		if !strings.Contains(string(b), strings.Join(rows, "\n")+"\n") {
			_, documented, _ := strings.Cut(string(b), rows[0]+"\n")
			documented, _, _ = strings.Cut(documented, "\n\n")
			if *update && documented != "" {
				b = []byte(strings.Replace(string(b), documented, strings.Join(rows[1:], "\n"), 1))
				continue
			}
			t.Errorf("table %d of docs/states.md is another (-seen +documented):\n%s\nas seen:\n%s", i+1,
				cmp.Diff(rows[1:], strings.Split(documented, "\n")), strings.Join(rows, "\n"))
		}
	}
	if *update {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEveryStateEnds: a state ends by itself once what is broken is mended, whatever was typed before
// that; and where an operator has to do something, each command that status shows ends it.
func TestEveryStateEnds(t *testing.T) {
	for _, f := range stateCases {
		t.Run(f.name, func(t *testing.T) {
			if !f.operator {
				f.face(t, func(p *facing) {
					if err := p.ends(f); err != nil {
						t.Error("nothing typed:", err)
					}
				})
				for _, command := range slices.Concat(allCommands...) {
					f.face(t, func(p *facing) {
						_, _, _ = command.do(p)
						if err := p.ends(f); err != nil {
							t.Errorf("%s: %v", command.name, err)
						}
					})
				}
			}
			var exits []rotation.Exit
			f.face(t, func(p *facing) { exits = p.r.Exits(p.token, p.record(), p.troubles()) })
			if len(exits) == 0 && f.state != rotation.StateIdle {
				t.Fatal("status shows no exit")
			}
			ended := 0
			for _, exit := range exits {
				if exit.Does == "" {
					t.Error("an exit that says nothing")
				}
				if exit.Command == "" {
					continue
				}
				command := commandNamed(t, exit.Command)
				f.face(t, func(p *facing) {
					_, looks, err := command.do(p)
					refused := isRefusal(err)
					switch {
					case refused && !strings.HasPrefix(exit.Does, "Only if"):
						t.Errorf("status offers %q, and it is refused: %v", exit.Command, err)
					case refused, looks:
					default:
						if err := p.ends(f); err != nil {
							t.Errorf("status offers %q, and that is a dead end: %v", exit.Command, err)
						}
						ended++
					}
				})
			}
			if f.operator && ended == 0 && f.state != rotation.StateIdle {
				t.Error("no command ends it")
			}
		})
	}
}

// commandNamed is the column of what status offers.
func commandNamed(t *testing.T, command string) typed {
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
	t.Fatalf("status offers %q, which no test types", command)
	return typed{}
}

// TestRevokeOrderWorksInEveryState: in every state an order to revoke is taken or carried out, and once what
// is broken is mended the secret that consumers had is dead.
func TestRevokeOrderWorksInEveryState(t *testing.T) {
	for _, f := range stateCases {
		if f.gone || f.state == rotation.StateUncreated {
			continue // its secrets are dead already, or there are none
		}
		t.Run(f.name, func(t *testing.T) {
			f.face(t, func(p *facing) {
				leaked := p.sink
				record, err := p.r.RotateNow(p.t.Context(), p.token, rotation.Overrides{RevokeNow: true}, "ops")
				if errors.Is(err, rotation.ErrNotRotated) || err != nil && record.Order == nil {
					t.Fatal("the order was refused:", err)
				}
				if err := p.ends(f); err != nil {
					t.Fatal(err)
				}
				for _, c := range append([]*cfToken{&p.cfToken, &p.partner}, p.created...) {
					if leaked.ClientID == c.clientID && !p.world.gone[c.id] && c.accepted(leaked.ClientSecret.Reveal()) {
						t.Error("the leaked secret works")
					}
				}
			})
		})
	}
}

// TestEveryStateHasAnExit fails if a step or a state is added that this package does not say how to end.
func TestEveryStateHasAnExit(t *testing.T) {
	known := make(map[string]bool)
	for _, state := range rotation.States {
		known[string(state)] = true
		if !slices.ContainsFunc(stateCases, func(f faced) bool { return f.state == state }) {
			t.Errorf("no test brings about the state %q", state)
		}
	}
	for _, value := range constants(t, "states.go", "State") {
		if !known[value] {
			t.Errorf("the state %q is not in States", value)
		}
	}
	r := newWorld(t).start()
	for _, step := range constants(t, "record.go", "Step") {
		record := rotation.Record{Step: rotation.Step(step), Work: &rotation.Work{RotationID: "R"}, Doubt: &rotation.Doubt{}}
		state := r.StateOf(rotation.Token{Name: "ci"}, record)
		if !known[string(state)] {
			t.Errorf("the step %q is the unknown state %q", step, state)
		}
		if step != "" && len(r.Exits(rotation.Token{Name: "ci"}, record, rotation.Troubles{})) == 0 {
			t.Errorf("the step %q has no exit", step)
		}
	}
	for what, now := range map[string]rotation.Troubles{
		"gone": {Gone: true}, "disabled": {Disabled: true}, "expired": {Expired: true},
		"paused": {Pause: rotation.Pause{Since: time.Now()}}, "frozen": {Freeze: "f"},
	} {
		if len(r.Exits(rotation.Token{Name: "ci"}, rotation.Record{}, now)) == 0 {
			t.Errorf("%s: no exit is shown", what)
		}
	}
	if how := constants(t, "resolve.go", "Resolve"); len(how) != len(rotation.Resolutions) {
		t.Errorf("%d resolutions are known, and there are %q", len(rotation.Resolutions), how)
	}
}
