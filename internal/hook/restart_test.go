package hook_test

import (
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/hook"
	"rotatord/internal/kubernetes"
	"rotatord/internal/kubernetes/kubetest"
	"rotatord/internal/secret"
)

// apiServer is the double with one Deployment, and a user who may get and patch exactly that.
type apiServer struct {
	*kubetest.Server
	front *kubetest.Front
	url   string
	ca    string
	dir   string
}

func newAPIServer(t *testing.T) apiServer {
	t.Helper()
	double := kubetest.New(secret.New("admin"))
	double.AddUser("rotatord", secret.New("own"), kubetest.Rule{Resource: "deployments", Namespace: "ci", Names: []string{"app", "none"}, Verbs: []string{"get", "patch"}})
	double.AddUser("reader", secret.New("reader"), kubetest.Rule{Resource: "deployments", Namespace: "ci", Names: []string{"app"}, Verbs: []string{"get"}})
	double.AnnotateWorkload("deployments", "ci", "app", map[string]string{"team": "a"})
	double.AnnotateWorkload("deployments", "ci", "other", nil)
	s := apiServer{Server: double, front: kubetest.NewFront(double), dir: t.TempDir()}
	server := httptest.NewTLSServer(s.front)
	t.Cleanup(server.Close)
	s.url = server.URL
	s.ca = filepath.Join(s.dir, "ca.pem")
	if err := os.WriteFile(s.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// hook opens a hook that restarts a Deployment, with the rights of a token.
func (s apiServer) hook(t *testing.T, token, name string) hook.Hook {
	t.Helper()
	path := filepath.Join(s.dir, "kubeconfig-"+token+"-"+name)
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{name: a, context: {cluster: a, user: a}}]\n"+
		"clusters: [{name: a, cluster: {server: %q, certificate-authority: %q}}]\nusers: [{name: a, user: {token: %s}}]\n", s.url, s.ca, token)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	client := kubernetes.New(config.Kubernetes{Kubeconfig: path}, nil)
	t.Cleanup(client.Close)
	h, err := hook.Open(&config.RestartHook{Workload: "Deployment", Namespace: "ci", Name: name, HookTimes: config.HookTimes{Timeout: 10 * time.Second}},
		hook.Deps{Kubernetes: client})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// restarts fails the test if the Deployment was not restarted so often, or has another annotation. The first change of its
// template is that of the test.
func (s apiServer) restarts(t *testing.T, want int, value string) {
	t.Helper()
	n, annotations := s.Restarts("deployments", "ci", "app")
	if n-1 != want || annotations[hook.Annotation] != value || annotations["team"] != "a" {
		t.Errorf("%d restarts, with %v; want %d, with %q", n-1, annotations, want, value)
	}
}

// TestRestart: each rotation is one restart, also two of one second, and a run that is repeated is none.
func TestRestart(t *testing.T) {
	s := newAPIServer(t)
	h := s.hook(t, "own", "app")
	if err := h.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.restarts(t, 0, "") // a check restarts nothing
	one := func(token, id, digest string, attempt int) []hook.Item {
		rotation, _, _ := strings.Cut(id, "-")
		return []hook.Item{{Token: token, ID: id, RotationID: rotation, Digest: secret.Digest(digest), Attempt: attempt}}
	}
	for _, step := range []struct {
		items []hook.Item
		want  int
		value string
	}{
		{one("a", "R1", "sha256:1", 1), 1, "a=sha256:1"},
		{one("a", "R2", "sha256:2", 1), 2, "a=sha256:2"}, // in the same second
		{one("a", "R2", "sha256:2", 2), 2, "a=sha256:2"}, // after a crash
		{one("b", "R3", "sha256:3", 1), 3, "a=sha256:2 b=sha256:3"},
		{one("a", "R2-again", "sha256:2", 1), 4, "a=sha256:2-again b=sha256:3"}, // an operator wants it again
		{append(one("a", "R4", "sha256:4", 1), one("b", "R5", "sha256:5", 1)...), 5, "a=sha256:4 b=sha256:5"},
		{append(one("a", "R4", "sha256:4", 2), one("b", "R5", "sha256:5", 2)...), 5, "a=sha256:4 b=sha256:5"},
	} {
		if err := h.Run(t.Context(), step.items); err != nil {
			t.Fatal(err)
		}
		s.restarts(t, step.want, step.value)
	}
}

// TestRestartBesideOthers: a conflict with another writer is tried again, and what that wrote stays. An answer that is lost
// after the restart took place leads to an error, and the next attempt to no other restart.
func TestRestartBesideOthers(t *testing.T) {
	s := newAPIServer(t)
	h := s.hook(t, "own", "app")
	other := 0
	s.front.Inject(kubetest.Fault{Kind: kubetest.Create, Count: 2, Do: func() {
		other++
		s.AnnotateWorkload("deployments", "ci", "app", map[string]string{"other": fmt.Sprint(other)})
	}})
	if err := h.Run(t.Context(), items[:1]); err != nil {
		t.Fatal(err)
	}
	s.restarts(t, 1+2, "a=sha256:a") // two of them are the other writer's
	if _, annotations := s.Restarts("deployments", "ci", "app"); annotations["other"] != "2" {
		t.Errorf("what another writer wrote is lost: %v", annotations)
	}

	s.front.Inject(kubetest.Fault{Kind: kubetest.Create, Count: 100, Do: func() {
		other++
		s.AnnotateWorkload("deployments", "ci", "app", map[string]string{"other": fmt.Sprint(other)})
	}})
	if err := h.Run(t.Context(), items[1:]); err == nil || !strings.Contains(err.Error(), "other writers changed the object 5 times") {
		t.Errorf("%v", err)
	}
	s.front.ClearFaults()

	before, _ := s.Restarts("deployments", "ci", "app")
	s.front.Inject(kubetest.Fault{Kind: kubetest.Create, CarryOut: true})
	if err := h.Run(t.Context(), items[1:]); err == nil {
		t.Error("a lost answer is taken for success")
	}
	if err := h.Run(t.Context(), items[1:]); err != nil {
		t.Error(err)
	}
	if after, _ := s.Restarts("deployments", "ci", "app"); after != before+1 {
		t.Errorf("%d restarts", after-before)
	}
}

// TestRestartIsRefused: an error says what is missing, and the check says it without a restart.
func TestRestartIsRefused(t *testing.T) {
	s := newAPIServer(t)
	for _, test := range []struct{ token, name, want string }{
		{"own", "none", "there is no deployment/none in the namespace ci: correct the hook, or create it"},
		{"own", "other", "give rotatord in the namespace ci a Role with this rule\n  - apiGroups: [apps]\n    resources: [deployments]\n    resourceNames: [other]\n    verbs: [get, patch]"},
		{"reader", "app", "give reader in the namespace ci a Role"},
		{"unknown", "app", "the token is not valid here"},
	} {
		h := s.hook(t, test.token, test.name)
		for what, err := range map[string]error{"run": h.Run(t.Context(), items), "check": h.Check(t.Context())} {
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s as %s of %s: %v", what, test.token, test.name, err)
			}
		}
	}
	s.restarts(t, 0, "")
}
