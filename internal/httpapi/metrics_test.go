package httpapi_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"rotatord/internal/event"
	"rotatord/internal/httpapi"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// Everything that a label can be, by the constants of the core.
var (
	triggers = []rotation.Trigger{rotation.TriggerSchedule, rotation.TriggerCatchUp, rotation.TriggerRetry, rotation.TriggerRecovery, rotation.TriggerManual, rotation.TriggerCreate}
)

func newMetrics() *httpapi.Metrics {
	return httpapi.NewMetrics(httpapi.Build{Version: "v1.2.3", Revision: "abc", GoVersion: "go1.26"})
}

// tell has an event counted.
func tell(m *httpapi.Metrics, token string, d event.Detail) {
	m.Subscriber().Handle(event.New(now, token, event.Daemon, d))
}

// exercised are metrics to which everything has happened.
func exercised() *httpapi.Metrics {
	m := newMetrics()
	m.Known("ci-deploy")
	for _, phase := range event.Phases {
		tell(m, "ci-deploy", event.PhaseEnded{Phase: phase, Duration: time.Second})
	}
	for _, trigger := range triggers {
		for _, result := range event.Results {
			tell(m, "ci-deploy", event.RotationEnded{Trigger: string(trigger), Result: result, Duration: time.Second, Lag: time.Second})
		}
	}
	tell(m, "ci-deploy", event.SinkWrite{Sink: "vault:secret/access/ci"})
	tell(m, "ci-deploy", event.HookEnded{Hook: "exec:systemctl reload app"})
	tell(m, "ci-deploy", event.SinkWrite{Sink: "vault:secret/access/ci", Err: errors.New("sealed")})
	tell(m, "ci-deploy", event.Missed{Count: 2})
	tell(m, "ci-deploy", event.Verdict{Reason: rotation.ReasonUnderWay})
	tell(m, "ci-deploy", event.GraceExtension{})
	tell(m, "ci-deploy", event.Resolution{})
	tell(m, "ci-deploy", event.SealFailure{})
	tell(m, "ci-deploy", event.OutsideRotation{})
	tell(m, "ci-deploy", event.Renewal{})
	tell(m, "ci-deploy", event.Probe{Result: event.ProbeGood})
	m.Inventoried("prod", now)
	m.CloudflareRequest("rotate", "200", time.Second)
	m.CloudflareBudget("prod", 900)
	m.CloudflareThrottled("prod", 5*time.Minute)
	m.CloudflareSkew(time.Second)
	m.VaultRequest("write", "200", time.Second)
	m.KubernetesRequest("write", "200", time.Second)
	m.ConfigLoaded(now)
	m.SinkLooked("vault:secret/access/ci", "as_written")
	m.InUseProbed(rotation.ProbeBad)
	tell(m, "ci-deploy", event.SinkRestore{Sink: "vault:secret/access/ci"})
	tell(m, "", event.VaultLogin{Method: "kubernetes"})
	m.Receivers([]string{"night"}, nil)
	m.ShowRecord(func() httpapi.RecordState { return httpapi.RecordState{Seq: 48213, Lost: 2} })
	m.ShowWatch(func() (time.Duration, time.Time) { return time.Hour, now })
	source := withFindings()
	source.replicas = threeReplicas()
	m.Show(source, sessionUntil(now.Add(time.Hour)), noDrift)
	return m
}

// documented is one row of docs/metrics.md.
type documented struct {
	Type   string
	Labels []string
}

