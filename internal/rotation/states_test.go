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
)

// update rewrites the tables of docs/states.md with the observed results.
var update = flag.Bool("update", false, "rewrite the tables of docs/states.md")

// run runs a test with a token that is in the state.
func (f stateCase) run(t *testing.T, test func(p *stateTest)) {
	t.Helper()
	f.in(t, func(w *world, token rotation.Token, r *rotation.Rotator) {
		p := &stateTest{w, token, r}
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

// isRefusal reports whether a command changed nothing because it does not fit the state.
func isRefusal(err error) bool {
	return slices.ContainsFunc([]error{rotation.ErrNotRotated, rotation.ErrNotInDoubt, rotation.ErrUnfit, rotation.ErrNoPrevious, rotation.ErrNoOrder},
		func(kind error) bool { return errors.Is(err, kind) })
}

// outcome types a command, and returns its result in the words of the tables.
func (p *stateTest) outcome(command operatorCommand) string {
	record, lookedOnly, err := command.do(p)
	switch {
	case isRefusal(err):
		if p.r.StateOf(p.token, record) != rotation.StateIdle && !strings.Contains(err.Error(), "rotatord ") && !strings.Contains(err.Error(), "ends by itself") {
			p.t.Errorf("%s: the refusal names no command to type: %v", command.name, err)
		}
		return "refused"
	case err != nil && record.Order == nil:
		return "fails"
	case record.Order != nil:
		return "ordered"
	case lookedOnly:
		return "looks"
	}
	return "done"
}

// repairAndFinish repairs what is broken, and lets the daemon work. It returns an error if a rotation stays in
// progress, or if consumers do not have a secret that works.
func (p *stateTest) repairAndFinish(f stateCase) error {
	if f.repair != nil {
		f.repair(p)
	}
	_, _ = p.r.Resume(p.t.Context(), p.token.Name)
	began := time.Now()
	for range 80 {
		record := p.record()
		due := rotation.NextDue(p.token, record, rotation.Pause{})
		chore := rotation.NextChore(p.token, record)
		waitsForSchedule := due.Reason == rotation.DueSlot || due.Reason == rotation.DueGrace || due.Reason == rotation.DueFreeze || f.gone
		if record.Step == rotation.StepIdle && record.Order == nil && waitsForSchedule && (record.Outside.IsZero() || f.gone) && (chore.IsZero() || f.gone) {
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
		if record.Step == rotation.StepIdle && record.Order == nil && waitsForSchedule && chore.IsZero() { // the daemon waits for an operator
			break
		}
		time.Sleep(time.Until(at))
		if _, died := p.advanceNow(p.r, p.token); died {
			p.t.Fatal("it died")
		}
	}
	return fmt.Errorf("after %s the state (%s) has not ended: %+v", time.Since(began), p.r.StateOf(p.token, p.record()), p.record())
}

// troubles returns what is known of the token outside its record: from the listing, and from pauses.
func (p *stateTest) troubles() rotation.Troubles {
	return rotation.Troubles{Gone: len(p.world.gone) > 0 && p.world.gone[tokenID], Pause: p.r.PauseOf(p.token.Name)}
}

// TestStatesAreDocumented types every command in every state, and compares the results with the tables of
// docs/states.md. With -update it rewrites the tables.
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
				f.run(t, func(p *stateTest) { row.WriteString(" " + p.outcome(command) + " |") })
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
			t.Errorf("table %d of docs/states.md is different (-observed +documented):\n%s\nas observed:\n%s", i+1,
				cmp.Diff(rows[1:], strings.Split(documented, "\n")), strings.Join(rows, "\n"))
		}
	}
	if *update {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEveryStateEnds: a state ends by itself after what is broken is repaired, whatever command was typed before.
// If the state needs an operator, each command that status shows ends it.
func TestEveryStateEnds(t *testing.T) {
	for _, f := range stateCases {
		t.Run(f.name, func(t *testing.T) {
			if !f.needsOperator {
				f.run(t, func(p *stateTest) {
					if err := p.repairAndFinish(f); err != nil {
						t.Error("without a command:", err)
					}
				})
				for _, command := range slices.Concat(allCommands...) {
					f.run(t, func(p *stateTest) {
						_, _, _ = command.do(p)
						if err := p.repairAndFinish(f); err != nil {
							t.Errorf("%s: %v", command.name, err)
						}
					})
				}
			}
			var exits []rotation.Exit
			f.run(t, func(p *stateTest) { exits = p.r.Exits(p.token, p.record(), p.troubles()) })
			if len(exits) == 0 && f.state != rotation.StateIdle {
				t.Fatal("status shows no exit")
			}
			ended := 0
			for _, exit := range exits {
				if exit.Does == "" {
					t.Error("an exit without an explanation")
				}
				if exit.Command == "" {
					continue
				}
				command := commandNamed(t, exit.Command)
				f.run(t, func(p *stateTest) {
					_, lookedOnly, err := command.do(p)
					refused := isRefusal(err)
					switch {
					case refused && !strings.HasPrefix(exit.Does, "Only if"):
						t.Errorf("status shows %q, but it is refused: %v", exit.Command, err)
					case refused, lookedOnly:
					default:
						if err := p.repairAndFinish(f); err != nil {
							t.Errorf("status shows %q, but it does not end the state: %v", exit.Command, err)
						}
						ended++
					}
				})
			}
			if f.needsOperator && ended == 0 && f.state != rotation.StateIdle {
				t.Error("no command ends it")
			}
		})
	}
}

// TestRevokeOrderWorksInEveryState: in every state an order to revoke is accepted or carried out. After what is
// broken is repaired, the secret that consumers had does not work any more.
func TestRevokeOrderWorksInEveryState(t *testing.T) {
	for _, f := range stateCases {
		if f.gone || f.state == rotation.StateUncreated {
			continue // its secrets do not work already, or it has none
		}
		t.Run(f.name, func(t *testing.T) {
			f.run(t, func(p *stateTest) {
				leaked := p.sink
				record, err := p.r.RotateNow(p.t.Context(), p.token, rotation.Overrides{RevokeNow: true}, "ops")
				if errors.Is(err, rotation.ErrNotRotated) || err != nil && record.Order == nil {
					t.Fatal("the order was refused:", err)
				}
				if err := p.repairAndFinish(f); err != nil {
					t.Fatal(err)
				}
				for _, c := range append([]*cfToken{&p.cfToken, &p.partner}, p.created...) {
					if leaked.ClientID == c.clientID && !p.world.gone[c.id] && c.accepted(leaked.ClientSecret.Reveal()) {
						t.Error("the leaked secret still works")
					}
				}
			})
		})
	}
}

// TestEveryStateHasAnExit fails if a step or a state is added without an exit.
func TestEveryStateHasAnExit(t *testing.T) {
	known := make(map[string]bool)
	for _, state := range rotation.States {
		known[string(state)] = true
		if !slices.ContainsFunc(stateCases, func(f stateCase) bool { return f.state == state }) {
			t.Errorf("no case has the state %q", state)
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
			t.Errorf("the step %q has the unknown state %q", step, state)
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
		t.Errorf("Resolutions has %d entries, but the constants are %q", len(rotation.Resolutions), how)
	}
}
