package cloudflare

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/smallfile"
)

// TestCredentialOnAMountThatHangs: while a file system does not answer, the credential that was read last is
// used. A missing or empty file is not a credential, and a client that never read one has none. What the
// scheduler calls never touches the file.
func TestCredentialOnAMountThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "token")
		put := func(content string) {
			t.Helper()
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		account := config.Account{Name: "prod", AccountID: "a", APIToken: config.SecretSource{File: path}, RequestsPer5m: 100}
		c, late := New(account, Options{}), New(account, Options{})
		put("first")
		if l, err := c.readLogin(t.Context()); err != nil || l.value.Reveal() != "first" {
			t.Fatal(err)
		}

		answer := make(chan struct{})
		hung := make(chan error)
		go func() {
			hung <- smallfile.Within(t.Context(), path, func() error { <-answer; return nil })
		}()
		if err := <-hung; !errors.Is(err, smallfile.ErrHangs) {
			t.Fatal(err)
		}
		began := time.Now()
		if l, err := c.readLogin(t.Context()); err != nil || l.value.Reveal() != "first" {
			t.Errorf("while it hangs: %v", err)
		}
		if err := c.CredentialError(); !errors.Is(err, smallfile.ErrHangs) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "accounts.prod.api_token") {
			t.Errorf("what is told: %v", err)
		}
		if _, err := late.readLogin(t.Context()); !errors.Is(err, smallfile.ErrHangs) {
			t.Errorf("a client that never read it: %v", err)
		}
		if n, _ := c.Capacity(time.Minute, rotation.UrgencySlot); n <= 0 || n > 100 {
			t.Errorf("capacity for %d", n)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("that took %s", took)
		}
		close(answer)
		synctest.Wait()

		put("second")
		for _, c := range []*Client{c, late} {
			if l, err := c.readLogin(t.Context()); err != nil || l.value.Reveal() != "second" || c.CredentialError() != nil {
				t.Errorf("after it hung: %v", err)
			}
		}
		put("")
		if _, err := c.readLogin(t.Context()); err == nil || !strings.Contains(err.Error(), "is empty") {
			t.Errorf("an empty file: %v", err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if _, err := c.readLogin(t.Context()); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("no file: %v", err)
		}
		if n, _ := c.Capacity(time.Minute, rotation.UrgencySlot); n < 1000 {
			t.Errorf("without a credential no turn is given, so no error would be seen: %d", n)
		}

		// A caller that gives up says nothing about the file.
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		before := c.CredentialError()
		if _, err := c.readLogin(ctx); !errors.Is(err, context.Canceled) || c.CredentialError() != before {
			t.Errorf("given up: %v, %v", err, c.CredentialError())
		}
	})
}
