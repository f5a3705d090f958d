package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// Error is a refusal of the API server.
type Error struct {
	Status  int    // of HTTP
	Reason  string // as "Forbidden", "Conflict"
	Message string
}

func (e *Error) Error() string { return fmt.Sprintf("%d %s: %s", e.Status, e.Reason, e.Message) }

// Do sends one request with a token and returns the answer, whatever its status is. If it has changed a role or a
// binding, Do returns when the API server decides by it, which is a moment later: see [Server.AwaitRights].
func (s *Server) Do(ctx context.Context, token, method, path, contentType string, body []byte) (status int, answer []byte, err error) {
	status, answer, err = s.send(ctx, token, method, path, contentType, body)
	if err == nil && status/100 == 2 && changesRights(method, path) {
		err = s.awaitRights(ctx)
	}
	return status, answer, err
}

// send is [Server.Do] without the wait.
func (s *Server) send(ctx context.Context, token, method, path, contentType string, body []byte) (status int, answer []byte, err error) {
	r, err := http.NewRequestWithContext(ctx, method, s.URL+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	response, err := s.client.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(response.Body)
	return response.StatusCode, answer, err
}

// request is [Server.Do] as the administrator. A refusal is an [*Error].
func (s *Server) request(ctx context.Context, method, path, contentType string, body []byte) ([]byte, error) {
	status, answer, err := s.Do(ctx, s.AdminToken, method, path, contentType, body)
	if err := refused(status, answer, err); err != nil {
		return nil, err
	}
	return answer, nil
}

// refused returns the error of an answer: an [*Error] if the API server refuses.
func refused(status int, answer []byte, err error) error {
	if err != nil || status/100 == 2 {
		return err
	}
	refusal := &Error{}
	if json.Unmarshal(answer, refusal) != nil || refusal.Message == "" {
		refusal.Message = string(answer)
	}
	refusal.Status = status
	return refusal
}

// UnmarshalJSON reads a Status of the API server, whose field "status" is a word.
func (e *Error) UnmarshalJSON(b []byte) error {
	var status struct{ Reason, Message string }
	err := json.Unmarshal(b, &status)
	e.Reason, e.Message = status.Reason, status.Message
	return err
}

// Get reads an object as the administrator, at a path such as /api/v1/namespaces/a/secrets/b. It is nil if there
// is none.
func (s *Server) Get(t testing.TB, path string) map[string]any {
	t.Helper()
	answer, err := s.request(t.Context(), http.MethodGet, path, "", nil)
	if refusal := (*Error)(nil); errors.As(err, &refusal) && refusal.Status == http.StatusNotFound {
		return nil
	}
	if err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
	var object map[string]any
	if err := json.Unmarshal(answer, &object); err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
	return object
}

// Delete deletes an object as the administrator. It need not exist.
func (s *Server) Delete(t testing.TB, path string) {
	t.Helper()
	_, err := s.request(t.Context(), http.MethodDelete, path, "", nil)
	if refusal := (*Error)(nil); err != nil && (!errors.As(err, &refusal) || refusal.Status != http.StatusNotFound) {
		t.Fatalf("DELETE %s: %v", path, err)
	}
}

// Manager is the field manager of [Server.Apply].
const Manager = "test"

// Apply applies manifests, as YAML or JSON documents, by server-side apply as the administrator, one after the
// other, and fails the test at the first that is refused. A namespace must come before what it contains.
func (s *Server) Apply(t testing.TB, manifests string) {
	t.Helper()
	if _, err := s.TryApply(t.Context(), manifests); err != nil {
		t.Fatal(err)
	}
}

// TryApply applies manifests as [Server.Apply] does. It stops at the first that is refused, with an [*Error], and
// returns the objects as the API server has them.
func (s *Server) TryApply(ctx context.Context, manifests string) (applied []map[string]any, err error) {
	for _, document := range documents(manifests) {
		id, err := identify(document)
		if err != nil {
			return applied, fmt.Errorf("%w in this manifest:\n%s", err, document)
		}
		path, err := s.path(ctx, id)
		if err != nil {
			return applied, fmt.Errorf("%s %s: %w", id.Kind, id.Metadata.Name, err)
		}
		answer, err := s.request(ctx, http.MethodPatch, path+"?force=true&fieldManager="+Manager, "application/apply-patch+yaml", []byte(document))
		if err != nil {
			return applied, fmt.Errorf("%s %s: %w", id.Kind, id.Metadata.Name, err)
		}
		var object map[string]any
		if err := json.Unmarshal(answer, &object); err != nil {
			return applied, err
		}
		applied = append(applied, object)
	}
	return applied, nil
}

// documents splits a stream of YAML documents, and leaves out those without content.
func documents(manifests string) []string {
	var all []string
	var current strings.Builder
	content := false
	finish := func() {
		if content {
			all = append(all, current.String())
		}
		current.Reset()
		content = false
	}
	for line := range strings.Lines(manifests) {
		text := strings.TrimRight(line, " \r\n")
		if text == "---" {
			finish()
			continue
		}
		content = content || text != "" && !strings.HasPrefix(strings.TrimLeft(text, " "), "#")
		current.WriteString(line)
	}
	finish()
	return all
}

// identity is what says where an object belongs.
type identity struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
}

