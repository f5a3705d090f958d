package crash

import (
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"rotatord/internal/vault/vaulttest"
	"rotatord/test/realvault"
)

const mount = "secret"

// server is a real Vault that several worlds share.
type server struct {
	*realvault.Vault
	roleID, secretID string
}

func newServer(t *testing.T) *server {
	s := &server{Vault: realvault.Start(t)}
	s.MountKV(t, mount, 2, true)
	if _, err := s.Root(t).Logical().Write(mount+"/config", map[string]any{"max_versions": 1000, "cas_required": true}); err != nil {
		t.Fatal(err)
	}
	s.roleID, s.secretID = s.AppRole(t, realvault.LeastPolicy(t), "1h", "2h")
	return s
}

// What Vault does while a rotation is in progress.
const (
	vaultNormal    = "normal"
	vaultSealed    = "sealed"
	vaultRestarted = "restarted"
	vault500       = "500"
	vaultSlow      = "slow"
	vaultDenied    = "permission denied"
	vaultConflict  = "conflicting write"
	vaultLostWrite = "lost answer to a write"
)

var vaultFaults = []string{vaultSealed, vaultRestarted, vault500, vaultSlow, vaultDenied, vaultConflict, vaultLostWrite}

// needsAlone reports whether a round does something to the server that concerns everybody who
// uses it.
func (p plan) needsAlone() bool {
	concernsAll := func(fault string) bool { return fault == vaultSealed || fault == vaultRestarted }
	return concernsAll(p.vault) || slices.ContainsFunc(p.incarnations, func(i incarnation) bool { return concernsAll(i.vault) })
}

// proxy stands between one daemon and Vault, and misbehaves on the paths of secrets.
type proxy struct {
	forward http.Handler

	mu    sync.Mutex
	fault string
	human func(path string) // writes as another person or program would
}

func newProxy(address string) *proxy {
	target, err := url.Parse(address)
	if err != nil {
		panic(err)
	}
	forward := httputil.NewSingleHostReverseProxy(target)
	forward.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { panic(http.ErrAbortHandler) } // as if Vault was called directly
	return &proxy{forward: forward}
}

func (p *proxy) set(fault string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = fault
}

// take returns what is to happen to a request. Some faults strike once.
func (p *proxy) take(r *http.Request) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !strings.HasPrefix(r.URL.Path, "/v1/"+mount+"/data/") {
		return vaultNormal
	}
	write := r.Method != http.MethodGet && !vaulttest.IsProbe(r)
	switch p.fault {
	case vaultConflict, vaultLostWrite:
		if !write {
			return vaultNormal
		}
		fault := p.fault
		p.fault = vaultNormal
		return fault
	}
	return p.fault
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, message string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"errors":[%q]}`, message)
	}
	switch p.take(r) {
	case vault500:
		refuse(http.StatusInternalServerError, "1 error occurred:\n\t* internal error\n\n")
		return
	case vaultDenied:
		refuse(http.StatusForbidden, "1 error occurred:\n\t* permission denied\n\n")
		return
	case vaultSlow:
		select {
		case <-time.After(1500 * time.Millisecond): // longer than the daemon waits
		case <-r.Context().Done():
		}
	case vaultConflict:
		p.human(strings.TrimPrefix(r.URL.Path, "/v1/"))
	case vaultLostWrite:
		p.forward.ServeHTTP(discard{http.Header{}}, r)
		panic(http.ErrAbortHandler)
	}
	p.forward.ServeHTTP(w, r)
}

// discard is an answer that nobody gets.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}

// version is one version of a secret in Vault.
type version struct {
	at       time.Time
	clientID string
	secret   string
	canary   any
}

// history reads every version of a secret; none if there is no such secret.
func history(t *testing.T, root *api.Client, path string) []version {
	t.Helper()
	metadata, err := root.Logical().Read(mount + "/metadata/" + path)
	if err != nil {
		t.Fatalf("reading the history of %s: %v", path, err)
	}
	if metadata == nil {
		return nil
	}
	var all []version
	versions, _ := metadata.Data["versions"].(map[string]any)
	for n := 1; n <= len(versions); n++ {
		s, err := root.Logical().ReadWithData(mount+"/data/"+path, map[string][]string{"version": {fmt.Sprint(n)}})
		if err != nil || s == nil {
			t.Fatalf("reading version %d of %s: %v", n, path, err)
		}
		info, _ := versions[fmt.Sprint(n)].(map[string]any)
		created, _ := info["created_time"].(string)
		at, err := time.Parse(time.RFC3339Nano, created)
		if err != nil {
			t.Fatal(err)
		}
		data, _ := s.Data["data"].(map[string]any)
		v := version{at: at, canary: data["canary"]}
		v.clientID, _ = data["client_id"].(string)
		v.secret, _ = data["client_secret"].(string)
		all = append(all, v)
	}
	return all
}
