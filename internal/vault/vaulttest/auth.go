package vaulttest

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"time"
)

// valid reports whether a token may be used now. The caller holds mu.
func (s *Server) valid(token string) bool {
	if token == "" {
		return false
	}
	if token == s.options.RootToken {
		return true
	}
	l := s.tokens[token]
	return l != nil && (l.until.IsZero() || time.Now().Before(l.until))
}

// use spends one use of a token, and reports whether it may be used now. The token of the last use
// still shows it as -1, as Vault does, and is gone for the next request. The caller holds mu.
func (s *Server) use(token string) bool {
	if !s.valid(token) {
		return false
	}
	switch l := s.tokens[token]; {
	case l == nil || l.uses == 0:
	case l.uses < 0:
		return false
	case l.uses == 1:
		l.uses = -1
	default:
		l.uses--
	}
	return true
}

// LimitUses limits how many requests a token can still be used for.
func (s *Server) LimitUses(token string, uses int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[token].uses = uses
}

// SetNumUses sets token_num_uses of the role, for tokens that are created after that.
func (s *Server) SetNumUses(uses int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	role := *s.options.AppRole
	role.NumUses = uses
	s.options.AppRole = &role
}

// AddToken creates a token that ends after ttl, and can be renewed until maxTTL after now;
// 0 means that it does not end, or can always be renewed.
func (s *Server) AddToken(ttl, maxTTL time.Duration) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addToken(ttl, maxTTL)
}

func (s *Server) addToken(ttl, maxTTL time.Duration) string {
	token := "hvs." + rand.Text()
	l := &lease{ttl: ttl, maxTTL: maxTTL, created: time.Now()}
	l.extend()
	s.tokens[token] = l
	return token
}

// extend begins a new lease, which ends with the maximum at the latest.
func (l *lease) extend() {
	if l.ttl == 0 {
		return
	}
	l.until = time.Now().Add(l.ttl)
	if last := l.created.Add(l.maxTTL); l.maxTTL > 0 && l.until.After(last) {
		l.until = last
	}
}

func (l *lease) left() int {
	if l.until.IsZero() {
		return 0
	}
	return int(time.Until(l.until).Round(time.Second).Seconds())
}

func (s *Server) serveLogin(w http.ResponseWriter, r *http.Request) {
	var body struct {
		RoleID   string `json:"role_id"`
		SecretID string `json:"secret_id"`
	}
	role := s.options.AppRole
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || role == nil ||
		body.RoleID != role.RoleID || body.SecretID != role.SecretID || role.SecretIDUses > 0 && s.logins >= role.SecretIDUses {
		fail(w, http.StatusBadRequest, "invalid role or secret ID")
		return
	}
	token := s.addToken(role.TTL, role.MaxTTL)
	s.tokens[token].uses = role.NumUses
	s.logins++
	respond(w, http.StatusOK, map[string]any{"auth": s.authOf(token, map[string]string{"role_name": "rotatord"})})
}

func (s *Server) serveAuth(w http.ResponseWriter, token string) {
	respond(w, http.StatusOK, map[string]any{"auth": s.authOf(token, nil)})
}

func (s *Server) authOf(token string, metadata map[string]string) map[string]any {
	return map[string]any{
		"client_token": token, "lease_duration": s.leaseOf(token).left(), "renewable": s.leaseOf(token).ttl > 0 && !s.leaseOf(token).batch,
		"policies": s.policies(token), "metadata": metadata,
	}
}

func (s *Server) policies(token string) []string {
	if token == s.options.RootToken {
		return []string{"root"}
	}
	return []string{"default", "rotatord"}
}

// leaseOf returns a token's lease, one without end for the root token.
func (s *Server) leaseOf(token string) *lease {
	if l := s.tokens[token]; l != nil {
		return l
	}
	return &lease{}
}

func (s *Server) serveLookup(w http.ResponseWriter, token string) {
	l := s.leaseOf(token)
	var end any // null if it does not end, as in Vault
	if !l.until.IsZero() {
		end = l.until.UTC().Format(time.RFC3339Nano)
	}
	succeed(w, map[string]any{"ttl": l.left(), "expire_time": end, "renewable": l.ttl > 0 && !l.batch, "type": map[bool]string{true: "batch", false: "service"}[l.batch],
		"policies": s.policies(token), "num_uses": l.uses})
}

func (s *Server) serveRenew(w http.ResponseWriter, token string) {
	l := s.leaseOf(token)
	if l.batch {
		fail(w, http.StatusBadRequest, "batch tokens cannot be renewed")
		return
	}
	if l.ttl == 0 {
		fail(w, http.StatusBadRequest, "lease is not renewable")
		return
	}
	l.extend()
	s.serveAuth(w, token)
}

// recorder holds an answer back until it is known whether it may leave.
type recorder struct {
	header http.Header
	status int
	body   []byte
}

func (r *recorder) Header() http.Header    { return r.header }
func (r *recorder) WriteHeader(status int) { r.status = status }

func (r *recorder) Write(b []byte) (int, error) {
	r.body = append(r.body, b...)
	return len(b), nil
}

func succeed(w http.ResponseWriter, data any) {
	respond(w, http.StatusOK, map[string]any{"data": data})
}

func fail(w http.ResponseWriter, status int, errors ...string) {
	if errors == nil {
		errors = []string{}
	}
	respond(w, status, map[string]any{"errors": errors})
}

func respond(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client went away
}
