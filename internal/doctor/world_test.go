package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rotatord/internal/audit"
	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/status"
	"rotatord/internal/vault/vaulttest"
)

const (
	apiToken   = "cfat_api-token-CANARY"
	vaultToken = "vault-root-CANARY"
	accountID  = cfsim.DefaultAccountID
	otherID    = "ffffffffffffffffffffffffffffffff"
)

// world is a healthy installation, until a test adds a fault.
type world struct {
	*testing.T
	sim    *cfsim.Simulator
	vault  *vaulttest.Server
	config *config.Config
	Options
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, sim: cfsim.New(cfsim.Options{SeedTokens: 2, APIToken: secret.New(apiToken)})}
	w.behave(cfsim.Behaviour{APITokenExpiresOn: time.Now().Add(90 * 24 * time.Hour)})
	w.vault = vaulttest.New(vaulttest.Options{
		RootToken: vaultToken, Mounts: []vaulttest.Mount{{Path: "secret", Version: 2}, {Path: "old", Version: 1}},
		AppRole: &vaulttest.AppRole{RoleID: "role-CANARY", SecretID: "id-CANARY", TTL: time.Hour},
	})
	w.vault.SetPolicy(least)
	api, vault := httptest.NewServer(w.sim), httptest.NewServer(w.vault)
	t.Cleanup(api.Close)
	t.Cleanup(vault.Close)
	w.config = &config.Config{
		Accounts: map[string]config.Account{"prod": {
			Name: "prod", AccountID: accountID, APIToken: w.file("token", apiToken), BaseURL: api.URL + cfsim.BasePath, RequestsPer5m: 1000,
		}},
		Vault: &config.Vault{Address: vault.URL, Timeout: 5 * time.Second, Auth: &config.AppRole{Mount: "approle", RoleID: w.file("role", "role-CANARY"), SecretID: w.file("secret-id", "id-CANARY")}},
		State: config.State{Dir: filepath.Join(t.TempDir(), "state")},
		Tokens: []config.Token{
			{Name: "one", Account: "prod", ID: cfsim.SeedTokenID(1), Sinks: inVault("secret", "access/one")},
			{Name: "two", Account: "prod", ID: cfsim.SeedTokenID(2), Sinks: inVault("old", "access/two")},
		},
	}
	w.config.Audit.File = filepath.Join(w.config.State.Dir, "audit", "audit.jsonl")
	if err := os.Mkdir(w.config.State.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	w.Options = Options{
		Config:  w.config,
		LogIn:   true,
		Records: map[string]rotation.Record{"one": {Account: "prod", Last: &rotation.Done{At: time.Now().Add(-time.Hour)}}},
		disk:    func(string) disk { return disk{known: true, writable: true, free: 1 << 30} },
	}
	return w
}

func inVault(mount, path string) []config.Sink {
	return []config.Sink{&config.VaultSink{Mount: mount, Path: path, SinkFields: config.SinkFields{ClientIDField: "client_id", ClientSecretField: "client_secret"}}}
}

// least has the rights of deploy/vault/rotatord-policy.hcl.
func least(path string) []string {
	switch {
	case strings.HasPrefix(path, "secret/data/access/") || strings.HasPrefix(path, "old/access/"):
		return []string{"create", "read", "update"}
	case path == "auth/token/lookup-self":
		return []string{"read"}
	case path == "auth/token/renew-self" || path == "auth/token/revoke-self":
		return []string{"update"}
	}
	return []string{"deny"}
}

// also returns the least policy with more rights at one path.
func also(at string, capabilities ...string) func(string) []string {
	return func(path string) []string {
		if path == at {
			return capabilities
		}
		return least(path)
	}
}

// anyToken asks a simulator that takes any API token.
func (w *world) anyToken() {
	w.sim = cfsim.New(cfsim.Options{SeedTokens: 2})
	w.behave(cfsim.Behaviour{APITokenExpiresOn: time.Now().Add(90 * 24 * time.Hour)})
	server := httptest.NewServer(w.sim)
	w.Cleanup(server.Close)
	w.account(func(a *config.Account) { a.BaseURL = server.URL + cfsim.BasePath })
}

