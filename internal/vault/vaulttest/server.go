// Package vaulttest is an in-process server with the part of Vault's API that rotatord
// uses, for tests and the demo. It is not Vault: it has no policies beyond a switch, no
// storage, no encryption, and one namespace.
//
// What it has behaves like the real one: the suite of sinks runs against both. It has KV
// version 1 and 2 with check-and-set, cas_required and deleted versions; logins by token, AppRole,
// kubernetes, jwt and cert, with leases, renewal up to a maximum and revocation; wrapped secret IDs; and it can
// be sealed. A fault
// strikes exactly as many requests as it says.
package vaulttest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
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

// entry is one secret with all its versions; in KV version 1 only the last. It has none if only its
// metadata was written.
type entry struct {
	versions    []version
	deleteAfter time.Duration // its own delete_version_after
	custom      map[string]any
	maxVersions int // its own max_versions
	casRequired bool
}

type version struct {
	data      map[string]any // nil if deleted
	created   time.Time
	deleted   time.Time
	destroyed bool
	dropped   bool // more than max_versions are newer
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

// Read returns the fields of a secret, nil if there is none.
func (s *Server) Read(mount, path string) map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.secrets[mount+"/"+path]
	if e == nil || len(e.versions) == 0 {
		return nil
	}
	return maps.Clone(e.versions[len(e.versions)-1].data)
}

// DeleteVersionAfter sets the delete_version_after of one secret; of all secrets of the mount, if
// path is empty. It applies to versions that are written after that.
func (s *Server) DeleteVersionAfter(mount, path string, after time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if path != "" {
		s.entry(mount + "/" + path).deleteAfter = after
		return
	}
	for i := range s.options.Mounts {
		if s.options.Mounts[i].Path == mount {
			s.options.Mounts[i].DeleteVersionAfter = after
		}
	}
}

// entry returns the entry of a secret, and creates it if there is none. The caller holds mu.
func (s *Server) entry(key string) *entry {
	e := s.secrets[key]
	if e == nil {
		e = &entry{}
		s.secrets[key] = e
	}
	return e
}

// SetVersion changes the KV version of a mount, as an upgrade does.
func (s *Server) SetVersion(mount string, version int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.options.Mounts {
		if s.options.Mounts[i].Path == mount {
			s.options.Mounts[i].Version = version
		}
	}
}

// Write writes a secret as an operator would, without check-and-set.
func (s *Server) Write(mount, path string, data map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(s.mountNamed(mount), mount+"/"+path, data)
}

// mountNamed returns a mount. The caller holds mu.
func (s *Server) mountNamed(path string) Mount {
	m, _, _ := s.mountOf(path + "/")
	return m
}

// Delete deletes the latest version of a secret.
func (s *Server) Delete(mount, path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.secrets[mount+"/"+path]; e != nil && len(e.versions) > 0 {
		last := &e.versions[len(e.versions)-1]
		last.data, last.deleted = nil, time.Now()
	}
}

// KeepVersions sets the max_versions of one secret. It applies from the next write on.
func (s *Server) KeepVersions(mount, path string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entry(mount + "/" + path).maxVersions = n
}

// RequireCAS sets the cas_required of one secret.
func (s *Server) RequireCAS(mount, path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entry(mount + "/" + path).casRequired = true
}

// Destroy destroys the latest version of a secret.
func (s *Server) Destroy(mount, path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.secrets[mount+"/"+path]; e != nil && len(e.versions) > 0 {
		last := &e.versions[len(e.versions)-1]
		last.data, last.destroyed = nil, true
	}
}

// RemoveMetadata removes a secret with all its versions and its metadata. The next version is the first.
func (s *Server) RemoveMetadata(mount, path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.secrets, mount+"/"+path)
}

// CustomMetadata returns the custom metadata of a secret.
func (s *Server) CustomMetadata(mount, path string) map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.secrets[mount+"/"+path]; e != nil {
		return maps.Clone(e.custom)
	}
	return nil
}

// SetCustomMetadata replaces the custom metadata of a secret, as an operator may.
func (s *Server) SetCustomMetadata(mount, path string, custom map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entry(mount + "/" + path).custom = maps.Clone(custom)
}

