package doctor

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/scheduler"
	"rotatord/internal/secret"
	"rotatord/internal/vault"
	"rotatord/internal/vault/vaulttest"
)

// self is what Vault says of a good token, with changes. A nil value takes a field away.
func self(changes map[string]any) func(*http.Request) any {
	data := map[string]any{
		"ttl": 86400, "expire_time": "2030-01-01T00:00:00Z", "renewable": true, "policies": []string{"rotatord"}, "num_uses": 0, "type": "service",
		"period": 86400, "explicit_max_ttl": 0, "creation_time": time.Now().Unix(), "path": "auth/token/create", "display_name": "token", "orphan": true,
	}
	for name, value := range changes {
		if data[name] = value; value == nil {
			delete(data, name)
		}
	}
	return func(*http.Request) any { return data }
}

// logIn has a login at that path accepted, whatever is sent.
func (w *world) logIn(auth config.VaultAuth, path string) {
	w.config.Vault.Auth = auth
	w.inFront(func(rw http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/v1/"+path {
			return false
		}
		_ = json.NewEncoder(rw).Encode(map[string]any{"auth": map[string]any{
			"client_token": w.vault.AddToken(time.Hour, 0), "lease_duration": 3600, "renewable": true, "policies": []string{"rotatord"},
		}})
		return true
	})
}

// serviceAccount is a token of a service account, of which this much time is left.
func serviceAccount(left time.Duration) string {
	return vaulttest.ServiceAccountToken("rotatord", "rotatord", "vault", time.Now().Add(left))
}

func (w *world) kubernetes() {
	w.logIn(&config.KubernetesAuth{Role: "rotatord", Mount: "kubernetes", JWT: w.file("jwt", serviceAccount(time.Hour))}, "auth/kubernetes/login")
}

// daily has the first token rotated each day at four.
func (w *world) daily() {
	schedule, err := scheduler.Parse("0 4 * * *", time.UTC)
	if err != nil {
		w.Fatal(err)
	}
	w.config.Tokens[0].Schedule = schedule
}

const rolePathOfTests = "auth/kubernetes/role/rotatord"

