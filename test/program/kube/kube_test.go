package kube_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"rotatord/test/program/kube"
)

const manifests = `# a namespace with a standard
apiVersion: v1
kind: Namespace
metadata:
  name: team
  labels:
    pod-security.kubernetes.io/enforce: restricted
---
---
apiVersion: v1
kind: ServiceAccount
metadata: # of the tests
    name: "reader"
    namespace: team
---
{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "reader", "namespace": "team"},
 "rules": [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["mine"], "verbs": ["get"]}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: reader
  namespace: team
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: reader
subjects:
- kind: ServiceAccount
  name: reader
  namespace: team
---
apiVersion: v1
kind: Secret
metadata:
  name: mine
  namespace: team
stringData:
  name: value
`

const privileged = `apiVersion: v1
kind: Pod
metadata:
  name: bad
  namespace: team
spec:
  serviceAccountName: reader
  containers:
  - name: bad
    image: bad
    securityContext:
      privileged: true
`

// TestServer is the contract of the starter: RBAC, tokens with an audience, Pod Security, nobody anonymous, and
// the same state after a kill.
func TestServer(t *testing.T) {
	s := kube.Start(t)
	s.Apply(t, manifests)
	s.Apply(t, manifests) // changes nothing
	status := func(token, path string) int {
		t.Helper()
		code, _, err := s.Do(t.Context(), token, http.MethodGet, path, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		return code
	}
	const secrets = "/api/v1/namespaces/team/secrets/"
	check := func() {
		t.Helper()
		own := s.Token(t, "team", "reader", 10*time.Minute)
		vaults := s.Token(t, "team", "reader", 10*time.Minute, "vault")
		for _, c := range []struct {
			what, token, path string
			want              int
		}{
			{"its own secret", own, secrets + "mine", http.StatusOK},
			{"another secret", own, secrets + "other", http.StatusForbidden},
			{"a token for Vault", vaults, secrets + "mine", http.StatusUnauthorized},
			{"nobody", "", "/version", http.StatusUnauthorized},
		} {
			if got := status(c.token, c.path); got != c.want {
				t.Errorf("%s: %d, want %d", c.what, got, c.want)
			}
		}
	}
	check()
	var refusal *kube.Error
	if _, err := s.TryApply(t.Context(), privileged); !errors.As(err, &refusal) || refusal.Status != http.StatusForbidden || !strings.Contains(err.Error(), `violates PodSecurity "restricted`) {
		t.Errorf("a privileged pod: %v", err)
	}
	if _, err := s.TryApply(t.Context(), "kind: Pod\n"); err == nil {
		t.Error("a manifest without a name was applied")
	}
	s.Kill()
	s.Resume(t)
	check()
	s.KillAPI()
	s.Resume(t)
	check()
	s.Delete(t, secrets+"mine")
	s.Delete(t, secrets+"mine")
	if s.Get(t, secrets+"mine") != nil {
		t.Error("it was not deleted")
	}
}

// TestRights: what a role or a binding gives or takes away is in force when the call that writes it returns. Without
// the wait, the API server decides by what it had before in some of the rounds.
func TestRights(t *testing.T) {
	s := kube.Start(t)
	s.Apply(t, manifests)
	token := s.Token(t, "team", "reader", 10*time.Minute)
	const (
		secret      = "/api/v1/namespaces/team/secrets/mine"
		group       = "/apis/rbac.authorization.k8s.io/v1"
		clusterwide = `{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "reader"},
 "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]}
---
{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "reader"},
 "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"},
 "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": "team"}]}
`
	)
	for round := range 10 {
		for _, step := range []struct {
			what   string
			change func()
			want   int
		}{
			{"the Role without the verb", func() { s.Apply(t, strings.Replace(manifests, `["get"]`, `["list"]`, 1)) }, http.StatusForbidden},
			{"the Role", func() { s.Apply(t, manifests) }, http.StatusOK},
			{"no RoleBinding", func() { s.Delete(t, group+"/namespaces/team/rolebindings/reader") }, http.StatusForbidden},
			{"a ClusterRole", func() { s.Apply(t, clusterwide) }, http.StatusOK},
			{"no ClusterRole", func() { s.Delete(t, group+"/clusterroles/reader") }, http.StatusForbidden},
			{"a ClusterRole again", func() { s.Apply(t, clusterwide) }, http.StatusOK},
			{"no ClusterRoleBinding", func() { s.Delete(t, group+"/clusterrolebindings/reader") }, http.StatusForbidden},
			{"the RoleBinding", func() { s.Apply(t, manifests) }, http.StatusOK},
		} {
			step.change()
			if got, _, err := s.Do(t.Context(), token, http.MethodGet, secret, "", nil); err != nil || got != step.want {
				t.Errorf("round %d, %s: %d, %v, want %d", round, step.what, got, err, step.want)
			}
		}
	}
}
