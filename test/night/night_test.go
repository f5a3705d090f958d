package night

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rotatord/test/program"
)

// mostSteps is how many steps a night may take.
const mostSteps = 6

// TestNight plays the nights. Without -all it plays those that are seen within seconds.
func TestNight(t *testing.T) {
	var mu sync.Mutex
	rows := map[string]string{}
	t.Run("faults", func(t *testing.T) {
		for _, f := range faults {
			if !f.quick && !*all {
				continue
			}
			t.Run(f.id, func(t *testing.T) {
				t.Parallel()
				row := f.night(t)
				mu.Lock()
				defer mu.Unlock()
				rows[f.id] = row
			})
		}
	})
	if t.Failed() {
		return
	}
	compare(t, rows)
}

// night plays one fault, and returns its row of the table.
func (f fault) night(t *testing.T) string {
	w := newWorld(t, f)
	f.cause(w)
	paged := time.Now()
	if f.page != "" {
		w.awaitPage(f.page)
	}
	t.Logf("paged after %s", time.Since(paged).Round(time.Second))
	e := &engineer{w: w}
	f.play(e)
	var last error
	for deadline := time.Now().Add(2 * program.Patience); time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		if last = w.cured(); last == nil {
			break
		}
	}
	if last != nil {
		t.Fatalf("it is not cured: %v", last)
	}
	if made := w.rotations() - w.made; f.id != "api-token-revoked" && made != f.rotations { // a new simulator counts from 0
		t.Errorf("the night cost %d rotations, and not %d", made, f.rotations)
	}
	n, _ := e.counts()
	if n > mostSteps {
		t.Errorf("%d steps are too many: %s", n, e.told())
	}
	return fmt.Sprintf("| %s | %d | %s |", f.what, n, strings.ReplaceAll(w.general(e.told()), "|", "\\|"))
}

// general replaces what differs from run to run.
func (w *world) general(text string) string {
	return strings.NewReplacer(w.vault.Address, "https://vault:8200", w.state, "/var/lib/rotatord", w.dir, "/etc/rotatord").Replace(text)
}

// awaitPage waits until the page shows that trouble: this is when the engineer is paged.
func (w *world) awaitPage(kind string) {
	w.t.Helper()
	var cards []card
	deadline := time.Now().Add(15 * time.Minute)
	for ; time.Now().Before(deadline); time.Sleep(time.Second) {
		body, code := w.get("/")
		if cards = cardsOf(body); code == http.StatusOK && slices.ContainsFunc(cards, func(c card) bool { return c.kind == kind }) {
			return
		}
	}
	w.t.Fatalf("the page never showed %q: %+v", kind, cards)
}

var table = regexp.MustCompile(`(?s)(<!-- table -->\n).*?(<!-- end of table -->)`)

// compare compares the rows with those of docs/night-drill.md.
func compare(t *testing.T, rows map[string]string) {
	t.Helper()
	document := program.ReadFile(t, "docs/night-drill.md")
	var want strings.Builder
	want.WriteString("| fault | steps | from the page to the cure |\n| --- | --- | --- |\n")
	for _, f := range faults {
		row, played := rows[f.id]
		if !played {
			continue
		}
		want.WriteString(row + "\n")
		if !*update && !strings.Contains(document, row+"\n") {
			t.Errorf("docs/night-drill.md does not have this row; make night-drill UPDATE=1 writes it:\n%s", row)
		}
	}
	if !*all || len(rows) < len(faults) { // one was skipped: this machine gives no small disk
		return
	}
	fresh := table.ReplaceAllLiteralString(document, "<!-- table -->\n"+want.String()+"<!-- end of table -->")
	switch {
	case *update:
		repository, err := program.Repository()
		if err == nil {
			err = os.WriteFile(filepath.Join(repository, "docs/night-drill.md"), []byte(fresh), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	case fresh != document:
		t.Error("the table of docs/night-drill.md is another one: make night-drill UPDATE=1 writes it")
	}
}
