package sink_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/config"
	"rotatord/internal/kubernetes"
	"rotatord/internal/kubernetes/kubetest"
	"rotatord/internal/rotation"
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

	kubeconfig string
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{Server: kubetest.New(secret.New(adminToken))}
	c.front = kubetest.NewFront(c.Server)
	c.AddNamespace("ci")
	c.grant("get", "patch", "create")
	server := httptest.NewServer(c.front)
	t.Cleanup(server.Close)
	c.kubeconfig = kubeconfig(t, server.URL, sinkToken)
	c.client = kubernetes.New(config.Kubernetes{Kubeconfig: c.kubeconfig}, nil)
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

func deliver(t *testing.T, s *sink.Kubernetes, value string) error {
	t.Helper()
	base, err := s.Preflight(t.Context())
	if err != nil {
		return err
	}
	_, err = s.Store(t.Context(), rotation.Delivery{Credential: credential("id", value), Base: base})
	return err
}

func says(t *testing.T, err error, want ...string) {
	t.Helper()
	for _, text := range want {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v, want %q in it", err, text)
		}
	}
	if err != nil && (strings.Contains(err.Error(), "CANARY") || strings.Contains(err.Error(), kubetest.Encoded("CANARY"))) {
		t.Errorf("the error has a secret: %v", err)
	}
}

// TestKubernetesOwnership: a key of another field manager is refused before a rotation, with its name, until
// take_over names it. What that manager has taken back is refused again only if it is not named.
func TestKubernetesOwnership(t *testing.T) {
	c := newCluster(t)
	c.Write("ci", "cf", "kubectl-create", map[string]string{sinktest.ClientIDField: "id", sinktest.ClientSecretField: "old", "note": "mine"})
	err := deliver(t, c.at("cf"), "CANARY1")
	says(t, err, "data."+sinktest.ClientSecretField+" belongs to the field manager kubectl-create", "take_over: [kubectl-create]", "ci/cf")
	if err := deliver(t, c.at("cf", takingOver("helm", "kubectl-create")), "CANARY2"); err != nil {
		t.Fatal(err)
	}
	if got := c.Read("ci", "cf"); got[sinktest.ClientSecretField] != "CANARY2" || got["note"] != "mine" {
		t.Errorf("%d keys", len(got))
	}
	c.Write("ci", "cf", "argocd-controller", map[string]string{sinktest.ClientSecretField: "from git"})
	says(t, deliver(t, c.at("cf", takingOver("kubectl-create")), "CANARY3"), "belongs to the field manager argocd-controller")
	// A secret that waits is not forced either.
	_, err = c.at("cf", takingOver("kubectl-create")).Store(t.Context(), rotation.Delivery{Credential: credential("id", "CANARY3")})
	says(t, err, "belongs to the field manager argocd-controller")
	if c.Read("ci", "cf")[sinktest.ClientSecretField] != "from git" {
		t.Error("it was forced")
	}
}

// TestKubernetesConflictInTheWrite: the API server has the last word about owners.
func TestKubernetesConflictInTheWrite(t *testing.T) {
	c := newCluster(t)
	if err := deliver(t, c.at("cf"), "CANARY1"); err != nil {
		t.Fatal(err)
	}
	c.front.Inject(kubetest.Fault{Kind: kubetest.Write, Status: 409, Header: http.Header{"Content-Type": {"application/json"}},
		Body: `{"kind":"Status","apiVersion":"v1","reason":"Conflict","message":"Apply failed","code":409,"details":{"causes":[{"reason":"FieldManagerConflict","message":"conflict with \"flux \\\"x\\\"\" using v1","field":".data.` + sinktest.ClientSecretField + `"}]}}`})
	says(t, deliver(t, c.at("cf"), "CANARY2"), `belongs to the field manager flux "x"`, "take_over")
}

