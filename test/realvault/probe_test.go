package realvault_test

import (
	"strings"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/sink"
	"rotatord/internal/vault"
	"rotatord/test/realvault"
)

func ciSink(session *vault.Session) *sink.Vault {
	return sink.NewVault(session, config.VaultSink{Mount: "secret", Path: "access/ci",
		SinkFields: config.SinkFields{ClientIDField: "client_id", ClientSecretField: "client_secret"}})
}

// TestProbeWritesNothing: the proof of a write makes neither a version nor metadata, on a secret
// that is not there and on one that is.
func TestProbeWritesNothing(t *testing.T) {
	v := realvault.Start(t)
	v.MountKV(t, "secret", 2, false)
	roleID, secretID := v.AppRole(t, realvault.LeastPolicy(t), "1h", "2h")
	s := ciSink(startSession(t, v.Address, roleID, secretID))
	for range 3 {
		if _, err := s.Preflight(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if metadata, err := v.Root(t).Logical().Read("secret/metadata/access/ci"); err != nil || metadata != nil {
		t.Fatalf("a probe made metadata: %+v, %v", metadata, err)
	}
	if list, err := v.Root(t).Logical().List("secret/metadata"); err != nil || list != nil {
		t.Fatalf("a probe made an entry: %+v, %v", list, err)
	}
	// No form of the value that rotatord sends writes, whatever the present version is.
	for range 3 {
		_, err := v.Root(t).Logical().Write("secret/data/access/ci", map[string]any{"data": map[string]any{"a": "b"}, "options": map[string]any{"cas": -1}})
		if err == nil || !strings.Contains(err.Error(), "check-and-set parameter did not match") {
			t.Fatalf("cas -1: %v", err)
		}
		if _, err := v.Root(t).Logical().Write("secret/data/access/ci", map[string]any{"data": map[string]any{"a": "b"}}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestParametersOfAPolicy: capabilities-self says that the write is allowed, and it is not.
func TestParametersOfAPolicy(t *testing.T) {
	v := realvault.Start(t)
	v.MountKV(t, "secret", 2, false)
	for parameters, allowed := range map[string]bool{
		`allowed_parameters = { "data" = [] }`:                    false,
		`allowed_parameters = { "data" = [], "options" = [] }`:    true,
		`allowed_parameters = { "*" = [], "options" = ["none"] }`: false,
		`denied_parameters = { "options" = [] }`:                  false,
		`denied_parameters = { "*" = [] }`:                        false,
		`required_parameters = ["data", "options"]`:               false, // of a read too
		`required_parameters = ["reason"]`:                        false,
		`min_wrapping_ttl = "1s"`:                                 false,
	} {
		policy := strings.Replace(realvault.LeastPolicy(t), `"create", "read", "update"]`, `"create", "read", "update"]
  `+parameters, 1)
		roleID, secretID := v.AppRole(t, policy, "1h", "2h")
		_, err := ciSink(startSession(t, v.Address, roleID, secretID)).Preflight(t.Context())
		if (err == nil) != allowed {
			t.Errorf("%s: %v", parameters, err)
		}
	}
}

// TestUsesOfAToken: a session with too few uses is replaced by a new login before a rotation, and
// a rotation is refused if a new one would be good for too few as well.
func TestUsesOfAToken(t *testing.T) {
	v := realvault.Start(t)
	v.MountKV(t, "secret", 2, false)
	roleID, secretID := v.AppRole(t, realvault.LeastPolicy(t), "1h", "2h")
	limit := func(uses int) {
		t.Helper()
		if _, err := v.Root(t).Logical().Write("auth/approle/role/rotatord", map[string]any{"token_num_uses": uses}); err != nil {
			t.Fatal(err)
		}
	}
	limit(20)
	s := ciSink(startSession(t, v.Address, roleID, secretID))
	for n := range 6 {
		base, err := s.Preflight(t.Context())
		if err != nil {
			t.Fatalf("rotation %d: %v", n, err)
		}
		c := rotation.Credential{ClientID: "id", ClientSecret: secret.New(time.Duration(n).String())}
		if _, err := s.Store(t.Context(), rotation.Delivery{Credential: c, Base: base}); err != nil {
			t.Fatalf("rotation %d: %v", n, err)
		}
	}
	limit(5)
	s = ciSink(startSession(t, v.Address, roleID, secretID))
	if _, err := s.Preflight(t.Context()); err == nil || !strings.Contains(err.Error(), "token_num_uses") {
		t.Errorf("a session with 5 uses: %v", err)
	}
}

// TestDeletionOfTheMount: what the mount says of its versions is known before the first one is
// written.
func TestDeletionOfTheMount(t *testing.T) {
	v := realvault.Start(t)
	v.MountKV(t, "secret", 2, false)
	for after, want := range map[string]time.Duration{"24h": 24 * time.Hour, "0s": 0, "-1s": 0} {
		if _, err := v.Root(t).Logical().Write("secret/config", map[string]any{"delete_version_after": after}); err != nil {
			t.Fatal(err)
		}
		roleID, secretID := v.AppRole(t, realvault.LeastPolicy(t), "1h", "2h")
		now, err := ciSink(startSession(t, v.Address, roleID, secretID)).Preflight(t.Context())
		if err != nil || now.DeleteAfter != want {
			t.Errorf("%s: %+v, %v; want %s", after, now, err, want)
		}
	}
}
