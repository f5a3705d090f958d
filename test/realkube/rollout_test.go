package realkube

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/hook"
	"rotatord/internal/kubernetes"
	"rotatord/internal/secret"
	"rotatord/test/program"
)

var controllers = flag.Bool("controllers", false, "build and run the controllers of Kubernetes")

// TestRealRollout: with the real controller of Deployments, each restart is a new revision with a ReplicaSet of its own, also
// two within a second. A run that is repeated, as after a restart of the daemon, is none.
func TestRealRollout(t *testing.T) {
	if !*controllers {
		t.Skip("the controllers take minutes to build: make restarts")
	}
	c := start(t)
	c.Apply(t, workloads)
	c.Apply(t, restartRole)
	c.Control(t, "deployment-controller,replicaset-controller")
	client := kubernetes.New(config.Kubernetes{Kubeconfig: c.Kubeconfig(t, "rotatord", c.token)}, nil)
	t.Cleanup(client.Close)
	h, err := hook.Open(&config.RestartHook{Workload: "Deployment", Namespace: namespace, Name: "app", HookTimes: config.HookTimes{Timeout: 30 * time.Second}},
		hook.Deps{Kubernetes: client})
	if err != nil {
		t.Fatal(err)
	}
	// revisions are the annotations of the ReplicaSets of the Deployment, in the order of their revisions.
	revisions := func() (all []string) {
		list := c.Get(t, "/apis/apps/v1/namespaces/ci/replicasets?labelSelector=app%3Da")
		items, _ := list["items"].([]any)
		for _, item := range items {
			set := item.(map[string]any)
			revision := annotationsOf(set)["deployment.kubernetes.io/revision"]
			template := set["spec"].(map[string]any)["template"].(map[string]any)
			all = append(all, fmt.Sprint(revision, " ", annotationsOf(template)[hook.Annotation]))
		}
		slices.Sort(all)
		return all
	}
	expect := func(want ...string) {
		t.Helper()
		var got []string
		program.Eventually(t, time.Minute, fmt.Sprintf("the revisions are %q", want), func() bool { got = revisions(); return slices.Equal(got, want) })
	}
	run := func(n, attempt int) {
		t.Helper()
		id := fmt.Sprintf("R%d", n)
		if err := h.Run(t.Context(), []hook.Item{{Token: "a", ID: id, RotationID: id, Digest: secret.Digest(fmt.Sprintf("sha256:%d", n)), Attempt: attempt}}); err != nil {
			t.Fatal(err)
		}
	}
	expect("1 <nil>")
	began := time.Now()
	run(1, 1)
	expect("1 <nil>", "2 a=sha256:1")
	run(2, 1)
	t.Logf("two restarts within %s", time.Since(began).Round(time.Millisecond))
	expect("1 <nil>", "2 a=sha256:1", "3 a=sha256:2")
	run(2, 2)
	time.Sleep(3 * time.Second) // the controller takes milliseconds
	expect("1 <nil>", "2 a=sha256:1", "3 a=sha256:2")
}

// annotationsOf returns the annotations of an object, which may have none.
func annotationsOf(object map[string]any) map[string]any {
	metadata, _ := object["metadata"].(map[string]any)
	annotations, _ := metadata["annotations"].(map[string]any)
	return annotations
}
