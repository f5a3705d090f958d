package httpapi_test

import (
	"errors"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"rotatord/internal/httpapi"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

const canary = "cfast_CANARYcanaryCANARYcanaryCANARYcanary0123deadbeef"

var now = time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC)

// source is a daemon with one token of each kind.
type source struct{ ready, live bool }

func (s source) Tokens() []httpapi.TokenStatus {
	return []httpapi.TokenStatus{
		{
			Name: "ci", Account: "prod", TokenID: "uuid", ClientID: "x.access", Strategy: "rotate", Schedule: "@weekly", TimeZone: "UTC",
			State: "idle", Reason: "slot", Next: now.Add(90 * time.Minute), LastSuccess: now.Add(-49 * time.Hour), GraceEnd: now.Add(time.Hour),
			Expiry: now.Add(30 * 24 * time.Hour), LastSeen: now.Add(-time.Minute), Known: true, Enabled: false,
		},
		{
			Name: "doubtful", Account: "<script>alert(1)</script>", Strategy: "rotate", Schedule: "@every 1h", TimeZone: "UTC", State: "in_doubt",
			Reason: "in_doubt", Next: now, Failures: 3, LastError: `no answer & "nothing"`, Doubt: "outcome_unknown",
		},
	}
}

func (source) Pending() (int, time.Time) { return 2, now.Add(-10 * time.Minute) }

func (s source) Live() []httpapi.Check {
	return []httpapi.Check{{Name: "scheduler", OK: s.live, Detail: "no sign of life"}}
}

func (s source) Ready() []httpapi.Check {
	return []httpapi.Check{{Name: "recovery", OK: true}, {Name: "inventory of prod", OK: s.ready, Detail: "not listed yet"}}
}

// exercised returns metrics that were told of everything at least once.
func exercised(s httpapi.Source) *httpapi.Metrics {
	m := httpapi.NewMetrics(httpapi.Build{Version: "v1", Revision: "abc", GoVersion: "go1.26"})
	m.Show(s, func() (time.Time, bool) { return now.Add(time.Hour), true })
	m.ConfigLoaded(now)
	m.Known("ci")
	failure := errors.New("refused " + canary)
	for _, e := range []rotation.Event{
		rotation.PhaseEnded{Token: "ci", Phase: rotation.PhaseRotate, Duration: 300 * time.Millisecond},
		rotation.PhaseEnded{Token: "ci", Phase: rotation.PhaseStore, Duration: time.Millisecond, Err: failure},
		rotation.SinkWritten{Token: "ci", Sink: "vault:secret/ci"},
		rotation.SinkWritten{Token: "ci", Sink: "vault:secret/other", Err: failure},
		rotation.Attempted{Token: "ci", Trigger: rotation.TriggerSchedule, Result: rotation.ResultSuccess, Duration: time.Second, Lag: 2 * time.Second},
		rotation.Attempted{Token: "ci", Trigger: rotation.TriggerRetry, Result: rotation.ResultFailed, Err: failure, Lag: time.Hour},
		rotation.SlotsMissed{Token: "ci", Count: 5},
		rotation.DoubtResolved{Token: "ci"},
	} {
		m.Observe(e)
	}
	m.CloudflareRequest("rotate", "200", 300*time.Millisecond)
	m.CloudflareRequest("list", "error", time.Second)
	m.CloudflareBudget("prod", 1180)
	m.CloudflareThrottled("prod", 5*time.Second)
	m.CloudflareSkew(-1500 * time.Millisecond)
	m.VaultRequest("write", "200", time.Millisecond)
	return m
}