// TestMetricsAreDocumented holds docs/metrics.md and what is gathered against each other:
// names, types, labels, and the values of labels.
func TestMetricsAreDocumented(t *testing.T) {
	table, values := readDocument(t)
	families, err := exercised().Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	gathered, seen := map[string]documented{}, map[string]map[string]bool{}
	for _, family := range families {
		name := family.GetName()
		if strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") {
			continue
		}
		if family.GetHelp() == "" {
			t.Errorf("%s has no help", name)
		}
		var labels []string
		for i, metric := range family.GetMetric() {
			var own []string
			for _, label := range metric.GetLabel() {
				own = append(own, label.GetName())
				if seen[label.GetName()] == nil {
					seen[label.GetName()] = map[string]bool{}
				}
				if !slices.Contains([]string{"rotatord_sink_writes_total", "rotatord_verifications_total", "rotatord_sink_looks_total",
					"rotatord_secret_in_use_probes_total", "rotatord_sink_restores_total", "rotatord_late_answers_total", "rotatord_answer_copies_total",
					"rotatord_claims_taken_over_total", "rotatord_notifications_total"}, name) { // their results are others
					seen[label.GetName()][label.GetValue()] = true
				}
			}
			slices.Sort(own)
			if i > 0 && !slices.Equal(own, labels) {
				t.Errorf("the series of %s have different labels: %v and %v", name, labels, own)
			}
			labels = own
		}
		gathered[name] = documented{strings.ToLower(family.GetType().String()), labels}
	}
	if diff := cmp.Diff(table, gathered); diff != "" {
		t.Errorf("docs/metrics.md and the daemon differ (-documented +gathered):\n%s", diff)
	}
	for label, want := range values {
		got := slices.Collect(maps.Keys(seen[label]))
		slices.Sort(got)
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the values of the label %s (-documented +gathered):\n%s", label, diff)
		}
	}
}

// readDocument reads the tables of docs/metrics.md.
func readDocument(t *testing.T) (metrics map[string]documented, values map[string][]string) {
	t.Helper()
	content, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	quoted := regexp.MustCompile("`([a-z_]+)`")
	names := func(cell string) (found []string) {
		for _, m := range quoted.FindAllStringSubmatch(cell, -1) {
			found = append(found, m[1])
		}
		return found
	}
	metrics, values = map[string]documented{}, map[string][]string{}
	section := ""
	for line := range strings.Lines(string(content)) {
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			section = strings.TrimSpace(heading)
		}
		if !strings.HasPrefix(line, "| `") {
			if section == "Label values" && len(values) > 0 {
				section = "" // what follows the first table explains some of them
			}
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		switch name := names(cells[0]); section {
		case "The table":
			labels := names(cells[2])
			slices.Sort(labels)
			if _, twice := metrics[name[0]]; twice || len(cells) != 5 {
				t.Errorf("a bad row in the table: %s", line)
			}
			metrics[name[0]] = documented{strings.TrimSpace(cells[1]), labels}
		case "Label values":
			values[name[0]] = names(cells[1])
		}
	}
	if len(metrics) < 25 || len(values) != 6 {
		t.Fatalf("docs/metrics.md names %d metrics and the values of %d labels: was it read right?", len(metrics), len(values))
	}
	return metrics, values
}

// TestStates compares the states on the page and in metrics with the core's steps.
func TestStates(t *testing.T) {
	want := []string{"idle"}
	for _, step := range []rotation.Step{rotation.StepClaimed, rotation.StepIntent, rotation.StepSealed, rotation.StepStored, rotation.StepInDoubt} {
		want = append(want, string(step))
		if step == rotation.StepSealed { // of which one that was overtaken is a state of its own
			want = append(want, string(rotation.StateOvertaken))
		}
	}
	if !slices.Equal(status.States, want) {
		t.Errorf("the states are %v, and the core has %v", status.States, want)
	}
}

