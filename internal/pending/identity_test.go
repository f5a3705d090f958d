package pending_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"rotatord/internal/rotation"
	"rotatord/internal/statedir"
)

// TestForeignIdentityIsRefused: with another identity, the daemon would give up the secrets that wait to be
// delivered as lost. Secrets that no rotation needs do not matter.
func TestForeignIdentityIsRefused(t *testing.T) {
	o := statedir.Options{Dir: stateDir(t)}
	j := open(t, o)
	if err := j.Pending.Seal(t.Context(), rotation.PendingKey{RotationID: "R", Token: "ci"}, issued); err != nil {
		t.Fatal(err)
	}
	record, err := j.Ledger.Save(t.Context(), rotation.Record{
		Format: rotation.RecordFormat, Token: "ci", TokenID: "uuid", Step: rotation.StepSealed, Work: &rotation.Work{RotationID: "R", TokenID: "uuid"},
	})
	if err != nil {
		t.Fatal(err)
	}
	_ = j.Close()
	other, _ := age.GenerateX25519Identity()
	foreign := o
	foreign.Identity = func() (string, error) { return other.String(), nil }
	if _, err := statedir.Open(foreign); err == nil || !strings.Contains(err.Error(), "1 sealed secrets wait that another age identity has to open") {
		t.Errorf("%v", err)
	}
	j = open(t, o) // nothing was damaged
	if _, ok, err := j.Pending.Open(t.Context(), "R"); !ok || err != nil {
		t.Fatalf("%t, %v", ok, err)
	}
	record.Step, record.Work = rotation.StepIdle, nil
	if _, err := j.Ledger.Save(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	_ = j.Close()
	j = open(t, foreign)
	if _, ok, err := j.Pending.Open(t.Context(), "R"); ok || !errors.Is(err, rotation.ErrUnreadable) {
		t.Errorf("%t, %v", ok, err)
	}
}

// TestRottenSecretIsUnreadable: trying again does not help, and the core is told that.
func TestRottenSecretIsUnreadable(t *testing.T) {
	o := statedir.Options{Dir: stateDir(t)}
	j := open(t, o)
	if err := j.Pending.Seal(t.Context(), rotation.PendingKey{RotationID: "R", Token: "ci"}, issued); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(o.Dir, "pending", "R")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-40] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := j.Pending.Open(t.Context(), "R"); ok || !errors.Is(err, rotation.ErrUnreadable) {
		t.Errorf("%t, %v", ok, err)
	}
}
