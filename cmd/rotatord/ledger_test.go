package main

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/statedir"
)

// TestMoveTellsOfSealed: sealed secrets do not move. What becomes of them is said on both ends.
func TestMoveTellsOfSealed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	d, err := statedir.Open(statedir.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	issued := rotation.Issued{Credential: rotation.Credential{ClientID: "x", ClientSecret: secret.New("cfast_CANARY")}}
	for _, id := range []string{"R-a", "LATE"} {
		key := rotation.PendingKey{RotationID: id, Token: "a"}
		if err := errors.Join(d.Pending.Reserve(t.Context(), key), d.Pending.Seal(t.Context(), key, issued)); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	var atImport, atExport strings.Builder
	if err := importLedger(t.Context(), &atImport, localPlace{dir}, moving("a", "b")); err != nil {
		t.Fatal(err)
	}
	if err := exportLedger(t.Context(), &atExport, localPlace{dir}, filepath.Join(t.TempDir(), "out.jsonl")); err != nil {
		t.Fatal(err)
	}
	for what, told := range map[string]string{"import": atImport.String(), "export": atExport.String()} {
		for _, want := range []string{"1 sealed secret(s) here belong to no rotation that the ledger knows", "1 secret(s) of rotations that were given up are sealed elsewhere, of: b."} {
			if !strings.Contains(told, want) {
				t.Errorf("%s: %s\nwant: %s", what, told, want)
			}
		}
		if strings.Contains(told, "CANARY") {
			t.Error("a secret is told")
		}
	}
	if ids, err := statedir.Sealed(dir); err != nil || len(ids) != 2 {
		t.Errorf("%q, %v", ids, err)
	}
}