// expect compares some metrics with their text.
func expect(t *testing.T, m *httpapi.Metrics, want string, names ...string) {
	t.Helper()
	if err := testutil.GatherAndCompare(m.Gatherer(), strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
}

func TestMetricsAtStart(t *testing.T) {
	m := newMetrics()
	m.Known("ci-deploy")
	m.ConfigLoaded(time.UnixMilli(1_700_000_000_250))
	m.Show(&fakeSource{}, noSession, noDrift)
	names := []string{"rotatord_build_info", "rotatord_config_last_reload_successful", "rotatord_config_last_reload_success_timestamp_seconds",
		"rotatord_rotations_total", "rotatord_slots_missed_total", "rotatord_pending_secrets", "rotatord_pending_secret_oldest_timestamp_seconds",
		"rotatord_vault_session_expiry_timestamp_seconds", "rotatord_sink_writes_total", "rotatord_rotation_duration_seconds",
		"rotatord_cloudflare_requests_total", "rotatord_clock_skew_seconds"}
	expect(t, m, `
# HELP rotatord_build_info The running binary; always 1.
# TYPE rotatord_build_info gauge
rotatord_build_info{goversion="go1.26",revision="abc",version="v1.2.3"} 1
# HELP rotatord_clock_skew_seconds How far Cloudflare's clock is ahead of the local one, at most.
# TYPE rotatord_clock_skew_seconds gauge
rotatord_clock_skew_seconds 0
# HELP rotatord_config_last_reload_success_timestamp_seconds When the configuration was last loaded with success.
# TYPE rotatord_config_last_reload_success_timestamp_seconds gauge
rotatord_config_last_reload_success_timestamp_seconds 1.70000000025e+09
# HELP rotatord_config_last_reload_successful Whether the configuration was last loaded with success.
# TYPE rotatord_config_last_reload_successful gauge
rotatord_config_last_reload_successful 1
# HELP rotatord_pending_secrets Sealed secrets that are not yet confirmed by every sink.
# TYPE rotatord_pending_secrets gauge
rotatord_pending_secrets 0
# HELP rotatord_rotations_total Rotation attempts by trigger and result.
# TYPE rotatord_rotations_total counter
rotatord_rotations_total{result="failed",token="ci-deploy",trigger="schedule"} 0
rotatord_rotations_total{result="in_doubt",token="ci-deploy",trigger="schedule"} 0
rotatord_rotations_total{result="skipped",token="ci-deploy",trigger="schedule"} 0
rotatord_rotations_total{result="success",token="ci-deploy",trigger="schedule"} 0
# HELP rotatord_slots_missed_total Slots that passed without a rotation of their own.
# TYPE rotatord_slots_missed_total counter
rotatord_slots_missed_total{token="ci-deploy"} 0
# HELP rotatord_vault_session_expiry_timestamp_seconds When the session with Vault ends unless it is renewed; +Inf if it does not end, 0 without a session; absent without a Vault.
# TYPE rotatord_vault_session_expiry_timestamp_seconds gauge
rotatord_vault_session_expiry_timestamp_seconds 0
`, names...)
}

func TestMetricsOfEvents(t *testing.T) {
	m := newMetrics()
	attempted := func(trigger rotation.Trigger, result event.Result, lag time.Duration) {
		tell(m, "ci", event.RotationEnded{Trigger: string(trigger), Result: result, Duration: 300 * time.Millisecond, Lag: lag})
	}
	attempted(rotation.TriggerSchedule, event.ResultSuccess, 50*time.Millisecond)
	attempted(rotation.TriggerSchedule, event.ResultSuccess, -time.Second) // a clock that was set back
	attempted(rotation.TriggerCatchUp, event.ResultFailed, 2*time.Hour)
	attempted(rotation.TriggerRetry, event.ResultSkipped, time.Minute)      // no lag of the schedule
	attempted(rotation.TriggerRecovery, event.ResultInDoubt, 3*time.Minute) // neither
	tell(m, "ci", event.PhaseEnded{Phase: event.PhaseRotate, Duration: 20 * time.Millisecond, Err: errors.New("x")})
	tell(m, "ci", event.SinkWrite{Sink: "vault:secret/access/ci"})
	tell(m, "cd", event.SinkWrite{Sink: "vault:kv/other:path"})
	tell(m, "cd", event.SinkWrite{Sink: "vault:kv/other", Err: errors.New("sealed")})
	tell(m, "ci", event.Missed{Count: 3})
	tell(m, "ci", event.Missed{Count: 1})
	tell(m, "ci", event.Verdict{Reason: rotation.ReasonUnderWay})
	tell(m, "ci", event.Verdict{Reason: rotation.ReasonOldSecretWorks, Before: rotation.ReasonUnderWay})
	tell(m, "cd", event.Verdict{Reason: rotation.ReasonOldSecretWorks, Before: rotation.ReasonOldSecretWorks})
	tell(m, "ci", event.GraceExtension{})
	tell(m, "ci", event.GraceExtension{Err: errors.New("refused")})
	tell(m, "ci", event.OutsideRotation{})
	tell(m, "ci", event.Renewal{})
	tell(m, "ci", event.Renewal{Err: errors.New("refused")})
	for _, probe := range []event.ProbeResult{event.ProbeGood, event.ProbeBad, event.ProbeUnknown, event.ProbeBad} {
		tell(m, "ci", event.Probe{Result: probe})
	}
	m.CloudflareRequest("list", "200", 30*time.Second)
	m.CloudflareRequest("rotate", "error", 40*time.Millisecond)
	m.CloudflareRequest("rotate", "error", 40*time.Millisecond)
	m.CloudflareBudget("prod", 900)
	m.CloudflareBudget("prod", 899)
	m.CloudflareThrottled("prod", 1500*time.Millisecond)
	m.CloudflareThrottled("prod", time.Minute)
	m.CloudflareSkew(-1500 * time.Millisecond)
	m.VaultRequest("read", "404", time.Second)

	expect(t, m, `
# HELP rotatord_rotations_total Rotation attempts by trigger and result.
# TYPE rotatord_rotations_total counter
rotatord_rotations_total{result="failed",token="ci",trigger="catch_up"} 1
rotatord_rotations_total{result="in_doubt",token="ci",trigger="recovery"} 1
rotatord_rotations_total{result="skipped",token="ci",trigger="retry"} 1
rotatord_rotations_total{result="success",token="ci",trigger="schedule"} 2
`, "rotatord_rotations_total")
	expect(t, m, `
# HELP rotatord_renewals_total Renewals of service tokens, not of their secrets.
# TYPE rotatord_renewals_total counter
rotatord_renewals_total{result="failed",token="ci"} 1
rotatord_renewals_total{result="success",token="ci"} 1
# HELP rotatord_token_out_of_band_rotations_total Rotations by another person or program that an inventory has shown.
# TYPE rotatord_token_out_of_band_rotations_total counter
rotatord_token_out_of_band_rotations_total{token="ci"} 1
# HELP rotatord_verifications_total What new secrets were found to be where they were tried.
# TYPE rotatord_verifications_total counter
rotatord_verifications_total{result="bad",token="ci"} 2
rotatord_verifications_total{result="good",token="ci"} 1
rotatord_verifications_total{result="unknown",token="ci"} 1
`, "rotatord_renewals_total", "rotatord_token_out_of_band_rotations_total", "rotatord_verifications_total")
	expect(t, m, `
# HELP rotatord_doubt_verdicts_total Verdicts about tokens in doubt, also those to wait.
# TYPE rotatord_doubt_verdicts_total counter
rotatord_doubt_verdicts_total{reason="old_secret_works"} 2
rotatord_doubt_verdicts_total{reason="settling"} 1
# HELP rotatord_grace_extensions_total Attempts to give an old secret more time while consumers have no other.
# TYPE rotatord_grace_extensions_total counter
rotatord_grace_extensions_total{result="failed"} 1
rotatord_grace_extensions_total{result="success"} 1
`, "rotatord_doubt_verdicts_total", "rotatord_grace_extensions_total")
	expect(t, m, `
# HELP rotatord_schedule_lag_seconds How late rotations began, after slot and jitter.
# TYPE rotatord_schedule_lag_seconds histogram
rotatord_schedule_lag_seconds_bucket{le="0.01"} 1
rotatord_schedule_lag_seconds_bucket{le="0.1"} 2
rotatord_schedule_lag_seconds_bucket{le="1"} 2
rotatord_schedule_lag_seconds_bucket{le="10"} 2
rotatord_schedule_lag_seconds_bucket{le="60"} 2
rotatord_schedule_lag_seconds_bucket{le="300"} 2
rotatord_schedule_lag_seconds_bucket{le="1800"} 2
rotatord_schedule_lag_seconds_bucket{le="3600"} 2
rotatord_schedule_lag_seconds_bucket{le="21600"} 3
rotatord_schedule_lag_seconds_bucket{le="86400"} 3
rotatord_schedule_lag_seconds_bucket{le="+Inf"} 3
rotatord_schedule_lag_seconds_sum 7200.05
rotatord_schedule_lag_seconds_count 3
`, "rotatord_schedule_lag_seconds")
	expect(t, m, histogram("rotatord_rotation_step_duration_seconds", "Duration of the steps of a rotation.", `step="rotate"`, 2, 1, "0.02"),
		"rotatord_rotation_step_duration_seconds")
	expect(t, m, `
# HELP rotatord_sink_writes_total Deliveries to sinks, each confirmed by read-back or failed.
# TYPE rotatord_sink_writes_total counter
rotatord_sink_writes_total{result="failed",sink="vault"} 1
rotatord_sink_writes_total{result="success",sink="vault"} 2
# HELP rotatord_slots_missed_total Slots that passed without a rotation of their own.
# TYPE rotatord_slots_missed_total counter
rotatord_slots_missed_total{token="ci"} 4
`, "rotatord_sink_writes_total", "rotatord_slots_missed_total")
	expect(t, m, `
# HELP rotatord_cloudflare_ratelimit_remaining Requests left in Cloudflare's present window, as last told.
# TYPE rotatord_cloudflare_ratelimit_remaining gauge
rotatord_cloudflare_ratelimit_remaining{account="prod"} 899
# HELP rotatord_cloudflare_requests_total Requests to Cloudflare's API by operation and HTTP status.
# TYPE rotatord_cloudflare_requests_total counter
rotatord_cloudflare_requests_total{code="200",operation="list"} 1
rotatord_cloudflare_requests_total{code="error",operation="rotate"} 2
# HELP rotatord_cloudflare_throttled_seconds_total Seconds for which Cloudflare asked to be left alone.
# TYPE rotatord_cloudflare_throttled_seconds_total counter
rotatord_cloudflare_throttled_seconds_total{account="prod"} 61.5
# HELP rotatord_clock_skew_seconds How far Cloudflare's clock is ahead of the local one, at most.
# TYPE rotatord_clock_skew_seconds gauge
rotatord_clock_skew_seconds -1.5
# HELP rotatord_vault_requests_total Requests to Vault by operation and HTTP status.
# TYPE rotatord_vault_requests_total counter
rotatord_vault_requests_total{code="404",operation="read"} 1
`, "rotatord_cloudflare_ratelimit_remaining", "rotatord_cloudflare_requests_total", "rotatord_cloudflare_throttled_seconds_total",
		"rotatord_clock_skew_seconds", "rotatord_vault_requests_total")
}

// histogram is the text of one series with a single observation, which is above the
// first below of the buckets in seconds.
func histogram(name, help, label string, below, count int, sum string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s histogram\n", name, help, name)
	for i, le := range []string{"0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "20", "60", "+Inf"} {
		n := 0
		if i >= below {
			n = count
		}
		fmt.Fprintf(&b, "%s_bucket{%s,le=%q} %d\n", name, label, le, n)
	}
	fmt.Fprintf(&b, "%s_sum{%s} %s\n%s_count{%s} %d\n", name, label, sum, name, label, count)
	return b.String()
}

func TestMetricsOfTokens(t *testing.T) {
	m := newMetrics()
	m.Show(busy(), sessionUntil(time.Unix(1_800_000_000, 0)), noDrift)
	expect(t, m, `
# HELP rotatord_pending_secret_oldest_timestamp_seconds When the oldest pending secret was sealed; absent without one.
# TYPE rotatord_pending_secret_oldest_timestamp_seconds gauge
rotatord_pending_secret_oldest_timestamp_seconds 1.7723628e+09
# HELP rotatord_pending_secrets Sealed secrets that are not yet confirmed by every sink.
# TYPE rotatord_pending_secrets gauge
rotatord_pending_secrets 2
# HELP rotatord_token_consecutive_failures Rotation attempts that failed in a row.
# TYPE rotatord_token_consecutive_failures gauge
rotatord_token_consecutive_failures{token="ci-deploy"} 3
rotatord_token_consecutive_failures{token="new"} 0
# HELP rotatord_token_enabled Whether the token is enabled at Cloudflare; absent before it was asked.
# TYPE rotatord_token_enabled gauge
rotatord_token_enabled{token="ci-deploy"} 0
# HELP rotatord_token_expiry_timestamp_seconds When the service token itself expires; absent if never or unknown.
# TYPE rotatord_token_expiry_timestamp_seconds gauge
rotatord_token_expiry_timestamp_seconds{token="ci-deploy"} 1.7732304e+09
# HELP rotatord_token_grace_end_timestamp_seconds When the previous secret stops working; absent if it was revoked at once.
# TYPE rotatord_token_grace_end_timestamp_seconds gauge
rotatord_token_grace_end_timestamp_seconds{token="ci-deploy"} 1.77237e+09
# HELP rotatord_token_info A configured token; always 1.
# TYPE rotatord_token_info gauge
rotatord_token_info{account="prod",schedule="0 4 * * 1",strategy="rotate",token="ci-deploy"} 1
rotatord_token_info{account="prod",schedule="@weekly",strategy="replace",token="new"} 1
# HELP rotatord_token_last_seen_timestamp_seconds When Cloudflare last saw the token used; absent if unknown.
# TYPE rotatord_token_last_seen_timestamp_seconds gauge
rotatord_token_last_seen_timestamp_seconds{token="ci-deploy"} 1.77236634e+09
# HELP rotatord_token_last_success_timestamp_seconds When the token was last rotated with success.
# TYPE rotatord_token_last_success_timestamp_seconds gauge
rotatord_token_last_success_timestamp_seconds{token="ci-deploy"} 1.7721864e+09
# HELP rotatord_token_next_rotation_timestamp_seconds When the token is to be worked on next.
# TYPE rotatord_token_next_rotation_timestamp_seconds gauge
rotatord_token_next_rotation_timestamp_seconds{token="ci-deploy"} 1.77236649e+09
# HELP rotatord_vault_session_expiry_timestamp_seconds When the session with Vault ends unless it is renewed; +Inf if it does not end, 0 without a session; absent without a Vault.
# TYPE rotatord_vault_session_expiry_timestamp_seconds gauge
rotatord_vault_session_expiry_timestamp_seconds 1.8e+09
`, "rotatord_pending_secret_oldest_timestamp_seconds", "rotatord_pending_secrets", "rotatord_token_consecutive_failures", "rotatord_token_enabled",
		"rotatord_token_expiry_timestamp_seconds", "rotatord_token_grace_end_timestamp_seconds", "rotatord_token_info",
		"rotatord_token_last_seen_timestamp_seconds", "rotatord_token_last_success_timestamp_seconds",
		"rotatord_token_next_rotation_timestamp_seconds", "rotatord_vault_session_expiry_timestamp_seconds")

	expect(t, m, `
# HELP rotatord_orders_pending Tokens with an order to be rotated that is not carried out.
# TYPE rotatord_orders_pending gauge
rotatord_orders_pending{account="prod"} 1
# HELP rotatord_replaced_tokens Service tokens whose place others took and which are still to be deleted; absent for other strategies.
# TYPE rotatord_replaced_tokens gauge
rotatord_replaced_tokens{token="new"} 2
# HELP rotatord_sink_version_deletion_timestamp_seconds When a sink deletes by itself what it holds; absent if it keeps it.
# TYPE rotatord_sink_version_deletion_timestamp_seconds gauge
rotatord_sink_version_deletion_timestamp_seconds{sink="vault:secret/access/ci",token="ci-deploy"} 1.7724384e+09
# HELP rotatord_token_cutoff_timestamp_seconds When consumers are left without a secret that works unless the pending work is done before; absent if none is pending that threatens them.
# TYPE rotatord_token_cutoff_timestamp_seconds gauge
rotatord_token_cutoff_timestamp_seconds{token="ci-deploy"} 1.77236634e+09
# HELP rotatord_token_gone Whether the last inventory did not have the service token.
# TYPE rotatord_token_gone gauge
rotatord_token_gone{token="ci-deploy"} 1
rotatord_token_gone{token="new"} 0
# HELP rotatord_token_out_of_band_timestamp_seconds When another person or program rotated the token; absent after a rotation of our own.
# TYPE rotatord_token_out_of_band_timestamp_seconds gauge
rotatord_token_out_of_band_timestamp_seconds{token="ci-deploy"} 1.7723592e+09
# HELP rotatord_token_reissue_owed_timestamp_seconds Since when a lost secret waits to be made up for; absent if none does.
# TYPE rotatord_token_reissue_owed_timestamp_seconds gauge
rotatord_token_reissue_owed_timestamp_seconds{token="ci-deploy"} 1.7723646e+09
# HELP rotatord_token_verify_failing Whether a new secret in every sink is refused where it is tried; absent where none is tried.
# TYPE rotatord_token_verify_failing gauge
rotatord_token_verify_failing{token="ci-deploy"} 1
`, "rotatord_orders_pending", "rotatord_replaced_tokens", "rotatord_sink_version_deletion_timestamp_seconds", "rotatord_token_gone", "rotatord_token_out_of_band_timestamp_seconds", "rotatord_token_verify_failing",
		"rotatord_token_cutoff_timestamp_seconds", "rotatord_token_reissue_owed_timestamp_seconds")

	// One state is 1, and only one.
	for _, state := range status.States {
		m, source := newMetrics(), &fakeSource{tokens: []httpapi.TokenStatus{{Name: "ci", State: state}}}
		m.Show(source, noSession, noDrift)
		var want strings.Builder
		want.WriteString("# HELP rotatord_token_state 1 for the state that the token is in, 0 for the others.\n# TYPE rotatord_token_state gauge\n")
		for _, s := range status.States {
			n := 0
			if s == state {
				n = 1
			}
			fmt.Fprintf(&want, "rotatord_token_state{state=%q,token=\"ci\"} %d\n", s, n)
		}
		expect(t, m, want.String(), "rotatord_token_state")
	}
}

// TestSessionWithoutEnd covers a root token, whose session does not end.
func TestSessionWithoutEnd(t *testing.T) {
	m := newMetrics()
	m.Show(&fakeSource{}, sessionUntil(time.Time{}), noDrift)
	expect(t, m, `
# HELP rotatord_vault_session_expiry_timestamp_seconds When the session with Vault ends unless it is renewed; +Inf if it does not end, 0 without a session; absent without a Vault.
# TYPE rotatord_vault_session_expiry_timestamp_seconds gauge
rotatord_vault_session_expiry_timestamp_seconds +Inf
`, "rotatord_vault_session_expiry_timestamp_seconds")
}

// TestMetricsAreWellNamed runs Prometheus's own linter.
func TestMetricsAreWellNamed(t *testing.T) {
	problems, err := testutil.GatherAndLint(exercised().Gatherer())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestTwoRegistries shows that nothing is global.
func TestTwoRegistries(t *testing.T) {
	a, b := newMetrics(), newMetrics()
	tell(a, "ci", event.Missed{Count: 1})
	if n, err := testutil.GatherAndCount(b.Gatherer(), "rotatord_slots_missed_total"); err != nil || n != 0 {
		t.Errorf("the other registry has %d series, %v", n, err)
	}
}

// noDrift is a clock that nobody sets.
func noDrift() time.Duration { return 0 }
