package realkube

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/hook"
	"rotatord/internal/kubernetes"
	"rotatord/internal/kubernetes/kubetest"
	"rotatord/internal/secret"
)

// workloads are one of each kind that a hook restarts, and a Deployment that it may not touch.
const workloads = `apiVersion: apps/v1
kind: Deployment
metadata:
  name: app
  namespace: ci
spec:
  selector: {matchLabels: {app: a}}
  template:
    metadata: {labels: {app: a}, annotations: {team: a}}
    spec: {containers: [{name: a, image: example.com/a}]}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: other
  namespace: ci
spec:
  selector: {matchLabels: {app: b}}
  template:
    metadata: {labels: {app: b}}
    spec: {containers: [{name: a, image: example.com/a}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: app
  namespace: ci
spec:
  serviceName: app
  selector: {matchLabels: {app: c}}
  template:
    metadata: {labels: {app: c}, annotations: {team: a}}
    spec: {containers: [{name: a, image: example.com/a}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: app
  namespace: ci
spec:
  selector: {matchLabels: {app: d}}
  template:
    metadata: {labels: {app: d}, annotations: {team: a}}
    spec: {containers: [{name: a, image: example.com/a}]}
`

// restartRole is the Role that docs/hooks.md gives, for one workload of each kind.
const restartRole = `apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: rotatord
  namespace: ci
rules:
- {apiGroups: [apps], resources: [deployments], resourceNames: [app, none], verbs: [get, patch]}
- {apiGroups: [apps], resources: [statefulsets], resourceNames: [app], verbs: [get, patch]}
- {apiGroups: [apps], resources: [daemonsets], resourceNames: [app], verbs: [get, patch]}
`

// template returns the generation of a workload, which grows with each change that restarts its pods, and the annotations
// of its pod template.
func (c *cluster) template(t *testing.T, kind, name string) (generation float64, annotations map[string]any) {
	t.Helper()
	object := c.Get(t, "/apis/apps/v1/namespaces/ci/"+strings.ToLower(kind)+"s/"+name)
	metadata := object["spec"].(map[string]any)["template"].(map[string]any)["metadata"].(map[string]any)
	annotations, _ = metadata["annotations"].(map[string]any)
	return object["metadata"].(map[string]any)["generation"].(float64), annotations
}

// TestRestart: with the rights of the documented Role, two rotations in one second are two restarts, a run that is
// repeated after a crash is none, and neither is a check. A conflict with another writer is tried again. An error says
// which right or which object is missing.
func TestRestart(t *testing.T) {
	c := start(t)
	c.Apply(t, workloads)
	c.Apply(t, restartRole)
	front := kubetest.NewFront(c.api)
	server := httptest.NewServer(front)
	t.Cleanup(server.Close)
	client := kubernetes.New(config.Kubernetes{Kubeconfig: c.kubeconfig(t, server.URL)}, nil)
	t.Cleanup(client.Close)
	open := func(kind, name string) hook.Hook {
		h, err := hook.Open(&config.RestartHook{Workload: kind, Namespace: namespace, Name: name, HookTimes: config.HookTimes{Timeout: 30 * time.Second}},
			hook.Deps{Kubernetes: client})
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	rotation := func(n, attempt int) []hook.Item {
		id := fmt.Sprintf("R%d", n)
		return []hook.Item{{Token: "a", ID: id, RotationID: id, Digest: secret.Digest(fmt.Sprintf("sha256:%d", n)), Attempt: attempt}}
	}
	for _, kind := range []string{"Deployment", "StatefulSet", "DaemonSet"} {
		h := open(kind, "app")
		first, _ := c.template(t, kind, "app")
		expect := func(restarts float64, value any) {
			t.Helper()
			generation, annotations := c.template(t, kind, "app")
			if generation != first+restarts || annotations[hook.Annotation] != value || annotations["team"] != "a" {
				t.Errorf("%s: %v restarts, and %v; want %v, and %v", kind, generation-first, annotations, restarts, value)
			}
		}
		run := func(items []hook.Item) {
			t.Helper()
			if err := h.Run(t.Context(), items); err != nil {
				t.Errorf("%s: %v", kind, err)
			}
		}
		if err := h.Check(t.Context()); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		expect(0, nil)
		run(rotation(1, 1))
		expect(1, "a=sha256:1")
		run(rotation(2, 1))
		expect(2, "a=sha256:2")
		run(rotation(2, 2))
		expect(2, "a=sha256:2")

		front.Inject(kubetest.Fault{Kind: kubetest.Create, Do: func() { // another writer, after this one has read
			path := "/apis/apps/v1/namespaces/ci/" + strings.ToLower(kind) + "s/app"
			status, answer, err := c.Do(t.Context(), c.AdminToken, "PATCH", path, "application/merge-patch+json",
				[]byte(`{"spec":{"template":{"metadata":{"annotations":{"other":"1"}}}}}`))
			if err != nil || status != 200 {
				t.Errorf("%s: %d %s %v", kind, status, answer, err)
			}
		}})
		run(rotation(3, 1))
		expect(4, "a=sha256:3")
		if _, annotations := c.template(t, kind, "app"); annotations["other"] != "1" {
			t.Errorf("%s: what another writer wrote is lost: %v", kind, annotations)
		}
	}
	for name, want := range map[string]string{
		"none":  "there is no deployment/none in the namespace ci",
		"other": "resources: [deployments]\n    resourceNames: [other]\n    verbs: [get, patch]",
	} {
		h := open("Deployment", name)
		for what, err := range map[string]error{"run": h.Run(t.Context(), rotation(1, 1)), "check": h.Check(t.Context())} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s of %s: %v", what, name, err)
			}
		}
	}
}
