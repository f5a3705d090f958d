package main

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"rotatord/internal/admin"
	"rotatord/internal/status"
)

// write writes a text of status.
func write(w io.Writer, text string) error {
	_, err := io.WriteString(w, text)
	return err
}

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
		if err := write(&out, tokenText(test.token, admin.Overview{}, now)); err != nil || !strings.Contains(out.String(), test.want) {
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
	if err := write(&out, overviewText(o, true, now)); err != nil {
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
		if err := write(&out, tokenText(o.Tokens[i], o, now)); err != nil {
			t.Fatal(err)
		}
		if want != "" && !strings.Contains(out.String(), want) || want == "" && i == 3 && strings.Contains(out.String(), "waits for") {
			t.Errorf("%s", out.String())
		}
	}
}

// TestTroubleFirstThenOneLine: without --all, a fleet is what is wrong with it and one line for the rest.
func TestTroubleFirstThenOneLine(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	fine := status.Token{Name: "fine", State: "idle", Next: now.Add(time.Hour)}
	later := status.Token{Name: "later", State: "idle", Next: now.Add(2 * time.Hour)}
	busy := status.Token{Name: "busy", State: "stored", Next: now}
	busy.Next = time.Time{}
	paused := status.Token{Name: "paused", State: "idle", Next: now.Add(time.Minute), Pause: &status.Pause{}}
	frozen := status.Token{Name: "frozen", State: "idle", Next: now.Add(5 * time.Hour), Freeze: "christmas"}
	gone := status.Token{Name: "ci", State: "idle", Gone: true, Next: now}
	disk := []status.Check{{Name: status.CheckDiskSpace, Detail: "2 % are left"}}
	const goneText = "CRITICAL  ci: Cloudflare has no such service token any more: its clients are locked out\n" +
		"          to do: in its entry of the configuration write create: {name: ci} in place of id, or the id of another service token, and reload\n          see: rotatord docs runbook#rotatordtokengone\n\n"
	for name, test := range map[string]struct {
		o    status.Overview
		want string
	}{
		"nothing wrong": {status.Overview{Tokens: []status.Token{later, fine}}, "nothing is wrong with 2 tokens; next: fine in 1 h 0 min (--all shows each)\n"},
		"one token":     {status.Overview{Tokens: []status.Token{busy}}, "nothing is wrong with 1 token; in progress: busy (--all shows each)\n"},
		"all kinds": {status.Overview{Tokens: []status.Token{later, fine, busy, paused, frozen}},
			"nothing is wrong with 5 tokens; in progress: busy; paused: paused; 1 wait for the end of a freeze; next: fine in 1 h 0 min (--all shows each)\n"},
		"trouble":       {status.Overview{Tokens: []status.Token{gone, fine}}, goneText + "nothing is wrong with the other 1 token; next: fine in 1 h 0 min (--all shows each)\n"},
		"only trouble":  {status.Overview{Tokens: []status.Token{gone}}, goneText + "no other tokens are configured\n"},
		"a check fails": {status.Overview{Tokens: []status.Token{fine}, Checks: disk}, "WARNING   disk space: 2 % are left\n          to do: make room before the disk is full\n          see: rotatord docs runbook#check-disk_space\n\nnothing else is wrong with 1 token; next: fine in 1 h 0 min (--all shows each)\n"},
		"no tokens":     {status.Overview{}, "no tokens are configured\n"},
		"replicas": {status.Overview{Tokens: []status.Token{fine}, Replicas: &status.Replicas{Name: "a", SyncedAt: now, Replicas: []status.Replica{{Name: "a", Living: true}, {Name: "b", Living: true}}}},
			"nothing is wrong with 1 token; next: fine in 1 h 0 min; 2 of 2 replicas living, this is a (--all shows each)\n"},
	} {
		if got := overviewText(test.o, false, now); got != test.want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, test.want)
		}
	}
}

// TestAllNamesOfATrouble: with --all, no name of a token in trouble is left out.
func TestAllNamesOfATrouble(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var o status.Overview
	for i := range 100 {
		o.Tokens = append(o.Tokens, status.Token{Name: fmt.Sprintf("token-%03d", i), State: "idle", Gone: true})
	}
	first, _, _ := strings.Cut(overviewText(o, true, now), "TOKEN ")
	for _, token := range o.Tokens {
		if !strings.Contains(first, token.Name) {
			t.Errorf("%s is left out", token.Name)
		}
	}
	for line := range strings.Lines(first) {
		if len(line) > 200 {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
	if short := overviewText(o, false, now); strings.Contains(short, "token-050") || !strings.Contains(short, "100 tokens (token-000, ") {
		t.Errorf("without --all:\n%s", short)
	}
}

// TestEveryCommandOfStatusIsTaken: what status offers to type, in every state and trouble, is what the program takes.
func TestEveryCommandOfStatusIsTaken(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	tokens := []status.Token{
		{State: "idle"}, {State: "claimed"}, {State: "idle", GraceEnd: now.Add(time.Hour)}, {State: "idle", Account: "a", AccountError: "x"},
		{State: "idle", Unread: true}, {State: "idle", Expiry: now.Add(time.Hour)}, {State: "idle", Deletions: []status.Deletion{{At: now}}}, {State: "idle", Unverified: "x"},
	}
	found := 0
	for _, token := range tokens {
		token.Name = "ci"
		for _, command := range status.Commands(token.WhatToType(now)) {
			found++
			if err := understood(shellWords(strings.TrimPrefix(command, "rotatord "))); err != nil {
				t.Errorf("%s: %v", command, err)
			}
		}
		if text := tokenText(token, status.Overview{}, now); !strings.Contains(text, "\nwhat you can do\n") {
			t.Errorf("status does not say what to type:\n%s", text)
		}
	}
	if found < len(tokens) {
		t.Errorf("only %d commands were found", found)
	}
}