// authIlls are faults of the session, its role and its policy.
var authIlls = map[string]ill{
	"token with a period":      {func(w *world) { w.vaultAuth(self(nil)) }, Good, VaultSession, "vault.auth", "logged in by token, for 24h0m0s, renewable"},
	"token, nothing else said": {func(w *world) { w.vaultAuth(self(map[string]any{"creation_time": nil, "path": 7, "orphan": "x"})) }, Good, VaultSession, "vault.auth", "renewable"},
	"token without an end": {func(w *world) {
		w.vaultAuth(self(map[string]any{"ttl": 0, "expire_time": nil, "renewable": false, "period": 0}))
	},
		Warning, VaultSessionForever, "vault.auth", "works until a person revokes it"},
	"token with a maximum": {func(w *world) { w.vaultAuth(self(map[string]any{"explicit_max_ttl": 90000})) },
		Warning, VaultSessionEnds, "vault.auth", "with explicit_max_ttl 25h0m0s, it ends for good at"},
	"token with a maximum before a rotation": {func(w *world) {
		w.daily()
		w.vaultAuth(self(map[string]any{"explicit_max_ttl": 1, "ttl": 1}))
	}, Warning, VaultSessionEnds, "vault.auth", "before the next rotation of one at"},
	"token without a period": {func(w *world) { w.vaultAuth(self(map[string]any{"period": 0})) },
		Warning, VaultSessionEnds, "vault.auth", "without a period, and with Vault's default for max_lease_ttl"},
	"token that ends before a rotation": {func(w *world) {
		w.daily()
		w.vaultAuth(self(map[string]any{"renewable": false, "ttl": 1}))
	}, Warning, VaultSessionEnds, "vault.auth", "and not renewable, before the next rotation of one at"},
	"token with a parent": {func(w *world) { w.vaultAuth(self(map[string]any{"orphan": false})) }, Warning, VaultSessionParent, "vault.auth", "revoked together"},
	"token of a person": {func(w *world) {
		w.vaultAuth(self(map[string]any{"path": "auth/userpass/login/alice", "display_name": "userpass-alice"}))
	}, Warning, VaultSessionPerson, "vault.auth", "was made by auth/userpass/login/alice, of userpass-alice"},
	"token of a person, by OIDC": {func(w *world) { w.vaultAuth(self(map[string]any{"path": "auth/oidc/oidc/callback"})) }, Warning, VaultSessionPerson, "vault.auth", "auth/oidc/oidc/callback"},
	"token that an agent got":    {func(w *world) { w.vaultAuth(self(map[string]any{"path": "auth/approle/login"})) }, Good, VaultSession, "vault.auth", "renewable"},
	"policy default":             {func(w *world) {}, Good, VaultDefault, "vault.auth", "token_no_default_policy=true"},
	"may not renew itself": {func(w *world) { w.vault.SetPolicy(also("auth/token/renew-self", "deny")) },
		Warning, VaultSelfRights, "vault.auth", "look after itself: auth/token/renew-self."},
	"may not give itself back": {func(w *world) { w.vault.SetPolicy(also("auth/token/revoke-self", "deny")) },
		Warning, VaultSelfRights, "vault.auth", "auth/token/revoke-self"},
	"a token need not give itself back": {func(w *world) {
		w.vaultAuth(self(nil))
		w.vault.SetPolicy(also("auth/token/revoke-self", "deny"))
	}, Good, SinksGood, "vault", "2 of 2"},

	"every mount":    {func(w *world) { w.vault.SetPolicy(also(nobody+"/data/"+nobody, "read")) }, Warning, VaultWide, "vault", "read at any path of any mount"},
	"one directory":  {func(*world) {}, Good, VaultWide, "vault", "every path below old/access/, secret/access/"},
	"sees mounts":    {func(w *world) { w.vault.SetPolicy(also("sys/mounts", "read")) }, Warning, VaultAdmin, "vault", "sys/mounts (read)"},
	"changes people": {func(w *world) { w.vault.SetPolicy(also("identity/group/name/"+nobody, "update")) }, Warning, VaultAdmin, "vault", "identity/group/name"},
	"sudo at itself": {func(w *world) { w.vault.SetPolicy(also("auth/token/renew-self", "update", "sudo")) }, Warning, VaultAdmin, "vault", "auth/token/renew-self (sudo)"},
	"makes secret IDs": {func(w *world) { w.vault.SetPolicy(also("auth/approle/role/"+nobody+"/secret-id", "update")) },
		Warning, VaultAdmin, "vault", "/secret-id (update)"},
	"changes its role": {func(w *world) { w.kubernetes(); w.vault.SetPolicy(also(rolePathOfTests, "read", "update")) },
		Warning, VaultAdmin, "vault", rolePathOfTests + " (update)"},
	"destroys":        {func(w *world) { w.vault.SetPolicy(also("secret/destroy/access/one", "update")) }, Warning, SinkExcess, "tokens.one.sinks[0]", "secret/destroy/access/one"},
	"brings back":     {func(w *world) { w.vault.SetPolicy(also("secret/undelete/access/one", "update")) }, Warning, SinkExcess, "tokens.one.sinks[0]", "secret/undelete"},
	"custom metadata": {func(w *world) { w.annotated() }, Good, SinkMetadata, "vault", "at 1 of 1 path(s), such as secret/metadata/access/one"},
	"custom metadata that is allowed": {func(w *world) { w.annotated(); w.vault.SetPolicy(also("secret/metadata/access/one", "read", "patch")) },
		Good, SinksGood, "vault", "2 of 2"},
	"patch without a need": {func(w *world) { w.vault.SetPolicy(also("secret/metadata/access/one", "read", "patch")) }, Warning, SinkExcess,
		"tokens.one.sinks[0]", "patch of the metadata"},

	"JWT": {func(w *world) { w.kubernetes() }, Good, VaultCredential, "vault.auth.kubernetes.file", "is valid until"},
	"JWT that has expired": {func(w *world) {
		w.kubernetes()
		w.config.Vault.Auth.(*config.KubernetesAuth).JWT = w.file("old", serviceAccount(-time.Hour))
	}, Bad, VaultCredential, "vault.auth.kubernetes.file", "it expired 1h0m"},
	"JWT without an audience": {func(w *world) {
		w.kubernetes()
		w.config.Vault.Auth.(*config.KubernetesAuth).JWT = w.file("any", vaulttest.JWT(map[string]any{"exp": time.Now().Add(time.Hour).Unix()}))
	}, Warning, VaultCredential, "vault.auth.kubernetes.file", "has no audience"},
	"open file": {func(w *world) {
		if err := os.Chmod(w.config.Vault.Auth.(*config.AppRole).SecretID.File, 0o644); err != nil {
			w.Fatal(err)
		}
	}, Warning, VaultCredential, "vault.auth.approle.secret_id", "every user of this machine can read"},
	"client certificate": {func(w *world) { w.certificate() }, Good, VaultCredential, "vault.tls.cert_file", "is valid until 2084"},
	"client certificate without a key": {func(w *world) {
		w.certificate()
		w.LogIn, w.config.Vault.TLS.KeyFile = false, "/nonexistent/key"
	}, Bad, VaultCredential, "vault.tls", "/nonexistent/key"},
	"client certificate that was replaced by another file": {func(w *world) {
		w.certificate()
		w.daemons(func() { w.config.Vault.TLS.CertFile = w.file("half", "-----BEGIN ").File })
	}, Warning, VaultCertificate, "vault.tls", "goes on with the files that it read before"},
	"secret ID that another program has": {func(w *world) { w.stolen() }, Bad, VaultUnwrap, "vault.auth.approle.secret_id", "another program has unwrapped it"},

	"wrapped": {func(w *world) {
		w.config.Vault.Auth.(*config.AppRole).Wrapped = true
		w.config.Vault.Auth.(*config.AppRole).SecretID = w.file("wrapping", "hvs.CAESIWrapping")
	}, Warning, VaultNotTried, "vault", "logging in uses up the wrapping token"},

	"role that may not be read": {func(w *world) { w.kubernetes() }, Good, VaultRoleNotSeen, "vault.auth", "with: vault read " + rolePathOfTests},
	"role that is gone":         {func(w *world) { w.kubernetes(); w.vault.SetPolicy(also(rolePathOfTests, "read")) }, Good, VaultRoleNotSeen, "vault.auth", "could not look"},
	"role of every account": {func(w *world) {
		w.kubernetes()
		w.vault.SetPolicy(also(rolePathOfTests, "read"))
		w.vault.SetRole(rolePathOfTests, map[string]any{"bound_service_account_names": []string{"*"}, "bound_service_account_namespaces": []string{"*"}, "audience": "vault"})
	}, Warning, VaultRoleWide, "vault.auth", "accepts every service account of the cluster"},
	"role that is bound": {func(w *world) {
		w.kubernetes()
		w.vault.SetPolicy(also(rolePathOfTests, "read"))
		w.vault.SetRole(rolePathOfTests, map[string]any{"bound_service_account_names": []string{"rotatord"}, "bound_service_account_namespaces": []string{"rotatord"}, "audience": "vault"})
	}, Good, VaultRole, "vault.auth", "is bound to this daemon"},
}

