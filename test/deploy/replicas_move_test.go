package deploy

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"filippo.io/age"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	k8sruntime "k8s.io/apimachinery/pkg/runtime"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/secret"
	"rotatord/test/program"
)

// TestPodMovesLedger follows "From one pod to several replicas" with processes in place of pods: one daemon rotates, and is
// stopped; the Job exports its ledger from the volume and imports it into a real Vault, under the shipped policies.
func TestPodMovesLedger(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, for chroot and the owners of files")
	}
	t.Parallel()
	c := startCluster(t)
	v := startVault(t)
	v.knows(t, c)
	sim := cfsim.New(cfsim.Options{SeedTokens: 1, APIToken: secret.New("cfat_made-up")})
	cloudflare := httptest.NewServer(sim)
	t.Cleanup(cloudflare.Close)
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	credentials := map[string]string{"cloudflare-api-token": "cfat_made-up\n", "age-identity": identity.String() + "\n"}

	var one, move deployment
	for _, d := range deployments(t) {
		switch d.name {
		case "kustomize base":
			one = d
		case "kustomize " + movesLedger:
			move = d
		}
	}
	for _, d := range []deployment{one, move} {
		v.admits(t, d, "rotatord,rotatord-replicas")
		for _, o := range d.objects {
			if o.GetKind() == "ConfigMap" {
				config, _, _ := unstructured.NestedString(o.Object, "data", "config.yaml")
				config = peersIn(t, config, cloudflare.URL, v)
				config = replaceOnce(t, config, "f174e90a-fafe-4643-bbbc-4a0ed4fc8415", cfsim.SeedTokenID(1))
				config = replaceOnce(t, config, "kubernetes: {role: rotatord,", "kubernetes: {role: "+d.namespace+",")
				_ = unstructured.SetNestedField(o.Object, config, "data", "config.yaml")
			}
		}
		c.applyAll(t, d)
	}

	// The one pod.
	k := &kubelet{cluster: c, root: t.TempDir(), credentials: credentials, listen: program.FreeAddress(t)}
	k.pod = c.create(t, one.pod(t, 0))
	k.prepare(t, one)
	daemon, log := k.command(t, k.pod.Spec.Containers[0].Args...), &program.Output{}
	daemon.Stdout, daemon.Stderr = log, log
	if err := k.inPod(daemon.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = daemon.Process.Kill() })
	k.ready(t, program.Patience)
	k.exec(t, "rotate", "ci-deploy")
	k.exec(t, "pause", "ci-deploy", "--reason", "moves with the ledger")
	if err := daemon.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := daemon.Wait(); err != nil {
		t.Fatal(err)
	}

	// The Job, on the same volume.
	var job batchv1.Job
	for _, o := range move.objects {
		if o.GetKind() == "Job" {
			if err := k8sruntime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &job); err != nil {
				t.Fatal(err)
			}
		}
	}
	pod := corev1.Pod{ObjectMeta: job.Spec.Template.ObjectMeta, Spec: job.Spec.Template.Spec}
	pod.APIVersion, pod.Kind, pod.Name, pod.Namespace = "v1", "Pod", "rotatord-move-ledger-abcde", job.Namespace
	object, err := k8sruntime.DefaultUnstructuredConverter.ToUnstructured(&pod)
	if err != nil {
		t.Fatal(err)
	}
	j := &kubelet{cluster: c, root: t.TempDir(), credentials: credentials}
	j.pod = c.create(t, &unstructured.Unstructured{Object: object})
	if err := os.MkdirAll(filepath.Join(j.root, "var/lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(k.root, "var/lib/rotatord"), filepath.Join(j.root, "var/lib/rotatord")); err != nil {
		t.Fatal(err)
	}
	j.prepare(t, move)
	j.exec(t, j.pod.Spec.InitContainers[0].Args...)
	says(t, j.exec(t, j.pod.Spec.Containers[0].Args...), "has the records of 1 token(s) and 1 pause(s)")
	j.exec(t, j.pod.Spec.Containers[0].Args...) // the container is started again: nothing is left to do

	for path, want := range map[string]string{"secret/data/rotatord/tokens/ci-deploy": cfsim.SeedTokenID(1), "secret/data/rotatord/pauses": "moves with the ledger"} {
		text, err := json.Marshal(v.read(t, path)["data"])
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: %s %v", path, text, err)
		}
	}
}

// create creates a pod in the API server, and returns it as it is admitted.
func (c cluster) create(t *testing.T, pod *unstructured.Unstructured) *corev1.Pod {
	t.Helper()
	body, err := pod.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	admitted, err := c.send(t, c.AdminToken, http.MethodPost, "/api/v1/namespaces/"+pod.GetNamespace()+"/pods", "application/json", string(body))
	if err != nil {
		t.Fatal(err)
	}
	typed := &corev1.Pod{}
	if err := k8sruntime.DefaultUnstructuredConverter.FromUnstructured(admitted.Object, typed); err != nil {
		t.Fatal(err)
	}
	return typed
}
