package vault

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/vault/vaulttest"
)

// TestEmptyLookup: an empty answer to lookup-self, at the start and after the token was replaced,
// stops nothing. The session comes back when Vault does.
func TestEmptyLookup(t *testing.T) {
	server := vaulttest.New(vaulttest.Options{Mounts: []vaulttest.Mount{{Path: "kv", Version: 2}}})
	var empty atomic.Bool
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !empty.Load() {
			server.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(web.Close)
	source := file(t, server.AddToken(time.Hour, 0))
	empty.Store(true)
	s, _, log := startSession(t, config.Vault{Address: web.URL, Auth: &config.TokenAuth{Source: source}})
	if err := s.Ready(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "lookup-self") {
		t.Errorf("ready after an empty answer: %v", err)
	}
	empty.Store(false)
	eventually(t, "a session", func() bool { return s.Ready(t.Context(), 0) == nil })
	empty.Store(true)
	second := server.AddToken(2*time.Hour, 0)
	if err := os.WriteFile(source.File, []byte(second), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a log line", func() bool { return strings.Contains(log.String(), "logging in with the new one failed") })
	if err := s.Ready(t.Context(), 0); err != nil {
		t.Errorf("the old token still works: %v", err)
	}
	empty.Store(false)
	eventually(t, "the new token", func() bool { end, ok := s.Expiry(); return ok && time.Until(end) > 90*time.Minute })
}

// TestLoginPageInFrontOfVault: neither the token, nor the login's secrets, nor a written secret goes
// to the host that a proxy redirects to.
func TestLoginPageInFrontOfVault(t *testing.T) {
	var got atomic.Int64
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if got.Add(1); r.Header.Get("X-Vault-Token") != "" || len(body) > 0 {
			t.Errorf("the login page got %s %s", r.Method, r.URL)
		}
		_, _ = io.WriteString(w, "<html>")
	}))
	t.Cleanup(page.Close)
	server, c := approleServer(t, time.Hour, 0)
	var closed atomic.Bool
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if closed.Load() {
			http.Redirect(w, r, page.URL+"/login?to=private", http.StatusTemporaryRedirect)
			return
		}
		server.ServeHTTP(w, r)
	}))
	t.Cleanup(web.Close)
	c.Address = web.URL
	s, _, _ := startSession(t, c)
	if err := s.Ready(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	closed.Store(true)
	want := "redirected to " + strings.TrimPrefix(page.URL, "http://") + ": is an SSO policy in front of Vault?"
	_, err := s.Write(t.Context(), "kv/data/x", map[string]any{"data": map[string]any{"client_secret": canary}})
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("write: %v", err)
	}
	if _, err := s.Read(t.Context(), "kv/data/x"); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("read: %v", err)
	}
	s, _, _ = startSession(t, c)
	if err := s.Ready(t.Context(), 0); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("login: %v", err)
	}
	if n := got.Load(); n != 0 {
		t.Errorf("the login page got %d requests", n)
	}
}

// TestTokenWithALineBreak: what cannot be a token is not sent, and not repeated.
func TestTokenWithALineBreak(t *testing.T) {
	for token, want := range map[string]string{
		"hvs.CANARY\nhvs.second": "has 2 lines", "hvs.CANARY x": "has a space in it", "hvs.CANARY\u00e9": "has a character in it that is not ASCII, which this kind of secret (Vault token) never has", "hvs.CANARY\x7f": "has a control character",
		"cfut_CANARY": "is a Cloudflare API token", `{"wrap_info": {"token": "CANARY"}}`: "is a wrapped answer of Vault",
	} {
		source := file(t, token)
		s, o, _ := startSession(t, config.Vault{Address: "http://127.0.0.1:1", Auth: &config.TokenAuth{Source: source}})
		if err := s.Ready(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "vault.auth.token: the secret in "+source.String()+" "+want) || strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%v", err)
		}
		if n := o.count("lookup error"); n != 0 {
			t.Errorf("%d requests were sent", n)
		}
	}
}
