package alerts

import (
	"strings"
	"testing"
	"time"
)

const answer = `{"status": "success", "data": {"alerts": [
 {"labels": {"alertname": "RotatordVaultFailing", "severity": "warning", "job": "vault-gone", "instance": "127.0.0.1:1"},
  "annotations": {"summary": "Vault does not serve 127.0.0.1:1."}, "state": "pending", "activeAt": "2026-11-28T14:31:03Z", "value": "1e+00"},
 {"labels": {"alertname": "RotatordTokenGone", "severity": "critical", "job": "token-deleted", "instance": "127.0.0.1:2", "token": "token-deleted"},
  "annotations": {}, "state": "firing", "activeAt": "2026-11-28T14:31:03Z", "value": "1e+00"},
 {"labels": {"alertname": "RotatordTokenUnwatched", "severity": "warning", "token": "vault-gone", "account": "vault-gone"},
  "annotations": {}, "state": "firing", "activeAt": "2026-11-28T14:31:03Z", "value": "1e+00"},
 {"labels": {"alertname": "RotatordAbsent", "severity": "critical"}, "annotations": {}, "state": "firing", "activeAt": "2026-11-28T14:31:03Z", "value": "1e+00"}
]}}`

func TestParseAlerts(t *testing.T) {
	t.Parallel()
	alerts, err := parseAlerts([]byte(answer))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, a := range alerts {
		names = append(names, a.name()+" "+a.severity()+" "+a.State)
	}
	want := "RotatordAbsent critical firing, RotatordTokenGone critical firing, RotatordTokenUnwatched warning firing, RotatordVaultFailing warning pending"
	if got := strings.Join(names, ", "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for name, want := range map[string]string{
		"vault-gone":    "RotatordTokenUnwatched RotatordVaultFailing",
		"token-deleted": "RotatordTokenGone",
		"disk-full":     "",
	} {
		var found []string
		for _, a := range concerning(alerts, &site{scenario: scenario{name: name}}) {
			found = append(found, a.name())
		}
		if got := strings.Join(found, " "); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if got := concerning(alerts, &site{scenario: scenario{name: "doubt", alone: true}}); len(got) != 4 {
		t.Errorf("a site with a Prometheus of its own has %d alerts, want all 4", len(got))
	}
}

func TestParseAlertsRefuses(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"nothing":      "",
		"HTML":         "<html>502</html>",
		"an error":     `{"status": "error", "error": "query timed out"}`,
		"another type": `{"status": "success", "data": {"alerts": 3}}`,
		"no name":      `{"status": "success", "data": {"alerts": [{"labels": {"job": "x"}, "state": "firing"}]}}`,
		"no state":     `{"status": "success", "data": {"alerts": [{"labels": {"alertname": "x"}}]}}`,
	} {
		if alerts, err := parseAlerts([]byte(body)); err == nil {
			t.Errorf("%s: accepted as %v", name, alerts)
		}
	}
}

// The table shows the first alert, the first critical one, and what was resolved.
func TestReport(t *testing.T) {
	t.Parallel()
	s := &site{scenario: scenario{name: "doubt", what: "a doubt"}}
	silent := &site{scenario: scenario{name: "quiet", what: "a silent failure"}}
	provoked := time.Date(2026, 11, 28, 14, 0, 0, 0, time.UTC)
	s.watch.provoked, silent.watch.provoked = provoked, provoked
	fired := func(name, severity string, after, resolved time.Duration) *seen {
		a := &seen{alert: alert{Labels: map[string]string{"alertname": name, "severity": severity}, State: "firing"}, fired: after, resolved: resolved}
		s.watch.alerts[a.key()] = a
		return a
	}
	s.watch.alerts = map[string]*seen{}
	fired("RotatordTokenInDoubt", "critical", 150*time.Second, 160*time.Second)
	s.watch.first = fired("RotatordRotationFailing", "warning", 61*time.Second, 0)
	table := report([]*site{s, silent}, provoked.Add(time.Hour))
	for _, row := range []string{
		"| a doubt | 1m1s | RotatordRotationFailing | warning | 2m30s (RotatordTokenInDoubt) | RotatordTokenInDoubt 2m30s | RotatordTokenInDoubt 2m40s |\n",
		"| a silent failure | none in 1h0m0s |",
	} {
		if !strings.Contains(table, row) {
			t.Errorf("the report has no row %q:\n%s", row, table)
		}
	}
}
