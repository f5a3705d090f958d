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

	"rotatord/internal/rotation"
)

const cyclePath = "../../docs/rotation-cycle.md"

func cycle(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(cyclePath)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestCrashPointsAreDocumented lets the process die after each call of a rotation, looks at
// what is where then and at what the next process does first, and compares that with the
// table in docs/rotation-cycle.md.
func TestCrashPointsAreDocumented(t *testing.T) {
	const grace = 40 * time.Minute
	words := map[string]string{
		"save claimed": "claim", "sink preflight": "sinks ready", "reserve": "room reserved", "ready": "Cloudflare ready",
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
				t.Fatalf("it survived %s", call)
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
				pending = "room"
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
				next = "begins anew"
			case record.Step == rotation.StepIdle && w.rotates == 1 && w.sink.ClientSecret.Reveal() == w.current && ledger != rotation.StepIdle:
				next = "goes on to the end"
			case ledger == rotation.StepIdle && w.rotates == 2:
				next = "nothing is left to do"
			}
			rows = append(rows, row+" "+next+" |")
		})
	}
	_, table, ok := strings.Cut(cycle(t), "| dies after |")
	if !ok {
		t.Fatal("the table is not there")
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
		t.Errorf("docs/rotation-cycle.md says otherwise (-seen +documented):\n%s\nthe whole table as seen:\n%s", diff, strings.Join(rows, "\n"))
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
	file, err := parser.ParseFile(token.NewFileSet(), "doubt.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var codes []string
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "Reason") {
			codes = append(codes, strings.Trim(v.Values[0].(*ast.BasicLit).Value, `"`))
		}
		return true
	})
	if len(codes) < 10 {
		t.Fatalf("found only %v", codes)
	}
	_, section, ok := strings.Cut(cycle(t), "## Reason codes")
	if !ok {
		t.Fatal("the section is not there")
	}
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(section, -1) {
		documented = append(documented, m[1])
	}
	slices.Sort(codes)
	slices.Sort(documented)
	if diff := cmp.Diff(codes, documented); diff != "" {
		t.Errorf("(-source +documented)\n%s", diff)
	}
}
