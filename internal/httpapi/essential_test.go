package httpapi_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/httpapi"
)

// seriesOf returns the series of /metrics that name a token, by metric.
func seriesOf(t *testing.T, m *httpapi.Metrics, token string) map[string]int {
	t.Helper()
	families, err := m.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			for _, label := range metric.GetLabel() {
				if label.GetName() == "token" && label.GetValue() == token {
					found[family.GetName()]++
				}
			}
		}
	}
	return found
}

func total(series map[string]int) (n int) {
	for _, count := range series {
		n += count
	}
	return n
}

// healthy is a token that was rotated yesterday, with everything that Cloudflare says of it.
func healthy() httpapi.TokenStatus {
	return httpapi.TokenStatus{
		Name: "ci", Account: "prod", Strategy: "rotate", Schedule: "@weekly", State: "idle", Known: true, Enabled: true, Verifies: true,
		LastSuccess: now.Add(-24 * time.Hour), Next: now.Add(time.Hour), Expiry: now.Add(1000 * time.Hour), GraceEnd: now.Add(time.Hour),
		LastSeen: time.Now().Add(-time.Hour),
	}
}

func shown(token httpapi.TokenStatus, essential bool) *httpapi.Metrics {
	m := newMetrics()
	m.Known("ci")
	tell(m, "ci", event.RotationEnded{Trigger: "schedule", Result: "success", Duration: time.Second})
	tell(m, "ci", event.Probe{Result: event.ProbeGood})
	tell(m, "ci", event.Renewal{})
	m.Essential(essential)
	m.Show(&fakeSource{tokens: []httpapi.TokenStatus{token}}, nil, noDrift)
	return m
}

// A healthy token has five series, and nothing is lost of the sums.
func TestEssentialOfAHealthyToken(t *testing.T) {
	t.Parallel()
	full, few := seriesOf(t, shown(healthy(), false), "ci"), seriesOf(t, shown(healthy(), true), "ci")
	if total(few) != 5 {
		t.Errorf("%d series: %v", total(few), few)
	}
	if total(full) < 20 {
		t.Errorf("%d series without the setting: this test shows nothing: %v", total(full), full)
	}
	if sums := seriesOf(t, shown(healthy(), true), ""); sums["rotatord_rotations_total"] == 0 || sums["rotatord_verifications_total"] == 0 {
		t.Errorf("the sums over all tokens: %v", sums)
	}
}

// What is wrong with a token is shown as with full.
func TestEssentialOfTrouble(t *testing.T) {
	t.Parallel()
	for metric, spoil := range map[string]func(*httpapi.TokenStatus){
		"rotatord_token_grace_end_timestamp_seconds":    func(s *httpapi.TokenStatus) { s.State = "sealed" },
		"rotatord_token_last_seen_timestamp_seconds":    func(s *httpapi.TokenStatus) { s.LastSeen = time.Now().Add(-8 * 24 * time.Hour) },
		"rotatord_token_enabled":                        func(s *httpapi.TokenStatus) { s.Enabled = false },
		"rotatord_token_gone":                           func(s *httpapi.TokenStatus) { s.Gone = true },
		"rotatord_token_consecutive_failures":           func(s *httpapi.TokenStatus) { s.Failures = 1 },
		"rotatord_token_last_failure_info":              func(s *httpapi.TokenStatus) { s.Failures = 1 },
		"rotatord_token_cutoff_timestamp_seconds":       func(s *httpapi.TokenStatus) { s.CutOffAt = now },
		"rotatord_token_reissue_owed_timestamp_seconds": func(s *httpapi.TokenStatus) { s.ReissueOwed = now },
		"rotatord_token_out_of_band_timestamp_seconds":  func(s *httpapi.TokenStatus) { s.Outside = now },
		"rotatord_token_restored_timestamp_seconds":     func(s *httpapi.TokenStatus) { s.RestoredAt = now },
	} {
		token := healthy()
		spoil(&token)
		if few := seriesOf(t, shown(token, true), "ci"); few[metric] != 1 {
			t.Errorf("%s is not shown: %v", metric, few)
		}
	}
}

// Each metric with the label token has its rule: a new one may not make series of each token unseen.
func TestEssentialKnowsEveryMetric(t *testing.T) {
	t.Parallel()
	families, err := exercised().Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	known := httpapi.EssentialMetrics()
	n := 0
	for _, family := range families {
		for _, label := range family.GetMetric()[0].GetLabel() {
			if label.GetName() != "token" || !strings.HasPrefix(family.GetName(), "rotatord_") {
				continue
			}
			if n++; !slices.Contains(known, family.GetName()) {
				t.Errorf("%s has the label token and no rule in the table essential", family.GetName())
			}
		}
	}
	if n < 20 {
		t.Errorf("%d metrics: this test shows nothing", n)
	}
}
