// Package vaulttest is an in-process server with the part of Vault's API that rotatord
// uses, for tests and the demo. It is not Vault: it has no policies beyond a switch, no
// storage, no encryption, and one namespace.
//
// What it has behaves like the real one: the suite of sinks runs against both. It has KV
// version 1 and 2 with check-and-set, cas_required, max_versions, deleted and destroyed versions, and
// custom metadata; logins by token, AppRole, kubernetes, jwt and cert, with leases, renewal up to a maximum
// and revocation; wrapped secret IDs; and it can be sealed. A fault strikes exactly as many requests as
// it says.
package vaulttest

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options configure a server. Without Mounts it has none.
type Options struct {
	RootToken string // a token that may do everything and does not end; empty: none
	Mounts    []Mount
	AppRole   *AppRole
	JWTRoles  []JWTRole
	CertRoles []CertRole
}

// Mount is a KV secrets engine.
type Mount struct {
	Path        string
	Version     int // 1 or 2
	CASRequired bool
	// MaxVersions is how many versions a secret keeps; 0: 10, as in Vault.
	MaxVersions int
	// DeleteVersionAfter is the mount's delete_version_after; negative switches it off for every
	// secret, as in Vault.
	DeleteVersionAfter time.Duration
}

// AppRole is the one role of auth/approle.
type AppRole struct {
	RoleID, SecretID string
	TTL              time.Duration // of its tokens; 0: they do not end
	MaxTTL           time.Duration // renewing ends here; 0: never
	NumUses          int           // token_num_uses of its tokens; 0: without a limit
	SecretIDUses     int           // how often the secret ID can be used (secret_id_num_uses); 0: always
}

// Server is the server. It is an http.Handler and safe for concurrent use.
type Server struct {
	options Options

	mu       sync.Mutex
	sealed   bool
	readOnly bool
	policy   func(path string) []string
	refuses  func(method, path string, body map[string]any) bool
	secrets  map[string]*entry // by mount and path
	roles    map[string]map[string]any
	tokens   map[string]*lease
	wrapped  map[string]wrapping // by wrapping token
	unwraps  int
	faults   []*Fault
	logins   int
	writes   int
	probes   int
}

// lease is a token's life.
type lease struct {
	ttl, maxTTL    time.Duration
	created, until time.Time // until is zero if it does not end
	batch          bool
	uses           int // requests that are left; 0 if there is no limit
}

// Fault is something that goes wrong with the next writes. A write that cannot match (cas -1), by which
// rotatord proves that it may write, does not count.
type Fault struct {
	// Count is how many requests it strikes; 0 means one.
	Count int
	// Reads makes it strike reads of secrets rather than writes, and Probes writes that cannot
	// match.
	Reads, Probes bool
	// After carries the request out before it fails.
	After bool
	// Status is what is answered; 0 breaks the connection.
	Status int
	// Body and ContentType are answered with Status, as they are and even if they are empty, in
	// place of an error of Vault's form, if Verbatim is set.
	Verbatim          bool
	Body, ContentType string
	// Back answers a read of a secret of version 2 from a state that is so many versions old, like
	// a node that is behind.
	Back int
	// Do, if set, runs before the request is carried out, for example to write or to wait.
	Do func()
	// AfterDo, if set, runs after the request was carried out and before it is answered, for example to
	// write. The request itself succeeds.
	AfterDo func()
	// Done, if set, is called after the request was carried out.
	Done func()
}

// New returns a server.
func New(o Options) *Server {
	o.Mounts = slices.Clone(o.Mounts)
	return &Server{options: o, secrets: map[string]*entry{}, tokens: map[string]*lease{}, wrapped: map[string]wrapping{}}
}

// Seal seals or unseals: sealed, it answers 503 to everything.
func (s *Server) Seal(sealed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sealed = sealed
}

// ReadOnly takes away, or gives back, the right to write secrets.
func (s *Server) ReadOnly(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readOnly = on
}

// SetPolicy says what capabilities a token has at a path; nil for create, read and update
// everywhere, or root. Reads and writes of secrets, metadata and configurations need them.
func (s *Server) SetPolicy(policy func(path string) []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.policy = policy
}

// SetRefusal says which requests for secrets are refused whatever the capabilities say, as by
// allowed_parameters; nil for none.
func (s *Server) SetRefusal(refuses func(method, path string, body map[string]any) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuses = refuses
}

// RevokeAll revokes all tokens but the root token.
func (s *Server) RevokeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
}

// Inject arms a fault.
func (s *Server) Inject(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.Count = max(f.Count, 1)
	s.faults = append(s.faults, &f)
}

// ClearFaults removes all faults that have not struck yet.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// Logins and Writes count logins that succeeded and secrets that were written.
func (s *Server) Logins() int { s.mu.Lock(); defer s.mu.Unlock(); return s.logins }

