package vault

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/vault/vaulttest"
)

// A policy that does not allow one path must not cost a login for each refusal: a secret ID
// may have a limited number of uses, and they are every token's.
func TestDeniedPathCostsNoLogin(t *testing.T) {
	server, c := approleServer(t, time.Hour, 0)
	s, o, _ := startSession(t, c)
	if err := s.Ready(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * s.pause)
	for n := range 5 {
		server.Inject(vaulttest.Fault{Reads: true, Status: http.StatusForbidden})
		if _, err := s.Read(t.Context(), "kv/data/x"); StatusOf(err) != http.StatusForbidden {
			t.Fatalf("%v, want 403", err)
		}
		eventually(t, "a look at the token", func() bool { return o.count("lookup 200") > n })
		time.Sleep(2 * s.pause)
	}
	if n := server.Logins(); n != 1 {
		t.Errorf("%d logins, want the first one only", n)
	}
	if err := s.Ready(t.Context(), time.Minute); err != nil {
		t.Errorf("the session is good, and yet: %v", err)
	}
}

// If the token was revoked and the daemon cannot log in again, there is no session, even if its lease
// has not ended.
func TestRevokedAndNoWayBack(t *testing.T) {
	server, c := approleServer(t, time.Hour, 0)
	s, _, _ := startSession(t, c)
	if err := s.Ready(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * s.pause)
	if err := os.WriteFile(c.Auth.(*config.AppRole).SecretID.File, []byte("wrong-CANARY"), 0o600); err != nil {
		t.Fatal(err)
	}
	server.RevokeAll()
	_, _ = s.Read(t.Context(), "kv/data/x")
	var err error
	eventually(t, "an error from Ready", func() bool { err = s.Ready(t.Context(), 0); return err != nil })
	if !strings.Contains(err.Error(), "are role_id and secret_id right") {
		eventually(t, "the reason", func() bool {
			err = s.Ready(t.Context(), 0)
			return err != nil && strings.Contains(err.Error(), "are role_id and secret_id right")
		})
	}
	if _, ok := s.Expiry(); ok {
		t.Error("a revoked session has an expiry")
	}
}

// A credential that was replaced by a bad one does not end the session that there is.
func TestReplacedByABadCredential(t *testing.T) {
	if testing.Short() {
		t.Skip("leases have whole seconds")
	}
	server, c := approleServer(t, 6*time.Second, 0) // a loaded machine may be late by more than a second
	s, o, log := startSession(t, c)
	if err := s.Ready(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.Auth.(*config.AppRole).SecretID.File, []byte("wrong-CANARY"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a login that fails", func() bool { return o.count("login 400") > 0 })
	for deadline := time.Now().Add(9 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if _, err := s.Read(t.Context(), "kv/data/x"); err != nil {
			t.Fatalf("the session was not kept: %v", err)
		}
	}
	if !strings.Contains(log.String(), "logging in with the new one failed") {
		t.Errorf("the log does not say so:\n%s", log)
	}
	if err := os.WriteFile(c.Auth.(*config.AppRole).SecretID.File, []byte(secretID), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a login with the right one", func() bool { return server.Logins() == 2 })
	if err := s.Ready(t.Context(), 0); err != nil {
		t.Error(err)
	}
}

// A credential that was replaced while Vault was sealed is used once it is not.
func TestReplacedWhileSealed(t *testing.T) {
	server, c := approleServer(t, time.Hour, 0)
	s, o, _ := startSession(t, c)
	if err := s.Ready(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	server.Seal(true)
	if err := os.WriteFile(c.Auth.(*config.AppRole).SecretID.File, []byte("elsewhere-CANARY"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a login that fails", func() bool { return o.count("login 503") > 0 })
	if err := os.WriteFile(c.Auth.(*config.AppRole).SecretID.File, []byte(secretID), 0o600); err != nil {
		t.Fatal(err)
	}
	failed := o.count("login 503")
	eventually(t, "another one with the right secret ID", func() bool { return o.count("login 503") > failed })
	server.Seal(false)
	eventually(t, "a login after unsealing", func() bool { return server.Logins() == 2 })
}

// Vault tells whole seconds. A token in its last one has a ttl of 0, as has one that does
// not end; they must not be confused.
func TestLastSecondIsNotForever(t *testing.T) {
	server := vaulttest.New(vaulttest.Options{})
	web := httptest.NewServer(server)
	t.Cleanup(web.Close)
	source := file(t, server.AddToken(400*time.Millisecond, 400*time.Millisecond))
	s, _, _ := startSession(t, config.Vault{Address: web.URL, Auth: &config.TokenAuth{Source: source}})
	if err := s.Ready(t.Context(), time.Minute); err == nil {
		t.Error("a token in its last second is ready for a minute")
	}
	if end, ok := s.Expiry(); ok && end.IsZero() {
		t.Error("a token in its last second is said not to end")
	}
	eventually(t, "the end of it", func() bool { return s.Ready(t.Context(), 0) != nil })
}

// VAULT_HEADERS would be sent with every request.
func TestHeadersOfTheEnvironmentAreNotSent(t *testing.T) {
	var mu sync.Mutex
	var leaked []string
	server := vaulttest.New(vaulttest.Options{RootToken: rootToken, Mounts: []vaulttest.Mount{{Path: "kv", Version: 2}},
		AppRole: &vaulttest.AppRole{RoleID: roleID, SecretID: secretID, TTL: time.Hour}})
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		if r.Header.Get("X-Leak") != "" {
			leaked = append(leaked, r.URL.Path)
		}
		if r.Header.Get("X-Vault-Request") != "true" {
			t.Errorf("%s came without X-Vault-Request", r.URL.Path)
		}
		mu.Unlock()
		server.ServeHTTP(w, r)
	}))
	t.Cleanup(web.Close)
	t.Setenv("VAULT_HEADERS", `{"X-Leak": "from-the-environment"}`)
	s, _, _ := startSession(t, config.Vault{Address: web.URL, Auth: &config.AppRole{
		Mount: "approle", RoleID: file(t, roleID), SecretID: file(t, secretID)}})
	if err := s.Ready(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(t.Context(), "kv/data/x"); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(leaked) > 0 {
		t.Errorf("a header of the environment went to %v", leaked)
	}
}
