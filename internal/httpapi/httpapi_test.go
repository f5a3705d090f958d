package httpapi_test

import (
	"context"
	"encoding/json"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/httpapi"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/status"
	"rotatord/internal/webpage"
)

// Canaries in both formats of a client secret.
const (
	canary    = "cfast_CANARYcanaryCANARYcanaryCANARYcanary0123deadbeef"
	canaryHex = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// fakeSource shows what it is given.
type fakeSource struct {
	tokens      []httpapi.TokenStatus
	pending     int
	oldest      time.Time
	live, ready []httpapi.Check
	checks      []status.Check
	replicas    *status.Replicas
	history     status.History
	asked       status.HistoryQuery // what history was asked for last
}

func (s *fakeSource) Tokens() []httpapi.TokenStatus { return s.tokens }
func (s *fakeSource) States() iter.Seq[*httpapi.TokenStatus] {
	return func(yield func(*httpapi.TokenStatus) bool) {
		for i := range s.tokens {
			if !yield(&s.tokens[i]) {
				return
			}
		}
	}
}
func (s *fakeSource) Token(name string) (httpapi.TokenStatus, bool) {
	i := slices.IndexFunc(s.tokens, func(t httpapi.TokenStatus) bool { return t.Name == name })
	if i < 0 {
		return httpapi.TokenStatus{}, false
	}
	return s.tokens[i], true
}
func (s *fakeSource) TokensAfter(name string, n int) []httpapi.TokenStatus {
	left := slices.DeleteFunc(slices.Clone(s.tokens), func(t httpapi.TokenStatus) bool { return t.Name <= name })
	slices.SortFunc(left, func(a, b httpapi.TokenStatus) int { return strings.Compare(a.Name, b.Name) })
	return left[:min(n, len(left))]
}
func (s *fakeSource) Changes(uint64) (tokens []string, now uint64, all bool) { return nil, 0, false }
func (s *fakeSource) Pending() (int, time.Time)                              { return s.pending, s.oldest }
func (s *fakeSource) Checks() []status.Check                                 { return s.checks }
func (s *fakeSource) History(_ context.Context, q status.HistoryQuery) (status.History, error) {
	s.asked = q
	return s.history, nil
}
func (s *fakeSource) Outlook(_ context.Context, _ string, until time.Time) (status.Outlook, error) {
	return status.Outlook{Until: until}, nil
}
func (s *fakeSource) Replicas() *status.Replicas { return s.replicas }
func (s *fakeSource) Live() []httpapi.Check      { return s.live }
func (s *fakeSource) Ready() []httpapi.Check     { return s.ready }
func noSession() httpapi.VaultSession            { return httpapi.VaultSession{} }
func sessionUntil(t time.Time) func() httpapi.VaultSession {
	return func() httpapi.VaultSession {
		return httpapi.VaultSession{There: true, Expiry: t, CertificateEnds: now.Add(24 * time.Hour), UnwrapFailed: now.Add(-time.Minute)}
	}
}

// busy is a source in which every field of a token is set, and one in which none is.
func busy() *fakeSource {
	return &fakeSource{
		tokens: []httpapi.TokenStatus{
			{
				Name: "ci-deploy", Account: "prod", TokenID: "f174e90a-fafe-4643-bbbc-4a0ed4fc8415",
				ClientID: "0123456789abcdef0123456789abcdef.access", Strategy: "rotate", Schedule: "0 4 * * 1", TimeZone: "Europe/Berlin",
				State: "in_doubt", Reason: "in_doubt", Next: now.Add(90 * time.Second), LastSuccess: now.Add(-50 * time.Hour),
				GraceEnd: now.Add(time.Hour), Expiry: now.Add(240 * time.Hour), LastSeen: now.Add(-time.Minute),
				Known: true, Enabled: false, Failures: 3, LastError: "cloudflare rotate: unknown",
				Doubt: &status.Doubt{
					Reason: "outcome_unknown", Detail: "the connection broke", Since: now.Add(-time.Hour), RotationID: "R1",
					TokenID: "f174e90a-fafe-4643-bbbc-4a0ed4fc8415", Spare: false, AskedAt: now.Add(-61 * time.Minute),
					UpdatedBefore: now.Add(-50 * time.Hour), UpdatedNow: now.Add(-59 * time.Minute), CarriedOut: true, AnswerSealed: true,
					OldWorksUntil: now.Add(time.Hour), Extensions: 2, Decision: "old_secret_works", DecidedAt: now.Add(-time.Minute),
				},
				Freeze: "year-end", Pause: &status.Pause{Since: now.Add(-time.Hour), Until: now.Add(time.Hour), Reason: "a migration", By: "ops"},
				Gone: true, Outside: now.Add(-2 * time.Hour), Renews: now.Add(48 * time.Hour), RenewalError: "refused", Verifies: true,
				Order:        &status.Order{Since: now.Add(-time.Minute), By: "root", RevokeNow: true, Left: 1},
				Verification: &status.Verification{Since: now.Add(-10 * time.Minute), Probes: 7, Refused: true, Error: "HTTP 401"},
				Unverified:   "no route to host",
				Waiting:      true, WaitsFor: "Cloudflare's request limit", WaitsUntil: now.Add(3 * time.Minute),
				Deletions:   []status.Deletion{{Sink: "vault:secret/access/ci", At: now.Add(20 * time.Hour)}},
				ReissueOwed: now.Add(-30 * time.Minute), CutOffAt: now.Add(-time.Minute), Emergency: true,
			},
			{Name: "new", Account: "prod", TokenID: "5eed0000-0000-4000-8000-000000000001", Strategy: "replace", Replaced: 2, ReplacedError: "in a policy", Schedule: "@weekly", TimeZone: "UTC", State: "idle"},
		},
		checks:  checks(),
		pending: 2, oldest: now.Add(-time.Hour),
		live:  []httpapi.Check{{Name: "scheduler", OK: true, Detail: "silent"}},
		ready: []httpapi.Check{{Name: "running", OK: true, Detail: "stopping"}, {Name: "inventory of prod", OK: true, Detail: "not yet"}},
	}
}

// withFindings is busy with what the watch can find: one finding of each kind.
func withFindings() *fakeSource {
	source := busy()
	t := &source.tokens[0]
	for _, kind := range rotation.FindingKinds {
		t.Findings = append(t.Findings, status.Finding{Sink: "vault:secret/access/ci", Kind: string(kind), What: "it is " + string(kind),
			Since: now.Add(-time.Hour), Digest: "sha256:abc", Version: 7, WrittenAt: now.Add(-90 * time.Minute), WantVersion: 6, Error: "no permission"})
	}
	t.NotRestored, t.RestoredAt = "another writer", now.Add(-2*time.Hour)
	t.Hooks = []status.Hook{{Name: "exec:systemctl reload app", State: "failing", Failures: 1, Since: now.Add(-time.Hour), LastError: "exit status 1"}}
	t.RefusedInUse = &status.RefusedInUse{Since: now.Add(-time.Hour), Error: "HTTP 403"}
	return source
}

// TestFindingsAreShown: the status page and the JSON API show what the watch has found.
func TestFindingsAreShown(t *testing.T) {
	server := serve(t, withFindings())
	for path, want := range map[string][]string{
		"/":                        {"vault:secret/access/ci: it is", "ts secret in use is refused where it is tried", "HTTP 403"},
		"/tokens/ci-deploy":        {"It is ", "holds version 7", "no permission", "another writer", "refused where it is tried"},
		"/api/v1/tokens/ci-deploy": {`"kind": "rolled_back"`, `"want_version": 6`, `"not_restored": "another writer"`, `"refused_in_use": {`, `"restored_at": "2026-03-01T10:00:00Z"`},
	} {
		_, body := request(t, server, http.MethodGet, path)
		for _, text := range want {
			if !strings.Contains(body, text) {
				t.Errorf("%s does not show %q", path, text)
			}
		}
	}
}

// checks are one of each kind, of which some fail.
func checks() (all []status.Check) {
	for i, name := range status.CheckNames {
		check := status.Check{Name: name, LookedAt: now, OK: i%2 == 1, Stops: true}
		if !check.OK {
			check.Since, check.Reason, check.Detail = now.Add(-time.Minute), "sealed", "it is not there"
		}
		all = append(all, check)
	}
	return all
}

// serve serves a source, with metrics, on a real connection.
func serve(t *testing.T, source httpapi.Source) *httptest.Server {
	t.Helper()
	metrics := httpapi.NewMetrics(httpapi.Build{Version: "v1.2.3", Revision: "abc", GoVersion: "go1.26"})
	metrics.Show(source, noSession, noDrift)
	server := httptest.NewServer(httpapi.Handler(httpapi.Options{
		Source: source, Metrics: metrics, Logger: slog.New(slog.DiscardHandler), Version: "v1.2.3",
		Now: func() time.Time { return now }, Hosts: func() webpage.Hosts { return webpage.Hosts{} },
	}))
	t.Cleanup(server.Close)
	return server
}

func request(t *testing.T, server *httptest.Server, method, path string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.Header.Get("Refresh") != "" { // on a busy machine the tokens are still being read
		time.Sleep(10 * time.Millisecond)
		return request(t, server, method, path)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

// paths are all that is served.
var paths = []string{"/", "/tokens/ci-deploy", "/docs/", "/docs/runbook.md", "/metrics", "/livez", "/readyz", "/readyz?verbose", "/api/v1/tokens", "/api/v1/tokens/ci-deploy"}

func TestOnlyReadingIsAnswered(t *testing.T) {
	server := serve(t, busy())
	for _, path := range paths {
		get, body := request(t, server, http.MethodGet, path)
		if get.StatusCode != http.StatusOK || body == "" {
			t.Errorf("GET %s: %s with %d bytes, want 200 and a body", path, get.Status, len(body))
		}
		head, body := request(t, server, http.MethodHead, path)
		if head.StatusCode != http.StatusOK || body != "" {
			t.Errorf("HEAD %s: %s with %d bytes, want 200 without a body", path, head.Status, len(body))
		}
		if got, want := head.Header.Get("Content-Type"), get.Header.Get("Content-Type"); got != want {
			t.Errorf("HEAD %s: Content-Type %q, and %q for GET", path, got, want)
		}
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodTrace, "PROPFIND"} {
			res, _ := request(t, server, method, path)
			if res.StatusCode != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %s, want 405", method, path, res.Status)
			}
			if got := res.Header.Get("Allow"); got != "GET, HEAD" {
				t.Errorf("%s %s: Allow %q", method, path, got)
			}
		}
	}
}

func TestSecurityHeaders(t *testing.T) {
	server := serve(t, busy())
	for _, path := range append([]string{"/nosuch", "/api/v1/tokens/nosuch", "/debug/pprof/"}, paths...) {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			res, _ := request(t, server, method, path)
			for header, want := range map[string]string{
				"Content-Security-Policy": webpage.ContentPolicy,
				"X-Content-Type-Options":  "nosniff",
				"Cache-Control":           "no-store",
				"Referrer-Policy":         "no-referrer",
			} {
				if got := res.Header.Get(header); got != want {
					t.Errorf("%s %s: %s is %q, want %q", method, path, header, got, want)
				}
			}
		}
	}
}

