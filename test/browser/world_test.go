// Package browser tests the pages in a real headless Chromium: that they load nothing from elsewhere and break no policy,
// that nothing is cut off on a phone, that the contrast is enough in light and dark, and that the keyboard is enough. It
// also makes the screenshots of docs/screenshots. Without a Chromium the tests are skipped, or fail where
// ROTATORD_REQUIRE_TOOLS=1 says that they must run.
package browser

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"rotatord/internal/webpage"
	"rotatord/internal/webpage/webpagetest"
)

// pages returns the pages of a sample at one time, with the policy that the daemon sends.
func pages(sample *webpagetest.Sample, now time.Time) http.Handler {
	mux := http.NewServeMux()
	webpage.Register(mux, webpage.Options{Source: sample, Version: "v1.17.0", Now: func() time.Time { return now }, Conditions: func() []webpage.Condition { return nil }})
	return webpagetest.Ready(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", webpage.ContentPolicy)
		mux.ServeHTTP(w, r)
	}))
}

// serve serves the pages of a sample as the daemon does.
func serve(t *testing.T, sample *webpagetest.Sample) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(pages(sample, webpagetest.Now))
	t.Cleanup(server.Close)
	return server
}

// browser is one Chromium with one tab. Its complaints are what the console and the network said.
type browser struct {
	context.Context
	mu         sync.Mutex
	complaints []string
	asked      []string // addresses
}

// open starts a Chromium with a profile of its own.
func open(t *testing.T) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		const hint = "chromium is not installed: run scripts/install-tools.sh"
		if os.Getenv("ROTATORD_REQUIRE_TOOLS") == "1" {
			t.Fatal(hint)
		}
		t.Skip(hint)
	}
	options := slices.Concat(chromedp.DefaultExecAllocatorOptions[:], []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.UserDataDir(profile(t)),
		chromedp.Flag("disable-gpu", true), chromedp.Flag("disable-quic", true), chromedp.Flag("no-first-run", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true), chromedp.Flag("hide-scrollbars", true),
		chromedp.WSURLReadTimeout(time.Minute),
	})
	allocator, stop := chromedp.NewExecAllocator(t.Context(), options...)
	ctx, cancel := chromedp.NewContext(allocator)
	ctx, stopAfter := context.WithTimeout(ctx, 3*time.Minute)
	t.Cleanup(func() { _ = chromedp.Cancel(ctx); stopAfter(); cancel(); stop() }) // the profile is removed after the process has ended
	b := &browser{Context: ctx}
	chromedp.ListenTarget(ctx, func(event any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch e := event.(type) {
		case *cdplog.EventEntryAdded:
			b.complaints = append(b.complaints, e.Entry.Text)
		case *runtime.EventExceptionThrown:
			b.complaints = append(b.complaints, e.ExceptionDetails.Error())
		case *network.EventRequestWillBeSent:
			b.asked = append(b.asked, e.Request.URL)
		}
	})
	b.run(t, cdplog.Enable(), network.Enable())
	return b
}

// run does something in the tab.
func (b *browser) run(t *testing.T, actions ...chromedp.Action) {
	t.Helper()
	if err := chromedp.Run(b.Context, actions...); err != nil {
		t.Fatal(err)
	}
}

// profile returns a new directory for a Chromium. Its child processes may write there for a moment after it has ended, so
// the removal is tried again.
func profile(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "rotatord-browser-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range 50 {
			if err = os.RemoveAll(dir); err == nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Errorf("the profile stays: %v", err)
	})
	return dir
}
