// Package realkube holds the sink for Secrets, and the double of the API server, against a real one.
package realkube

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/kubernetes"
	"rotatord/internal/kubernetes/kubetest"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/sink"
	"rotatord/internal/sink/sinktest"
	"rotatord/test/program/kube"
)

// cluster is a real API server with a namespace and a service account, which has the rights of the Role.
type cluster struct {
	*kube.Server
	api   http.Handler // the API server itself
	token string       // of the service account
}

const namespace = "ci"

// roleFor returns the Role that docs/kubernetes-sink.md gives, for these Secrets.
func roleFor(verbs string, names ...string) string {
	return fmt.Sprintf(`apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: rotatord
  namespace: %s
rules:
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [%s]
  verbs: [%s]
`, namespace, strings.Join(names, ", "), verbs)
}

const accounts = `apiVersion: v1
kind: Namespace
metadata:
  name: ci
---
apiVersion: v1
kind: Namespace
metadata:
  name: rotatord
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: rotatord
  namespace: rotatord
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: rotatord
  namespace: ci
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: rotatord}
subjects:
- {kind: ServiceAccount, name: rotatord, namespace: rotatord}
`

func start(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{Server: kube.Start(t)}
	c.api = c.proxy(t)
	c.Apply(t, accounts)
	c.token = c.Token(t, "rotatord", "rotatord", time.Hour)
	return c
}

// proxy returns a handler that hands requests on to the API server.
func (c *cluster) proxy(t *testing.T) http.Handler {
	t.Helper()
	target, err := url.Parse(c.URL)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(c.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	return proxy
}

// grant gives the service account these rights, instead of those it had.
func (c *cluster) grant(t *testing.T, verbs string, names ...string) {
	t.Helper()
	c.Apply(t, roleFor(verbs, names...))
}

func withPrevious(k config.KubernetesSink) config.KubernetesSink {
	k.PreviousIDField, k.PreviousSecretField, k.PreviousEndsField = sinktest.PreviousIDField, sinktest.PreviousSecretField, sinktest.PreviousEndsField
	return k
}

// TestSink runs the suite that the double passes, with the rights of the documented Role: on a Secret that does
// not exist, and on one that was created beforehand, without the right to create.
func TestSink(t *testing.T) {
	c := start(t)
	front := kubetest.NewFront(c.api)
	server := httptest.NewServer(front)
	t.Cleanup(server.Close)
	at := config.Kubernetes{Kubeconfig: c.kubeconfig(t, server.URL)}
	var names []string
	for n := range 200 {
		names = append(names, fmt.Sprintf("cf-%d", n))
	}
	n := 0
	for _, created := range []bool{false, true} {
		verbs := "get, patch, create"
		if created {
			verbs = "get, patch"
		}
		t.Run("verbs "+verbs, func(t *testing.T) {
			outer := t
			c.grant(t, verbs, names...)
			sinktest.Run(t, func(t *testing.T) sinktest.Harness {
				client := kubernetes.New(at, nil)
				t.Cleanup(client.Close)
				t.Cleanup(front.ClearFaults)
				place := config.KubernetesSink{Namespace: namespace, Name: names[n], Type: "Opaque", TakeOver: []string{sinktest.Outside},
					SinkFields: config.SinkFields{ClientIDField: sinktest.ClientIDField, ClientSecretField: sinktest.ClientSecretField}}
				n++
				if created {
					c.create(t, place.Name)
				}
				h := sinktest.Cluster{Front: front, API: c.api, Admin: c.AdminToken, Namespace: namespace, Deny: func(t *testing.T) {
					c.grant(t, "list", names...)
					t.Cleanup(func() { c.grant(outer, verbs, names...) })
				}}.Harness(place.Name, sink.NewKubernetes(client, place), sink.NewKubernetes(client, withPrevious(place)))
				if created {
					h.Delete = nil // it could not be created again
				}
				return h
			})
		})
	}
}

// kubeconfig returns a kubeconfig of the service account for a server without TLS.
func (c *cluster) kubeconfig(t *testing.T, address string) string {
	t.Helper()
	path := t.TempDir() + "/kubeconfig"
	text := fmt.Sprintf(`{"current-context": "a", "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
  "clusters": [{"name": "a", "cluster": {"server": %q}}], "users": [{"name": "a", "user": {"token": %q}}]}`, address, c.token)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestDirectly: the client talks TLS to the API server itself, with the kubeconfig that kubectl would use.
func TestDirectly(t *testing.T) {
	c := start(t)
	c.grant(t, "get, patch, create", "cf")
	client := kubernetes.New(config.Kubernetes{Kubeconfig: c.Kubeconfig(t, "prod", c.token), Context: "prod"}, nil)
	t.Cleanup(client.Close)
	place := config.KubernetesSink{Namespace: namespace, Name: "cf", Type: "example.com/access", Labels: map[string]string{"team": "ci"},
		SinkFields: config.SinkFields{ClientIDField: "id", ClientSecretField: "secret"}}
	s := sink.NewKubernetes(client, place)
	base, err := s.Preflight(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d := rotation.Delivery{Credential: rotation.Credential{ClientID: "id", ClientSecret: secret.New("cfast_CANARY")}, Base: base}
	if _, err := s.Store(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	// The store is away for a moment: an error that says so, and then it works again.
	c.KillAPI()
	if _, err := s.Preflight(t.Context()); err == nil || !strings.Contains(err.Error(), "nothing listens") {
		t.Errorf("without an API server: %v", err)
	}
	c.Resume(t)
	if stored, err := s.Look(t.Context()); err != nil || stored.Digest != d.ClientSecret.Digest() {
		t.Errorf("after it: %+v, %v", stored, err)
	}
	// A Secret of another type, and one whose type is right.
	place.Type = "Opaque"
	if _, err := sink.NewKubernetes(client, place).Preflight(t.Context()); err == nil || !strings.Contains(err.Error(), "has the type example.com/access") {
		t.Errorf("another type: %v", err)
	}
}

// create creates a Secret without data, as kubectl create does.
func (c *cluster) create(t *testing.T, name string) {
	t.Helper()
	body := fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Secret","metadata":{"name":%q},"type":"Opaque"}`, name)
	status, answer, err := c.Do(t.Context(), c.AdminToken, http.MethodPost, "/api/v1/namespaces/"+namespace+"/secrets?fieldManager=kubectl-create", "application/json", body)
	if err != nil || status != http.StatusCreated {
		t.Fatalf("creating %s: %d, %v: %s", name, status, err, answer)
	}
}
