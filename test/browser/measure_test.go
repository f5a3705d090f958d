package browser

import (
	_ "embed"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"rotatord/internal/status"
	"rotatord/internal/webpage/webpagetest"
)

//go:embed measure.js
var measure string

// samePages are those whose parts are on all others.
var samePages = []string{"/", "/?state=trouble&q=e", "/?q=nosuch", "/tokens/ci-deploy", "/tokens/billing-export", "/tokens/nosuch", "/docs/", "/docs/runbook.md#rotatordtokenindoubt", "/docs/configuration.md"}

// TestContrast: each text has the contrast that WCAG asks for at level AA, 4.5 to 1, or 3 to 1 if it is large, in light and dark,
// on a desk and on a phone.
func TestContrast(t *testing.T) {
	b := open(t)
	lanes, bars := serve(t, replicated(webpagetest.Trouble(webpagetest.Fleet(12)))), serve(t, webpagetest.Trouble(webpagetest.Fleet(300)))
	quiet := serve(t, webpagetest.Fleet(6))
	addresses := []string{bars.URL + "/", quiet.URL + "/"}
	for _, path := range samePages {
		addresses = append(addresses, lanes.URL+path)
	}
	for _, address := range addresses {
		for _, width := range []int64{desk, phone} {
			for _, dark := range []bool{false, true} {
				var found struct {
					Count int
					Weak  map[string]string
				}
				b.run(t, look(address, width, 900, dark), chromedp.Evaluate(measure+"measure.texts()", &found))
				if found.Count < 15 {
					t.Errorf("%s: only %d texts were measured", address, found.Count)
				}
				for text, ratio := range found.Weak {
					t.Errorf("%s, %d pixels, dark %t: %s has a contrast of %s", address, width, dark, text, ratio)
				}
			}
		}
	}
}

// TestContrastIsMeasured: a text that is hard to read is found.
func TestContrastIsMeasured(t *testing.T) {
	b := open(t)
	server := serve(t, webpagetest.Fleet(6))
	var weak map[string]string
	b.run(t, look(server.URL, desk, 900, false),
		chromedp.Evaluate(`document.querySelector("h1 span[data-news]").style.color = "rgb(200, 200, 200)"; document.querySelector(".axis text").style.fill = "rgba(0, 0, 0, 0.3)"`, nil),
		chromedp.Evaluate(measure+"measure.texts().weak", &weak))
	if len(weak) != 2 {
		t.Errorf("found %v", weak)
	}
}

// TestKeyboardWalk: Tab reaches every link and field, in the order of the page, and each shows that it has the focus.
func TestKeyboardWalk(t *testing.T) {
	b := open(t)
	server := serve(t, replicated(webpagetest.Trouble(webpagetest.Fleet(12))))
	for _, path := range []string{"/", "/?state=trouble&q=e", "/tokens/ci-deploy", "/docs/status-page.md"} {
		for _, width := range []int64{desk, phone} {
			var stops int
			b.run(t, look(server.URL+path, width, 900, width == phone), chromedp.Evaluate(measure+"measure.stops().length", &stops))
			if stops < 10 {
				t.Errorf("%s has %d stops", path, stops)
			}
			for i := range stops {
				var at struct {
					Place   int
					Name    string
					Visible bool
				}
				b.run(t, chromedp.KeyEvent(kb.Tab), chromedp.Evaluate("measure.focus()", &at))
				if at.Place != i || !at.Visible {
					t.Fatalf("%s, %d pixels: stop %d of %d is %q, place %d, visible %t", path, width, i, stops, at.Name, at.Place, at.Visible)
				}
			}
		}
	}
}

// replicated adds replicas to a sample: one lives, one does not.
func replicated(s *webpagetest.Sample) *webpagetest.Sample {
	s.Shared = &status.Replicas{Name: "rotatord-0", SyncedAt: webpagetest.Now, Ledger: "vault:secret/rotatord", Replicas: []status.Replica{
		{Name: "rotatord-0", Living: true, Since: webpagetest.Now.AddDate(0, 0, -3), SeenAt: webpagetest.Now, Version: "v1.17.0", ClockKnown: true, Prefers: 7, Tokens: []string{"ci-deploy"}},
		{Name: "rotatord-1", Since: webpagetest.Now.AddDate(0, 0, -3), SeenAt: webpagetest.Now.Add(-5 * time.Minute), Version: "v1.17.0", StandsAside: "its clock is wrong", Prefers: 5},
	}}
	return s
}
