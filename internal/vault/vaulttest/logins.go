package vaulttest

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// TokenSettings are the settings of a role for its tokens.
type TokenSettings struct {
	TTL     time.Duration // 0: they do not end
	MaxTTL  time.Duration // renewing ends here; 0: never
	NumUses int           // token_num_uses; 0: without a limit
	Batch   bool          // token_type=batch: neither renewed nor revoked
}

// JWTRole is a role of the methods kubernetes and jwt. Signatures are not checked.
type JWTRole struct {
	Kubernetes bool   // its method; otherwise jwt
	Mount      string // empty: kubernetes or jwt
	Name       string
	Audience   string // empty: a JWT must have none with jwt, and may have any with kubernetes
	// Subject is the claim sub; for kubernetes system:serviceaccount:NAMESPACE:NAME.
	Subject string
	// ReviewForbidden makes the review of Kubernetes fail, as when Vault may not review tokens.
	ReviewForbidden bool
	TokenSettings
}

// CertRole is a role of the method cert. The server must ask its clients for certificates.
type CertRole struct {
	Mount      string // empty: cert
	Name       string
	CommonName string // of the certificates that it accepts
	TokenSettings
}

// JWT returns a JWT with these claims, and a signature that nothing checks.
func JWT(claims map[string]any) string {
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	return part(map[string]any{"alg": "RS256", "typ": "JWT"}) + "." + part(claims) + "." + part(rand.Text())
}

// ServiceAccountToken returns the token of a service account as a projected volume has it.
func ServiceAccountToken(namespace, name, audience string, ends time.Time) string {
	now := time.Now().Unix()
	return JWT(map[string]any{
		"iss": "https://kubernetes.default.svc.cluster.local", "sub": "system:serviceaccount:" + namespace + ":" + name, "aud": []string{audience},
		"iat": now, "nbf": now, "exp": ends.Unix(),
	})
}

// serveLogins serves a login, and reports whether the path is one. The caller holds mu.
func (s *Server) serveLogins(w http.ResponseWriter, r *http.Request, path string) bool {
	mount, found := strings.CutPrefix(path, "auth/")
	mount, isLogin := strings.CutSuffix(mount, "/login")
	if !found || !isLogin {
		return false
	}
	if mount == "approle" && s.options.AppRole != nil {
		s.serveLogin(w, r)
		return true
	}
	var body struct{ Role, JWT, Name string }
	_ = json.NewDecoder(r.Body).Decode(&body) // what is missing is refused
	mounted := func(at, otherwise string) bool { return mount == at || at == "" && mount == otherwise }
	jwtRoles := slices.DeleteFunc(slices.Clone(s.options.JWTRoles), func(role JWTRole) bool {
		return !mounted(role.Mount, map[bool]string{true: "kubernetes", false: "jwt"}[role.Kubernetes])
	})
	certRoles := slices.DeleteFunc(slices.Clone(s.options.CertRoles), func(role CertRole) bool { return !mounted(role.Mount, "cert") })
	switch {
	case len(jwtRoles) > 0:
		s.loginByJWT(w, jwtRoles, body.Role, body.JWT)
	case len(certRoles) > 0:
		s.loginByCert(w, r, certRoles, body.Name)
	default:
		fail(w, http.StatusForbidden, "permission denied")
	}
	return true
}

func (s *Server) loginByJWT(w http.ResponseWriter, roles []JWTRole, name, jwt string) {
	i := slices.IndexFunc(roles, func(r JWTRole) bool { return r.Name == name })
	if i < 0 && roles[0].Kubernetes {
		fail(w, http.StatusBadRequest, fmt.Sprintf("invalid role name %q", name))
		return
	} else if i < 0 {
		fail(w, http.StatusBadRequest, fmt.Sprintf("role %q could not be found", name))
		return
	}
	role := roles[i]
	var claims struct {
		Sub           string
		Aud           any
		Exp, Nbf, Iat int64
	}
	if parts := strings.Split(jwt, "."); len(parts) == 3 {
		content, _ := base64.RawURLEncoding.DecodeString(parts[1])
		_ = json.Unmarshal(content, &claims)
	}
	var audience []string
	switch aud := claims.Aud.(type) {
	case string:
		audience = []string{aud}
	case []any:
		for _, one := range aud {
			audience = append(audience, fmt.Sprint(one))
		}
	}
	if refusal := role.refusal(claims.Sub, audience, claims.Exp, claims.Nbf, claims.Iat); refusal != "" {
		status := http.StatusBadRequest
		if role.Kubernetes {
			status = http.StatusForbidden
		}
		fail(w, status, refusal)
		return
	}
	s.grant(w, role.TokenSettings)
}

// leeway is how far Vault lets the clocks of a JWT differ: clock_skew_leeway and the leeways of exp and nbf.
const leeway = 150 * time.Second

