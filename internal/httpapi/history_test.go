package httpapi_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/status"
)

// TestHistoryIsServed: what a request asks for reaches the source, and what the source returns is shown scrubbed.
func TestHistoryIsServed(t *testing.T) {
	source := busy()
	source.history = status.History{More: true, Entries: []status.HistoryEntry{
		{Seq: 7, At: now, Kind: "rotation.failed", Severity: "warning", Token: "ci-deploy", By: "schedule", Message: "rotation failed", Error: canary, RotationID: "R1"},
	}}
	server := serve(t, source)
	for path, want := range map[string]status.HistoryQuery{
		"/api/v1/history": {},
		"/api/v1/history?token=ci-deploy&kind=rotation&limit=5": {Token: "ci-deploy", Kind: "rotation", Limit: 5},
		"/api/v1/tokens/ci-deploy/history?since=24h":            {Token: "ci-deploy", Since: now.Add(-24 * time.Hour)},
		"/api/v1/tokens/ci-deploy/history?token=other":          {Token: "ci-deploy"},
		"/api/v1/history?since=2026-02-01":                      {Since: time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)},
	} {
		answer, body := request(t, server, http.MethodGet, path)
		if answer.StatusCode != http.StatusOK || strings.Contains(body, canary) || !strings.Contains(body, `"rotation_id": "R1"`) || !strings.Contains(body, `"more": true`) {
			t.Errorf("%s: %d %s", path, answer.StatusCode, body)
		}
		if diff := cmp.Diff(want, source.asked); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
	for _, path := range []string{"?limit=0", "?limit=99999", "?limit=x", "?since=soon", "?tokn=x", "?since=-4h"} {
		if answer, body := request(t, server, http.MethodGet, "/api/v1/history"+path); answer.StatusCode != http.StatusBadRequest || !strings.Contains(body, `"error"`) {
			t.Errorf("%s: %d %s", path, answer.StatusCode, body)
		}
	}
	source.history = status.History{}
	if _, body := request(t, server, http.MethodGet, "/api/v1/history"); !strings.Contains(body, `"entries": []`) {
		t.Errorf("without entries: %s", body)
	}
}