// identify finds the identity of an object. Of YAML it reads block style only, as kustomize and Helm write it; the
// whole document is the API server's to understand.
func identify(document string) (identity, error) {
	var id identity
	if strings.HasPrefix(strings.TrimSpace(document), "{") {
		if err := json.Unmarshal([]byte(document), &id); err != nil {
			return id, err
		}
	} else {
		top, indent := "", ""
		for line := range strings.Lines(document) {
			key, value, found := strings.Cut(strings.TrimRight(line, " \r\n"), ":")
			if !found || strings.HasPrefix(strings.TrimSpace(key), "#") {
				continue
			}
			value = strings.Trim(strings.TrimSpace(value), `"'`)
			name := strings.TrimLeft(key, " ")
			if name == key {
				top, indent = key, ""
			} else if indent == "" {
				indent = strings.TrimSuffix(key, name)
			}
			switch {
			case key == "apiVersion":
				id.APIVersion = value
			case key == "kind":
				id.Kind = value
			case top == "metadata" && key == indent+"name":
				id.Metadata.Name = value
			case top == "metadata" && key == indent+"namespace":
				id.Metadata.Namespace = value
			}
		}
	}
	if id.APIVersion == "" || id.Kind == "" || id.Metadata.Name == "" {
		return id, errors.New("no apiVersion, kind or metadata.name was found")
	}
	return id, nil
}

// resource is how a kind is named in paths.
type resource struct {
	name       string
	namespaced bool
}

// path returns the path of an object, and asks the API server once for each kind.
func (s *Server) path(ctx context.Context, id identity) (string, error) {
	base := "/apis/" + id.APIVersion
	if !strings.Contains(id.APIVersion, "/") {
		base = "/api/" + id.APIVersion
	}
	key := id.APIVersion + " " + id.Kind
	known, ok := s.kinds[key]
	if !ok {
		answer, err := s.request(ctx, http.MethodGet, base, "", nil)
		if err != nil {
			return "", err
		}
		var list struct {
			Resources []struct {
				Name, Kind string
				Namespaced bool
			}
		}
		if err := json.Unmarshal(answer, &list); err != nil {
			return "", err
		}
		for _, r := range list.Resources {
			if r.Kind == id.Kind && !strings.Contains(r.Name, "/") {
				known, ok = resource{r.Name, r.Namespaced}, true
			}
		}
		if !ok {
			return "", fmt.Errorf("the API server does not know the kind %s in %s", id.Kind, id.APIVersion)
		}
		s.kinds[key] = known
	}
	if known.namespaced {
		namespace := id.Metadata.Namespace
		if namespace == "" {
			namespace = "default"
		}
		base += "/namespaces/" + url.PathEscape(namespace)
	}
	return base + "/" + known.name + "/" + url.PathEscape(id.Metadata.Name), nil
}

// Token asks for a token of a service account, as a kubelet does for a projected volume. Without an audience it is
// one for the API server itself. The API server grants at least ten minutes.
func (s *Server) Token(t testing.TB, namespace, serviceAccount string, lifetime time.Duration, audiences ...string) string {
	t.Helper()
	body, err := json.Marshal(map[string]any{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
		"spec": map[string]any{"audiences": audiences, "expirationSeconds": int(lifetime.Seconds())},
	})
	if err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("/api/v1/namespaces/%s/serviceaccounts/%s/token", namespace, serviceAccount)
	answer, err := s.request(t.Context(), http.MethodPost, path, "application/json", body)
	if err != nil {
		t.Fatalf("a token of %s/%s: %v", namespace, serviceAccount, err)
	}
	var granted struct{ Status struct{ Token string } }
	if err := json.Unmarshal(answer, &granted); err != nil || granted.Status.Token == "" {
		t.Fatalf("a token of %s/%s: %v in %s", namespace, serviceAccount, err, answer)
	}
	return granted.Status.Token
}
