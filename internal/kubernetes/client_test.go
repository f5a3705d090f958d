package kubernetes

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"rotatord/internal/config"
	"rotatord/internal/kubernetes/kubetest"
	"rotatord/internal/secret"
)

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// server is the double, with TLS.
func server(t *testing.T) (*kubetest.Server, *httptest.Server, string) {
	t.Helper()
	double := kubetest.New(secret.New("token-CANARY"))
	double.Write("ci", "cf", "x", map[string]string{"a": "b"})
	s := httptest.NewTLSServer(double)
	t.Cleanup(s.Close)
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	return double, s, string(authority)
}

// TestKubeconfig reads kubeconfigs, each with one thing that is wrong, and never shows the token.
func TestKubeconfig(t *testing.T) {
	_, s, authority := server(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "ca.pem"), authority)
	write(t, filepath.Join(dir, "token"), "token-CANARY\n")
	data := base64.StdEncoding.EncodeToString([]byte(authority))
	for _, test := range []struct {
		name, context, cluster, user, says string
	}{
		{"files beside it", "", "server: %s, certificate-authority: ca.pem", "tokenFile: token", ""},
		{"data", "", "server: %s/, certificate-authority-data: " + data, "token: token-CANARY", ""},
		{"both: the file of the token counts", "", "server: %s, certificate-authority: ca.pem", "token: wrong-CANARY, tokenFile: token", ""},
		{"a named context", "a", "server: %s, certificate-authority: ca.pem", "token: token-CANARY", ""},
		{"another name in the certificate", "", "server: %s, certificate-authority: ca.pem, tls-server-name: example.com", "token: token-CANARY", ""},
		{"no such context", "prod", "server: %s", "token: token-CANARY", `has no context "prod" (it has: a)`},
		{"no authority", "", "server: %s", "token: token-CANARY", "which this machine does not trust"},
		{"another name", "", "server: %s, certificate-authority: ca.pem, tls-server-name: other.test", "token: token-CANARY", "the certificate is for"},
		{"no token", "", "server: %s, certificate-authority: ca.pem", "", "has no credential"},
		{"a wrong token", "", "server: %s, certificate-authority: ca.pem", "token: wrong-CANARY", "the token is not valid here"},
		{"a token of two lines", "", "server: %s, certificate-authority: ca.pem", `token: "a-CANARY b"`, "is not a token"},
		{"no file", "", "server: %s, certificate-authority: nope.pem", "token: token-CANARY", "certificate-authority"},
		{"no PEM", "", "server: %s, certificate-authority: token", "token: token-CANARY", "no PEM certificate"},
		{"exec", "", "server: %s", "exec: {command: aws}", "exec is not accepted"},
		{"auth-provider", "", "server: %s", "auth-provider: {name: gcp}", "auth-provider is not accepted"},
		{"a password", "", "server: %s", "username: a, password: CANARY", "password are not accepted"},
		{"impersonation", "", "server: %s", "token: token-CANARY, as: admin", "as is not accepted"},
		{"half a certificate", "", "server: %s", "client-certificate-data: " + data, "go together"},
		{"not base64", "", "server: %s", "client-key-data: '!CANARY'", "not base64"},
		{"insecure", "", "server: %s, insecure-skip-tls-verify: true", "token: token-CANARY", "insecure-skip-tls-verify is not accepted"},
		{"plain http", "", "server: 'http://example.com'", "token: token-CANARY", "plain http"},
		{"no URL", "", "server: 'nonsense'", "token: token-CANARY", "is not the URL"},
		{"a proxy that is none", "", "server: %s, proxy-url: ftp://a", "token: token-CANARY", "proxy-url is not"},
		{"of another type", "", "server: %s", "token: [CANARY]", "line"},
	} {
		cluster := strings.ReplaceAll(test.cluster, "%s", s.URL)
		text := fmt.Sprintf("apiVersion: v1\nkind: Config\npreferences: {colors: true}\ncurrent-context: a\ncontexts: [{name: a, context: {cluster: a, user: a, namespace: x}}]\n"+
			"clusters: [{name: a, cluster: {%s}}]\nusers: [{name: a, user: {%s}}]\n", cluster, test.user)
		c := New(config.Kubernetes{Kubeconfig: write(t, filepath.Join(dir, "config"), text), Context: test.context}, nil)
		got, err := c.Get(t.Context(), "ci", "cf")
		c.Close()
		switch {
		case test.says == "" && (err != nil || got == nil || string(got.Data["a"]) != "b"):
			t.Errorf("%s: %v", test.name, err)
		case test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)):
			t.Errorf("%s: %v, want %q", test.name, err, test.says)
		case err != nil && strings.Contains(err.Error(), "CANARY"):
			t.Errorf("%s: a token is in %v", test.name, err)
		}
	}
}

