package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"rotatord/internal/admin"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// TestFindingsArePrinted: status and resolve say what a sink holds, since when, and what can be typed.
func TestFindingsArePrinted(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	token := status.Token{
		Name: "ci", State: "idle",
		Findings: []status.Finding{
			{Sink: "vault:secret/access/ci", Kind: "changed", What: "it holds a secret that rotatord never wrote there", Since: now.Add(-time.Hour), Digest: "sha256:abc",
				Version: 8, WrittenAt: now.Add(-2 * time.Hour), WantVersion: 7, PutBack: "vault kv rollback -mount=secret -version=7 access/ci"},
			{Sink: "file:/run/ci.env", Kind: "unreadable", What: "it could not be read several times in a row", Since: now.Add(-time.Hour), Error: "permission denied"},
		},
		NotRestored: "another person or program rotated the service token", RestoredAt: now.Add(-3 * time.Hour),
		RefusedInUse: &status.RefusedInUse{Since: now.Add(-time.Hour), Error: "HTTP 403"},
		ToDo:         []status.ToDo{{Command: "rotatord resolve ci", Does: "Look at the sinks again now."}},
	}
	var shown bytes.Buffer
	if err := write(&shown, tokenText(token, admin.Overview{Tokens: []status.Token{token}}, now)); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(shown.String()), " ") // long lines are folded
	for _, want := range []string{
		"CRITICAL ci: a sink holds another secret than the one that was written to it (since 2026-03-01 11:00:00 UTC, 1 h 0 min ago)",
		"vault:secret/access/ci: it holds a secret that rotatord never wrote there, found 2026-03-01 11:00:00 UTC",
		"version 8 in place of 7, written 2026-03-01 10:00:00 UTC", "If no person has rotated it, this puts it back: vault kv rollback -mount=secret -version=7 access/ci",
		"file:/run/ci.env: it could not be read several times in a row", "permission denied",
		"not restored another person or program rotated the service token", "restored 2026-03-01 09:00:00 UTC", "HTTP 403", "rotatord resolve ci Look at the sinks again now.",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("status does not say %q:\n%s", want, shown.String())
		}
	}
	shown.Reset()
	if err := printOutcome(&shown, admin.Outcome{Token: token, Reason: rotation.ReasonSinksDiffer}, now); err != nil ||
		!strings.Contains(shown.String(), "a sink does not hold what was written to it") || !strings.Contains(shown.String(), "vault kv rollback") {
		t.Errorf("%v\n%s", err, shown.String())
	}
	shown.Reset()
	if err := printOutcome(&shown, admin.Outcome{Token: status.Token{Name: "ci"}, Resolved: true, Reason: rotation.ReasonOperatorAcceptSinks}, now); err != nil ||
		!strings.Contains(shown.String(), "an operator decided that what the sinks hold is right") {
		t.Errorf("%v\n%s", err, shown.String())
	}
}
