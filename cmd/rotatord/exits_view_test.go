package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"rotatord/internal/admin"
	"rotatord/internal/pending"
	"rotatord/internal/rotation"
	"rotatord/internal/statedir"
	"rotatord/internal/status"
)

// TestOvertakenIsPrinted: status and resolve say what is known, and what can be typed.
func TestOvertakenIsPrinted(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	token := status.Token{
		Name: "ci", State: status.Overtook, Failures: 3, LastError: "the sink holds a secret that is not ours",
		Overtaken: &status.Overtaken{Since: now.Add(-time.Hour), Sinks: []string{"vault:secret/access/ci"}, ChangedAt: now.Add(-2 * time.Hour), Tried: "the secret in the sink is refused: 401"},
		ToDo:      []status.ToDo{{Command: "rotatord resolve ci --drop", Does: "End this rotation."}, {Does: "Mend the sink."}},
	}
	var shown bytes.Buffer
	if err := write(&shown, tokenText(token, admin.Overview{}, now)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"state            overtaken\n", "since 2026-03-01 11:00:00 UTC (1 h 0 min ago)", "sinks with another secret: vault:secret/access/ci", "shows that the service token was changed 2026-03-01 10:00:00 UTC",
		"the secret in the sink is refused: 401", "what you can do\n", "  rotatord resolve ci --drop\n      End this rotation.\n", "  Mend the sink.\n",
	} {
		if !strings.Contains(shown.String(), want) {
			t.Errorf("status does not say %q:\n%s", want, shown.String())
		}
	}
	shown.Reset()
	if err := write(&shown, overviewText(admin.Overview{Tokens: []status.Token{token}}, true, now)); err != nil || !strings.Contains(shown.String(), "CRITICAL  ci: its new secret is not delivered, because a sink holds a later one (since 2026-03-01 11:00:00 UTC, 1 h 0 min ago)\n") {
		t.Errorf("%v\n%s", err, shown.String())
	}
	shown.Reset()
	if err := printOutcome(&shown, admin.Outcome{Token: token, Reason: rotation.ReasonOvertaken}, now); err != nil ||
		!strings.Contains(shown.String(), "ci: overtaken (") || !strings.Contains(shown.String(), "rotatord resolve ci --drop") {
		t.Errorf("%v\n%s", err, shown.String())
	}
	shown.Reset()
	if err := printOutcome(&shown, admin.Outcome{Token: status.Token{Name: "ci"}, Resolved: true, Reason: rotation.ReasonOperatorDrop}, now); err != nil ||
		!strings.Contains(shown.String(), "an operator gave up the new secret") || !strings.Contains(shown.String(), "rotatord status ci") {
		t.Errorf("%v\n%s", err, shown.String())
	}
	shown.Reset()
	token.Overtaken = &status.Overtaken{Since: now, Gone: true}
	if err := write(&shown, tokenText(token, admin.Overview{}, now)); err != nil || !strings.Contains(shown.String(), "no longer has this service token") {
		t.Errorf("%v\n%s", err, shown.String())
	}
}

// TestRecoverNamesTheExit: no advice of recover leads back to a daemon that cannot end it.
func TestRecoverNamesTheExit(t *testing.T) {
	found := describe(&statedir.Inspection{
		Sealed: []pending.Sealed{{PendingKey: rotation.PendingKey{RotationID: "A"}}, {PendingKey: rotation.PendingKey{RotationID: "B"}}},
		InHand: map[string]rotation.Record{"A": {
			Token: "ci", Step: rotation.StepSealed, Work: &rotation.Work{RotationID: "A", Overtaken: &rotation.Overtaken{Since: time.Now()}},
		}},
		Abandoned: map[string]string{"B": "ci"},
	}, onDisk)
	if found[0].State != "overtaken" || !strings.Contains(found[0].Do, "rotatord resolve ci --drop, --deliver or --rotate-now") {
		t.Errorf("%+v", found[0])
	}
	if found[1].State != "unneeded" || found[1].Token != "ci" || !strings.Contains(found[1].Detail, "is erased when the next rotation of ci is done") {
		t.Errorf("%+v", found[1])
	}
}
