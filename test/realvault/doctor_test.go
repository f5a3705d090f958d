package realvault_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"rotatord/internal/config"
	"rotatord/internal/doctor"
	"rotatord/internal/vault"
	"rotatord/test/program/ca"
	"rotatord/test/realvault"
)

// examine returns what doctor finds about a login at Vault and one sink.
func examine(t *testing.T, c config.Vault) []doctor.Finding {
	t.Helper()
	return examineShared(t, c, nil)
}

// examineShared does the same for a replica; nil: the ledger is not shared.
func examineShared(t *testing.T, c config.Vault, shared *config.Shared) []doctor.Finding {
	t.Helper()
	c.Timeout = 10 * time.Second
	s, err := vault.New(c, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); s.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	fields := config.SinkFields{ClientIDField: "client_id", ClientSecretField: "client_secret"}
	return doctor.Sinks(t.Context(), &config.Config{
		Vault: &c, State: config.State{Shared: shared}, Tokens: []config.Token{{Name: "ci", Sinks: []config.Sink{&config.VaultSink{Mount: "secret", Path: "access/ci", SinkFields: fields}}}},
	}, s)
}

// wants compares the findings with the codes that have to be there. Those that are good need not be named.
func wants(t *testing.T, name string, found []doctor.Finding, codes ...doctor.Code) {
	t.Helper()
	for _, code := range codes {
		if !slices.ContainsFunc(found, func(f doctor.Finding) bool { return f.Code == code }) {
			t.Errorf("%s: %s was not found in\n%+v", name, code, found)
		}
	}
	for _, f := range found {
		if f.Level != doctor.Good && !slices.Contains(codes, f.Code) {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

// TestDoctor: with what is shipped, doctor finds nothing to complain about at a real Vault. It finds roles that are too
// wide, and tokens that are too much or end too early, by Vault's own answers.
func TestDoctor(t *testing.T) {
	authority := ca.New(t, "authority")
	v := realvault.StartTLS(t, authority)
	v.MountKV(t, "secret", 2, false)
	root := v.Root(t)
	put := func(path string, data map[string]any) *api.Secret { t.Helper(); return write(t, v, path, data) }
	tls := config.TLS{CAFile: v.CAFile}
	through := func(auth config.VaultAuth) config.Vault {
		return config.Vault{Address: v.Address, TLS: tls, Auth: auth}
	}

	roleID, secretID := v.AppRole(t, realvault.LeastPolicy(t), "1h", "2h")
	approle := through(&config.AppRole{Mount: "approle", RoleID: secretFile(t, roleID), SecretID: secretFile(t, secretID)})
	wants(t, "approle as shipped", examine(t, approle), doctor.VaultSession, doctor.VaultRoleNotSeen, doctor.SinksGood)

	seeing := realvault.LeastPolicy(t) + `
path "auth/+/role/*"  { capabilities = ["read"] }
path "auth/+/certs/*" { capabilities = ["read"] }
`
	if err := root.Sys().PutPolicy("seeing", seeing); err != nil {
		t.Fatal(err)
	}
	settings := func(more map[string]any) map[string]any {
		all := map[string]any{"token_policies": "seeing", "token_no_default_policy": true, "token_period": "1h"}
		for name, value := range more {
			all[name] = value
		}
		return all
	}
	put("auth/approle/role/rotatord", settings(map[string]any{"token_ttl": "0", "token_max_ttl": "0"}))
	wants(t, "approle that may be seen", examine(t, approle), doctor.VaultRole)

	issuer := newIssuer(t)
	now := time.Now()
	const subject = "system:serviceaccount:rotatord:rotatord"
	claims := map[string]any{
		"iss": "test", "sub": subject, "aud": []string{"vault"}, "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"kubernetes.io": map[string]any{"namespace": "rotatord", "serviceaccount": map[string]any{"name": "rotatord", "uid": "1"}},
	}
	jwt := secretFile(t, issuer.sign(t, claims))
	enable(t, v, "jwt")
	put("auth/jwt/config", map[string]any{"jwt_validation_pubkeys": issuer.publicKey(t)})
	byJWT := through(&config.JWTAuth{Role: "rotatord", Mount: "jwt", JWT: jwt})
	put("auth/jwt/role/rotatord", settings(map[string]any{"role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault", "bound_subject": subject}))
	wants(t, "jwt", examine(t, byJWT), doctor.VaultRole)
	put("auth/jwt/role/rotatord", settings(map[string]any{"role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault", "bound_subject": ""}))
	wants(t, "jwt of every subject", examine(t, byJWT), doctor.VaultRoleWide)

	reviewer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","status":{"authenticated":true,"audiences":["vault"],"user":{"username":%q,"uid":"1"}}}`, subject)
	}))
	t.Cleanup(reviewer.Close)
	enable(t, v, "kubernetes")
	put("auth/kubernetes/config", map[string]any{"kubernetes_host": reviewer.URL, "disable_local_ca_jwt": true, "token_reviewer_jwt": issuer.sign(t, claims)})
	byAccount := through(&config.KubernetesAuth{Role: "rotatord", Mount: "kubernetes", JWT: jwt})
	account := map[string]any{"bound_service_account_names": "rotatord", "bound_service_account_namespaces": "rotatord", "audience": "vault", "alias_name_source": "serviceaccount_name"}
	put("auth/kubernetes/role/rotatord", settings(account))
	wants(t, "kubernetes", examine(t, byAccount), doctor.VaultRole)
	account["bound_service_account_namespaces"], account["audience"] = "*", ""
	put("auth/kubernetes/role/rotatord", settings(account))
	wide := examine(t, byAccount)
	wants(t, "kubernetes of every namespace", wide, doctor.VaultRoleWide)
	if text := fmt.Sprint(wide); !strings.Contains(text, "in every namespace") || !strings.Contains(text, "of every audience") {
		t.Errorf("a role of every namespace and audience: %s", text)
	}

	pair := authority.Client(t, "rotatord", time.Hour)
	enable(t, v, "cert")
	byCert := through(&config.CertAuth{Role: "rotatord", Mount: "cert"})
	byCert.TLS.CertFile, byCert.TLS.KeyFile = pair.CertFile, pair.KeyFile
	put("auth/cert/certs/rotatord", settings(map[string]any{"certificate": authority.PEM(), "allowed_common_names": "rotatord"}))
	wants(t, "cert", examine(t, byCert), doctor.VaultRole)
	put("auth/cert/certs/rotatord", settings(map[string]any{"certificate": authority.PEM(), "allowed_common_names": ""}))
	wants(t, "cert of every name", examine(t, byCert), doctor.VaultRoleWide)

	created := func(path string, data map[string]any) config.Vault {
		data["policies"], data["no_default_policy"] = []string{"rotatord"}, true
		return through(&config.TokenAuth{Source: secretFile(t, put(path, data).Auth.ClientToken)})
	}
	wants(t, "token with a period", examine(t, created("auth/token/create-orphan", map[string]any{"period": "24h"})), doctor.VaultSession)
	wants(t, "token with a maximum", examine(t, created("auth/token/create-orphan", map[string]any{"period": "24h", "explicit_max_ttl": "48h"})), doctor.VaultSessionEnds)
	wants(t, "token without a period", examine(t, created("auth/token/create-orphan", map[string]any{"ttl": "24h"})), doctor.VaultSessionEnds)
	wants(t, "token with a parent", examine(t, created("auth/token/create", map[string]any{"period": "24h"})), doctor.VaultSessionParent)
	wants(t, "token that is not renewed", examine(t, created("auth/token/create-orphan", map[string]any{"ttl": "24h", "renewable": false})), doctor.VaultSessionEnds)
	wants(t, "token for few requests", examine(t, created("auth/token/create-orphan", map[string]any{"period": "24h", "num_uses": 50})), doctor.VaultSessionUses)
	wants(t, "root", examine(t, through(&config.TokenAuth{Source: secretFile(t, v.RootToken)})), doctor.VaultRoot)

	if err := root.Sys().PutPolicy("wide", `
path "*"                       { capabilities = ["create", "read", "update", "delete", "list"] }
path "auth/token/renew-self"   { capabilities = ["deny"] }
`); err != nil {
		t.Fatal(err)
	}
	token := put("auth/token/create-orphan", map[string]any{"period": "24h", "policies": []string{"wide"}, "no_default_policy": true}).Auth.ClientToken
	wants(t, "a policy for everything", examine(t, through(&config.TokenAuth{Source: secretFile(t, token)})),
		doctor.VaultWide, doctor.VaultAdmin, doctor.SinkExcess, doctor.VaultSelfRights)
}
