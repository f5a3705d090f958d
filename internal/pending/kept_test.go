package pending_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rotatord/internal/pending"
	"rotatord/internal/secret"
)

// TestBox keeps a secret that another process finds, and nobody else.
func TestBox(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "box.age")
	open := func(identity string) pending.Box {
		t.Helper()
		sealed := filepath.Join(dir, "pending")
		if err := os.MkdirAll(sealed, 0o700); err != nil {
			t.Fatal(err)
		}
		s, err := pending.Open(pending.Options{Dir: sealed, IdentityFile: filepath.Join(dir, identity),
			Unfinished: func(string) bool { return false }, Usable: func() error { return nil }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s.Box(path)
	}
	box := open("identity.age")
	if v, err := box.Kept(); err != nil || !v.IsZero() {
		t.Fatalf("a box that was never filled: %v, %v", v, err)
	}
	for _, content := range []string{"first-CANARY", "second-CANARY"} {
		if err := box.Keep(secret.New(content)); err != nil {
			t.Fatal(err)
		}
		if v, err := open("identity.age").Kept(); err != nil || v.Reveal() != content {
			t.Errorf("the next process finds %v, %v", v, err)
		}
	}
	written, err := os.ReadFile(path)
	if info, _ := os.Stat(path); err != nil || bytes.Contains(written, []byte("CANARY")) || info.Mode() != 0o600 {
		t.Errorf("the file is readable: %v", err)
	}
	if _, err := open("other.age").Kept(); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("another identity: %v", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := box.Kept(); err == nil {
		t.Error("a file that every user can read was used")
	}
	if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := box.Kept(); err == nil || strings.Contains(err.Error(), "nonsense") {
		t.Errorf("a damaged file: %v", err)
	}
}