func TestNothingElseIsServed(t *testing.T) {
	server := serve(t, busy())
	for _, path := range []string{"/nosuch", "/index.html", "/metrics/", "/livez/", "/api/v1/tokens/", "/api/v1/tokens/ci-deploy/secret", "/debug/pprof/", "/debug/vars", "/api"} {
		if res, _ := request(t, server, http.MethodGet, path); res.StatusCode != http.StatusNotFound {
			t.Errorf("GET %s: %s, want 404", path, res.Status)
		}
	}
}

func TestHealth(t *testing.T) {
	good := httpapi.Check{Name: "running", OK: true, Detail: "is stopping"}
	bad := httpapi.Check{Name: "inventory of prod", Detail: "has not been listed: see the log"}
	const badLine = "[-] inventory of prod: has not been listed: see the log\n"
	for _, c := range []struct {
		name   string
		checks []httpapi.Check
		query  string
		status int
		body   string
	}{
		{"good", []httpapi.Check{good}, "", 200, "ok\n"},
		{"good, verbose", []httpapi.Check{good}, "?verbose", 200, "[+] running: ok\nok\n"},
		{"good, verbose=1", []httpapi.Check{good}, "?verbose=1", 200, "[+] running: ok\nok\n"},
		{"one bad", []httpapi.Check{good, bad}, "", 503, badLine},
		{"one bad, verbose", []httpapi.Check{good, bad}, "?verbose", 503, "[+] running: ok\n" + badLine},
		{"bad first", []httpapi.Check{bad, good}, "?verbose", 503, badLine + "[+] running: ok\n"},
		{"nothing to check", nil, "?verbose", 200, "ok\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			// The other endpoint is the opposite: neither may answer for the other.
			other := []httpapi.Check{good}
			if c.status == 200 {
				other = []httpapi.Check{bad}
			}
			for path, source := range map[string]*fakeSource{
				"/livez":  {live: c.checks, ready: other},
				"/readyz": {live: other, ready: c.checks},
			} {
				res, body := request(t, serve(t, source), http.MethodGet, path+c.query)
				if res.StatusCode != c.status || body != c.body {
					t.Errorf("%s: %d %q, want %d %q", path, res.StatusCode, body, c.status, c.body)
				}
				if got := res.Header.Get("Content-Type"); got != "text/plain; charset=utf-8" {
					t.Errorf("%s: Content-Type %q", path, got)
				}
			}
		})
	}
}

