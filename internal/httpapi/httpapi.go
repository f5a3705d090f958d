// Package httpapi shows what the daemon is doing: metrics, health, and a read-only status
// page.
//
// Guarantees: nothing here changes state, and only GET and HEAD are answered. No answer
// contains a secret: the package never has one, and error texts, which come from
// elsewhere, are scrubbed again. Liveness does not depend on anything remote.
package httpapi

import (
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"rotatord/internal/printable"
	"rotatord/internal/status"
	"rotatord/internal/webpage"
)

// TokenStatus is what is shown of one token.
type TokenStatus = status.Token

// Check is one condition of health.
type Check = webpage.Condition

// Source provides what the pages and gauges show. It must be safe for concurrent use, and
// must answer from memory or local disk.
type Source interface {
	webpage.Source
	// Tokens returns all tokens, sorted by name.
	Tokens() []TokenStatus
	// States returns all tokens, sorted by name, one after the other, for the metrics. It leaves out what they do
	// not show, such as sinks, troubles, and what to do. A token is not used after the next one was asked for.
	States() iter.Seq[*TokenStatus]
	// Live and Ready return the conditions of /livez and /readyz.
	Live() []Check
	Ready() []Check
}

// Options of the handler. All fields are required.
type Options struct {
	Source  Source
	Metrics *Metrics
	Logger  *slog.Logger
	Version string
	Now     func() time.Time
	// Hosts returns the names under which the pages, the API and the documents may be reached.
	Hosts func() webpage.Hosts
}

// Handler serves everything.
func Handler(o Options) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", newScraper(o.Metrics, o.Logger, o.Now))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, r *http.Request) { serveChecks(w, r, o.Source.Live()) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) { serveChecks(w, r, o.Source.Ready()) })
	mux.HandleFunc("GET /api/v1/tokens", func(w http.ResponseWriter, r *http.Request) { serveTokens(w, r, o.Source) })
	mux.HandleFunc("GET /api/v1/tokens/{name}", func(w http.ResponseWriter, r *http.Request) {
		serveToken(w, r, o.Source, func(t TokenStatus) any { return t.Scrubbed() })
	})
	mux.HandleFunc("GET /api/v1/status", func(w http.ResponseWriter, r *http.Request) { serveOverview(w, r, o.Source, o.Now()) })
	mux.HandleFunc("GET /api/v1/status/{name}", func(w http.ResponseWriter, r *http.Request) {
		serveToken(w, r, o.Source, func(t TokenStatus) any { return status.NewOverview(o.Source, []TokenStatus{t}, o.Now()) })
	})
	history := func(w http.ResponseWriter, r *http.Request) { serveHistory(w, r, o.Source, o.Now()) }
	mux.HandleFunc("GET /api/v1/history", history)
	mux.HandleFunc("GET /api/v1/tokens/{name}/history", history)
	mux.HandleFunc("GET /api/v1/replicas", func(w http.ResponseWriter, _ *http.Request) {
		all := o.Source.Replicas().Scrubbed()
		serveJSON(w, http.StatusOK, replicasAnswer{Shared: all != nil, Replicas: all})
	})
	webpage.Register(mux, webpage.Options{Source: o.Source, Version: o.Version, Now: o.Now,
		Conditions: func() []Check { return slices.Concat(o.Source.Live(), o.Source.Ready()) }})
	return withSecurityHeaders(webpage.Guard(mux, o.Hosts))
}

// IsProbe reports whether a request is one for /livez or /readyz, which are answered without a
// password.
func IsProbe(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && (r.URL.Path == "/livez" || r.URL.Path == "/readyz")
}

// Probes answers /livez and /readyz for callers without the password that is needed for everything else.
// It answers with the status only, and does not say what is wrong.
func Probes(source Source) http.Handler {
	short := func(checks func() []Check) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			if slices.ContainsFunc(checks(), func(c Check) bool { return !c.OK }) {
				w.WriteHeader(http.StatusServiceUnavailable)
				fmt.Fprintln(w, "not ok: ask with the password to see what is wrong")
				return
			}
			fmt.Fprintln(w, "ok")
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", short(source.Live))
	mux.HandleFunc("GET /readyz", short(source.Ready))
	return withSecurityHeaders(mux)
}

// withSecurityHeaders adds headers to each answer, so that browsers do not frame, sniff or cache it.
func withSecurityHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", webpage.ContentPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		h.Set("Referrer-Policy", "no-referrer")
		next.ServeHTTP(w, r)
	})
}

// maxDetail is how many bytes of the detail of a check are shown at most.
const maxDetail = 4000

// serveChecks answers 200 if all checks are good, else 503 with the checks that fail. With ?verbose it
// always lists all checks.
func serveChecks(w http.ResponseWriter, r *http.Request, checks []Check) {
	code := http.StatusOK
	for _, c := range checks {
		if !c.OK {
			code = http.StatusServiceUnavailable
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	for _, c := range checks {
		switch {
		case !c.OK:
			fmt.Fprintf(w, "[-] %s: %s\n", c.Name, printable.Line(c.Detail, maxDetail))
		case r.URL.Query().Has("verbose"):
			fmt.Fprintf(w, "[+] %s: ok\n", c.Name)
		}
	}
	if code == http.StatusOK {
		fmt.Fprintln(w, "ok")
	}
}

func serveJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = status.WriteJSON(w, v) // the client went away
}
