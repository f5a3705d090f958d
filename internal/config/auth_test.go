package config_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"rotatord/internal/config"
)

// TestAuthMethods reads each method in its shortest and its longest form, and what Document says of it.
func TestAuthMethods(t *testing.T) {
	const remote, agent, socket = "https://vault.example.com:8200", "http://127.0.0.1:8100", "unix:///run/vault/agent.sock"
	const certificate = "\n  tls: {cert_file: /cert.pem, key_file: /key.pem}"
	source := func(file string) config.SecretSource { return config.SecretSource{File: file} }
	for _, test := range []struct {
		address, text string
		want          config.VaultAuth
		kinds         []config.SecretKind
		warning       string
	}{
		{remote, "kubernetes: {role: rotatord}", &config.KubernetesAuth{Role: "rotatord", Mount: "kubernetes", JWT: source("/var/run/secrets/rotatord/token")}, []config.SecretKind{config.JWT}, ""},
		{remote, "kubernetes: {role: a b, mount: /k8s/one/, file: /t}", &config.KubernetesAuth{Role: "a b", Mount: "k8s/one", JWT: source("/t")}, []config.SecretKind{config.JWT}, ""},
		{remote, "kubernetes: {role: r, file: /run/secrets/kubernetes.io/serviceaccount/token}",
			&config.KubernetesAuth{Role: "r", Mount: "kubernetes", JWT: source("/run/secrets/kubernetes.io/serviceaccount/token")}, []config.SecretKind{config.JWT}, "is the token for the API server"},
		{remote, "jwt: {role: rotatord, file: /run/token}", &config.JWTAuth{Role: "rotatord", Mount: "jwt", JWT: source("/run/token")}, []config.SecretKind{config.JWT}, ""},
		{remote, "jwt: {role: rotatord, mount: oidc/ci, env: A_JWT}", &config.JWTAuth{Role: "rotatord", Mount: "oidc/ci", JWT: config.SecretSource{Env: "A_JWT"}}, []config.SecretKind{config.JWT}, "is read once"},
		{remote, "cert: {}" + certificate, &config.CertAuth{Mount: "cert"}, nil, ""},
		{"HTTPS://vault.example.com", "cert: {role: web, mount: tls}" + certificate, &config.CertAuth{Role: "web", Mount: "tls"}, nil, ""},
		{remote, "approle: {role_id: {file: /a}, secret_id: {file: /b}, wrapped: true}", &config.AppRole{Mount: "approle", RoleID: source("/a"), SecretID: source("/b"), Wrapped: true},
			[]config.SecretKind{config.RoleID, config.WrappingToken}, ""},
		{remote, "token: {file: /run/vault-token}", &config.TokenAuth{Source: source("/run/vault-token")}, []config.SecretKind{config.VaultToken}, ""},
		{agent, "agent: {}", &config.AgentAuth{}, nil, ""},
		{socket, "agent: {}", &config.AgentAuth{}, nil, ""},
		{socket, "token: {file: /run/vault-token}", &config.TokenAuth{Source: source("/run/vault-token")}, []config.SecretKind{config.VaultToken}, ""},
	} {
		text := replaced(t, "https://vault.example.com:8200", test.address, "token: {file: /run/vault-token}", test.text)
		c := parse(t, text)
		if diff := cmp.Diff(test.want, c.Vault.Auth); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.text, diff)
		}
		var kinds []config.SecretKind
		for _, s := range c.Secrets() {
			if strings.HasPrefix(s.Field, "vault.auth.") {
				kinds = append(kinds, s.Kind)
			}
		}
		if diff := cmp.Diff(test.kinds, kinds); diff != "" {
			t.Errorf("%s: kinds of secrets (-want +got):\n%s", test.text, diff)
		}
		if got := lines(c.Warnings); len(got) > 1 || (len(got) == 1) != (test.warning != "") || !strings.Contains(strings.Join(got, ""), test.warning) {
			t.Errorf("%s: warnings %q, want %q", test.text, got, test.warning)
		}
		if wantSocket := strings.TrimPrefix(test.address, "unix://"); c.Vault.Socket() != wantSocket && c.Vault.Socket() != "" {
			t.Errorf("the socket of %s is %q", test.address, c.Vault.Socket())
		}
		document, err := yaml.Marshal(map[string]any{c.Vault.Auth.Kind(): c.Vault.Auth.Document()})
		if err != nil {
			t.Fatal(err)
		}
		again := parse(t, replaced(t, "https://vault.example.com:8200", test.address, "token: {file: /run/vault-token}",
			strings.ReplaceAll(strings.TrimSpace(string(document)), "\n", "\n    ")+map[bool]string{true: certificate}[strings.Contains(test.text, "tls:")]))
		if diff := cmp.Diff(test.want, again.Vault.Auth); diff != "" {
			t.Errorf("%s, as Document writes it (-want +got):\n%s", document, diff)
		}
	}
}
