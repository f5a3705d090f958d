package main

import (
	"strings"
	"testing"
	"time"

	"rotatord/internal/admin"
	"rotatord/internal/status"
)

// TestStatusOfWaitingTokens: both views say what a token that is due waits for, and until when.
func TestStatusOfWaitingTokens(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	limit := "Cloudflare's request limit (Cloudflare asked to be left alone: 429)"
	turn := "its turn: 16 rotations of account prod are in progress"
	o := admin.Overview{Tokens: []status.Token{
		{Name: "a", State: "idle", Reason: "slot", Next: now.Add(-time.Minute), Waiting: true, WaitsFor: limit, WaitsUntil: now.Add(3 * time.Minute)},
		{Name: "b", State: "idle", Reason: "slot", Next: now.Add(-time.Minute), Waiting: true, WaitsFor: limit, WaitsUntil: now.Add(4 * time.Minute)},
		{Name: "c", State: "idle", Reason: "slot", Next: now.Add(-time.Minute), Waiting: true, WaitsFor: turn},
		{Name: "d", State: "idle", Reason: "slot", Next: now.Add(time.Minute)},
	}}
	var out strings.Builder
	if err := printTokens(&out, o, now); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\n2 due, but waiting for " + limit + ", until 2026-03-01 12:04:00 UTC (in 4 min 0 s).\n",
		"\n1 due, but waiting for " + turn + ".\n",
		"slot, waits\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if n := strings.Count(out.String(), "waits\n"); n != 3 {
		t.Errorf("%d lines wait in\n%s", n, out.String())
	}
	for i, want := range []string{limit + ", until 2026-03-01 12:03:00 UTC (in 3 min 0 s)\n", "", turn + "\n", ""} {
		out.Reset()
		if err := printToken(&out, o.Tokens[i], o, now); err != nil {
			t.Fatal(err)
		}
		if want != "" && !strings.Contains(out.String(), want) || want == "" && i == 3 && strings.Contains(out.String(), "waits for") {
			t.Errorf("%s", out.String())
		}
	}
}
