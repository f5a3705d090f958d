package rotation_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
)

const cyclePath = "../../docs/rotation-cycle.md"

// cycleDocument returns docs/rotation-cycle.md.
func cycleDocument(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(cyclePath)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestCrashPointsAreDocumented makes the process die after each call of a rotation. It looks at the ledger, the
// journal, Cloudflare and the sink, and at what the next process does first, and compares this with the table
// in docs/rotation-cycle.md.
func TestCrashPointsAreDocumented(t *testing.T) {
	const grace = 40 * time.Minute
	words := map[string]string{
		"save claimed": "claim", "sink preflight": "sinks ready", "reserve": "space reserved", "room": "room in the record", "record": "recorded", "ready": "Cloudflare ready",
		"save intent": "intent", "rotate": "rotate carried out", "seal": "seal", "save sealed": "ledger: sealed",
		"sink store": "sinks written", "save stored": "ledger: stored", "erase": "sealed answer erased", "save ": "ledger: done",
	}
	var calls []string
	inBubble(t, grace, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.advance(r, token)
		calls = w.calls
	})
	var rows []string
	for n, call := range calls {
		inBubble(t, grace, func(w *world, token rotation.Token, r *rotation.Rotator) {
			old := w.current
			w.fault = func(i int, _ string) fault {
				if i == n {
					return fault{after: errors.New("x"), crash: true}
				}
				return fault{}
			}
			if _, died := w.advance(r, token); !died {
				t.Fatalf("it did not die at %s", call)
			}
			state := func(old bool) string {
				if old {
					return "old"
				}
				return "new"
			}
			ledger, pending := w.record().Step, "nothing"
			switch {
			case len(w.pending) > 0:
				pending = "sealed"
			case len(w.reserved) > 0:
				pending = "space"
			}
			row := fmt.Sprintf("| %s | `%s` | %s | %s | %s |", words[call], stateOf(ledger), pending,
				state(w.current == old), state(w.sink.ClientSecret.Reveal() == old))
			rotates := w.rotates
			w.fault = nil
			w.advance(w.start(), token)
			next := ""
			switch record := w.record(); {
			case record.Step == rotation.StepInDoubt:
				next = "in doubt, `" + record.Doubt.Reason + "`"
			case record.Step == rotation.StepIdle && w.rotates == rotates+1 && rotates == 0:
				next = "starts again"
			case record.Step == rotation.StepIdle && w.rotates == 1 && w.sink.ClientSecret.Reveal() == w.current && ledger != rotation.StepIdle:
				next = "continues to the end"
			case ledger == rotation.StepIdle && w.rotates == 2:
				next = "nothing is left to do"
			}
			rows = append(rows, row+" "+next+" |")
		})
	}
	_, table, ok := strings.Cut(cycleDocument(t), "| dies after |")
	if !ok {
		t.Fatal("the table is missing")
	}
	var documented []string
	for line := range strings.Lines(table) {
		line = strings.TrimSpace(line)
		if line == "" {
			break
		}
		if strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| ---") && len(documented) < len(rows) {
			documented = append(documented, line)
		}
	}
	if diff := cmp.Diff(rows, documented); diff != "" {
		t.Errorf("docs/rotation-cycle.md differs (-observed +documented):\n%s\nthe whole table as observed:\n%s", diff, strings.Join(rows, "\n"))
	}
}

func stateOf(s rotation.Step) string {
	if s == rotation.StepIdle {
		return "idle"
	}
	return string(s)
}

// TestReasonCodesAreDocumented compares the codes in the source with those in the document.
func TestReasonCodesAreDocumented(t *testing.T) {
	codes := constants(t, "doubt.go", "Reason")
	if len(codes) < 10 {
		t.Fatalf("found only %v", codes)
	}
	documented := firstCells(section(t, "## Reason codes"))
	slices.Sort(codes)
	slices.Sort(documented)
	if diff := cmp.Diff(codes, documented); diff != "" {
		t.Errorf("(-source +documented)\n%s", diff)
	}
}

