package browser

import (
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"rotatord/internal/webpage/webpagetest"
)

// TestPhone: no page is wider than a phone, in light and dark.
func TestPhone(t *testing.T) {
	b := open(t)
	server := serve(t, webpagetest.Trouble(webpagetest.Fleet(300)))
	for _, path := range []string{"/", "/?q=backup", "/tokens/ci-deploy", "/docs/runbook.md", "/docs/configuration.md", "/docs/"} {
		for _, dark := range []bool{false, true} {
			var wide int
			b.run(t, look(server.URL+path, phone, 844, dark), chromedp.Evaluate("document.documentElement.scrollWidth", &wide))
			if wide > phone {
				t.Errorf("%s is %d pixels wide", path, wide)
			}
		}
	}
}

// TestPolicy: a browser finds nothing in the pages that the policy refuses, and asks no other host.
func TestPolicy(t *testing.T) {
	b := open(t)
	server := serve(t, webpagetest.Trouble(webpagetest.Fleet(12)))
	for _, path := range []string{"/", "/tokens/ci-deploy", "/docs/runbook.md"} {
		b.run(t, look(server.URL+path, desk, 900, false))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.complaints) > 0 {
		t.Errorf("the browser complains: %q", b.complaints)
	}
	for _, url := range b.asked {
		if !strings.HasPrefix(url, server.URL) {
			t.Errorf("it asks %s", url)
		}
	}
	if len(b.asked) < 6 {
		t.Errorf("only %q were asked for", b.asked)
	}
}

// TestKeyboard: the first stop of the keyboard skips to the content, and "/" goes to the search.
func TestKeyboard(t *testing.T) {
	b := open(t)
	server := serve(t, webpagetest.Fleet(12))
	var first, search string
	b.run(t, look(server.URL, desk, 900, false), chromedp.KeyEvent(kb.Tab), chromedp.Evaluate("document.activeElement.className", &first),
		chromedp.KeyEvent("/"), chromedp.Evaluate("document.activeElement.id", &search))
	if first != "skip" || search != "q" {
		t.Errorf("the first stop is %q, and / goes to %q", first, search)
	}
}
