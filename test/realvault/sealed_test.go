package realvault_test

import (
	"testing"

	"rotatord/internal/rotation"
	"rotatord/test/realvault"
)

// TestSealIsSeen asks a real Vault, under the least policy, whether it is sealed. Only a Vault that answers
// "sealed" while its API is up shows this: every other request gets 503 then.
func TestSealIsSeen(t *testing.T) {
	v := realvault.Start(t)
	v.MountKV(t, "secret", 2, false)
	roleID, secretID := v.AppRole(t, realvault.LeastPolicy(t), "1h", "24h")
	s := startSession(t, v.Address, roleID, secretID)
	if err := s.Ready(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if err := s.CheckSeal(t.Context()); err != nil {
		t.Errorf("an unsealed Vault: %v", err)
	}
	if limited, err := s.Limited(t.Context()); err != nil || limited {
		t.Errorf("limited: %t, %v", limited, err)
	}
	v.Seal(t)
	if err := s.CheckSeal(t.Context()); rotation.CauseOf(err) != "sealed" {
		t.Errorf("a sealed Vault: %v", err)
	}
	v.Unseal(t)
	if err := s.CheckSeal(t.Context()); err != nil {
		t.Errorf("an unsealed Vault: %v", err)
	}
	v.Kill()
	if err := s.CheckSeal(t.Context()); rotation.CauseOf(err) != "unreachable" {
		t.Errorf("a Vault that is gone: %v (%s)", err, rotation.CauseOf(err))
	}
}