// TestDueReasonsAreDocumented compares the reasons for which a token is due, and the order of the rules, with
// the document.
func TestDueReasonsAreDocumented(t *testing.T) {
	codes := constants(t, "due.go", "Due")
	if len(codes) < 10 {
		t.Fatalf("found only %v", codes)
	}
	if diff := cmp.Diff(codes, firstCells(section(t, "## When it starts"))); diff != "" {
		t.Errorf("(-source +documented)\n%s", diff)
	}
}

// constants returns the values of the string constants in a source file whose names have that prefix.
func constants(t *testing.T, path, prefix string) (values []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, prefix) && len(v.Values) == 1 {
			if literal, ok := v.Values[0].(*ast.BasicLit); ok {
				values = append(values, strings.Trim(literal.Value, `"`))
			}
		}
		return true
	})
	return values
}

// section returns the text between a heading and the next heading of any level.
func section(t *testing.T, heading string) string {
	t.Helper()
	_, text, ok := strings.Cut(cycleDocument(t), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("the section %q is missing", heading)
	}
	text, _, _ = strings.Cut(text, "\n##")
	return text
}

// firstCells returns the codes in the first cells of tables.
func firstCells(text string) (codes []string) {
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(text, -1) {
		codes = append(codes, m[1])
	}
	return codes
}

// pendingWork is something that a token can be due for, or that an operator can order.
type pendingWork struct {
	name string
	// prepare brings the token to where the work would continue now.
	prepare func(w *world, token rotation.Token, r *rotation.Rotator)
	// continued reports whether the work continued, given the calls since then.
	continued func(w *world, calls []string) bool
	manual    bool
	once      bool // catch_up: once and not skip
}

func rotated(_ *world, calls []string) bool { return slices.Contains(calls, "rotate") }

var allPendingWork = []pendingWork{
	{name: "a slot", continued: rotated, prepare: sleepUntilDue},
	{name: "its next try after a failure", continued: rotated, prepare: func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.failOnce("sink preflight", fault{before: errors.New("x")})
		w.advance(r, token)
		sleepUntilDue(w, token, r)
	}},
	{name: "the catch-up of missed slots", continued: rotated, once: true, prepare: func(w *world, token rotation.Token, r *rotation.Rotator) {
		time.Sleep(5*time.Hour + time.Minute)
		if record, err := r.CatchUp(w.t.Context(), token); err != nil || r.Due(token, record).Reason != rotation.DueCatchUp {
			w.t.Fatal(r.Due(token, record), err)
		}
		sleepUntilDue(w, token, r)
	}},
	{name: "a reissue", continued: rotated, prepare: func(w *world, _ rotation.Token, _ *rotation.Rotator) {
		w.changeRecord(func(r *rotation.Record) { r.NextTrigger = rotation.TriggerRecovery })
	}},
	{name: "the delivery of a received secret", prepare: func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.failOnce("sink store", fault{before: errors.New("x")})
		w.advance(r, token)
		sleepUntilDue(w, token, r)
	}, continued: func(w *world, _ []string) bool { return w.sink.ClientSecret.Reveal() == w.current }},
	{name: "a look at a doubt", prepare: func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.failOnce("rotate", fault{after: &rotation.IssuerError{Class: rotation.Unknown}})
		w.advance(r, token)
		sleepUntilDue(w, token, r)
	}, continued: func(_ *world, calls []string) bool { return slices.Contains(calls, "inspect") }},
	{name: "`rotatord rotate`", continued: rotated, manual: true, prepare: func(*world, rotation.Token, *rotation.Rotator) {}},
}