func TestMetrics(t *testing.T) {
	want := `
rotatord_build_info{goversion="go1.26",revision="abc",version="v1"} 1
rotatord_clock_skew_seconds -1.5
rotatord_cloudflare_ratelimit_remaining{account="prod"} 1180
rotatord_cloudflare_requests_total{code="200",operation="rotate"} 1
rotatord_cloudflare_requests_total{code="error",operation="list"} 1
rotatord_cloudflare_throttled_seconds_total{account="prod"} 5
rotatord_config_last_reload_successful 1
rotatord_config_last_reload_success_timestamp_seconds 1.7954064e+09
rotatord_pending_secret_oldest_timestamp_seconds 1.7954058e+09
rotatord_pending_secrets 2
rotatord_rotation_duration_seconds_count{result="failed"} 1
rotatord_rotation_duration_seconds_sum{result="success"} 1
rotatord_rotation_duration_seconds_bucket{result="success",le="1.0"} 1
rotatord_rotation_duration_seconds_bucket{result="success",le="0.5"} 0
rotatord_rotation_step_duration_seconds_count{step="rotate"} 1
rotatord_rotations_total{result="failed",token="ci",trigger="retry"} 1
rotatord_rotations_total{result="failed",token="ci",trigger="schedule"} 0
rotatord_rotations_total{result="success",token="ci",trigger="schedule"} 1
rotatord_schedule_lag_seconds_count 1
rotatord_schedule_lag_seconds_sum 2
rotatord_sink_writes_total{result="failed",sink="vault"} 1
rotatord_sink_writes_total{result="success",sink="vault"} 1
rotatord_slots_missed_total{token="ci"} 5
rotatord_token_consecutive_failures{token="doubtful"} 3
rotatord_token_enabled{token="ci"} 0
rotatord_token_expiry_timestamp_seconds{token="ci"} 1.7979984e+09
rotatord_token_grace_end_timestamp_seconds{token="ci"} 1.79541e+09
rotatord_token_info{account="prod",schedule="@weekly",strategy="rotate",token="ci"} 1
rotatord_token_last_seen_timestamp_seconds{token="ci"} 1.79540634e+09
rotatord_token_last_success_timestamp_seconds{token="ci"} 1.79523e+09
rotatord_token_next_rotation_timestamp_seconds{token="ci"} 1.7954118e+09
rotatord_token_state{state="idle",token="ci"} 1
rotatord_token_state{state="in_doubt",token="ci"} 0
rotatord_token_state{state="in_doubt",token="doubtful"} 1
rotatord_token_state{state="idle",token="doubtful"} 0
rotatord_vault_requests_total{code="200",operation="write"} 1
rotatord_vault_session_expiry_timestamp_seconds 1.79541e+09
`
	got := get(t, source{ready: true, live: true}, "/metrics", http.StatusOK)
	lines := strings.Split(strings.ReplaceAll(got, `le="1"`, `le="1.0"`), "\n")
	for line := range strings.Lines(strings.TrimSpace(want)) {
		if !slices.Contains(lines, strings.TrimSuffix(line, "\n")) {
			t.Errorf("missing: %s", line)
		}
	}
	for _, absent := range []string{
		`rotatord_token_enabled{token="doubtful"}`, `rotatord_token_expiry_timestamp_seconds{token="doubtful"}`,
		`rotatord_token_last_success_timestamp_seconds{token="doubtful"}`,
	} {
		if strings.Contains(got, absent) {
			t.Errorf("%s is there, and nothing is known", absent)
		}
	}
	if problems, err := testutil.GatherAndLint(exercised(source{}).Gatherer()); err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v, %v", problems, err)
	}
}

func TestVaultSessionExpiry(t *testing.T) {
	for want, session := range map[float64]func() (time.Time, bool){
		0:           func() (time.Time, bool) { return time.Time{}, false },
		math.Inf(1): func() (time.Time, bool) { return time.Time{}, true },
		1.79541e9:   func() (time.Time, bool) { return now.Add(time.Hour), true },
	} {
		m := httpapi.NewMetrics(httpapi.Build{})
		m.Show(source{}, session)
		families, err := m.Gatherer().Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "rotatord_vault_session_expiry_timestamp_seconds" {
				if got := f.GetMetric()[0].GetGauge().GetValue(); got != want {
					t.Errorf("%v, want %v", got, want)
				}
			}
		}
	}
}

// TestDocumentedMetrics: docs/metrics.md has exactly the metrics that are gathered, with
// their types and labels.
func TestDocumentedMetrics(t *testing.T) {
	b, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	row := regexp.MustCompile("(?m)^\\| `(rotatord_[a-z0-9_]+)` \\| (\\w+) \\|([^|]*)\\|")
	for _, m := range row.FindAllStringSubmatch(string(b), -1) {
		var labels []string
		for _, l := range strings.FieldsFunc(m[3], func(r rune) bool { return strings.ContainsRune("`, ", r) }) {
			labels = append(labels, l)
		}
		slices.Sort(labels)
		documented[m[1]] = m[2] + " " + strings.Join(labels, ",")
	}
	families, err := exercised(source{}).Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	gathered := map[string]string{}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "rotatord_") {
			continue
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		slices.Sort(labels)
		gathered[f.GetName()] = strings.ToLower(f.GetType().String()) + " " + strings.Join(labels, ",")
	}
	if len(documented) < 25 {
		t.Fatalf("only %d documented metrics were found", len(documented))
	}
	if diff := cmp.Diff(documented, gathered); diff != "" {
		t.Errorf("docs/metrics.md (-) and /metrics (+) differ:\n%s", diff)
	}
}

