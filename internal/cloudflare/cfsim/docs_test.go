package cfsim_test

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"rotatord/internal/cloudflare/cfsim"
)

var (
	faultExample   = regexp.MustCompile(`--fault (?:'([^']+)'|([^\s` + "`" + `']+))`)
	controlExample = regexp.MustCompile("(?m)^\\| `([A-Z]+) (/_sim/[^`]+)` \\| (?:`([^`]+)`)? ?\\|")
	controlPattern = regexp.MustCompile(`"([A-Z]+ /_sim/[^"]+)"`)
	jsonField      = regexp.MustCompile("`([a-z_]+)`")
)

func readFile(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// TestDocumentedFaults: every example of a fault in the manual parses.
func TestDocumentedFaults(t *testing.T) {
	examples := faultExample.FindAllStringSubmatch(readFile(t, "../../../docs/simulator.md"), -1)
	if len(examples) < 10 {
		t.Fatalf("only %d examples", len(examples))
	}
	operations := map[string]bool{}
	for _, x := range examples {
		f, err := cfsim.ParseFault(x[1] + x[2])
		if err != nil {
			t.Error(err)
		}
		operations[f.Operation] = true
	}
	if len(operations) < 5 {
		t.Errorf("the examples show %d operations only", len(operations))
	}
}

// TestDocumentedControl: every control path in the manual exists and takes the body that
// stands there, and every one that exists is in the manual, with the fields of its body.
func TestDocumentedControl(t *testing.T) {
	page := readFile(t, "../../../docs/simulator.md")
	r := newRig(t, cfsim.Options{SeedTokens: 3})
	var documented []string
	deleted := 0
	for _, x := range controlExample.FindAllStringSubmatch(page, -1) {
		method, path, body := x[1], x[2], x[3]
		documented = append(documented, method+" "+path)
		id := cfsim.SeedTokenID(1)
		if method == "DELETE" {
			deleted++
			id = cfsim.SeedTokenID(1 + deleted)
		}
		body = strings.NewReplacer("UUID", `"`+unknownToken+`"`, "ID", `"`+otherAccount+`"`, "TIME", `"2026-01-02T03:04:05Z"`).Replace(body)
		a := r.send(method, strings.ReplaceAll(path, "{id}", id), body)
		if a.err != nil || a.status < 200 || a.status > 299 {
			t.Errorf("%s %s with %s: status %d, %v: %s", method, path, body, a.status, a.err, a.raw)
		}
	}
	var existing []string
	for _, x := range controlPattern.FindAllStringSubmatch(readFile(t, "control.go"), -1) {
		existing = append(existing, x[1])
	}
	slices.Sort(documented)
	slices.Sort(existing)
	if len(existing) < 12 || !slices.Equal(documented, existing) {
		t.Errorf("documented:\n%s\nexisting:\n%s", strings.Join(documented, "\n"), strings.Join(existing, "\n"))
	}

	named := map[string]bool{}
	for _, x := range jsonField.FindAllStringSubmatch(page, -1) {
		named[x[1]] = true
	}
	for _, body := range []any{cfsim.Fault{}, cfsim.Behaviour{}, cfsim.Edit{}} {
		for field := range reflect.TypeOf(body).Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if !named[name] {
				t.Errorf("%T: the manual does not name %s", body, name)
			}
		}
	}
	if len(named) < 20 {
		t.Errorf("only %d fields are named", len(named))
	}
}