func TestTokensAsJSON(t *testing.T) {
	source := busy()
	server := serve(t, source)
	res, body := request(t, server, http.MethodGet, "/api/v1/tokens")
	if got := res.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q", got)
	}
	var all []httpapi.TokenStatus
	if err := json.Unmarshal([]byte(body), &all); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(source.tokens, all); diff != "" {
		t.Errorf("the list (-want +got):\n%s", diff)
	}

	_, body = request(t, server, http.MethodGet, "/api/v1/tokens/ci-deploy")
	if diff := cmp.Diff(wantToken, body); diff != "" {
		t.Errorf("one token (-want +got):\n%s", diff)
	}
	// What is not known is not there, rather than a date in the year 1.
	_, body = request(t, server, http.MethodGet, "/api/v1/tokens/new")
	if strings.Contains(body, "0001-01-01") || strings.Contains(body, "last_success") || strings.Contains(body, "doubt") {
		t.Errorf("a token of which nothing is known:\n%s", body)
	}

	for _, name := range []string{"nosuch", "CI-DEPLOY", "ci-deploy%20", "%2e%2e", "<script>"} {
		res, body = request(t, server, http.MethodGet, "/api/v1/tokens/"+name)
		if res.StatusCode != http.StatusNotFound || res.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %s %s, want 404 as JSON", name, res.Status, res.Header.Get("Content-Type"))
		}
		if want := "{\n  \"error\": \"no token of that name is configured\"\n}\n"; body != want {
			t.Errorf("%s: %q", name, body)
		}
	}

	// No tokens are an empty list, not null.
	if _, body := request(t, serve(t, &fakeSource{}), http.MethodGet, "/api/v1/tokens"); body != "[]\n" {
		t.Errorf("without tokens: %q", body)
	}
}

