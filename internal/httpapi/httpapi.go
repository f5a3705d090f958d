// Package httpapi shows what the daemon is doing: metrics, health, and a read-only status
// page.
//
// Guarantees: nothing here changes state, and only GET and HEAD are answered. No answer
// contains a secret: the package never holds one, and error texts, which come from
// elsewhere, are scrubbed once more. Liveness depends on nothing remote.
package httpapi

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"rotatord/internal/secret"
)

// TokenStatus is what is shown of one token. Zero times are unknown or do not apply.
type TokenStatus struct {
	Name     string `json:"name"`
	Account  string `json:"account"`
	TokenID  string `json:"token_id"`        // of a pair, the one in use
	Spare    string `json:"spare,omitempty"` // of a pair, the other one
	ClientID string `json:"client_id,omitempty"`
	Strategy string `json:"strategy"`
	Schedule string `json:"schedule"`
	TimeZone string `json:"time_zone"`
	// State is idle, claimed, intent, sealed, stored or in_doubt.
	State string `json:"state"`
	// Reason is why the next look at the token comes when it does.
	Reason      string    `json:"next_reason"`
	Next        time.Time `json:"next,omitzero"`
	LastSuccess time.Time `json:"last_success,omitzero"`
	GraceEnd    time.Time `json:"grace_end,omitzero"`
	Expiry      time.Time `json:"expiry,omitzero"`
	LastSeen    time.Time `json:"last_seen,omitzero"`
	// Known is whether Cloudflare was asked about the token yet; without it Enabled
	// says nothing.
	Known     bool   `json:"known"`
	Enabled   bool   `json:"enabled"`
	Failures  int    `json:"consecutive_failures"`
	LastError string `json:"last_error,omitempty"`
	Doubt     string `json:"doubt,omitempty"` // the reason code, while in doubt
}

// States are all values of TokenStatus.State.
var States = []string{"idle", "claimed", "intent", "sealed", "stored", "in_doubt"}

// Check is one condition of health.
type Check struct {
	Name string
	OK   bool
	// Detail says what is waited for, or what is wrong and what to do.
	Detail string
}

// Source is where the pages and gauges get what they show. It must be safe for
// concurrent use, and must answer from memory or local disk.
type Source interface {
	// Tokens returns all tokens, sorted by name.
	Tokens() []TokenStatus
	// Pending returns how many sealed secrets wait to be confirmed by a sink, and
	// since when the oldest does.
	Pending() (n int, oldest time.Time)
	// Live and Ready return the conditions of /livez and /readyz.
	Live() []Check
	Ready() []Check
}

// Options of the handler. All fields are required.
type Options struct {
	Source   Source
	Gatherer prometheus.Gatherer
	Logger   *slog.Logger
	Version  string
	Now      func() time.Time
}

// Handler serves everything.
func Handler(o Options) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelError),
		EnableOpenMetrics: true,
	}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, r *http.Request) { serveChecks(w, r, o.Source.Live()) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) { serveChecks(w, r, o.Source.Ready()) })
	mux.HandleFunc("GET /api/v1/tokens", func(w http.ResponseWriter, _ *http.Request) { serveJSON(w, http.StatusOK, tokens(o.Source)) })
	mux.HandleFunc("GET /api/v1/tokens/{name}", func(w http.ResponseWriter, r *http.Request) { serveToken(w, r, o.Source) })
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { servePage(w, o) })
	return withSecurityHeaders(mux)
}

// withSecurityHeaders keeps what we serve from being framed, sniffed or cached.
func withSecurityHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		h.Set("Referrer-Policy", "no-referrer")
		next.ServeHTTP(w, r)
	})
}

// serveChecks answers 200 if all checks are good, else 503 and the names of those that
// are not; with ?verbose, always all of them.
func serveChecks(w http.ResponseWriter, r *http.Request, checks []Check) {
	status := http.StatusOK
	for _, c := range checks {
		if !c.OK {
			status = http.StatusServiceUnavailable
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	for _, c := range checks {
		switch {
		case !c.OK:
			fmt.Fprintf(w, "[-] %s: %s\n", c.Name, c.Detail)
		case r.URL.Query().Has("verbose"):
			fmt.Fprintf(w, "[+] %s: ok\n", c.Name)
		}
	}
	if status == http.StatusOK {
		fmt.Fprintln(w, "ok")
	}
}

// tokens are the source's, fit to be shown. The result is never nil.
func tokens(source Source) []TokenStatus {
	all := append([]TokenStatus{}, source.Tokens()...)
	for i := range all {
		all[i].LastError = secret.Scrub(all[i].LastError)
	}
	return all
}

func serveToken(w http.ResponseWriter, r *http.Request, source Source) {
	for _, t := range tokens(source) {
		if t.Name == r.PathValue("name") {
			serveJSON(w, http.StatusOK, t)
			return
		}
	}
	serveJSON(w, http.StatusNotFound, map[string]string{"error": "no token of that name is configured"})
}

func serveJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(v) // the client went away
}

//go:embed status.html.tmpl
var pageText string

var page = template.Must(template.New("status").Parse(pageText))

func servePage(w http.ResponseWriter, o Options) {
	pending, _ := o.Source.Pending()
	now := o.Now()
	type row struct {
		TokenStatus
		NextIn, LastAgo, ExpiresIn string
	}
	data := struct {
		Version string
		Now     time.Time
		Pending int
		Checks  []Check
		Rows    []row
	}{Version: o.Version, Now: now.UTC(), Pending: pending, Checks: o.Source.Ready()}
	for _, t := range tokens(o.Source) {
		data.Rows = append(data.Rows, row{t, distance(t.Next, now), distance(t.LastSuccess, now), distance(t.Expiry, now)})
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = page.Execute(w, data) // the client went away
}

// distance says how far t is from now in the one or two units that a reader needs.
func distance(t, now time.Time) string {
	if t.IsZero() {
		return "–"
	}
	d := t.Sub(now).Round(time.Second)
	in, ago := "in ", ""
	if d < 0 {
		d, in, ago = -d, "", " ago"
	}
	var s string
	switch {
	case d >= 48*time.Hour:
		s = fmt.Sprintf("%d d", int(d.Hours())/24)
	case d >= time.Hour:
		s = fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	case d >= time.Minute:
		s = fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	default:
		s = fmt.Sprintf("%d s", int(d.Seconds()))
	}
	return in + s + ago
}
