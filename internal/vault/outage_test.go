package vault

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/vault/vaulttest"
)

// TestLoginAfterAnOutage: a session is back within fifteen seconds after Vault is, however long it was away; and a login that
// Vault refuses is not repeated every few seconds, but at once when the file has another content.
func TestLoginAfterAnOutage(t *testing.T) {
	for name, answer := range map[string]int{"away": 0, "sealed": 503, "failing": 500} {
		for _, away := range []time.Duration{time.Minute, time.Hour} {
			synctest.Test(t, func(t *testing.T) {
				back := time.Now().Add(away)
				var session time.Time
				keepFor(t, away+time.Minute, func(r *http.Request) (int, string) {
					switch {
					case time.Now().Before(back) && answer == 0:
						return http.StatusBadGateway, "" // what is not Vault's counts as no answer
					case time.Now().Before(back):
						return answer, `{"errors":["away"]}`
					case strings.HasSuffix(r.URL.Path, "/login") && session.IsZero():
						session = time.Now()
					}
					return 200, leaseBody(time.Hour, true)
				})
				if late := session.Sub(back); session.IsZero() || late > maxLoginWait {
					t.Errorf("%s for %s: logged in %s after Vault was back", name, away, late)
				} else {
					t.Logf("%s for %s: logged in %s after Vault was back", name, away, late)
				}
			})
		}
	}
}

// TestAgentThatGetsAToken: an agent's token is not seen to change, so a session is there within fifteen seconds after the agent has one.
func TestAgentThatGetsAToken(t *testing.T) {
	for name, without := range map[string]int{"not valid": 403, "none": 400} {
		for _, away := range []time.Duration{time.Minute, time.Hour} {
			synctest.Test(t, func(t *testing.T) {
				there := time.Now().Add(away)
				var session time.Time
				keepAs(t, &config.AgentAuth{}, away+time.Minute, func(*http.Request) (int, string) {
					if time.Now().Before(there) {
						return without, `{"errors":["permission denied"]}`
					}
					if session.IsZero() {
						session = time.Now()
					}
					return 200, `{"data":{"ttl":3600,"renewable":true}}`
				})
				if late := session.Sub(there); session.IsZero() || late > maxLoginWait {
					t.Errorf("%s for %s: a session %s after the agent had a token", name, away, late)
				}
			})
		}
	}
}

// TestAnotherCredentialEndsThePause: a corrected file is tried at once.
func TestAnotherCredentialEndsThePause(t *testing.T) {
	server, c := approleServer(t, time.Hour, 0)
	source := c.Auth.(*config.AppRole).SecretID
	replace(t, source.File, "wrong-CANARY")
	s, o, _ := startSession(t, c)
	eventually(t, "refused logins", func() bool { return o.count("login 400") >= 1 })
	replace(t, source.File, secretID)
	corrected := time.Now()
	eventually(t, "a session", func() bool { return s.Ready(t.Context(), 0) == nil })
	if took := time.Since(corrected); took > 10*time.Second || server.Logins() != 1 {
		t.Errorf("it took %s", took)
	}
}

// TestRetryAfter: a quota says how long to wait, and the message repeats it.
func TestRetryAfter(t *testing.T) {
	for header, want := range map[string]time.Duration{"7": 7 * time.Second, "100000": maxRetryAfter, "": 0, "-1": 0, "soon": 0} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", header)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusTooManyRequests)
			_, _ = w.Write([]byte(`{"errors":["request path \"auth/approle/login\": rate limit quota exceeded"]}`))
		}))
		s := idleSession(t, server.URL, true)
		err := s.LogInOnce(t.Context())
		server.Close()
		if got := retryAfter(err); got != want || refused(err) || (want > 0) != strings.Contains(err.Error(), "it asks to wait") {
			t.Errorf("%q: %s, want %s: %v", header, got, want, err)
		}
	}
}

// TestNamespaces: every request goes to the configured namespace, but for the one that only the root namespace answers.
func TestNamespaces(t *testing.T) {
	vault := vaulttest.New(vaulttest.Options{Mounts: []vaulttest.Mount{{Path: "kv", Version: 2}}, AppRole: &vaulttest.AppRole{RoleID: roleID, SecretID: secretID, TTL: time.Hour}})
	var mu sync.Mutex
	asked := map[string]string{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked[strings.TrimPrefix(r.URL.Path, "/v1/")] = r.Header.Get("X-Vault-Namespace")
		mu.Unlock()
		vault.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	wrapped := file(t, vault.WrapSecretID(time.Hour))
	s, err := New(config.Vault{Address: server.URL, Namespace: "team/a", Auth: &config.AppRole{Mount: "approle", RoleID: file(t, roleID), SecretID: wrapped, Wrapped: true}}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.KeepIn(&box{})
	if err := s.LogInOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = s.CheckSeal(t.Context())
	_, _ = s.LookUp(t.Context())
	_, _ = s.KVVersion(t.Context(), "kv")
	_, _ = s.Capabilities(t.Context(), []string{"kv/data/x"})
	_, _ = s.Read(t.Context(), "kv/data/x")
	if err := s.Revoke(t.Context()); err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, path := range []string{pathWrapInfo, pathUnwrap, "auth/approle/login", pathLookup, pathMounts + "kv", pathCapabilities, "kv/data/x", pathRevoke} {
		if namespace, sent := asked[path]; !sent || namespace != "team/a" {
			t.Errorf("%s was sent to %q (%t)", path, namespace, sent)
		}
	}
	if namespace, sent := asked[pathSealStatus]; !sent || namespace != "" {
		t.Errorf("the seal status was asked in %q (%t)", namespace, sent)
	}
}