// annotated has the first sink write custom metadata.
func (w *world) annotated() { w.config.Tokens[0].Sinks[0].(*config.VaultSink).Metadata = true }

// TestRoleWidth finds what roles of each method accept beyond one daemon.
func TestRoleWidth(t *testing.T) {
	kubernetes, jwt, approle, cert := &config.KubernetesAuth{}, &config.JWTAuth{}, &config.AppRole{}, &config.CertAuth{}
	for name, test := range map[string]struct {
		auth config.VaultAuth
		role string // in JSON
		want []string
	}{
		"kubernetes": {kubernetes, `{"bound_service_account_names": ["a"], "bound_service_account_namespaces": ["b"], "audience": "vault"}`, nil},
		"names":      {kubernetes, `{"bound_service_account_names": ["*"], "bound_service_account_namespaces": ["b"], "audience": "vault"}`, []string{"every service account of its namespaces"}},
		"namespaces": {kubernetes, `{"bound_service_account_names": ["a"], "bound_service_account_namespaces": "*", "audience": "vault"}`, []string{"in every namespace"}},
		"selector": {kubernetes, `{"bound_service_account_names": ["a"], "bound_service_account_namespaces": null, "bound_service_account_namespace_selector": "{}", "audience": "vault"}`,
			[]string{"by their labels"}},
		"no audience":  {kubernetes, `{"bound_service_account_names": ["a"], "bound_service_account_namespaces": ["b"], "audience": ""}`, []string{"of every audience"}},
		"jwt":          {jwt, `{"bound_audiences": ["vault"], "bound_subject": "x", "bound_claims": null}`, nil},
		"jwt, claims":  {jwt, `{"bound_audiences": ["vault"], "bound_subject": "", "bound_claims": {"repo": ["a/b"]}}`, nil},
		"any claim":    {jwt, `{"bound_audiences": ["vault"], "bound_claims": {"repo": "*"}}`, []string{"every subject"}},
		"all of it":    {jwt, `{}`, []string{"of every audience", "every subject"}},
		"approle":      {approle, `{"bind_secret_id": true}`, nil},
		"no secret ID": {approle, `{"bind_secret_id": false}`, []string{"needs no secret_id"}},
		"cert":         {cert, `{"allowed_common_names": ["rotatord"]}`, nil},
		"any name":     {cert, `{"allowed_common_names": "*", "allowed_names": []}`, []string{"every certificate of its authority"}},
		"any cert":     {cert, `{"certificate": "not PEM"}`, []string{"every certificate of its authority"}},
		"odd":          {kubernetes, `{"bound_service_account_names": 7, "audience": []}`, []string{"of every audience"}},
	} {
		var role map[string]any
		decoder := json.NewDecoder(strings.NewReader(test.role))
		decoder.UseNumber()
		if err := decoder.Decode(&role); err != nil {
			t.Fatal(err)
		}
		wide, _ := roleOf(test.auth, nil).width(role)
		if len(wide) != len(test.want) {
			t.Errorf("%s: %+v, want %q", name, wide, test.want)
			continue
		}
		for i, w := range wide {
			if !strings.Contains(w.what, test.want[i]) || w.advice == "" {
				t.Errorf("%s: %+v, want %q", name, w, test.want[i])
			}
		}
	}
	_, hints := appRoleWidth(map[string]any{"secret_id_ttl": json.Number("0"), "secret_id_bound_cidrs": nil})
	if len(hints) != 2 {
		t.Errorf("hints about an approle: %q", hints)
	}
	if _, hints = appRoleWidth(map[string]any{"secret_id_ttl": json.Number("60"), "secret_id_bound_cidrs": []any{"10.0.0.1/32"}}); len(hints) != 0 {
		t.Errorf("hints about a bound approle: %q", hints)
	}
}

