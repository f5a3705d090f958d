package cfsim

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"

	"rotatord/internal/secret"
)

var uuidShape = regexp.MustCompile(`^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// applicationAnswer is what the application says to a client that it let in.
type applicationAnswer struct {
	TokenID string `json:"token_id"`
	Name    string `json:"name"`
	// Secret says which of the two secrets the client still uses: current or previous.
	Secret string `json:"secret"`
}

// serveApplication is an application behind Access. Any path under /app/ admits every
// valid service token; under /app/{uuid} only the one with that ID is authorised.
func (s *Simulator) serveApplication(w http.ResponseWriter, r *http.Request) {
	first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/app/"), "/")
	only := ""
	if uuidShape.MatchString(first) {
		only = strings.ToLower(first)
	}
	clientID, clientSecret := s.serviceToken(r.Header)

	req := &request{op: OpApp, tokenID: s.tokenOfClient(clientID)}
	fault := s.takeFault(OpApp, req.tokenID)
	rep := fault.strike(r.Context(), func() reply { return s.admit(clientID, clientSecret, only) })
	s.send(w, req, rep, fault, allowance{})
}

// serviceToken returns the credential of the service token in a request.
func (s *Simulator) serviceToken(h http.Header) (clientID string, clientSecret secret.Value) {
	clientID, clientSecret = h.Get("CF-Access-Client-Id"), secret.New(h.Get("CF-Access-Client-Secret"))
	custom := string(s.Behaviour().TokenHeader)
	if custom == "" || clientID != "" || !clientSecret.IsZero() {
		return clientID, clientSecret
	}
	var both struct {
		ID     string `json:"cf-access-client-id"`
		Secret string `json:"cf-access-client-secret"`
	}
	if err := json.Unmarshal([]byte(h.Get(custom)), &both); err != nil {
		return "", secret.Value{} // whatever else the header contains, it is not a service token
	}
	return both.ID, secret.New(both.Secret)
}

func (s *Simulator) tokenOfClient(clientID string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.byClient[clientID]; t != nil {
		return t.id
	}
	return ""
}

// admit decides about one request. Like Access, it gives no reason for a refusal.
func (s *Simulator) admit(clientID string, clientSecret secret.Value, only string) reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.apiNow()
	t := s.byClient[clientID]
	used := usedNone
	if t != nil {
		used = s.usedAs(t, clientSecret, now)
	}
	if used != usedNone {
		t.lastSeenAt = now // saved with the next change: writing a file for each request would be too slow
	}
	switch {
	case used != usedNone && (only == "" || only == t.id):
		return reply{status: http.StatusOK, bare: true, result: applicationAnswer{TokenID: t.id, Name: t.name, Secret: used}}
	case s.behaviour.LoginRedirect:
		return reply{status: http.StatusFound, bare: true, location: "/cdn-cgi/access/login"}
	case used == usedNone:
		return reply{status: http.StatusUnauthorized, bare: true, result: map[string]string{"error": "unauthorized"}}
	default:
		return reply{status: http.StatusForbidden, bare: true, result: map[string]string{"error": "forbidden"}}
	}
}
