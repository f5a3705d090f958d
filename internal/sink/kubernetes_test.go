package sink_test

import (
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"rotatord/internal/config"
	"rotatord/internal/kubernetes"
	"rotatord/internal/kubernetes/kubetest"
	"rotatord/internal/secret"
	"rotatord/internal/sink"
	"rotatord/internal/sink/sinktest"
)

const (
	adminToken = "admin-CANARY"
	sinkToken  = "sink-CANARY"
)

// cluster is a double with a client of a user that may do what rotatord's Role says.
type cluster struct {
	*kubetest.Server
	front  *kubetest.Front
	client *kubernetes.Client
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{Server: kubetest.New(secret.New(adminToken))}
	c.front = kubetest.NewFront(c.Server)
	c.AddNamespace("ci")
	c.grant("get", "patch", "create")
	server := httptest.NewServer(c.front)
	t.Cleanup(server.Close)
	c.client = kubernetes.New(config.Kubernetes{Kubeconfig: kubeconfig(t, server.URL, sinkToken)}, nil)
	t.Cleanup(c.client.Close)
	return c
}

// grant gives the user of the sink these rights on all Secrets of the namespace ci.
func (c *cluster) grant(verbs ...string) {
	c.AddUser("rotatord", secret.New(sinkToken), kubetest.Rule{Namespace: "ci", Verbs: verbs})
}

func kubeconfig(t *testing.T, server, token string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{"current-context": "a", "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
  "clusters": [{"name": "a", "cluster": {"server": %q}}], "users": [{"name": "a", "user": {"token": %q}}]}`, server, token)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var kubernetesFields = config.SinkFields{ClientIDField: sinktest.ClientIDField, ClientSecretField: sinktest.ClientSecretField}

func (c *cluster) at(name string, change ...func(*config.KubernetesSink)) *sink.Kubernetes {
	k := config.KubernetesSink{Namespace: "ci", Name: name, Type: "Opaque", SinkFields: kubernetesFields}
	for _, do := range change {
		do(&k)
	}
	return sink.NewKubernetes(c.client, k)
}

func takingOver(managers ...string) func(*config.KubernetesSink) {
	return func(k *config.KubernetesSink) { k.TakeOver = managers }
}

func withPrevious(k *config.KubernetesSink) {
	k.PreviousIDField, k.PreviousSecretField, k.PreviousEndsField = sinktest.PreviousIDField, sinktest.PreviousSecretField, sinktest.PreviousEndsField
}

// TestKubernetesSink runs the suite on a Secret that does not exist, and on one that was created beforehand,
// without the right to create Secrets.
func TestKubernetesSink(t *testing.T) {
	for _, created := range []bool{false, true} {
		t.Run(fmt.Sprintf("created beforehand %t", created), func(t *testing.T) {
			n := 0
			sinktest.Run(t, func(t *testing.T) sinktest.Harness {
				c := newCluster(t)
				n++
				name := fmt.Sprintf("cf-%d", n)
				if created {
					c.Write("ci", name, "kubectl-create", nil)
				}
				h := sinktest.Cluster{Front: c.front, API: c.Server, Admin: adminToken, Namespace: "ci", Deny: func(*testing.T) { c.grant() }}.Harness(
					name, c.at(name, takingOver(sinktest.Outside)), c.at(name, takingOver(sinktest.Outside), withPrevious))
				if created {
					h.Delete = nil // it could not be created again
				}
				return h
			})
		})
	}
}
