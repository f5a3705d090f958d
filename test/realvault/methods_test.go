package realvault_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"rotatord/internal/config"
	"rotatord/internal/event"
	"rotatord/internal/secret"
	"rotatord/internal/vault"
	"rotatord/internal/vault/vaulttest"
	"rotatord/test/program/ca"
	"rotatord/test/realvault"
)

// issuer signs JWTs.
type issuer struct{ key *ecdsa.PrivateKey }

func newIssuer(t *testing.T) issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return issuer{key}
}

// sign returns a JWT with these claims.
func (i issuer) sign(t *testing.T, claims map[string]any) string {
	t.Helper()
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	signed := part(map[string]any{"alg": "ES256", "typ": "JWT"}) + "." + part(claims)
	digest := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, i.key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func (i issuer) publicKey(t *testing.T) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(&i.key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// claims are those of the tests' service account, with changes.
func claims(changes map[string]any) map[string]any {
	all := map[string]any{
		"iss": "https://issuer.example.com", "sub": "system:serviceaccount:rotatord:rotatord", "aud": []string{"vault"},
		"iat": time.Now().Unix(), "nbf": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
		"kubernetes.io": map[string]any{"namespace": "rotatord", "serviceaccount": map[string]any{"name": "rotatord", "uid": "u-1"}},
	}
	maps.Copy(all, changes)
	return all
}

func write(t *testing.T, v *realvault.Vault, path string, data map[string]any) *api.Secret {
	t.Helper()
	answer, err := v.Root(t).Logical().Write(path, data)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func enable(t *testing.T, v *realvault.Vault, method string) {
	t.Helper()
	if err := v.Root(t).Sys().EnableAuthWithOptions(method, &api.EnableAuthOptions{Type: method}); err != nil {
		t.Fatal(err)
	}
}

// accessors counts the tokens of a Vault.
func accessors(t *testing.T, v *realvault.Vault) int {
	t.Helper()
	list, err := v.Root(t).Logical().List("auth/token/accessors")
	if err != nil {
		t.Fatal(err)
	}
	return len(list.Data["keys"].([]any))
}

// memory keeps an unwrapped secret ID.
type memory struct {
	mu   sync.Mutex
	kept secret.Value
}

func (m *memory) Keep(v secret.Value) error { m.mu.Lock(); defer m.mu.Unlock(); m.kept = v; return nil }
func (m *memory) Kept() (secret.Value, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.kept, nil
}

// running is a session that runs, and what it told.
type running struct {
	*vault.Session
	stop func()

	mu   sync.Mutex
	told []event.Detail
}

// run runs a session until stop, or the end of the test.
func run(t *testing.T, c config.Vault, keeper vault.Keeper) *running {
	t.Helper()
	c.Timeout = 10 * time.Second
	r := &running{}
	s, err := vault.New(c, func(d event.Detail) { r.mu.Lock(); defer r.mu.Unlock(); r.told = append(r.told, d) }, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Session = s; keeper != nil {
		s.KeepIn(keeper)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); s.Run(ctx) }()
	r.stop = sync.OnceFunc(func() { cancel(); <-ended })
	t.Cleanup(r.stop)
	return r
}

// refusal is what a login says.
func refusal(t *testing.T, c config.Vault) string {
	t.Helper()
	c.Timeout = 10 * time.Second
	s, err := vault.New(c, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err = s.LogInOnce(t.Context()); err == nil {
		return "(logged in)"
	}
	if strings.Contains(err.Error(), "eyJ") || strings.Contains(err.Error(), "hvs.") {
		t.Errorf("the error has a token: %v", err)
	}
	return err.Error()
}

func credential(t *testing.T, content string) config.SecretSource {
	t.Helper()
	source := config.SecretSource{File: filepath.Join(t.TempDir(), "credential")}
	put(t, source.File, content)
	return source
}

// put replaces a file at once.
func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// within waits for something, for longer than a session needs to see a file.
func within(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if condition() {
			return
		}
	}
	t.Fatalf("did not come about within a minute: %s", what)
}

// refusals are reasons for which Vault refuses a JWT, with what our message must have. They are compared with the
// double's, so that product tests see the same.
var refusals = map[string]struct {
	changes         map[string]any
	role, mount     string // empty: those of the test
	kubernetes, jwt string // empty: that method accepts it
}{
	"another role":     {nil, "other", "", `the role "other" at auth/kubernetes/role does not exist`, `the role "other" at auth/jwt/role does not exist`},
	"another mount":    {nil, "", "elsewhere", "is kubernetes mounted at auth/elsewhere", "is jwt mounted at auth/elsewhere"},
	"another audience": {map[string]any{"aud": []string{"https://kubernetes.default.svc"}}, "", "", "compare audience of", "compare bound_audiences of"},
	"another account": {map[string]any{"sub": "system:serviceaccount:default:x", "kubernetes.io": map[string]any{"namespace": "default", "serviceaccount": map[string]any{"name": "x", "uid": "u-2"}}},
		"", "", "it is of system:serviceaccount:default:x", "it is of system:serviceaccount:default:x"},
	"expired":       {map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}, "", "", "it expired 1h", "it expired 1h"},
	"not valid yet": {map[string]any{"nbf": time.Now().Add(time.Hour).Unix(), "exp": time.Now().Add(2 * time.Hour).Unix()}, "", "", "(nbf), which is", "(nbf), which is"},
	"issued later":  {map[string]any{"iat": time.Now().Add(time.Hour).Unix(), "exp": time.Now().Add(2 * time.Hour).Unix()}, "", "", "(iat), which is", "(iat), which is"},
}

// reviewer is the part of an API server that reviews tokens. It believes what they say.
type reviewer struct {
	mu        sync.Mutex
	forbidden bool
}

func (r *reviewer) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	forbidden := r.forbidden
	r.mu.Unlock()
	var review struct {
		Spec struct {
			Token     string
			Audiences []string
		}
	}
	_ = json.NewDecoder(req.Body).Decode(&review)
	w.Header().Set("Content-Type", "application/json")
	if forbidden || !strings.HasSuffix(req.URL.Path, "/tokenreviews") {
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"tokenreviews is forbidden"}`))
		return
	}
	var said struct {
		Sub string
		Exp int64
	}
	content, _ := base64.RawURLEncoding.DecodeString(strings.Split(review.Spec.Token, ".")[1])
	_ = json.Unmarshal(content, &said)
	answer := map[string]any{"authenticated": time.Now().Before(time.Unix(said.Exp, 0)), "audiences": review.Spec.Audiences,
		"user": map[string]any{"username": said.Sub, "uid": "u-1", "groups": []string{"system:serviceaccounts"}}}
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(map[string]any{"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "status": answer})
}

// TestJWTMethods: kubernetes and jwt of the real Vault: logins, sessions that are renewed and end, files that are replaced,
// and what is said when Vault refuses.
func TestJWTMethods(t *testing.T) {
	t.Parallel()
	v := realvault.Start(t)
	v.MountKV(t, "secret", 2, false)
	if err := v.Root(t).Sys().PutPolicy("rotatord", realvault.LeastPolicy(t)); err != nil {
		t.Fatal(err)
	}
	signer, review := newIssuer(t), &reviewer{}
	api := httptest.NewServer(review)
	t.Cleanup(api.Close)
	settings := map[string]any{"token_policies": "rotatord", "token_no_default_policy": true, "token_ttl": "4s", "token_max_ttl": "8s"}
	role := func(more map[string]any) map[string]any {
		maps.Copy(more, settings)
		return more
	}
	enable(t, v, "kubernetes")
	write(t, v, "auth/kubernetes/config", map[string]any{"kubernetes_host": api.URL, "token_reviewer_jwt": signer.sign(t, claims(nil)), "disable_local_ca_jwt": true})
	write(t, v, "auth/kubernetes/role/rotatord", role(map[string]any{"bound_service_account_names": "rotatord", "bound_service_account_namespaces": "rotatord", "audience": "vault"}))
	enable(t, v, "jwt")
	write(t, v, "auth/jwt/config", map[string]any{"jwt_validation_pubkeys": signer.publicKey(t)})
	write(t, v, "auth/jwt/role/rotatord", role(map[string]any{"role_type": "jwt", "user_claim": "sub", "bound_subject": "system:serviceaccount:rotatord:rotatord", "bound_audiences": "vault"}))

	method := func(name, role, mount string, jwt config.SecretSource) config.Vault {
		if name == "jwt" {
			return config.Vault{Address: v.Address, Auth: &config.JWTAuth{Role: role, Mount: mount, JWT: jwt}}
		}
		return config.Vault{Address: v.Address, Auth: &config.KubernetesAuth{Role: role, Mount: mount, JWT: jwt}}
	}
	for _, name := range []string{"kubernetes", "jwt"} {
		t.Run(name, func(t *testing.T) {
			before := accessors(t, v)
			jwt := credential(t, signer.sign(t, claims(nil)))
			s := run(t, method(name, "rotatord", name, jwt), nil)
			keepsWorking(t, s.Session, 10*time.Second, "the lease of 4 s, or the maximum of 8 s")
			put(t, jwt.File, signer.sign(t, claims(map[string]any{"exp": time.Now().Add(2 * time.Hour).Unix()})))
			if err := works(t, s.Session); err != nil {
				t.Error(err)
			}
			within(t, "one session at a time", func() bool { return accessors(t, v) <= before+1 })
			s.stop()
			if left := accessors(t, v); left != before {
				t.Errorf("%d tokens are left after the stop, want %d", left, before)
			}
		})
		for reason, test := range refusals {
			want, mount, roleName := test.kubernetes, name, "rotatord"
			if name == "jwt" {
				want = test.jwt
			}
			if test.mount != "" {
				mount = test.mount
			}
			if test.role != "" {
				roleName = test.role
			}
			got := refusal(t, method(name, roleName, mount, credential(t, signer.sign(t, claims(test.changes)))))
			if !strings.Contains(got, want) {
				t.Errorf("%s, %s: %s\nwant %s", name, reason, got, want)
			}
			// The double says the same where it can.
			double := httptest.NewServer(vaulttest.New(vaulttest.Options{JWTRoles: []vaulttest.JWTRole{
				{Kubernetes: name == "kubernetes", Name: "rotatord", Audience: "vault", Subject: "system:serviceaccount:rotatord:rotatord"}}}))
			c := method(name, roleName, mount, credential(t, signer.sign(t, claims(test.changes))))
			c.Address = double.URL
			if said := refusal(t, c); answerOf(said) != answerOf(got) {
				t.Errorf("%s, %s: the double says\n%s\nand Vault\n%s", name, reason, answerOf(said), answerOf(got))
			}
			double.Close()
		}
	}
	review.mu.Lock()
	review.forbidden = true
	review.mu.Unlock()
	if got := refusal(t, method("kubernetes", "rotatord", "kubernetes", credential(t, signer.sign(t, claims(nil))))); !strings.Contains(got, "system:auth-delegator") {
		t.Errorf("a review that is forbidden: %s", got)
	}
	if got := refusal(t, method("jwt", "rotatord", "jwt", credential(t, newIssuer(t).sign(t, claims(nil))))); !strings.Contains(got, "is not signed with a key that Vault knows") {
		t.Errorf("another signature: %s", got)
	}
}

// answerOf returns the status and the words of Vault in a message.
func answerOf(message string) string {
	_, rest, _ := strings.Cut(message, "(HTTP ")
	answer, _, _ := strings.Cut(rest, "): ")
	return answer
}

// TestBatchToken: a batch token of the real Vault is neither renewed nor revoked, and replaced before its end.
func TestBatchToken(t *testing.T) {
	t.Parallel()
	v := realvault.Start(t)
	v.MountKV(t, "secret", 2, false)
	roleID, secretID := v.AppRole(t, realvault.LeastPolicy(t), "12s", "12s") // a loaded machine may be late by a second
	write(t, v, "auth/approle/role/rotatord", map[string]any{"token_type": "batch"})
	s := run(t, config.Vault{Address: v.Address, Auth: &config.AppRole{Mount: "approle", RoleID: credential(t, roleID), SecretID: credential(t, secretID)}}, nil)
	keepsWorking(t, s.Session, 16*time.Second, "the end of the lease of 12 s")
	if self, err := s.LookUp(t.Context()); err != nil || !self.Batch || self.Renewable {
		t.Errorf("%+v, %v", self, err)
	}
	if _, err := s.ReadyFor(t.Context(), 0, 4); err == nil || !strings.Contains(err.Error(), "each session lasts 11s") {
		t.Errorf("%v", err)
	}
	s.stop()
	for _, d := range s.told {
		if failed, ok := d.(event.VaultRevocationFailure); ok {
			t.Errorf("it was revoked: %v", failed.Err)
		}
		if failed, ok := d.(event.VaultRenewalFailure); ok {
			t.Errorf("it was renewed: %v", failed.Err)
		}
	}
}

// TestWrapped: the real Vault's wrapping tokens: unwrapped once, kept, stolen, and created elsewhere.
func TestWrapped(t *testing.T) {
	t.Parallel()
	v := realvault.Start(t)
	v.MountKV(t, "secret", 2, false)
	roleID, _ := v.AppRole(t, realvault.LeastPolicy(t), "1h", "2h")
	wrap := func(path string) string {
		client, err := v.Root(t).Clone()
		if err != nil {
			t.Fatal(err)
		}
		client.SetToken(v.RootToken)
		client.SetWrappingLookupFunc(func(string, string) string { return "5m" })
		answer, err := client.Logical().Write(path, map[string]any{"secret_id": "evil"})
		if err != nil {
			t.Fatal(err)
		}
		return answer.WrapInfo.Token
	}
	const path = "auth/approle/role/rotatord/secret-id"
	keeper, token := &memory{}, credential(t, wrap(path))
	c := config.Vault{Address: v.Address, Auth: &config.AppRole{Mount: "approle", RoleID: credential(t, roleID), SecretID: token, Wrapped: true}}
	for range 2 { // the second time after a restart
		s := run(t, c, keeper)
		if err := works(t, s.Session); err != nil {
			t.Fatal(err)
		}
		s.stop()
	}
	stolen := wrap(path)
	if _, err := v.Root(t).Logical().Unwrap(stolen); err != nil {
		t.Fatal(err)
	}
	for what, delivered := range map[string]string{
		"not valid any more": stolen, `was created at "sys/wrapping/wrap"`: wrap("sys/wrapping/wrap"),
		`was created at "auth/approle/role/rotatord/custom-secret-id"`: wrap("auth/approle/role/rotatord/custom-secret-id"),
	} {
		put(t, token.File, delivered)
		s := run(t, c, &memory{})
		err := works(t, s.Session)
		if health := s.Health(); err == nil || !strings.Contains(err.Error(), what) || !strings.Contains(health.Unwrap, what) {
			t.Errorf("%v\nwant %s", err, what)
		}
		s.stop()
	}
	// Vault names the role at a login, and a token of another role is not unwrapped: its owner can still do that.
	write(t, v, "auth/approle/role/other", map[string]any{"token_policies": "default"})
	other := wrap("auth/approle/role/other/secret-id")
	put(t, token.File, other)
	s := run(t, c, keeper)
	if err := works(t, s.Session); err != nil || !strings.Contains(s.Health().Unwrap, `logs in as the role "rotatord"`) {
		t.Errorf("%v, %+v", err, s.Health())
	}
	s.stop()
	if _, err := v.Root(t).Logical().Unwrap(other); err != nil {
		t.Errorf("the token of another role was unwrapped: %v", err)
	}
	// What is kept goes on beside a stolen token, and another one is unwrapped while the daemon runs.
	put(t, token.File, stolen)
	s = run(t, c, keeper)
	if err := works(t, s.Session); err != nil || s.Health().Unwrap == "" {
		t.Errorf("%v, %+v", err, s.Health())
	}
	put(t, token.File, wrap(path))
	within(t, "the next wrapping token unwrapped", func() bool { return s.Health().Unwrap == "" })
	if err := works(t, s.Session); err != nil {
		t.Error(err)
	}
}

// TestCertificate: the real Vault's method cert. A renewed certificate leads to another login, half a pair changes nothing,
// and a listener that demands certificates goes on.
func TestCertificate(t *testing.T) {
	t.Parallel()
	authority := ca.New(t, "authority")
	v := realvault.StartMutualTLS(t, authority)
	v.MountKV(t, "secret", 2, false)
	if err := v.Root(t).Sys().PutPolicy("rotatord", realvault.LeastPolicy(t)); err != nil {
		t.Fatal(err)
	}
	enable(t, v, "cert")
	write(t, v, "auth/cert/certs/rotatord", map[string]any{"certificate": authority.PEM(), "allowed_common_names": "rotatord", "token_policies": "rotatord",
		"token_no_default_policy": true, "token_ttl": "1h"})
	pair := authority.Client(t, "rotatord", time.Hour)
	c := config.Vault{Address: v.Address, TLS: config.TLS{CAFile: authority.File, CertFile: pair.CertFile, KeyFile: pair.KeyFile}, Auth: &config.CertAuth{Role: "rotatord", Mount: "cert"}}
	before := accessors(t, v)
	s := run(t, c, nil)
	if err := works(t, s.Session); err != nil {
		t.Fatal(err)
	}
	first := s.Health().CertificateEnds

	other := authority.Client(t, "rotatord", 2*time.Hour)
	cert, err := os.ReadFile(other.CertFile)
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(other.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	put(t, pair.CertFile, string(cert))
	within(t, "half a pair seen", func() bool { return s.Health().TLS != "" })
	if err := works(t, s.Session); err != nil || !s.Health().CertificateEnds.Equal(first) {
		t.Errorf("half a pair: %v", err)
	}
	put(t, pair.KeyFile, string(key))
	within(t, "the new pair", func() bool { return s.Health().TLS == "" && s.Health().CertificateEnds.After(first) })
	within(t, "one session", func() bool { return accessors(t, v) == before+1 })
	if err := works(t, s.Session); err != nil {
		t.Error(err)
	}

	for what, auth := range map[string]config.VaultAuth{
		`the role "other" at auth/cert/certs`: &config.CertAuth{Role: "other", Mount: "cert"},
		"is cert mounted at auth/elsewhere":   &config.CertAuth{Mount: "elsewhere"},
	} {
		refused := c
		refused.Auth = auth
		got := refusal(t, refused)
		if !strings.Contains(got, what) {
			t.Errorf("%s\nwant %s", got, what)
		}
	}
	stranger := authority.Client(t, "stranger", time.Hour)
	refused := c
	refused.TLS.CertFile, refused.TLS.KeyFile = stranger.CertFile, stranger.KeyFile
	got := refusal(t, refused)
	if !strings.Contains(got, "it is of CN=stranger") {
		t.Errorf("another common name: %s", got)
	}
}
