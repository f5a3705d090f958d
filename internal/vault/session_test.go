package vault

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/event"
	"rotatord/internal/vault/vaulttest"
)

const (
	rootToken = "hvs.root-CANARY"
	roleID    = "role-id"
	secretID  = "secret-id-CANARY"
)

// seen counts what the observer is told.
type seen struct {
	mu sync.Mutex
	n  map[string]int
}

func (s *seen) VaultRequest(operation, code string, _ time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == nil {
		s.n = map[string]int{}
	}
	s.n[operation+" "+code]++
}

func (s *seen) count(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n[what]
}

// log is a buffer that may be written to from many goroutines.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func file(t *testing.T, content string) config.SecretSource {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(content+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return config.SecretSource{File: path}
}

func startSession(t *testing.T, c config.Vault) (*Session, *seen, *logBuffer) {
	t.Helper()
	c.Timeout = 5 * time.Second
	o, log := &seen{}, &logBuffer{}
	logged := event.NewLog(slog.New(slog.NewTextHandler(log, nil)))
	s, err := New(c, func(d event.Detail) { logged.Handle(event.New(time.Now(), "", event.Daemon, d)) }, o)
	if err != nil {
		t.Fatal(err)
	}
	s.pause = 20 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
		if text := log.String(); strings.Contains(text, "CANARY") || strings.Contains(text, "hvs.") {
			t.Errorf("the log has a token or a secret ID:\n%s", text)
		}
	})
	return s, o, log
}

// eventually waits for a condition that another goroutine brings about, for much longer than that
// takes on a loaded machine.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if condition() {
			return
		}
	}
	t.Fatalf("did not come about: %s", what)
}

func approleServer(t *testing.T, ttl, maxTTL time.Duration) (*vaulttest.Server, config.Vault) {
	t.Helper()
	server := vaulttest.New(vaulttest.Options{
		RootToken: rootToken, Mounts: []vaulttest.Mount{{Path: "kv", Version: 2}},
		AppRole: &vaulttest.AppRole{RoleID: roleID, SecretID: secretID, TTL: ttl, MaxTTL: maxTTL},
	})
	s := httptest.NewServer(server)
	t.Cleanup(s.Close)
	return server, config.Vault{Address: s.URL, Auth: &config.AppRole{
		Mount: "approle", RoleID: file(t, roleID), SecretID: file(t, secretID),
	}}
}