const wantToken = `{
  "name": "ci-deploy",
  "account": "prod",
  "token_id": "f174e90a-fafe-4643-bbbc-4a0ed4fc8415",
  "client_id": "0123456789abcdef0123456789abcdef.access",
  "strategy": "rotate",
  "schedule": "0 4 * * 1",
  "time_zone": "Europe/Berlin",
  "state": "in_doubt",
  "next_reason": "in_doubt",
  "freeze": "year-end",
  "next": "2026-03-01T12:01:30Z",
  "last_success": "2026-02-27T10:00:00Z",
  "grace_end": "2026-03-01T13:00:00Z",
  "expiry": "2026-03-11T12:00:00Z",
  "last_seen": "2026-03-01T11:59:00Z",
  "known": true,
  "enabled": false,
  "consecutive_failures": 3,
  "last_error": "cloudflare rotate: unknown",
  "doubt": {
    "reason": "outcome_unknown",
    "detail": "the connection broke",
    "since": "2026-03-01T11:00:00Z",
    "rotation_id": "R1",
    "token_id": "f174e90a-fafe-4643-bbbc-4a0ed4fc8415",
    "asked_at": "2026-03-01T10:59:00Z",
    "updated_at_before": "2026-02-27T10:00:00Z",
    "updated_at_now": "2026-03-01T11:01:00Z",
    "carried_out": true,
    "answer_sealed": true,
    "old_works_until": "2026-03-01T13:00:00Z",
    "extensions": 2,
    "decision": "old_secret_works",
    "decided_at": "2026-03-01T11:59:00Z"
  },
  "pause": {
    "since": "2026-03-01T11:00:00Z",
    "until": "2026-03-01T13:00:00Z",
    "reason": "a migration",
    "by": "ops"
  },
  "order": {
    "since": "2026-03-01T11:59:00Z",
    "by": "root",
    "revoke_now": true,
    "left": 1
  },
  "deletions": [
    {
      "sink": "vault:secret/access/ci",
      "at": "2026-03-02T08:00:00Z"
    }
  ],
  "waiting": true,
  "waits_for": "Cloudflare's request limit",
  "waits_until": "2026-03-01T12:03:00Z",
  "reissue_owed_since": "2026-03-01T11:30:00Z",
  "cut_off_at": "2026-03-01T11:59:00Z",
  "emergency": true,
  "gone": true,
  "rotated_outside": "2026-03-01T10:00:00Z",
  "renews": "2026-03-03T12:00:00Z",
  "renewal_error": "refused",
  "verifies": true,
  "verification": {
    "since": "2026-03-01T11:50:00Z",
    "probes": 7,
    "refused": true,
    "error": "HTTP 401"
  },
  "unverified": "no route to host"
}
`