// TestPod: in a pod, the token is read for each request, and one that was replaced right after it was read is
// used after a 401. The write is then carried out once.
func TestPod(t *testing.T) {
	double, s, authority := server(t)
	host, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "ca.crt"), authority)
	c := &Client{source: pod{dir: dir, host: host, port: port}}
	if _, err := c.Get(t.Context(), "ci", "cf"); err == nil || !strings.Contains(err.Error(), "automountServiceAccountToken") {
		t.Errorf("without a token: %v", err)
	}
	token := write(t, filepath.Join(dir, "token"), "token-CANARY")
	if got, err := c.Get(t.Context(), "ci", "cf"); err != nil || got == nil {
		t.Fatal(err)
	}
	double.RemoveToken(secret.New("token-CANARY"))
	double.AddUser("next", secret.New("next-CANARY"), kubetest.Rule{Namespace: "ci", Verbs: []string{"get", "patch"}})
	if _, err := c.Get(t.Context(), "ci", "cf"); err == nil || !strings.Contains(err.Error(), "401") || strings.Contains(err.Error(), "CANARY") {
		t.Errorf("with an old token: %v", err)
	}
	// The kubelet replaces the file while the request with the old token is under way.
	c.source = replacing{pod{dir: dir, host: host, port: port}, func() { write(t, token, "next-CANARY") }, new(atomic.Int32)}
	if _, err := c.Apply(t.Context(), Application{Namespace: "ci", Name: "cf", Manager: "m", Type: "Opaque", Data: map[string][]byte{"b": []byte("c")}, Operation: "write"}); err != nil {
		t.Error(err)
	}
	if double.Read("ci", "cf")["b"] != "c" {
		t.Error("not written")
	}
	if _, err := New(config.Kubernetes{}, nil).Get(t.Context(), "ci", "cf"); err == nil || !strings.Contains(err.Error(), "kubernetes.kubeconfig") {
		t.Errorf("outside of a cluster: %v", err)
	}
}

// replacing calls do after the first read.
type replacing struct {
	pod
	do    func()
	reads *atomic.Int32
}

func (r replacing) read(ctx context.Context) (access, error) {
	a, err := r.pod.read(ctx)
	if r.reads.Add(1) == 1 {
		r.do()
	}
	return a, err
}

// TestNoProxy: the proxy of the environment is not asked for the API server, and that of the kubeconfig is.
func TestNoProxy(t *testing.T) {
	_, s, authority := server(t)
	var asked atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1); r.Header.Get("Authorization") != "" {
			t.Error("the proxy got the token")
		}
		w.WriteHeader(http.StatusForbidden)
	}))
	t.Cleanup(proxy.Close)
	t.Setenv("HTTPS_PROXY", proxy.URL)
	dir := t.TempDir()
	get := func(more string) error {
		// Not 127.0.0.1, which is excepted from proxies.
		address := strings.Replace(s.URL, "127.0.0.1", "localhost", 1)
		text := fmt.Sprintf("current-context: a\ncontexts: [{name: a, context: {cluster: a, user: a}}]\nclusters: [{name: a, cluster: {server: %q, certificate-authority-data: %s, tls-server-name: example.com%s}}]\n"+
			"users: [{name: a, user: {token: token-CANARY}}]\n", address, base64.StdEncoding.EncodeToString([]byte(authority)), more)
		_, err := New(config.Kubernetes{Kubeconfig: write(t, filepath.Join(dir, "config"), text)}, nil).Get(t.Context(), "ci", "cf")
		return err
	}
	if err := get(""); err != nil || asked.Load() != 0 {
		t.Errorf("%v, the proxy was asked %d times", err, asked.Load())
	}
	if err := get(", proxy-url: '" + proxy.URL + "'"); err == nil || asked.Load() != 1 {
		t.Errorf("%v, the proxy was asked %d times", err, asked.Load())
	}
}

// FuzzOwners: what a server says about field managers never panics, and an unknown form owns nothing.
func FuzzOwners(f *testing.F) {
	f.Add(`{"f:data":{".":{},"f:a":{}},"f:type":{}}`)
	f.Add(`{"f:data":null}`)
	f.Add(`[]`)
	f.Fuzz(func(t *testing.T, fields string) {
		s := &Secret{managed: []managed{{Manager: "x", Operation: "Update", FieldsV1: []byte(fields)}, {Manager: "m", Operation: "Apply", FieldsV1: []byte(fields)}}}
		for _, owner := range s.Owners("m", "data", "a") {
			if owner != "x" {
				t.Error(owner)
			}
		}
		s.Applied("m", "metadata", "labels")
	})
}

func TestOlder(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want bool
	}{{"9", "10", true}, {"10", "9", false}, {"10", "10", false}, {"a", "b", false}, {"", "1", false}, {"18446744073709551615", "1", false}} {
		if Older(test.a, test.b) != test.want {
			t.Errorf("%q before %q", test.a, test.b)
		}
	}
}
