package vaulttest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// This file has the KV secrets engine, and what a test does to its secrets from outside.

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

// list answers with the names directly below a path. The caller holds mu.
func (s *Server) list(w http.ResponseWriter, path, key string) {
	if !s.can(path, "list") {
		fail(w, http.StatusForbidden, "1 error occurred:\n\t* permission denied\n\n")
		return
	}
	names := make(map[string]bool)
	for at := range s.secrets {
		if rest, below := strings.CutPrefix(at, strings.TrimSuffix(key, "/")+"/"); below {
			name, _, deeper := strings.Cut(rest, "/")
			if deeper {
				name += "/"
			}
			names[name] = true
		}
	}
	if len(names) == 0 {
		fail(w, http.StatusNotFound)
		return
	}
	succeed(w, map[string]any{"keys": slices.Sorted(maps.Keys(names))})
}

// remove removes a secret with its metadata. The caller holds mu.
func (s *Server) remove(w http.ResponseWriter, path, key string) {
	if s.readOnly || !s.can(path, "delete") {
		fail(w, http.StatusForbidden, "1 error occurred:\n\t* permission denied\n\n")
		return
	}
	delete(s.secrets, key)
	w.WriteHeader(http.StatusNoContent)
}

// putMetadata sets the max_versions of a secret, also before its first version. The caller holds mu.
func (s *Server) putMetadata(w http.ResponseWriter, r *http.Request, path, key string) {
	body, err := decodeBody(r.Body)
	number, _ := body["max_versions"].(json.Number)
	keep, numberErr := strconv.Atoi(number.String())
	switch {
	case s.readOnly || !s.can(path, "update"):
		fail(w, http.StatusForbidden, "1 error occurred:\n\t* permission denied\n\n")
	case err != nil || numberErr != nil:
		fail(w, http.StatusBadRequest, "no max_versions")
	default:
		s.entry(key).maxVersions = keep
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
		case kind == "metadata" && reading && r.URL.Query().Get("list") == "true":
			s.list(w, path, m.Path+"/"+name)
			return
		case kind == "metadata" && name != "" && r.Method == http.MethodDelete:
			s.remove(w, path, m.Path+"/"+name)
			return
		case kind == "metadata" && name != "" && (r.Method == http.MethodPut || r.Method == http.MethodPost):
			s.putMetadata(w, r, path, m.Path+"/"+name)
			return
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
