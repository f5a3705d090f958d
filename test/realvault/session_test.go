package realvault_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/sink"
	"rotatord/internal/vault"
	"rotatord/test/realvault"
)

// works reads a secret that is not there, which the shipped policy allows.
func works(t *testing.T, s *vault.Session) error {
	t.Helper()
	if err := s.Ready(t.Context(), 0); err != nil {
		return err
	}
	_, err := s.Read(t.Context(), "secret/data/access/x")
	return err
}

// keepsWorking holds that a session works all the time. One that a stalled machine could not renew in time has to come back.
func keepsWorking(t *testing.T, s *vault.Session, length time.Duration, over string) {
	t.Helper()
	last := time.Now()
	for deadline := last.Add(length); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		err := works(t, s)
		took := time.Since(last)
		if err != nil && took < 500*time.Millisecond {
			t.Fatalf("lost over %s: %v", over, err)
		}
		if err != nil {
			t.Logf("lost over %s, while this machine stood still for %s: %v", over, took, err)
			eventuallyWorks(t, s, "this machine stood still")
		}
		last = time.Now()
	}
}

// eventuallyWorks waits for a session that repairs itself.
func eventuallyWorks(t *testing.T, s *vault.Session, after string) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if err = works(t, s); err == nil {
			return
		}
	}
	t.Fatalf("no session 2 min after %s: %v", after, err)
}

// TestSession: leases of the real Vault are renewed, and replaced when they end or when the
// server was sealed or killed.
func TestSession(t *testing.T) {
	v := realvault.Start(t)
	v.MountKV(t, "secret", 2, false)
	roleID, secretID := v.AppRole(t, realvault.LeastPolicy(t), "3s", "6s")
	s := startSession(t, v.Address, roleID, secretID)
	keepsWorking(t, s, 14*time.Second, "the lease of 3 s, or the maximum of 6 s")
	v.Seal(t)
	if err := works(t, s); err == nil || !strings.Contains(err.Error(), "sealed") {
		t.Fatalf("a sealed Vault: %v", err)
	}
	v.Unseal(t)
	eventuallyWorks(t, s, "unsealing")
	v.Kill()
	if err := works(t, s); err == nil || !strings.Contains(err.Error(), "cannot be reached") {
		t.Fatalf("a killed Vault: %v", err)
	}
	v.Resume(t)
	eventuallyWorks(t, s, "the restart")
}

