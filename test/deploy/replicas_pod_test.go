package deploy

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/scheduler"
	"rotatord/internal/secret"
	"rotatord/test/program"
)

// TestPodReplicas runs the three pods of the StatefulSet, as far as that goes without a kubelet, against a real API
// server and a real Vault under the shipped policies. While slots come all the time, it rolls out another
// configuration as the controller does: the highest pod first, and the next one when that is ready. Each slot has to be
// served once, within its window.
func TestPodReplicas(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some minutes")
	}
	t.Parallel()
	w := newReplicas(t)
	begin := time.Now()
	for i := range w.pods {
		w.start(t, i, 0)
	}
	for _, p := range w.pods {
		p.ready(t, time.Minute)
	}
	up := time.Now()
	w.sees(t)
	rollouts := 0
	for time.Since(up) < *rolloutFor {
		rollouts++
		for i := len(w.pods) - 1; i >= 0; i-- {
			w.stop(t, i)
			w.start(t, i, rollouts)
			w.pods[i].ready(t, time.Minute)
			time.Sleep(w.minReady)
		}
	}
	rolled := time.Now()
	w.sees(t)
	time.Sleep(rolloutWindow) // what came last is served
	end := time.Now()
	for i := range w.pods {
		w.stop(t, i)
	}
	slots := w.check(t, up, end)
	t.Logf("three pods were ready after %s; %d rollouts, one pod after the other, in %s: %d slots, each served once, by %v",
		up.Sub(begin).Round(time.Second), rollouts, rolled.Sub(up).Round(time.Second), slots, w.by)
}

// replicas are the pods of the StatefulSet, and what they share.
type replicas struct {
	rollout  // what Cloudflare did, and what the daemons say
	cluster  cluster
	vault    *vaultServer
	d        deployment
	pods     []*replica
	config   string // the shipped configuration, with the peers of this test
	minReady time.Duration
	by       map[string]int // rotations, by pod
}

type replica struct {
	*kubelet
	daemon *exec.Cmd
	ended  chan struct{}
	log    *program.Output
}

func newReplicas(t *testing.T) *replicas {
	t.Helper()
	c := startCluster(t)
	v := startVault(t)
	v.knows(t, c)
	w := &replicas{cluster: c, vault: v, by: map[string]int{}}
	w.served = map[string]map[time.Time][]time.Time{}
	var err error
	if w.schedule, err = scheduler.Parse("* * * * *", time.UTC); err != nil {
		t.Fatal(err)
	}
	w.cloudflare = cfsim.New(cfsim.Options{SeedTokens: rolloutTokens, APIToken: secret.New("cfat_made-up"), RateLimit: -1})
	w.answersAfter(t, time.Second, time.Second)
	server := httptest.NewServer(w.cloudflare)
	t.Cleanup(server.Close)

	for _, d := range deployments(t) {
		if d.name == "kustomize "+severalReplicas {
			w.d = d
		}
	}
	v.admits(t, w.d, "rotatord,rotatord-replicas")
	for _, o := range w.d.objects {
		switch o.GetKind() {
		case "ConfigMap":
			w.config, _, _ = unstructured.NestedString(o.Object, "data", "config.yaml")
		case "StatefulSet":
			seconds, _, _ := unstructured.NestedInt64(o.Object, "spec", "minReadySeconds")
			w.minReady = time.Duration(seconds) * time.Second
			n, _, _ := unstructured.NestedInt64(o.Object, "spec", "replicas")
			w.pods = make([]*replica, n)
		}
	}
	w.config = peersIn(t, w.config, server.URL, v)
	w.config = replaceOnce(t, w.config, "kubernetes: {role: rotatord,", "kubernetes: {role: "+w.d.namespace+",")
	w.config, _, _ = strings.Cut(w.config, "\ndefaults:")
	w.config += fmt.Sprintf("\ndefaults: {account: prod, schedule: \"* * * * *\", jitter: %s, window: %s}\ntokens:\n", rolloutJitter, rolloutWindow)

	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	w.apply(t, 0)
	for i := range w.pods {
		w.pods[i] = &replica{kubelet: &kubelet{
			cluster: c, root: t.TempDir(), listen: program.FreeAddress(t),
			credentials: map[string]string{"cloudflare-api-token": "cfat_made-up\n", "age-identity": identity.String() + "\n"},
		}}
	}
	return w
}

// apply applies the objects with a configuration that differs from the last one.
func (w *replicas) apply(t *testing.T, n int) {
	t.Helper()
	for _, o := range w.d.objects {
		if o.GetKind() == "ConfigMap" {
			o.SetName(fmt.Sprintf("rotatord-config-%d", n))
			var tokens strings.Builder
			for i := range rolloutTokens {
				fmt.Fprintf(&tokens, "  seeded-%04d: {id: %s, grace: %ds, sinks: [{vault: {mount: secret, path: access/%d}}]}\n", i+1, cfsim.SeedTokenID(i+1), 2+(n+i)%3, i+1)
			}
			_ = unstructured.SetNestedField(o.Object, w.config+tokens.String(), "data", "config.yaml")
		}
	}
	w.cluster.applyAll(t, w.d)
}