// refusal is what Vault says to a JWT; empty if it is accepted.
func (role JWTRole) refusal(subject string, audience []string, exp, nbf, iat int64) string {
	now := time.Now()
	after := func(seconds int64, slack time.Duration) bool { return now.Add(-slack).After(time.Unix(seconds, 0)) }
	prefix := map[bool]string{true: "", false: "error validating token: "}[role.Kubernetes]
	switch {
	case role.Audience != "" && !slices.Contains(audience, role.Audience):
		return prefix + "invalid audience (aud) claim: audience claim does not match any expected audience"
	case !role.Kubernetes && role.Audience == "" && len(audience) > 0:
		return "audience claim found in JWT but no audiences bound to the role"
	case exp != 0 && after(exp, leeway):
		return prefix + "invalid expiration time (exp) claim: token is expired"
	case nbf != 0 && !after(nbf, -leeway):
		return prefix + "invalid not before (nbf) claim: token not yet valid"
	case iat != 0 && !after(iat, -leeway):
		return prefix + "invalid issued at (iat) claim: token issued in the future"
	case role.Kubernetes && role.Subject != subject:
		return "service account name not authorized"
	case role.Subject != "" && role.Subject != subject:
		return "error validating token: invalid subject (sub) claim"
	case role.ReviewForbidden, role.Kubernetes && exp != 0 && after(exp, 0):
		return "permission denied"
	}
	return ""
}

func (s *Server) loginByCert(w http.ResponseWriter, r *http.Request, roles []CertRole, name string) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		fail(w, http.StatusBadRequest, "client certificate must be supplied")
		return
	}
	shown := r.TLS.PeerCertificates[0].Subject.CommonName
	for _, role := range roles {
		if (name == "" || role.Name == name) && role.CommonName == shown {
			s.grant(w, role.TokenSettings)
			return
		}
	}
	fail(w, http.StatusBadRequest, "failed to match all constraints for this login certificate")
}

// grant answers a login with a token. The caller holds mu.
func (s *Server) grant(w http.ResponseWriter, t TokenSettings) {
	token := s.addToken(t.TTL, t.MaxTTL)
	if t.Batch {
		l := s.tokens[token]
		delete(s.tokens, token)
		token = "hvb." + strings.TrimPrefix(token, "hvs.")
		s.tokens[token], l.batch = l, true
	}
	s.tokens[token].uses = t.NumUses
	s.logins++
	s.serveAuth(w, token)
}

// wrapping is an answer that is wrapped.
type wrapping struct {
	path    string
	data    map[string]any
	created time.Time
	ttl     time.Duration
}

// Wrap wraps an answer of path, and returns the wrapping token.
func (s *Server) Wrap(path string, data map[string]any, ttl time.Duration) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	token := "hvs.wrapping" + rand.Text()
	s.wrapped[token] = wrapping{path, data, time.Now(), ttl}
	return token
}

// WrapSecretID wraps the secret ID of the AppRole, as an operator does who delivers it.
func (s *Server) WrapSecretID(ttl time.Duration) string {
	return s.Wrap("auth/approle/role/rotatord/secret-id", map[string]any{
		"secret_id": s.options.AppRole.SecretID, "secret_id_accessor": "accessor", "secret_id_ttl": 0, "secret_id_num_uses": s.options.AppRole.SecretIDUses,
	}, ttl)
}

// Unwraps counts the answers that were unwrapped.
func (s *Server) Unwraps() int { s.mu.Lock(); defer s.mu.Unlock(); return s.unwraps }

// Unwrap takes a wrapped answer, as a thief does. It reports whether the token was valid.
func (s *Server) Unwrap(token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, valid := s.unwrap(token)
	return valid
}

func (s *Server) unwrap(token string) (wrapping, bool) {
	w, valid := s.wrapped[token]
	if valid = valid && time.Since(w.created) < w.ttl; valid {
		delete(s.wrapped, token)
		s.unwraps++
	}
	return w, valid
}

// serveWrapping serves the paths below sys/wrapping, and reports whether the path is one. The caller holds mu.
func (s *Server) serveWrapping(w http.ResponseWriter, r *http.Request, path string) bool {
	var body struct{ Token string }
	_ = json.NewDecoder(r.Body).Decode(&body) // the token may be in the header
	token := body.Token
	if token == "" {
		token = r.Header.Get("X-Vault-Token")
	}
	found, valid := s.wrapped[token]
	valid = valid && time.Since(found.created) < found.ttl
	switch {
	case path != "sys/wrapping/lookup" && path != "sys/wrapping/unwrap":
		return false
	case !valid:
		fail(w, http.StatusBadRequest, "wrapping token is not valid or does not exist")
	case path == "sys/wrapping/lookup":
		succeed(w, map[string]any{"creation_path": found.path, "creation_time": found.created.UTC().Format(time.RFC3339Nano), "creation_ttl": int(found.ttl.Seconds())})
	default:
		found, _ := s.unwrap(token)
		succeed(w, found.data)
	}
	return true
}
