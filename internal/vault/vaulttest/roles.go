package vaulttest

import "net/http"

// SetRole lets sessions read a role of an auth method at path, such as auth/kubernetes/role/rotatord, if the policy
// allows it.
func (s *Server) SetRole(path string, data map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.roles == nil {
		s.roles = make(map[string]map[string]any)
	}
	s.roles[path] = data
}

// serveRole serves a role, and reports whether the path is one. The caller holds mu.
func (s *Server) serveRole(w http.ResponseWriter, r *http.Request, path string) bool {
	role, found := s.roles[path]
	switch {
	case !found:
		return false
	case r.Method != http.MethodGet || !s.can(path, "read"):
		fail(w, http.StatusForbidden, "1 error occurred:\n\t* permission denied\n\n")
	default:
		succeed(w, role)
	}
	return true
}
