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
	for what, move := range map[string]func(*strings.Builder) error{
		"import": func(b *strings.Builder) error { return importLedger(t.Context(), b, localPlace{dir}, moving("a", "b")) },
		"export": func(b *strings.Builder) error {
			err := importLedger(t.Context(), new(strings.Builder), localPlace{dir}, moving("a", "b"))
			return errors.Join(err, exportLedger(t.Context(), b, localPlace{dir}, filepath.Join(t.TempDir(), "out.jsonl")))
		},
	} {
		var told strings.Builder
		if err := move(&told); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"1 sealed secret(s) here belong to no rotation that the ledger knows", "1 secret(s) of rotations that were given up are sealed elsewhere, of: b."} {
			if !strings.Contains(told.String(), want) {
				t.Errorf("%s: %s\nwant: %s", what, told.String(), want)
			}
		}
		if strings.Contains(told.String(), "CANARY") {
			t.Error("a secret is told")
		}
	}
	if ids, err := statedir.Sealed(dir); err != nil || len(ids) != 2 {
		t.Errorf("%q, %v", ids, err)
	}
}