// TestRootIsNotToldTwice: what the policy root brings with it is one finding.
func TestRootIsNotToldTwice(t *testing.T) {
	w := newWorld(t)
	w.config.Vault.Auth = &config.TokenAuth{Source: w.file("root", vaultToken)}
	w.vault.SetPolicy(func(string) []string { return []string{"root"} })
	findings := Examine(t.Context(), w.Options)
	if n := len(slices.DeleteFunc(findings, func(f Finding) bool { return f.Level == Good })); n != 1 {
		t.Errorf("%d warnings: %s", n, fmt.Sprintf("%+v", findings))
	}
}

// daemons has doctor ask a running daemon. before is called after its session was made, and before its login.
func (w *world) daemons(before func()) {
	session, err := vault.New(*w.config.Vault, nil, nil)
	if err != nil {
		w.Fatal(err)
	}
	session.KeepIn(&kept{})
	before()
	ctx, stop := context.WithCancel(w.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); session.Run(ctx) }()
	w.Cleanup(func() { stop(); <-ended })
	_ = session.Ready(ctx, 0)
	w.LogIn, w.AskDaemon = false, func(ctx context.Context) ([]Finding, error) { return Sinks(ctx, w.config, session), nil }
}

// stolen has another program unwrap the secret ID before the daemon does.
func (w *world) stolen() {
	token := w.vault.WrapSecretID(time.Minute)
	role := w.config.Vault.Auth.(*config.AppRole)
	role.Wrapped, role.SecretID = true, w.file("wrapping", token)
	w.daemons(func() { w.vault.Unwrap(token) })
}

// certificate configures a client certificate.
func (w *world) certificate() {
	server := httptest.NewTLSServer(nil)
	w.Cleanup(server.Close)
	key, err := x509.MarshalPKCS8PrivateKey(server.TLS.Certificates[0].PrivateKey)
	if err != nil {
		w.Fatal(err)
	}
	block := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	w.config.Vault.TLS.CertFile = w.file("cert", block("CERTIFICATE", server.Certificate().Raw)).File
	w.config.Vault.TLS.KeyFile = w.file("key", block("PRIVATE KEY", key)).File
}

type kept struct{ value secret.Value }

func (k *kept) Keep(v secret.Value) error   { k.value = v; return nil }
func (k *kept) Kept() (secret.Value, error) { return k.value, nil }