// obstacles are what can delay the work, in the order of the columns. The first is not an obstacle.
var obstacles = []func(w *world, token *rotation.Token, r *rotation.Rotator){
	func(*world, *rotation.Token, *rotation.Rotator) {},
	func(_ *world, token *rotation.Token, _ *rotation.Rotator) {
		// The freeze begins now, so a slot that was tried already is before it.
		token.Timetable.Freezes = []scheduler.Freeze{{Name: "f", From: time.Now(), To: time.Now().Add(48 * time.Hour)}}
	},
	func(w *world, token *rotation.Token, r *rotation.Rotator) {
		if err := r.Pause(w.t.Context(), token.Name, rotation.Pause{Since: time.Now()}); err != nil {
			w.t.Fatal(err)
		}
	},
	func(_ *world, token *rotation.Token, _ *rotation.Rotator) {
		token.Timetable.Window = time.Minute
		time.Sleep(2 * time.Minute)
	},
	func(w *world, _ *rotation.Token, _ *rotation.Rotator) {
		w.changeRecord(func(r *rotation.Record) { r.Last = &rotation.Done{GraceEndsAt: time.Now().Add(24 * time.Hour)} })
	},
	func(w *world, _ *rotation.Token, _ *rotation.Rotator) {
		w.failAll("ready", fault{before: &rotation.IssuerError{Class: rotation.NotCarriedOut, Err: rotation.ErrClock}})
	},
}

// TestDelaysAreDocumented combines all pending work with all obstacles, and compares the results with the table.
func TestDelaysAreDocumented(t *testing.T) {
	var rows []string
	for _, work := range allPendingWork {
		row := []string{work.name}
		for column, obstacle := range obstacles {
			switch outcome := outcomeOf(t, work, obstacle); {
			case column > 0:
				row = append(row, outcome)
			case outcome != "continues":
				t.Fatalf("%s: there is no obstacle, and the result is %q", work.name, outcome)
			}
		}
		rows = append(rows, "| "+strings.Join(row, " | ")+" |")
	}
	var documented []string
	for line := range strings.Lines(section(t, "### What delays what")) {
		if strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| |") && !strings.HasPrefix(line, "| ---") {
			documented = append(documented, strings.TrimSpace(line))
		}
	}
	if diff := cmp.Diff(rows, documented); diff != "" {
		t.Errorf("docs/rotation-cycle.md differs (-observed +documented):\n%s\nthe whole table as observed:\n%s", diff, strings.Join(rows, "\n"))
	}
}

// outcomeOf returns the result of work with an obstacle, in the words of the table.
func outcomeOf(t *testing.T, work pendingWork, obstacle func(*world, *rotation.Token, *rotation.Rotator)) (outcome string) {
	inBubble(t, 40*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		token.Timetable.SkipMissed = !work.once
		work.prepare(w, token, r)
		obstacle(w, &token, r)
		calls := len(w.calls)
		var err error
		if work.manual {
			_, err = r.RotateNow(w.t.Context(), token, rotation.Overrides{}, "ops")
		} else {
			_, err = r.Advance(w.t.Context(), token)
		}
		missed := slices.ContainsFunc(w.events, func(e event.Event) bool {
			m, ok := e.Detail.(event.Missed)
			return ok && m.GivenUp
		})
		switch {
		case errors.Is(err, rotation.ErrNotRotated):
			outcome = "refused"
		case missed:
			outcome = "missed"
		case work.continued(w, w.calls[calls:]):
			outcome = "continues"
		default:
			outcome = "waits"
		}
	})
	return outcome
}

// sleepUntilDue sleeps until the token is due.
func sleepUntilDue(w *world, token rotation.Token, r *rotation.Rotator) {
	time.Sleep(time.Until(r.Due(token, w.record()).At))
}

// changeRecord changes the token's record in the ledger.
func (w *world) changeRecord(do func(*rotation.Record)) {
	w.t.Helper()
	record := w.record()
	do(&record)
	if _, err := w.Save(w.t.Context(), record); err != nil {
		w.t.Fatal(err)
	}
}