func TestPage(t *testing.T) {
	source := busy()
	source.ready[1].OK = false
	res, body := request(t, serve(t, source), http.MethodGet, "/")
	if got := res.Header.Get("Content-Type"); got != "text/html; charset=utf-8" {
		t.Errorf("Content-Type %q", got)
	}
	for _, want := range []string{
		"rotatord v1.2.3", "2026-03-01 12:00:00 UTC", `<b>Vault:</b> <span class="what">It is not there`, "no rotation begins until Vault",
		`<a href="/tokens/ci-deploy">ci-deploy</a>: <span class="what">Disabled at Cloudflare: its clients are locked out, whatever secret they have</span>`,
		`<p class="condition"><b>inventory of prod:</b> not yet</p>`, `<b>2 sealed secrets</b> not yet confirmed by every sink`,
		`>in 1 min`, "<code>0 4 * * 1</code>", "Europe/Berlin", "not planned",
		`href="/docs/runbook.md#rotatordtokenindoubt"`, "The old secret works until", "in 1 h 0 min",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the page does not contain %q\n%s", want, body)
		}
	}
	source.tokens[0].Doubt.OldWorksUntil = time.Time{}
	if _, body := request(t, serve(t, source), http.MethodGet, "/"); !strings.Contains(body, "is dead if the request was carried out") {
		t.Error("the page does not say that there is no grace")
	}
	source.tokens[0].Doubt.Spare = true
	if _, body := request(t, serve(t, source), http.MethodGet, "/"); strings.Contains(body, "is dead if the request") {
		t.Error("the page speaks of the old secret of a pair, which is not touched")
	}
	if strings.Contains(body, "running: stopping") {
		t.Error("the page complains of a check that is good")
	}
	if !strings.HasSuffix(strings.TrimSpace(body), "</html>") {
		t.Error("the page was cut off")
	}
	if _, body := request(t, serve(t, &fakeSource{}), http.MethodGet, "/"); !strings.Contains(body, "no tokens are configured") || strings.Contains(body, "sealed secret") {
		t.Errorf("the page without tokens:\n%s", body)
	}
}