// TestRevokedAndDenied: with a secret ID that is good for two logins, a revoked token costs
// the second, and any number of denied paths costs none.
func TestRevokedAndDenied(t *testing.T) {
	if testing.Short() {
		t.Skip("a denial right after a login is not looked into")
	}
	v := realvault.Start(t)
	v.MountKV(t, "secret", 2, false)
	roleID, _ := v.AppRole(t, realvault.LeastPolicy(t), "1h", "2h")
	root := v.Root(t).Logical()
	twice, err := root.Write("auth/approle/role/rotatord/secret-id", map[string]any{"num_uses": 2})
	if err != nil {
		t.Fatal(err)
	}
	usesLeft := func() string {
		t.Helper()
		s, err := root.Write("auth/approle/role/rotatord/secret-id-accessor/lookup",
			map[string]any{"secret_id_accessor": twice.Data["secret_id_accessor"]})
		if err != nil {
			return "none" // Vault deletes it with its last use
		}
		return fmt.Sprint(s.Data["secret_id_num_uses"])
	}
	s := startSession(t, v.Address, roleID, twice.Data["secret_id"].(string))
	if err := works(t, s); err != nil {
		t.Fatal(err)
	}
	if left := usesLeft(); left != "1" {
		t.Fatalf("after the first login the secret ID has %s uses left", left)
	}
	time.Sleep(11 * time.Second) // until denials are looked into
	for range 20 {
		if _, err := s.Read(t.Context(), "secret/data/elsewhere/x"); vault.StatusOf(err) != 403 {
			t.Fatalf("the least policy allows secret/data/elsewhere: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if left := usesLeft(); left != "1" {
		t.Fatalf("denied paths cost logins: the secret ID has %s uses left", left)
	}
	accessors, err := root.List("auth/token/accessors")
	if err != nil {
		t.Fatal(err)
	}
	for _, accessor := range accessors.Data["keys"].([]any) {
		about, err := root.Write("auth/token/lookup-accessor", map[string]any{"accessor": accessor})
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(fmt.Sprint(about.Data["path"]), "auth/approle/") {
			if _, err := root.Write("auth/token/revoke-accessor", map[string]any{"accessor": accessor}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := works(t, s); err == nil {
		t.Fatal("the token was not revoked, so this test proves nothing")
	}
	eventuallyWorks(t, s, "the token was revoked")
	if left := usesLeft(); left != "none" {
		t.Errorf("a revoked token was replaced, and yet the secret ID has %s uses left", left)
	}
}

// TestUpgradedMount: a mount that becomes one of version 2 under a running daemon keeps its
// secrets, and the sink sees them.
func TestUpgradedMount(t *testing.T) {
	v := realvault.Start(t)
	v.MountKV(t, "secret", 1, false)
	policy := realvault.LeastPolicy(t) + `path "secret/access/*" { capabilities = ["create", "read", "update"] }`
	roleID, secretID := v.AppRole(t, policy, "1h", "2h")
	s := sink.NewVault(startSession(t, v.Address, roleID, secretID), config.VaultSink{Mount: "secret", Path: "access/ci",
		SinkFields: config.SinkFields{ClientIDField: "client_id", ClientSecretField: "client_secret"}})
	deliver := func(value string) rotation.Stored {
		t.Helper()
		base, err := s.Preflight(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		stored, err := s.Store(t.Context(), rotation.Delivery{Credential: rotation.Credential{ClientID: "id", ClientSecret: secret.New(value)}, Base: base})
		if err != nil {
			t.Fatal(err)
		}
		return stored
	}
	first := deliver("first")
	if err := v.Root(t).Sys().TuneMountAllowNil("secret", api.TuneMountConfigInput{Options: &map[string]string{"version": "2"}}); err != nil {
		t.Fatal(err)
	}
	var now rotation.Stored
	var err error
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if now, err = s.Preflight(t.Context()); err == nil {
			break // it refuses requests while it upgrades
		}
	}
	if err != nil || !now.Exists || now.Digest != first.Digest {
		t.Fatalf("after the upgrade Preflight sees %+v, %v; stored was %+v", now, err, first)
	}
	if after := deliver("second"); after.Version != now.Version+1 {
		t.Errorf("version %d became %d", now.Version, after.Version)
	}
}

// TestDestroyedVersion: a latest version that was destroyed still counts for check-and-set.
func TestDestroyedVersion(t *testing.T) {
	v := realvault.Start(t)
	v.MountKV(t, "secret", 2, true)
	roleID, secretID := v.AppRole(t, realvault.LeastPolicy(t), "1h", "2h")
	s := sink.NewVault(startSession(t, v.Address, roleID, secretID), config.VaultSink{Mount: "secret", Path: "access/ci",
		SinkFields: config.SinkFields{ClientIDField: "client_id", ClientSecretField: "client_secret"}})
	for n := 1; n <= 2; n++ {
		base, err := s.Preflight(t.Context())
		if err != nil || base.Exists || base.Version != n-1 {
			t.Fatalf("before version %d: %+v, %v", n, base, err)
		}
		after, err := s.Store(t.Context(), rotation.Delivery{Credential: rotation.Credential{ClientID: "id", ClientSecret: secret.New(fmt.Sprint("value ", n))}, Base: base})
		if err != nil || after.Version != n {
			t.Fatalf("version %d: %+v, %v", n, after, err)
		}
		if _, err := v.Root(t).Logical().Write("secret/destroy/access/ci", map[string]any{"versions": []int{n}}); err != nil {
			t.Fatal(err)
		}
	}
}