// patchMetadata merges the custom metadata of a secret. The caller holds mu.
func (s *Server) patchMetadata(w http.ResponseWriter, r *http.Request, path, key string) {
	body, err := decodeBody(r.Body)
	e := s.secrets[key]
	custom, ok := body["custom_metadata"].(map[string]any)
	switch {
	case !s.can(path, "patch"):
		fail(w, http.StatusForbidden, "1 error occurred:\n\t* permission denied\n\n")
	case r.Header.Get("Content-Type") != "application/merge-patch+json":
		fail(w, http.StatusUnsupportedMediaType, "PATCH requires Content-Type of application/merge-patch+json")
	case err != nil || !ok:
		fail(w, http.StatusBadRequest, "no custom_metadata")
	case e == nil:
		fail(w, http.StatusNotFound)
	default:
		e.custom = maps.Clone(e.custom)
		if e.custom == nil {
			e.custom = make(map[string]any)
		}
		maps.Copy(e.custom, custom)
		w.WriteHeader(http.StatusNoContent)
	}
}

// put appends a version. The caller holds mu.
func (s *Server) put(m Mount, key string, data map[string]any) int {
	e := s.entry(key)
	v := version{data: maps.Clone(data), created: time.Now()}
	after := m.DeleteVersionAfter
	if own := e.deleteAfter; own > 0 && (after == 0 || after > own) { // negative: switched off
		after = own
	}
	if m.Version == 2 && after > 0 {
		v.deleted = v.created.Add(after)
	}
	e.versions = append(e.versions, v)
	for i := range max(len(e.versions)-cmp.Or(e.maxVersions, m.MaxVersions, 10), 0) {
		e.versions[i] = version{dropped: true}
	}
	s.writes++
	return len(e.versions)
}

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

// serveSecret is the KV secrets engine.
func (s *Server) serveSecret(w http.ResponseWriter, r *http.Request, path string) {
	m, rest, ok := s.mountOf(path)
	if !ok {
		fail(w, http.StatusNotFound, "no handler for route \""+path+"\". route entry not found.")
		return
	}
	reading := r.Method == http.MethodGet
	if m.Version == 2 {
		kind, name, _ := strings.Cut(rest, "/")
		switch {
		case kind == "data" && name != "":
			rest = name
		case (kind == "config" && name == "" || kind == "metadata" && name != "") && reading:
			s.serveSettings(w, m, path, name)
			return
		case kind == "metadata" && name != "" && r.Method == http.MethodPatch:
			s.patchMetadata(w, r, path, m.Path+"/"+name)
			return
		default:
			respond(w, http.StatusNotFound, map[string]any{"request_id": "1", "data": nil, "warnings": []string{"Invalid path for a versioned K/V secrets engine."}})
			return
		}
	}
	var body map[string]any
	if !reading {
		var err error
		if body, err = decodeBody(r.Body); err != nil {
			fail(w, http.StatusBadRequest, err.Error())
			return
		}
	}
	key, probe := m.Path+"/"+rest, m.Version == 2 && isProbe(body)
	if probe {
		s.probes++
	}
	f := s.takeFault(reading, probe)
	if f != nil && f.Do != nil {
		s.mu.Unlock()
		f.Do()
		s.mu.Lock()
	}
	if f != nil && f.Do == nil && f.AfterDo == nil && !f.After && f.Back == 0 {
		strike(w, f)
		return
	}
	answer := &recorder{header: http.Header{}, status: http.StatusOK}
	switch {
	case !s.allowed(r, path, key, body):
		fail(answer, http.StatusForbidden, "1 error occurred:\n\t* permission denied\n\n")
	case reading:
		back := 0
		if f != nil {
			back = f.Back
		}
		s.get(answer, m, key, r.URL.Query().Get("version"), back)
	default:
		s.set(answer, m, key, body)
	}
	if f != nil && f.AfterDo != nil {
		s.mu.Unlock()
		f.AfterDo()
		s.mu.Lock()
	}
	if f != nil && f.Done != nil {
		f.Done()
	}
	if f != nil && f.After {
		strike(w, f)
		return
	}
	maps.Copy(w.Header(), answer.header)
	w.WriteHeader(answer.status)
	_, _ = w.Write(answer.body)
}

