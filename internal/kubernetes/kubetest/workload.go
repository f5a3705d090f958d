package kubetest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// workload is what is stored of a Deployment, a StatefulSet or a DaemonSet.
type workload struct {
	version     int
	annotations map[string]string // of the pod template
	restarts    int               // how often the pod template has changed
}

// workloadKinds are the kinds by the resource of their path.
var workloadKinds = map[string]string{"deployments": "Deployment", "statefulsets": "StatefulSet", "daemonsets": "DaemonSet"}

var workloadPath = regexp.MustCompile(`^/apis/apps/v1/namespaces/([^/]+)/(deployments|statefulsets|daemonsets)/([^/]+)$`)

// workloadKey is where a workload is stored. resource is as in its path, such as deployments.
func workloadKey(resource, namespace, name string) string {
	return resource + "/" + namespace + "/" + name
}

// AnnotateWorkload sets annotations of the pod template of a workload as another writer does, and creates the workload if
// there is none. resource is as in its path, such as deployments.
func (s *Server) AnnotateWorkload(resource, namespace, name string, annotations map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := workloadKey(resource, namespace, name)
	if s.workloads[key] == nil {
		s.version++
		s.workloads[key] = &workload{version: s.version, annotations: map[string]string{}}
	}
	if len(annotations) > 0 {
		s.annotate(s.workloads[key], annotations)
	}
}

// Restarts returns how often the pod template of a workload has changed, and its annotations.
func (s *Server) Restarts(resource, namespace, name string) (n int, annotations map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.workloads[workloadKey(resource, namespace, name)]
	if w == nil {
		return 0, nil
	}
	return w.restarts, maps.Clone(w.annotations)
}

func (s *Server) annotate(w *workload, annotations map[string]string) {
	after := maps.Clone(w.annotations)
	maps.Copy(after, annotations)
	if maps.Equal(after, w.annotations) {
		return
	}
	s.version++
	w.annotations, w.version = after, s.version
	w.restarts++
}

// serveWorkload answers a GET, or a PATCH with a merge patch that sets annotations of the pod template.
func (s *Server) serveWorkload(w http.ResponseWriter, r *http.Request, user, namespace, resource, name string, body []byte) {
	verb := map[string]string{http.MethodGet: "get", http.MethodPatch: "patch"}[r.Method]
	if verb == "" {
		fail(w, http.StatusMethodNotAllowed, "MethodNotAllowed", "this server only reads and patches workloads", "", "")
		return
	}
	if !s.allowed(user, verb, resource, namespace, name) {
		fail(w, http.StatusForbidden, "Forbidden", fmt.Sprintf("%s.apps %q is forbidden: User %q cannot %s resource %q in API group \"apps\" in the namespace %q",
			resource, name, user, verb, resource, namespace), resource, name)
		return
	}
	found := s.workloads[workloadKey(resource, namespace, name)]
	if found == nil {
		fail(w, http.StatusNotFound, "NotFound", fmt.Sprintf("%s.apps %q not found", resource, name), resource, name)
		return
	}
	shown := *found
	if r.Method == http.MethodPatch {
		var in struct {
			Metadata struct {
				ResourceVersion string `json:"resourceVersion"`
			} `json:"metadata"`
			Spec struct {
				Template struct {
					Metadata struct {
						Annotations map[string]string `json:"annotations"`
					} `json:"metadata"`
				} `json:"template"`
			} `json:"spec"`
		}
		kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
		switch {
		case kind != "application/merge-patch+json":
			fail(w, http.StatusUnsupportedMediaType, "UnsupportedMediaType", "the body of the request was in an unknown format", "", "")
			return
		case json.Unmarshal(body, &in) != nil:
			fail(w, http.StatusBadRequest, "BadRequest", "the patch cannot be read", "", "")
			return
		case in.Metadata.ResourceVersion != "" && in.Metadata.ResourceVersion != strconv.Itoa(found.version):
			fail(w, http.StatusConflict, "Conflict", fmt.Sprintf("Operation cannot be fulfilled on %s.apps %q: the object has been modified; "+
				"please apply your changes to the latest version and try again", resource, name), resource, name)
			return
		}
		target := found
		if r.URL.Query().Get("dryRun") != "" {
			target = &shown
			version := s.version
			defer func() { s.version = version }()
		}
		s.annotate(target, in.Spec.Template.Metadata.Annotations)
		shown = *target
	}
	answer(w, http.StatusOK, map[string]any{
		"kind": workloadKinds[resource], "apiVersion": "apps/v1",
		"metadata": map[string]any{"name": name, "namespace": namespace, "resourceVersion": strconv.Itoa(shown.version)},
		"spec":     map[string]any{"template": map[string]any{"metadata": map[string]any{"annotations": shown.annotations}}},
	})
}
