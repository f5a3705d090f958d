package browser

import (
	"os"
	"os/exec"
	"testing"

	cdpruntime "github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"rotatord/internal/webpage/webpagetest"
)

// axe returns the source of axe-core, which scripts/install-tools.sh installs where there is npm.
func axe(t *testing.T) string {
	t.Helper()
	source, err := os.ReadFile("../../.tools/axe/axe.min.js")
	if err == nil {
		return string(source)
	}
	const hint = "axe-core is not installed: run scripts/install-tools.sh"
	if _, noNPM := exec.LookPath("npm"); noNPM == nil && os.Getenv("ROTATORD_REQUIRE_TOOLS") == "1" {
		t.Fatal(hint)
	}
	t.Skip(hint)
	return ""
}

// violation is a rule of axe-core that a page breaks, and where.
type violation struct {
	ID, Help, Impact string
	Nodes            []string
}

// find runs axe-core in the page: all its rules, also those of best practice.
const find = `axe.run(document, { resultTypes: ["violations"] }).then((r) => ({
	passed: r.passes.length,
	violations: r.violations.map((v) => ({ id: v.id, help: v.help, impact: v.impact || "", nodes: v.nodes.slice(0, 3).map((n) => n.html.slice(0, 200)) })) }))`

// violations returns how many rules the page in the tab keeps, and which it breaks.
func (b *browser) violations(t *testing.T, source string) (passed int, broken []violation) {
	t.Helper()
	var found struct {
		Passed     int
		Violations []violation
	}
	b.run(t, chromedp.Evaluate(source+";0", nil), chromedp.Evaluate(find, &found, func(p *cdpruntime.EvaluateParams) *cdpruntime.EvaluateParams { return p.WithAwaitPromise(true) }))
	return found.Passed, found.Violations
}

// TestAxe: axe-core finds nothing wrong in any kind of page, in light and dark, on a desk and on a phone.
func TestAxe(t *testing.T) {
	source := axe(t)
	b := open(t)
	lanes, bars, quiet := serve(t, replicated(webpagetest.Trouble(webpagetest.Fleet(12)))), serve(t, webpagetest.Trouble(webpagetest.Fleet(300))), serve(t, webpagetest.Fleet(0))
	addresses := []string{bars.URL + "/?page=2", quiet.URL + "/"}
	for _, path := range samePages {
		addresses = append(addresses, lanes.URL+path)
	}
	for _, address := range addresses {
		for _, width := range []int64{desk, phone} {
			b.run(t, look(address, width, 900, width == phone))
			passed, broken := b.violations(t, source)
			if passed < 15 {
				t.Errorf("%s: only %d rules were tried", address, passed)
			}
			for _, v := range broken {
				t.Errorf("%s, %d pixels: %s (%s): %s: %q", address, width, v.ID, v.Impact, v.Help, v.Nodes)
			}
		}
	}
}

// TestAxeFinds: what is wrong in a page is found.
func TestAxeFinds(t *testing.T) {
	source := axe(t)
	b := open(t)
	server := serve(t, webpagetest.Fleet(6))
	b.run(t, look(server.URL, desk, 900, false), chromedp.Evaluate(`document.querySelector("label span").remove(); document.documentElement.removeAttribute("lang")`, nil))
	if _, broken := b.violations(t, source); len(broken) < 2 {
		t.Errorf("found %v", broken)
	}
}