// Sessions counts the tokens that are not revoked, but for the root token.
func (s *Server) Sessions() int { s.mu.Lock(); defer s.mu.Unlock(); return len(s.tokens) }

// Writes counts the writes that were carried out, by any client.
func (s *Server) Writes() int { s.mu.Lock(); defer s.mu.Unlock(); return s.writes }

// Probes counts the writes that cannot match, allowed or not. They are not among Writes.
func (s *Server) Probes() int { s.mu.Lock(); defer s.mu.Unlock(); return s.probes }

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path, ok := strings.CutPrefix(r.URL.Path, "/v1/")
	switch {
	case !ok:
		fail(w, http.StatusNotFound)
		return
	case path == "sys/seal-status": // also while it is sealed, and without a token
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"type": "shamir", "initialized": true, "sealed": s.sealed})
		return
	case s.sealed:
		fail(w, http.StatusServiceUnavailable, "Vault is sealed")
		return
	case strings.HasPrefix(path, "sys/wrapping/") && s.serveWrapping(w, r, path), s.serveLogins(w, r, path):
		return
	}
	token := r.Header.Get("X-Vault-Token")
	if !s.use(token) {
		fail(w, http.StatusForbidden, "permission denied", "invalid token")
		return
	}
	switch {
	case path == "auth/token/lookup-self":
		s.serveLookup(w, token)
	case path == "auth/token/revoke-self" && s.leaseOf(token).batch:
		fail(w, http.StatusBadRequest, "batch tokens cannot be revoked")
	case path == "auth/token/revoke-self":
		delete(s.tokens, token)
		w.WriteHeader(http.StatusNoContent)
	case path == "auth/token/renew-self":
		s.serveRenew(w, token)
	case path == "sys/capabilities-self":
		s.serveCapabilities(w, r, token)
	case strings.HasPrefix(path, "sys/internal/ui/mounts/"):
		s.serveMount(w, strings.TrimPrefix(path, "sys/internal/ui/mounts/"))
	case s.serveRole(w, r, path):
	default:
		s.serveSecret(w, r, path)
	}
}

func (s *Server) mountOf(path string) (Mount, string, bool) {
	for _, m := range s.options.Mounts {
		if rest, ok := strings.CutPrefix(path, m.Path+"/"); ok {
			return m, rest, true
		}
	}
	return Mount{}, "", false
}

func (s *Server) serveMount(w http.ResponseWriter, path string) {
	m, _, ok := s.mountOf(strings.TrimSuffix(path, "/") + "/")
	if !ok {
		fail(w, http.StatusForbidden, "preflight capability check returned 403, please ensure client's policies grant access to path \""+path+"/\"")
		return
	}
	var options any
	if m.Version == 2 {
		options = map[string]any{"version": "2"}
	}
	succeed(w, map[string]any{"type": "kv", "path": m.Path + "/", "options": options})
}

func (s *Server) serveCapabilities(w http.ResponseWriter, r *http.Request, token string) {
	var body struct{ Paths []string }
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	capabilities := []string{"create", "read", "update"}
	switch {
	case s.readOnly:
		capabilities = []string{"read"}
	case token == s.options.RootToken:
		capabilities = []string{"root"}
	}
	data := map[string]any{"capabilities": capabilities}
	for _, p := range body.Paths {
		if data[p] = capabilities; s.policy != nil {
			data[p] = s.policy(p)
		}
	}
	succeed(w, data)
}

// ShippedPolicy allows for secrets in a mount what deploy/vault/rotatord-policy.hcl does without its optional parts, and more elsewhere.
// It is for [Server.SetPolicy].
func ShippedPolicy(mount string) func(path string) []string {
	return func(path string) []string {
		if strings.HasPrefix(path, mount+"/metadata/") {
			return nil
		}
		return []string{"create", "read", "update"}
	}
}

// can reports whether the policy has a capability at a path. The caller holds mu.
func (s *Server) can(path, capability string) bool {
	if s.policy == nil {
		return true
	}
	have := s.policy(path)
	return slices.Contains(have, capability) || slices.Contains(have, "root")
}

func (s *Server) takeFault(reading, probe bool) *Fault {
	for i, f := range s.faults {
		if f.Reads != reading || f.Probes != probe {
			continue
		}
		if f.Count--; f.Count == 0 {
			s.faults = slices.Delete(s.faults, i, i+1)
		}
		return f
	}
	return nil
}

func strike(w http.ResponseWriter, f *Fault) {
	if f.Status == 0 {
		panic(http.ErrAbortHandler)
	}
	if !f.Verbatim {
		fail(w, f.Status, "injected fault")
		return
	}
	if f.ContentType != "" {
		w.Header().Set("Content-Type", f.ContentType)
	} else {
		w.Header()["Content-Type"] = nil
	}
	w.WriteHeader(f.Status)
	_, _ = io.WriteString(w, f.Body) // the client went away
}
