package auth

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"rotatord/internal/secret"
	"rotatord/test/program"
	"rotatord/test/program/ca"
	"rotatord/test/program/kube"
)

// sinkRights is a Secret and the rights of the daemon, as deploy/kubernetes/overlays/secret-sink has them.
const sinkRights = `apiVersion: v1
kind: Namespace
metadata:
  name: ci
---
apiVersion: v1
kind: Secret
metadata:
  name: cf-access
  namespace: ci
stringData:
  other: kept
---
apiVersion: v1
kind: Secret
metadata:
  name: another
  namespace: ci
`

// TestOutsideTheCluster: a daemon that runs outside of the cluster, with tokens of a service account for Vault and, in a
// kubeconfig, for the API server. It rotates into Vault, under the shipped policy, and into a Secret, under the shipped
// Role. The Role allows nothing else.
func TestOutsideTheCluster(t *testing.T) {
	t.Parallel()
	authority := ca.New(t, "test")
	cluster := kube.Start(t)
	cluster.Apply(t, accounts)
	cluster.Apply(t, sinkRights)
	cluster.Apply(t, program.ReadFile(t, "deploy/kubernetes/overlays/secret-sink/rbac.yaml"))
	w := newWorld(t, authority, cluster)
	m := kubernetes()
	auth, _, _ := m.prepare(w)
	m.role(w, time.Hour, 24*time.Hour)
	m.good(w)
	entry := w.token("often", "@every 3s")
	w.configure(auth, fmt.Sprintf("tls: {ca_file: %q},", authority.File), strings.Replace(entry, "sinks: [", "sinks: [{kubernetes: {namespace: ci, name: cf-access}}, ", 1),
		fmt.Sprintf("kubernetes: {kubeconfig: %q}\n", cluster.Kubeconfig(t, "outside", cluster.Token(t, "rotatord", "rotatord", time.Hour))))
	w.start()
	w.rotates("often")
	w.rotates("often")
	w.stop()
	_, id, _ := strings.Cut(entry, "id: ")
	id, _, _ = strings.Cut(id, ",")
	issued := w.sim.Secrets(id)
	last := issued[len(issued)-1].Digest
	data, _ := cluster.Get(t, "/api/v1/namespaces/ci/secrets/cf-access")["data"].(map[string]any)
	field := func(name string) string {
		encoded, _ := data[name].(string)
		b, err := base64.StdEncoding.DecodeString(encoded)
		w.must(err)
		return string(b)
	}
	stored, err := w.vault.Root(t).Logical().Read(mount + "/data/access/often")
	w.must(err)
	inVault, _ := stored.Data["data"].(map[string]any)["client_secret"].(string)
	if secret.New(field("client_secret")).Digest() != last || secret.New(inVault).Digest() != last {
		t.Errorf("after %d rotations Secret and Vault do not both hold the last secret", len(issued)-1)
	}
	if field("other") != "kept" {
		t.Error("what another program keeps in the Secret is gone")
	}

	// The same Role, and a Secret that it does not name: nothing is rotated.
	w.configure(auth, fmt.Sprintf("tls: {ca_file: %q},", authority.File), strings.Replace(w.token("denied", "@every 3s"), "sinks: [", "sinks: [{kubernetes: {namespace: ci, name: another}}, ", 1),
		fmt.Sprintf("kubernetes: {kubeconfig: %q}\n", cluster.Kubeconfig(t, "outside", cluster.Token(t, "rotatord", "rotatord", time.Hour))))
	w.start()
	w.eventually("a refusal that names the Secret", func() bool { return w.count(`rotation skipped.*ci/another`) > 0 })
	if n := w.rotated("denied"); n > 0 {
		t.Errorf("%d rotations without the right to store", n)
	}
	w.stop()
}
