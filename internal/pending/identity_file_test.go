package pending_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rotatord/internal/pending"
	"rotatord/internal/rotation"
	"rotatord/internal/statedir"
)

// TestIdentityMoves: the secret that waits is opened with the copy, and never lost on the way. Each step may be repeated.
func TestIdentityMoves(t *testing.T) {
	o := statedir.Options{Dir: stateDir(t)}
	j := open(t, o)
	if err := j.Pending.Seal(t.Context(), rotation.PendingKey{RotationID: "R", Token: "ci"}, issued); err != nil {
		t.Fatal(err)
	}
	here, there := statedir.IdentityFile(o.Dir), filepath.Join(t.TempDir(), "age-identity")
	for range 2 { // beside the daemon that has the directory open
		key, err := pending.CopyIdentity(here, there)
		if err != nil || key != j.Pending.PublicKey() {
			t.Fatalf("%q, %v", key, err)
		}
	}
	_ = j.Close()
	text, err := os.ReadFile(there)
	if err != nil {
		t.Fatal(err)
	}
	for _, removed := range []bool{true, false} {
		if got, err := pending.RemoveIdentity(here, string(text)); err != nil || got != removed {
			t.Fatalf("%t, %v", got, err)
		}
	}
	o.Identity = func() (string, error) { return string(text), nil }
	j = open(t, o)
	if got, ok, err := j.Pending.Open(t.Context(), "R"); err != nil || !ok || got.ClientSecret.Reveal() != issued.ClientSecret.Reveal() {
		t.Errorf("%t, %v", ok, err)
	}
	if _, err := os.Lstat(here); err == nil {
		t.Error("the start made an identity beside the secrets again")
	}
}

// TestIdentityStays where a mistake would lose it. No message repeats a key.
func TestIdentityStays(t *testing.T) {
	dir := t.TempDir()
	mine, other, torn := filepath.Join(dir, "mine"), filepath.Join(dir, "other"), filepath.Join(dir, "torn")
	for _, path := range []string{mine, other} {
		if _, err := pending.CreateIdentity(path); err != nil {
			t.Fatal(err)
		}
	}
	text, _, err := pending.IdentityText(mine)
	if err != nil {
		t.Fatal(err)
	}
	key := string(text)[strings.Index(string(text), "AGE-SECRET"):]
	if err := os.WriteFile(torn, []byte(key[:30]), 0o600); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(other)
	for name, do := range map[string]func() error{
		"copy over another":     func() error { _, err := pending.CopyIdentity(mine, other); return err },
		"copy over a torn one":  func() error { _, err := pending.CopyIdentity(mine, torn); return err },
		"copy a torn one":       func() error { _, err := pending.CopyIdentity(torn, filepath.Join(dir, "new")); return err },
		"create over another":   func() error { _, err := pending.CreateIdentity(other); return err },
		"remove for another":    func() error { _, err := pending.RemoveIdentity(other, key); return err },
		"remove for a torn one": func() error { _, err := pending.RemoveIdentity(mine, key[:30]); return err },
		"remove for nothing":    func() error { _, err := pending.RemoveIdentity(mine, ""); return err },
		"remove a symbolic link": func() error {
			link := filepath.Join(dir, "link")
			if err := os.Symlink(mine, link); err != nil {
				t.Fatal(err)
			}
			_, err := pending.RemoveIdentity(link, key)
			return err
		},
	} {
		if err := do(); err == nil || strings.Contains(err.Error(), key[20:30]) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after, _ := os.ReadFile(other); string(after) != string(before) {
		t.Error("an identity was replaced")
	}
	if _, _, err := pending.IdentityText(mine); err != nil {
		t.Error(err)
	}
}