// start creates a pod in the API server, and starts its process.
func (w *replicas) start(t *testing.T, i, n int) {
	t.Helper()
	p := w.pods[i]
	w.apply(t, n)
	pod := w.d.pod(t, i)
	volumes, _, _ := unstructured.NestedSlice(pod.Object, "spec", "volumes")
	for _, volume := range volumes {
		if c, ok := volume.(map[string]any)["configMap"].(map[string]any); ok {
			c["name"] = fmt.Sprintf("rotatord-config-%d", n)
		}
	}
	_ = unstructured.SetNestedSlice(pod.Object, volumes, "spec", "volumes")
	p.pod = w.cluster.create(t, pod)
	if err := os.RemoveAll(filepath.Join(p.root, "run")); err != nil { // it is in memory, and of one pod
		t.Fatal(err)
	}
	p.prepare(t, w.d)
	p.daemon = p.command(t, p.pod.Spec.Containers[0].Args...)
	p.log, p.ended = &program.Output{}, make(chan struct{})
	out, in := io.Pipe()
	p.daemon.Stdout, p.daemon.Stderr = p.log, io.MultiWriter(p.log, in)
	if err := p.inPod(p.daemon.Start); err != nil {
		t.Fatal(err)
	}
	name, daemon, ended, log := p.pod.Name, p.daemon, p.ended, p.log
	go func() { _ = daemon.Wait(); _ = in.Close() }()
	go func() {
		defer close(ended)
		_, _ = w.follow(out, func() {})
		_, _ = io.Copy(io.Discard, out)
	}()
	t.Cleanup(func() {
		_ = daemon.Process.Kill()
		<-ended
		if t.Failed() {
			var rest strings.Builder
			for line := range strings.Lines(log.String()) {
				if !strings.Contains(line, `"msg":"rotated"`) {
					rest.WriteString(line)
				}
			}
			t.Logf("the log of %s:\n%s", name, program.Tail(rest.String()))
		}
	})
}

// stop ends a pod as the kubelet does, and removes it from the API server.
func (w *replicas) stop(t *testing.T, i int) {
	t.Helper()
	p := w.pods[i]
	if err := p.daemon.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.ended:
		if code := p.daemon.ProcessState.ExitCode(); code != 0 {
			t.Errorf("%s ended with %d", p.pod.Name, code)
		}
	case <-time.After(time.Duration(*p.pod.Spec.TerminationGracePeriodSeconds) * time.Second):
		t.Fatalf("%s outlives its time to end", p.pod.Name)
	}
	w.by[p.pod.Name] += strings.Count(p.log.String(), `"msg":"rotated"`)
	path := "/api/v1/namespaces/" + w.d.namespace + "/pods/" + p.pod.Name + "?gracePeriodSeconds=0"
	if _, err := w.cluster.send(t, w.cluster.AdminToken, http.MethodDelete, path, "", ""); err != nil {
		t.Fatal(err)
	}
}

// sees checks that the commands of the guide work in each pod, and that the replicas have the names of their pods.
func (w *replicas) sees(t *testing.T) {
	t.Helper()
	var names []any
	for _, p := range w.pods {
		// Under the two shipped policies, which allow what it needs and no more.
		says(t, p.exec(t, "doctor", "--login"), "the policy allows what replicas need below rotatord/, and no more")
		p.exec(t, "status")
		names = append(names, p.pod.Name)
	}
	if got := w.vault.read(t, "secret/metadata/rotatord/replicas?list=true")["keys"].([]any); !slices.Equal(got, names) {
		t.Errorf("the replicas are %v, want %v", got, names)
	}
}

// check compares what was served with the slots from begin to end, and returns their number.
func (w *replicas) check(t *testing.T, begin, end time.Time) (slots int) {
	t.Helper()
	served, missed := w.outcome()
	if len(missed) > 0 {
		t.Errorf("slots were missed:\n%s", strings.Join(missed, "\n"))
	}
	for name, f := range w.slots(begin, end) {
		slots++
		w.servedOnce(t, served, name, f)
	}
	if slots < rolloutTokens {
		t.Fatalf("only %d slots: this shows nothing", slots)
	}
	if got, want := w.rotations(), w.count(served); got != want {
		t.Errorf("Cloudflare carried out %d rotations, the daemons report %d", got, want)
	}
	for _, p := range w.pods {
		if w.by[p.pod.Name] == 0 {
			t.Errorf("%s has rotated nothing: the replicas do not share the work: %v", p.pod.Name, w.by)
		}
	}
	return slots
}
