package main

import (
	"strings"
	"testing"
	"time"

	"rotatord/internal/admin"
	"rotatord/internal/status"
)

// TestStatusOfOneToken: the page says what is done now if no time is known, and has the last error on its own line.
func TestStatusOfOneToken(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		token status.Token
		want  string
	}{
		{status.Token{State: "sealed", Reason: "unfinished", Failures: 2, LastError: "the disk is full"}, "next             now: the new secret is written to the sinks\n"},
		{status.Token{State: "claimed", Reason: "unfinished"}, "next             now: a rotation is in progress\n"},
		{status.Token{State: "idle", Reason: "paused"}, "next             not planned: it is paused\n"},
		{status.Token{State: "idle", Reason: "never"}, "next             not planned: the schedule has no more slots\n"},
		{status.Token{Failures: 2, LastError: "the disk is full"}, "failures         2 in a row\n  last error       the disk is full\n"},
		{status.Token{LastError: "the disk is full"}, "failures         0 in a row\n  last error       the disk is full (of an earlier try)\n"},
		{status.Token{}, "failures         0 in a row\n  pending"},
	} {
		var out strings.Builder
		if err := printToken(&out, test.token, admin.Overview{}, now); err != nil || !strings.Contains(out.String(), test.want) {
			t.Errorf("%v, no %q in\n%s", err, test.want, out.String())
		}
	}
}

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