// allowed reports whether the policy allows a request for a secret. The caller holds mu.
func (s *Server) allowed(r *http.Request, path, key string, body map[string]any) bool {
	need := "read"
	if r.Method != http.MethodGet {
		if need = "create"; s.secrets[key] != nil {
			need = "update"
		}
		if s.readOnly {
			return false
		}
	}
	return s.can(path, need) && (s.refuses == nil || !s.refuses(r.Method, path, body))
}

// can reports whether the policy has a capability at a path. The caller holds mu.
func (s *Server) can(path, capability string) bool {
	if s.policy == nil {
		return true
	}
	have := s.policy(path)
	return slices.Contains(have, capability) || slices.Contains(have, "root")
}

// serveSettings answers for the configuration of a mount, or for the metadata of a secret.
func (s *Server) serveSettings(w http.ResponseWriter, m Mount, path, name string) {
	if !s.can(path, "read") {
		fail(w, http.StatusForbidden, "1 error occurred:\n\t* permission denied\n\n")
		return
	}
	if name == "" {
		succeed(w, map[string]any{"cas_required": m.CASRequired, "delete_version_after": m.DeleteVersionAfter.String(), "max_versions": 0})
		return
	}
	e := s.secrets[m.Path+"/"+name]
	if e == nil {
		fail(w, http.StatusNotFound)
		return
	}
	succeed(w, map[string]any{"current_version": len(e.versions), "delete_version_after": e.deleteAfter.String()})
}

// get reads a version of a secret, or, if none is asked for, the secret as it was some versions ago.
func (s *Server) get(w http.ResponseWriter, m Mount, key, asked string, back int) {
	e := s.secrets[key]
	if e == nil || len(e.versions)-back <= 0 {
		fail(w, http.StatusNotFound)
		return
	}
	number := len(e.versions) - back
	if n, err := strconv.Atoi(asked); m.Version == 2 && err == nil && n > 0 {
		if n > len(e.versions) || e.versions[n-1].dropped {
			fail(w, http.StatusNotFound)
			return
		}
		number = n
	}
	last := e.versions[number-1]
	switch {
	case m.Version == 1 && last.data == nil:
		fail(w, http.StatusNotFound)
	case m.Version == 1:
		succeed(w, last.data)
	case last.data == nil || !last.deleted.IsZero() && last.deleted.Before(time.Now()):
		respond(w, http.StatusNotFound, map[string]any{"data": map[string]any{"data": nil, "metadata": metadata(number, last, e.custom)}})
	default:
		succeed(w, map[string]any{"data": last.data, "metadata": metadata(number, last, e.custom)})
	}
}

func metadata(number int, v version, custom map[string]any) map[string]any {
	deleted := ""
	if !v.deleted.IsZero() {
		deleted = v.deleted.UTC().Format(time.RFC3339Nano)
	}
	return map[string]any{"version": number, "created_time": v.created.UTC().Format(time.RFC3339Nano),
		"deletion_time": deleted, "destroyed": v.destroyed, "custom_metadata": custom}
}

func (s *Server) set(w http.ResponseWriter, m Mount, key string, body map[string]any) {
	if m.Version == 1 {
		s.put(m, key, body)
		w.WriteHeader(http.StatusNoContent)
		return
	}
	data, ok := body["data"].(map[string]any)
	if !ok {
		fail(w, http.StatusBadRequest, "no data provided")
		return
	}
	now := 0
	if e := s.secrets[key]; e != nil {
		now = len(e.versions)
	}
	options, _ := body["options"].(map[string]any)
	cas, given := options["cas"].(json.Number)
	if !given && (m.CASRequired || s.secrets[key] != nil && s.secrets[key].casRequired) {
		fail(w, http.StatusBadRequest, "check-and-set parameter required for this call")
		return
	}
	if given && cas.String() != fmt.Sprint(now) {
		fail(w, http.StatusBadRequest, "check-and-set parameter did not match the current version")
		return
	}
	number := s.put(m, key, data)
	succeed(w, metadata(number, s.secrets[key].versions[number-1], s.secrets[key].custom))
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