func (w *world) file(name, content string) config.SecretSource {
	path := filepath.Join(w.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		w.Fatal(err)
	}
	return config.SecretSource{File: path}
}

// daemon has a daemon run that finds those troubles.
func (w *world) daemon(troubles ...status.Trouble) {
	w.AskTroubles = func(context.Context) ([]status.Trouble, error) { return troubles, nil }
}

// record changes what the ledger has of a token.
func (w *world) record(change func(*rotation.Record)) {
	r := w.Records["one"]
	r.Token = "one"
	change(&r)
	w.Records["one"] = r
}

func (w *world) behave(b cfsim.Behaviour) { w.sim.SetBehaviour(b) }

func (w *world) account(change func(*config.Account)) {
	a := w.config.Accounts["prod"]
	change(&a)
	w.config.Accounts["prod"] = a
}

func (w *world) inject(f cfsim.Fault) {
	f.Count = -1
	if err := w.sim.Inject(f); err != nil {
		w.Fatal(err)
	}
}

func (w *world) made(p cfsim.CreateParams) string {
	made, _, err := w.sim.Create(p)
	if err != nil {
		w.Fatal(err)
	}
	return made.ID
}

// reply has the real answers' headers changed.
type reply func(http.Header)

func (r reply) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		res, err := next.RoundTrip(req)
		if err == nil {
			r(res.Header)
		}
		return res, err
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (w *world) skew(d time.Duration) {
	w.behave(cfsim.Behaviour{ClockSkew: cfsim.Duration(d), APITokenExpiresOn: time.Now().Add(90 * 24 * time.Hour)})
}

func (w *world) create(c config.Create) {
	w.config.Tokens[0].ID, w.config.Tokens[0].Create = "", &c
}

func (w *world) on(d disk) { w.Options.disk = func(string) disk { return d } }

func (w *world) remove() {
	if err := os.Remove(w.config.State.Dir); err != nil {
		w.Fatal(err)
	}
}

// vaultAuth logs in by a token, of which lookup-self after the login says what it likes; nil
// is refused.
func (w *world) vaultAuth(lookup func(*http.Request) any) {
	token := w.file("vault", vaultToken)
	w.config.Vault.Auth = &config.TokenAuth{Source: token}
	asked := 0
	w.inFront(func(rw http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/v1/auth/token/lookup-self" {
			return false
		}
		if asked++; asked == 1 { // the login
			return false
		}
		data := lookup(r)
		if data == nil {
			rw.WriteHeader(http.StatusForbidden)
			fmt.Fprint(rw, `{"errors":["permission denied"]}`)
			return true
		}
		_ = json.NewEncoder(rw).Encode(map[string]any{"data": data}) // the client went away
		return true
	})
}

func (w *world) forbid(path string) {
	w.inFront(func(rw http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/v1/"+path {
			return false
		}
		rw.WriteHeader(http.StatusForbidden)
		fmt.Fprint(rw, `{"errors":["permission denied"]}`)
		return true
	})
}

// inFront answers some of the requests to Vault.
func (w *world) inFront(answer func(http.ResponseWriter, *http.Request) bool) {
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !answer(rw, r) {
			w.vault.ServeHTTP(rw, r)
		}
	}))
	w.Cleanup(server.Close)
	w.config.Vault.Address = server.URL
}

// identity makes a file as the daemon does in its state directory, and returns its path.
func (w *world) identity() string {
	w.IdentityFile = filepath.Join(w.config.State.Dir, "identity.age")
	if err := os.WriteFile(w.IdentityFile, []byte("AGE-SECRET-KEY-1"), 0o600); err != nil {
		w.Fatal(err)
	}
	return w.IdentityFile
}

// events makes a record of events with one line, and changes it.
func (w *world) events(change func(path string) error) {
	w.Helper()
	r, err := audit.Open(audit.Options{File: w.config.Audit.File})
	if err == nil {
		w.Cleanup(func() { _ = r.Close() })
	}
	if err == nil && change != nil {
		err = change(w.config.Audit.File)
	}
	if err != nil {
		w.Fatal(err)
	}
}