func handler(s httpapi.Source) http.Handler {
	return httpapi.Handler(httpapi.Options{
		Source: s, Gatherer: exercised(s).Gatherer(), Logger: slog.New(slog.DiscardHandler), Version: "v1", Now: func() time.Time { return now },
	})
}

func get(t *testing.T, s httpapi.Source, path string, status int) string {
	t.Helper()
	w := httptest.NewRecorder()
	handler(s).ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	b, err := io.ReadAll(w.Body)
	if err != nil || w.Code != status {
		t.Errorf("GET %s: %d %v, want %d", path, w.Code, err, status)
	}
	return string(b)
}

func TestHealth(t *testing.T) {
	good, bad := source{ready: true, live: true}, source{}
	for _, test := range []struct {
		s      source
		path   string
		status int
		want   string
	}{
		{good, "/livez", 200, "ok\n"},
		{bad, "/livez", 503, "[-] scheduler: no sign of life\n"},
		{good, "/readyz", 200, "ok\n"},
		{bad, "/readyz", 503, "[-] inventory of prod: not listed yet\n"},
		{good, "/readyz?verbose", 200, "[+] recovery: ok\n[+] inventory of prod: ok\nok\n"},
		{bad, "/readyz?verbose", 503, "[+] recovery: ok\n[-] inventory of prod: not listed yet\n"},
	} {
		if got := get(t, test.s, test.path, test.status); got != test.want {
			t.Errorf("%s: %q, want %q", test.path, got, test.want)
		}
	}
}

func TestPageAndJSON(t *testing.T) {
	page := get(t, source{}, "/", 200)
	for _, want := range []string{
		"in 1 h 30 min", "2 d ago", "in 30 d", "disabled", "in_doubt", "2 sealed secret(s)", "inventory of prod: not listed yet",
		"&lt;script&gt;alert(1)", "no answer &amp; &#34;nothing&#34;",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
	if strings.Contains(page, "<script>") {
		t.Error("the page can be scripted by a name")
	}
	if all := get(t, source{}, "/api/v1/tokens", 200); !strings.Contains(all, `"name": "ci"`) || !strings.Contains(all, `"doubt": "outcome_unknown"`) {
		t.Error(all)
	}
	if one := get(t, source{}, "/api/v1/tokens/ci", 200); !strings.Contains(one, `"next": "2026-11-23T05:30:00Z"`) || strings.Contains(one, "doubtful") {
		t.Error(one)
	}
	if none := get(t, source{}, "/api/v1/tokens/none", 404); !strings.Contains(none, "no token of that name") {
		t.Error(none)
	}
	get(t, source{}, "/nowhere", 404)
}

func TestReadOnlyAndHeaders(t *testing.T) {
	for _, path := range []string{"/", "/metrics", "/livez", "/readyz", "/api/v1/tokens", "/api/v1/tokens/ci"} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch} {
			w := httptest.NewRecorder()
			handler(source{}).ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader("x")))
			if w.Code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", method, path, w.Code)
			}
		}
		w := httptest.NewRecorder()
		handler(source{ready: true, live: true}).ServeHTTP(w, httptest.NewRequest(http.MethodHead, path, nil))
		if w.Code != 200 || w.Header().Get("X-Content-Type-Options") != "nosniff" ||
			!strings.Contains(w.Header().Get("Content-Security-Policy"), "default-src 'none'") || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("HEAD %s: %d %v", path, w.Code, w.Header())
		}
	}
}

func TestNoSecret(t *testing.T) {
	for _, path := range []string{"/", "/metrics", "/api/v1/tokens"} {
		if body := get(t, source{}, path, 200); secret.Scrub(body) != body || strings.Contains(body, "CANARY") {
			t.Errorf("%s shows a secret", path)
		}
	}
}
