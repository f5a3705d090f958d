package app_test

import (
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/event"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

// TestPreviousSecretBesideTheNewOne: what the place says about the previous secret is what Cloudflare does.
func TestPreviousSecretBesideTheNewOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ci := w.token("ci", seldom, "1h")
	c, client := w.withSocket()
	to := c.Tokens[0].Sinks[0].(*config.VaultSink)
	to.PreviousSecretField, to.PreviousEndsField, to.PreviousIDField = "previous_client_secret", "previous_expires_at", "previous_client_id"
	d := w.start(c)
	rotations := 0
	rotate := func(o rotation.Overrides) map[string]any {
		t.Helper()
		rotations++
		if _, err := client.Rotate(t.Context(), "ci", o); err != nil {
			t.Fatal(err)
		}
		w.eventually("it is rotated", func() bool { return len(d.events.of("ci", event.ResultSuccess)) == rotations })
		if !w.delivered(ci) {
			t.Fatal("Vault does not have the current secret")
		}
		return w.vault.Read("secret", "access/ci")
	}
	first := rotate(rotation.Overrides{})
	if first["previous_client_secret"] != "" || first["previous_expires_at"] != "" {
		t.Error("a place that was empty has a previous secret")
	}
	second := rotate(rotation.Overrides{Grace: true})
	if second["previous_client_secret"] != first["client_secret"] || second["previous_client_id"] != first["client_id"] {
		t.Error("the previous secret is not the one from before")
	}
	text, _ := second["previous_expires_at"].(string)
	ends, err := time.Parse(time.RFC3339, text)
	all := w.sim.Secrets(ci.ID)
	before := all[len(all)-2]
	if err != nil || !before.Value.Equal(secret.New(first["client_secret"].(string))) || ends.Sub(before.ExpiresAt).Abs() > 5*time.Second {
		t.Errorf("it works until %q, %v; at Cloudflare until %s", text, err, before.ExpiresAt)
	}
}