// TestKubernetesRemovesNothing: server-side apply removes what its manager leaves out. Neither a sink with other
// keys, nor a sink whose keys were renamed, nor another daemon loses anything by that.
func TestKubernetesRemovesNothing(t *testing.T) {
	c := newCluster(t)
	other := func(k *config.KubernetesSink) {
		k.SinkFields = config.SinkFields{ClientIDField: "other-id", ClientSecretField: "other-secret"}
		k.Labels = map[string]string{"other": "yes"}
	}
	labelled := func(k *config.KubernetesSink) { k.Labels = map[string]string{"team": "ci"} }
	for i, step := range []*sink.Kubernetes{c.at("cf", labelled), c.at("cf", other), c.at("cf"), c.at("cf", other)} {
		if err := deliver(t, step, fmt.Sprintf("CANARY%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	got := c.Read("ci", "cf")
	if got[sinktest.ClientSecretField] != "CANARY2" || got["other-secret"] != "CANARY3" || len(got) != 4 {
		t.Errorf("%d keys", len(got))
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/api/v1/namespaces/ci/secrets/cf", nil)
	r.Header.Set("Authorization", "Bearer "+adminToken)
	c.ServeHTTP(w, r)
	for _, label := range []string{`"team":"ci"`, `"other":"yes"`} {
		if !strings.Contains(w.Body.String(), label) {
			t.Errorf("the label %s is gone", label)
		}
	}
}

// TestKubernetesIsRefused: what cannot be written is known before a rotation, and is not changed.
func TestKubernetesIsRefused(t *testing.T) {
	raw := func(t *testing.T, c *cluster, body string) {
		r := httptest.NewRequest(http.MethodPost, "/api/v1/namespaces/ci/secrets?fieldManager=kubectl-create", strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+adminToken)
		w := httptest.NewRecorder()
		if c.ServeHTTP(w, r); w.Code != http.StatusCreated {
			t.Fatal(w.Body)
		}
	}
	for name, test := range map[string]struct {
		prepare func(t *testing.T, c *cluster)
		change  func(*config.KubernetesSink)
		says    []string
	}{
		"another type": {func(t *testing.T, c *cluster) { raw(t, c, `{"metadata":{"name":"cf"},"type":"example.com/x"}`) }, nil,
			[]string{"has the type example.com/x and not Opaque", "write type: example.com/x"}},
		"immutable": {func(t *testing.T, c *cluster) { raw(t, c, `{"metadata":{"name":"cf"},"immutable":true}`) }, nil, []string{"is immutable", "delete it"}},
		"being deleted": {func(t *testing.T, c *cluster) {
			raw(t, c, `{"metadata":{"name":"cf","finalizers":["example.com/x"]}}`)
			r := httptest.NewRequest(http.MethodDelete, "/api/v1/namespaces/ci/secrets/cf", nil)
			r.Header.Set("Authorization", "Bearer "+adminToken)
			c.ServeHTTP(httptest.NewRecorder(), r)
		}, nil, []string{"is being deleted", "finalizers"}},
		"full": {func(_ *testing.T, c *cluster) {
			c.Write("ci", "cf", "x", map[string]string{"big": strings.Repeat("x", 1<<20-1)})
		}, nil, []string{"has 1048575 bytes of data", "at most 1048576"}},
		"no namespace": {nil, func(k *config.KubernetesSink) { k.Namespace = "none" }, []string{`cannot get resource "secrets"`}},
		"a namespace without a name": {func(_ *testing.T, c *cluster) {
			c.AddUser("rotatord", secret.New(sinkToken), kubetest.Rule{Namespace: "none", Verbs: []string{"get", "patch", "create"}})
		}, func(k *config.KubernetesSink) { k.Namespace = "none" }, []string{`namespaces "none" not found`, "create the namespace none"}},
		"a namespace that ends": {func(_ *testing.T, c *cluster) { c.EndNamespace("ci") }, nil, []string{"the namespace ci is being deleted"}},
		"a quota":               {func(_ *testing.T, c *cluster) { c.SetQuota("ci", 0) }, nil, []string{"exceeded quota", "raise the ResourceQuota"}},
		"a webhook": {func(_ *testing.T, c *cluster) {
			c.SetWebhook(func(s kubetest.Secret) string { return "no keys like " + s.Data[sinktest.ClientIDField] + " here" })
		}, nil, []string{"admission webhook", "an admission policy of the cluster refuses it"}},
		"no right to read": {func(_ *testing.T, c *cluster) { c.grant("patch") }, nil,
			[]string{"give rotatord in the namespace ci a Role", "resourceNames: [cf]", "verbs: [get, patch]"}},
		"no right to create": {func(_ *testing.T, c *cluster) { c.grant("get", "patch") }, nil,
			[]string{"verbs: [get, patch, create]", "kubectl create secret generic cf -n ci"}},
		"a label of another manager": {func(t *testing.T, c *cluster) {
			raw(t, c, `{"metadata":{"name":"cf","labels":{"team":"other"}}}`)
		}, func(k *config.KubernetesSink) { k.Labels = map[string]string{"team": "ci"} }, []string{"metadata.labels.team belongs to the field manager kubectl-create"}},
		"no token": {func(_ *testing.T, c *cluster) { c.RemoveToken(secret.New(sinkToken)) }, nil, []string{"401", "the token is not valid here"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			if test.prepare != nil {
				test.prepare(t, c)
			}
			s := c.at("cf")
			if test.change != nil {
				s = c.at("cf", test.change)
			}
			before := c.Read("ci", "cf")
			says(t, deliver(t, s, "CANARY"), test.says...)
			says(t, s.LookAhead(t.Context()), test.says...)
			if diff := cmp.Diff(before, c.Read("ci", "cf")); diff != "" {
				t.Error(diff)
			}
			if n := c.front.Writes(); n != 0 {
				t.Errorf("%d writes", n)
			}
		})
	}
}

// TestKubernetesWebhookSeesTheSecret: a webhook that quotes what it refuses does not bring the secret into an error.
func TestKubernetesWebhookSeesTheSecret(t *testing.T) {
	c := newCluster(t)
	s := c.at("cf")
	base, err := s.Preflight(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.SetWebhook(func(s kubetest.Secret) string {
		value := s.Data[sinktest.ClientSecretField]
		if s.DryRun || value == "" {
			return ""
		}
		return "value " + value + " or " + kubetest.Encoded(value) + " is too short"
	})
	const value = "not-of-any-known-form-CANARY"
	_, err = s.Store(t.Context(), rotation.Delivery{Credential: credential("id", value), Base: base})
	says(t, err, "is too short", "an admission policy")
	if strings.Contains(err.Error(), kubetest.Encoded(value)) {
		t.Error(err)
	}
}

// TestKubernetesAnswers: an answer that the API server does not give is never an empty place, and never a write.
func TestKubernetesAnswers(t *testing.T) {
	json := http.Header{"Content-Type": {"application/json"}}
	html := http.Header{"Content-Type": {"text/html"}}
	const page = "<html><title>Sign in</title></html>"
	for name, a := range map[string]struct {
		status int
		header http.Header
		body   string
		says   string
	}{
		"a login page":        {200, html, page, `text/html, "Sign in"`},
		"an empty answer":     {200, json, "", "is something else at this address?"},
		"null":                {200, json, "null", "another object"},
		"a list":              {200, json, "[]", "not a Secret"},
		"two answers":         {200, json, `{"kind":"Secret"}{"kind":"Secret"}`, "not a Secret"},
		"another kind":        {200, json, `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"cf","namespace":"ci"}}`, "another object"},
		"another Secret":      {200, json, `{"kind":"Secret","apiVersion":"v1","metadata":{"name":"other","namespace":"ci","uid":"a","resourceVersion":"1"}}`, "another Secret"},
		"no version":          {200, json, `{"kind":"Secret","apiVersion":"v1","metadata":{"name":"cf","namespace":"ci","uid":"a"}}`, "no resourceVersion"},
		"data that is text":   {200, json, `{"kind":"Secret","apiVersion":"v1","metadata":{"name":"cf","namespace":"ci","uid":"a","resourceVersion":"1"},"data":{"a":"CANARY!"}}`, "not a Secret"},
		"no content":          {204, nil, "", "204"},
		"a redirect":          {302, http.Header{"Location": {"https://sso.example.com/?t=CANARY"}}, page, "redirected to"},
		"a proxy's 404":       {404, html, page, "404 without a Status"},
		"a 404 of another":    {404, json, `{"message":"not found"}`, "404 without a Status"},
		"no such API":         {404, json, `{"kind":"Status","apiVersion":"v1","reason":"NotFound","message":"the server could not find the requested resource","details":{}}`, "could not find"},
		"gone":                {410, json, `{"kind":"Status","apiVersion":"v1","reason":"Expired","message":"x"}`, "410 Expired"},
		"not acceptable":      {415, json, `{"kind":"Status","apiVersion":"v1","reason":"UnsupportedMediaType","message":"x"}`, "Kubernetes 1.22"},
		"too many":            {429, http.Header{"Content-Type": {"text/plain"}, "Retry-After": {"7"}}, "Too many requests", "asks to wait 7s"},
		"too many, for years": {429, http.Header{"Retry-After": {"99999999"}}, "", "asks to wait 10m0s"},
		"failed":              {500, json, `{"kind":"Status","apiVersion":"v1","message":"etcdserver: request timed out","code":500}`, "request timed out"},
		"a bad gateway":       {502, html, page, "502"},
		"too large":           {200, json, strings.Repeat(" ", 4<<20), "larger than 3 MiB"},
		"broken":              {0, nil, "", "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			s := c.at("cf")
			if err := deliver(t, s, "CANARY1"); err != nil {
				t.Fatal(err)
			}
			inject := func(kind string, carryOut bool) {
				c.front.ClearFaults()
				f := kubetest.Fault{Kind: kind, CarryOut: carryOut, Status: a.status, Header: a.header, Body: a.body}
				if kind == kubetest.Read {
					f.Count = 2 // a read on a connection that breaks is repeated by net/http
				}
				c.front.Inject(f)
			}
			inject(kubetest.Read, false)
			_, err := s.Preflight(t.Context())
			says(t, err, a.says)
			inject(kubetest.Probe, false)
			_, err = s.Preflight(t.Context())
			says(t, err, a.says)
			// A write that was carried out is found by reading back, unless the answer says that it was not.
			inject(kubetest.Write, true)
			if err := deliver(t, s, "CANARY2"); err != nil && a.status < 400 {
				t.Errorf("a write that was carried out: %v", err)
			}
			inject(kubetest.Write, false)
			says(t, deliver(t, s, "CANARY3"), a.says)
			c.front.ClearFaults()
			if err := deliver(t, s, "CANARY3"); err != nil || c.Read("ci", "cf")[sinktest.ClientSecretField] != "CANARY3" {
				t.Errorf("after it: %v", err)
			}
		})
	}
}

// TestKubernetesStale: an older state that a cache shows is read again, and is not taken for another writer's.
func TestKubernetesStale(t *testing.T) {
	c := newCluster(t)
	s := c.at("cf")
	for i := range 2 {
		if err := deliver(t, s, fmt.Sprintf("CANARY%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	base, err := s.Preflight(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.front.Inject(kubetest.Fault{Kind: kubetest.Read, Back: true, Count: 2})
	if _, err := s.Store(t.Context(), rotation.Delivery{Credential: credential("id", "CANARY3"), Base: base}); err != nil || c.front.Writes() != 3 {
		t.Errorf("%v, %d writes", err, c.front.Writes())
	}
	c.front.Inject(kubetest.Fault{Kind: kubetest.Read, Back: true, Count: 1000})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err = s.Store(ctx, rotation.Delivery{Credential: credential("id", "CANARY4")})
	says(t, err, "stale read")
	if strings.Contains(err.Error(), "another writer") {
		t.Error(err)
	}
}

// TestKubernetesRequests: a rotation costs four requests, and a look one.
func TestKubernetesRequests(t *testing.T) {
	c := newCluster(t)
	counts := map[string]int{}
	c.client = kubernetes.New(config.Kubernetes{Kubeconfig: c.kubeconfig}, countRequests(counts))
	s := c.at("cf")
	if err := deliver(t, s, "CANARY1"); err != nil {
		t.Fatal(err)
	}
	clear(counts)
	if err := deliver(t, s, "CANARY2"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]int{"read 200": 2, "probe 200": 1, "write 200": 1}, counts); diff != "" {
		t.Errorf("a rotation:\n%s", diff)
	}
	clear(counts)
	if _, err := s.Look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]int{"read 200": 1}, counts); diff != "" {
		t.Errorf("a look:\n%s", diff)
	}
}

type countRequests map[string]int

func (c countRequests) KubernetesRequest(operation, code string, _ time.Duration) {
	c[operation+" "+code]++
}