// TestPageOfWorkInProgress: a token that is worked on now is not called unplanned.
func TestPageOfWorkInProgress(t *testing.T) {
	source := busy()
	source.tokens[1].State, source.tokens[1].Reason = "sealed", "unfinished"
	if _, body := request(t, serve(t, source), http.MethodGet, "/"); !strings.Contains(body, "now: the new secret is written to the sinks") {
		t.Errorf("the page does not say what is done now:\n%s", body)
	}
}

// TestPageEscapes puts markup wherever text from elsewhere is shown.
func TestPageEscapes(t *testing.T) {
	const hostile = `"'><script>alert(1)</script><img src=x onerror=alert(1)>{{.Version}}`
	source := busy()
	source.ready = []httpapi.Check{{Name: "name " + hostile, Detail: "detail " + hostile}}
	source.tokens = []httpapi.TokenStatus{{
		Name: "token " + hostile, Account: "account " + hostile, State: "state " + hostile, Schedule: "schedule " + hostile,
		TimeZone: "zone " + hostile, Reason: "reason " + hostile, LastError: "error " + hostile, Failures: 1,
		Doubt: &status.Doubt{Reason: "cause " + hostile, Detail: "detail " + hostile, Decision: "verdict " + hostile},
	}}
	server := httptest.NewServer(httpapi.Handler(httpapi.Options{
		Source: source, Metrics: httpapi.NewMetrics(httpapi.Build{}), Logger: slog.New(slog.DiscardHandler),
		Version: "version " + hostile, Now: func() time.Time { return now }, Hosts: func() webpage.Hosts { return webpage.Hosts{} },
	}))
	defer server.Close()
	_, body := request(t, server, http.MethodGet, "/")
	_, ofToken := request(t, server, http.MethodGet, "/tokens/"+url.PathEscape("token "+hostile))
	body += ofToken
	if strings.Contains(body, "<script>") || strings.Contains(body, "<img") || strings.Contains(body, `"'>`) {
		t.Errorf("markup came through:\n%s", body)
	}
	const escaped = `&#34;&#39;&gt;&lt;script&gt;alert(1)&lt;/script&gt;`
	for _, field := range []string{"version", "name", "detail", "token", "account", "state", "schedule", "zone", "reason", "error", "cause", "verdict"} {
		if !strings.Contains(body, field+" "+escaped) {
			t.Errorf("%s is not shown, so this test proves nothing about it", field)
		}
	}
	if _, body := request(t, server, http.MethodGet, "/api/v1/tokens"); strings.Contains(body, "<") {
		t.Errorf("markup came through as JSON:\n%s", body)
	}
}

// TestNoSecretIsShown puts a secret into the texts that come from elsewhere.
func TestNoSecretIsShown(t *testing.T) {
	for _, value := range []string{canary, canaryHex, canary[:30], canary + "0"} {
		source := busy()
		for i := range source.tokens {
			source.tokens[i].LastError = "an answer with " + value + " in it"
			source.tokens[i].Doubt = &status.Doubt{Detail: "the detail has " + value + " in it"}
			source.tokens[i].RenewalError, source.tokens[i].ReplacedError, source.tokens[i].Unverified = "renewal "+value, "replaced "+value, "unverified "+value
			source.tokens[i].Verification = &status.Verification{Error: "probe " + value}
		}
		server := serve(t, source)
		for _, path := range append([]string{"/api/v1/tokens/" + value, "/nosuch/" + value}, paths...) {
			_, body := request(t, server, http.MethodGet, path)
			if strings.Contains(body, value) || secret.Scrub(body) != body {
				t.Errorf("%s shows a secret:\n%s", path, body)
			}
		}
		if _, body := request(t, server, http.MethodGet, "/"); !strings.Contains(body, "an answer with "+secret.Redacted) ||
			!strings.Contains(body, "the detail has "+secret.Redacted) {
			t.Error("the page does not show the error at all, so this test proves nothing")
		}
		if source.tokens[0].LastError == "an answer with "+secret.Redacted+" in it" {
			t.Error("the handler changed what belongs to its source")
		}
	}
}
