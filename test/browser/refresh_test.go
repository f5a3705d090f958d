package browser

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/page"
	cdpruntime "github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"rotatord/internal/webpage/webpagetest"
)

// changing serves a sample that a test replaces, and fails when it is told to.
type changing struct {
	mu     sync.Mutex
	sample *webpagetest.Sample
	now    time.Time
	silent atomic.Bool
}

func (c *changing) set(sample *webpagetest.Sample, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sample, c.now = sample, now
}

// ServeHTTP answers with the pages of the sample of now. Each answer is new: what the pages keep is not tested here.
func (c *changing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if c.silent.Load() {
		panic(http.ErrAbortHandler) // the connection ends without an answer
	}
	c.mu.Lock()
	sample, now := c.sample, c.now
	c.mu.Unlock()
	pages(sample, now).ServeHTTP(w, r)
}

// TestRefresh: the page reads itself again. It keeps the focus, tells a screen reader what is new and nothing else, leaves a reader alone who types, and says when the daemon does not
// answer. The page's timer is the test's: no test waits 15 seconds.
func TestRefresh(t *testing.T) {
	b := open(t)
	source := &changing{}
	source.set(webpagetest.Fleet(12), webpagetest.Now)
	server := httptest.NewServer(source)
	t.Cleanup(server.Close)

	var every float64
	b.run(t, chromedp.ActionFunc(func(ctx context.Context) error {
		_, err := page.AddScriptToEvaluateOnNewDocument("window.setInterval = (f, ms) => { window.tick = f; window.every = ms; return 1; };").Do(ctx)
		return err
	}), look(server.URL, desk, 900, false), chromedp.Evaluate("window.every", &every))
	if every != 15000 {
		t.Errorf("it reads itself again every %v ms, and the documents say 15 s", every)
	}
	type seen struct{ Title, Note, Verdict, Time, Focus, Class, News string }
	tick := func(before string) (s seen) {
		t.Helper()
		b.run(t, chromedp.Evaluate(before+`; window.tick().then(() => ({
			title: document.title, note: document.getElementById("refresh").textContent, verdict: document.querySelector("h1").textContent.trim(),
			time: document.querySelector(".asof time").textContent, focus: document.activeElement.getAttribute("href") || document.activeElement.id,
			class: document.getElementById("refresh").className, news: document.getElementById("news").textContent }))`, &s, func(p *cdpruntime.EvaluateParams) *cdpruntime.EvaluateParams { return p.WithAwaitPromise(true) }))
		return s
	}

	source.set(webpagetest.Trouble(webpagetest.Fleet(12)), webpagetest.Now.Add(15*time.Second))
	s := tick(`document.querySelector('.fleet a[href="/tokens/backup"]').focus()`)
	if !strings.Contains(s.Verdict, "critical") || !strings.HasPrefix(s.Title, "(") || s.Time != "2026-11-30 02:47:27 UTC" || s.Focus != "/tokens/backup" || s.Note != "refreshes itself" || s.News != "3 critical, 2 warnings" {
		t.Errorf("after a refresh: %+v", s)
	}
	if s = tick(`document.getElementById("news").textContent = ""`); s.News != "" {
		t.Errorf("a screen reader says again what has not changed: %+v", s)
	}

	source.set(webpagetest.Fleet(12), webpagetest.Now.Add(30*time.Second))
	if s = tick(`document.getElementById("q").focus()`); !strings.Contains(s.Verdict, "critical") || s.Focus != "q" {
		t.Errorf("while a reader types: %+v", s)
	}
	if s = tick(`document.activeElement.blur(); getSelection().selectAllChildren(document.querySelector("h1"))`); !strings.Contains(s.Verdict, "critical") {
		t.Errorf("while a reader selects: %+v", s)
	}

	source.silent.Store(true)
	if s = tick(`getSelection().empty()`); s.Note != "refreshes itself" {
		t.Errorf("after one failure: %+v", s)
	}
	s = tick("0")
	if !strings.Contains(s.Note, "NOT REFRESHED: the daemon does not answer") || !strings.Contains(s.Class, "bad") || s.News != "This page is not refreshed: the daemon does not answer." || s.Time != "2026-11-30 02:47:27 UTC" {
		t.Errorf("after two failures: %+v", s)
	}
	var weak map[string]string
	b.run(t, chromedp.Evaluate(measure+"measure.texts().weak", &weak))
	if len(weak) > 0 {
		t.Errorf("the notice is hard to read: %v", weak)
	}

	source.silent.Store(false)
	if s = tick("0"); s.Note != "refreshes itself" || strings.Contains(s.Class, "bad") || s.Verdict != "Nothing is wrong" || s.News != s.Verdict || s.Time != "2026-11-30 02:47:42 UTC" {
		t.Errorf("when it answers again: %+v", s)
	}
}