func TestAppRoleIsRenewedAndLoggedInAnew(t *testing.T) {
	if testing.Short() {
		t.Skip("leases have whole seconds")
	}
	// A loaded machine may be late by more than a second.
	server, c := approleServer(t, 6*time.Second, 12*time.Second)
	s, o, _ := startSession(t, c)
	if err := s.Ready(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end) && (server.Logins() < 2 || o.count("renew 200") < 2); {
		if err := s.Ready(t.Context(), 0); err != nil {
			t.Fatalf("the session was lost: %v", err)
		}
		if _, err := s.Read(t.Context(), "kv/data/x"); err != nil {
			t.Fatalf("the session does not work: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if server.Logins() < 2 || o.count("renew 200") < 2 {
		t.Errorf("%d logins, %d renewals with a lease of 6 s and a maximum of 12 s", server.Logins(), o.count("renew 200"))
	}
}

func TestRevokedTokenIsReplaced(t *testing.T) {
	server, c := approleServer(t, time.Hour, 0)
	s, _, log := startSession(t, c)
	if err := s.Ready(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * s.pause)
	server.RevokeAll()
	if _, err := s.Read(t.Context(), "kv/data/x"); err == nil || !strings.Contains(err.Error(), "denied permission") {
		t.Fatalf("a revoked token: %v", err)
	}
	eventually(t, "a second login", func() bool { return server.Logins() == 2 })
	eventually(t, "a session that works", func() bool { _, err := s.Read(t.Context(), "kv/data/x"); return err == nil })
	if !strings.Contains(log.String(), "the token is no longer valid") {
		t.Errorf("the log does not say why:\n%s", log)
	}
}

// TestRefusedPathIsNoReasonToLogInAnew: a policy that lacks a path refuses just as a dead
// token is refused, and must not cost the session of all the others.
func TestRefusedPathIsNoReasonToLogInAnew(t *testing.T) {
	server, c := approleServer(t, time.Hour, 0)
	s, o, _ := startSession(t, c)
	if err := s.Ready(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * s.pause)
	server.Inject(vaulttest.Fault{Reads: true, Status: http.StatusForbidden})
	if _, err := s.Read(t.Context(), "kv/data/x"); err == nil {
		t.Fatal("the fault did not strike")
	}
	eventually(t, "a look at the token", func() bool { return o.count("lookup 200") == 1 })
	if _, err := s.Read(t.Context(), "kv/data/x"); err != nil || server.Logins() != 1 {
		t.Errorf("%v, %d logins", err, server.Logins())
	}
}

// TestBadReplacementDoesNotEndTheSession: a credential file with nonsense in it leaves the
// session that there is alone.
func TestBadReplacementDoesNotEndTheSession(t *testing.T) {
	_, c := approleServer(t, time.Hour, 0)
	s, o, log := startSession(t, c)
	if err := s.Ready(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.Auth.(*config.AppRole).SecretID.File, []byte("nonsense-CANARY"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a failed login", func() bool { return o.count("login 400") > 0 })
	if err := s.Ready(t.Context(), time.Minute); err != nil {
		t.Error(err)
	}
	if _, err := s.Read(t.Context(), "kv/data/x"); err != nil {
		t.Error(err)
	}
	eventually(t, "a log line", func() bool { return strings.Contains(log.String(), "logging in with the new one failed") })
}

func TestReplacedCredentialIsUsed(t *testing.T) {
	server := vaulttest.New(vaulttest.Options{Mounts: []vaulttest.Mount{{Path: "kv", Version: 2}}})
	web := httptest.NewServer(server)
	t.Cleanup(web.Close)
	first, second := server.AddToken(time.Hour, 0), server.AddToken(2*time.Hour, 0)
	source := file(t, first)
	s, o, _ := startSession(t, config.Vault{Address: web.URL, Auth: &config.TokenAuth{Source: source}})
	if err := s.Ready(t.Context(), 59*time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := s.Ready(t.Context(), 61*time.Minute); err == nil || !strings.Contains(err.Error(), "the session with Vault ends at") {
		t.Errorf("an hour's session was ready for longer: %v", err)
	}
	if err := os.WriteFile(source.File, []byte(second), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new token", func() bool { end, ok := s.Expiry(); return ok && time.Until(end) > 90*time.Minute })
	if o.count("lookup 200") < 2 {
		t.Errorf("%v", o.n)
	}
}

func TestNoSession(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(*vaulttest.Server, *config.Vault)
		want  string
	}{
		"wrong secret ID": {func(_ *vaulttest.Server, c *config.Vault) {
			c.Auth.(*config.AppRole).SecretID = file(t, "wrong-CANARY")
		}, "are role_id and secret_id right"},
		"no such file": {func(_ *vaulttest.Server, c *config.Vault) {
			c.Auth.(*config.AppRole).RoleID = config.SecretSource{File: "/nowhere"}
		}, "vault.auth.approle.role_id: reading "},
		"sealed":    {func(s *vaulttest.Server, _ *config.Vault) { s.Seal(true) }, "Vault is sealed"},
		"not there": {func(_ *vaulttest.Server, c *config.Vault) { c.Address = "http://127.0.0.1:1" }, "Vault cannot be reached"},
	} {
		t.Run(name, func(t *testing.T) {
			server, c := approleServer(t, 0, 0)
			test.spoil(server, &c)
			s, _, _ := startSession(t, c)
			err := s.Ready(t.Context(), 0)
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "CANARY") {
				t.Errorf("%v, want %q", err, test.want)
			}
			if _, ok := s.Expiry(); ok {
				t.Error("there is an expiry without a session")
			}
			if name == "sealed" {
				server.Seal(false)
				eventually(t, "a session after unsealing", func() bool { return s.Ready(t.Context(), 0) == nil })
				if end, ok := s.Expiry(); !ok || !end.IsZero() {
					t.Errorf("a token without a lease expires at %s, %t", end, ok)
				}
			}
		})
	}
}

// TestEnvironmentIsNotRead looks at each header of each kind of request. The library reads most
// variables when a client is made, and VAULT_WRAP_TTL for each request.
func TestEnvironmentIsNotRead(t *testing.T) {
	var mu sync.Mutex
	sent := map[string]string{} // the headers by path
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		var headers []string
		for name, values := range r.Header {
			headers = append(headers, name+"="+strings.Join(values, ","))
		}
		slices.Sort(headers)
		sent[strings.TrimPrefix(r.URL.Path, "/v1/")] = strings.Join(headers, " ")
		fmt.Fprint(w, `{"data":{"ttl":0,"renewable":false},"auth":{"client_token":"hvs.root-CANARY","lease_duration":60,"renewable":true}}`)
	}))
	t.Cleanup(web.Close)
	for name, value := range map[string]string{
		"VAULT_ADDR": "http://127.0.0.1:1", "VAULT_AGENT_ADDR": "http://127.0.0.1:1", "VAULT_TOKEN": "elsewhere", "VAULT_NAMESPACE": "elsewhere", "VAULT_WRAP_TTL": "60s",
		"VAULT_HEADERS": `{"X-Leak":"x"}`, "VAULT_MFA": "x", "VAULT_RATE_LIMIT": "not a number", "VAULT_PROXY_ADDR": "http://127.0.0.1:1", "VAULT_SRV_LOOKUP": "true",
	} {
		t.Setenv(name, value)
	}
	c := config.Vault{Address: web.URL, Namespace: "team", Auth: &config.AppRole{
		Mount: "approle", RoleID: file(t, roleID), SecretID: file(t, secretID),
	}}
	s, o, _ := startSession(t, c)
	if err := s.Ready(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Send(t.Context(), Request{Path: "y", Index: "i"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a renewal", func() bool { return o.count("renew 200") > 0 })
	mu.Lock()
	defer mu.Unlock()
	const always, token = "User-Agent=rotatord ", "X-Vault-Token=" + rootToken
	for path, want := range map[string]string{
		"auth/approle/login": always + "X-Vault-Namespace=team X-Vault-Request=true",
		pathRenew:            always + "X-Vault-Namespace=team X-Vault-Request=true " + token,
		"x":                  always + "X-Vault-Namespace=team X-Vault-Request=true " + token,
		"y":                  always + "X-Vault-Index=i X-Vault-Namespace=team X-Vault-Request=true " + token,
	} {
		got := sent[path]
		if i := strings.Index(got, "User-Agent="); i < 0 || got[i:] != want {
			t.Errorf("%s came with %s, want %s", path, got, want)
		}
	}
}

func TestTLS(t *testing.T) {
	server := vaulttest.New(vaulttest.Options{RootToken: rootToken})
	web := httptest.NewTLSServer(server)
	t.Cleanup(web.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	source := file(t, rootToken)
	c := config.Vault{Address: web.URL, Auth: &config.TokenAuth{Source: source}}
	s, _, _ := startSession(t, c)
	if err := s.Ready(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown certificate was accepted: %v", err)
	}
	c.TLS.CAFile = ca
	s, _, _ = startSession(t, c)
	if err := s.Ready(t.Context(), 0); err != nil {
		t.Errorf("with the CA: %v", err)
	}
	for spoil, want := range map[string]string{"ca_file": "has no PEM certificate", "cert_file": "tls.cert_file and key_file"} {
		bad := c
		if spoil == "ca_file" {
			bad.TLS.CAFile = source.File
		} else {
			bad.TLS.CertFile, bad.TLS.KeyFile = source.File, source.File
		}
		if _, err := New(bad, nil, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", spoil, err)
		}
	}
}
