package auth

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"

	"rotatord/test/program/ca"
)

// method is one way to log in.
type method struct {
	name string
	// prepare configures Vault. It returns vault.auth, the same with a role that is not there, and what the
	// daemon says of that.
	prepare func(w *world) (auth, wrong, says string)
	// role sets how long sessions are that begin from now on; they can be renewed until the maximum.
	role func(w *world, ttl, maximum time.Duration)
	// good puts a credential in place that Vault accepts, bad one that it refuses, and the daemon says so.
	good, bad func(w *world)
	badSays   string
	tls       string // more of vault.tls
	// given: the session is another program's. When it is over, only good begins another one.
	given bool
}

// settings are those of a role.
func settings(ttl, maximum time.Duration, more map[string]any) map[string]any {
	all := map[string]any{"token_policies": "rotatord", "token_no_default_policy": true, "token_ttl": ttl.String(), "token_max_ttl": maximum.String()}
	for k, v := range more {
		all[k] = v
	}
	return all
}

func (w *world) enable(kind string) {
	w.t.Helper()
	w.must(w.vault.Root(w.t).Sys().EnableAuthWithOptions(kind, &api.EnableAuthOptions{Type: kind}))
}

// serviceAccount writes a token as the kubelet does into a projected volume.
func serviceAccount(audience string) func(*world) {
	return func(w *world) {
		w.t.Helper()
		w.file("jwt", w.cluster.Token(w.t, "rotatord", "rotatord", 10*time.Minute, audience))
	}
}

func methods() []method {
	return []method{kubernetes(), jwt(), cert(), appRole(false), appRole(true), token(), agents("http"), agents("unix")}
}

func kubernetes() method {
	const path = "auth/kubernetes/role/rotatord"
	return method{
		name: "kubernetes",
		prepare: func(w *world) (string, string, string) {
			w.enable("kubernetes")
			w.write("auth/kubernetes/config", map[string]any{
				"kubernetes_host": w.cluster.URL, "kubernetes_ca_cert": w.cluster.CA(w.t), "disable_local_ca_jwt": true,
				"token_reviewer_jwt": w.cluster.Token(w.t, "kube-system", "vault-token-review", time.Hour),
			})
			form := `kubernetes: {role: %s, file: "` + filepath.Join(w.dir, "jwt") + `"}`
			return fmt.Sprintf(form, "rotatord"), fmt.Sprintf(form, "nobody"), `the role \\"nobody\\" at auth/kubernetes/role does not exist`
		},
		role: func(w *world, ttl, maximum time.Duration) {
			w.write(path, settings(ttl, maximum, map[string]any{"bound_service_account_names": "rotatord", "bound_service_account_namespaces": "rotatord", "audience": "vault"}))
		},
		good: serviceAccount("vault"), bad: serviceAccount("another"), badSays: `audience.*compare audience of the role`,
	}
}

func jwt() method {
	return method{
		name: "jwt",
		prepare: func(w *world) (string, string, string) {
			w.enable("jwt")
			w.write("auth/jwt/config", map[string]any{"jwt_validation_pubkeys": w.cluster.PublicKeyPEM})
			form := `jwt: {role: %s, file: "` + filepath.Join(w.dir, "jwt") + `"}`
			return fmt.Sprintf(form, "rotatord"), fmt.Sprintf(form, "nobody"), `the role \\"nobody\\"`
		},
		role: func(w *world, ttl, maximum time.Duration) {
			w.write("auth/jwt/role/rotatord", settings(ttl, maximum, map[string]any{"role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault",
				"bound_subject": "system:serviceaccount:rotatord:rotatord"}))
		},
		good: serviceAccount("vault"), bad: serviceAccount("another"), badSays: `audience`,
	}
}

func cert() method {
	replace := func(by func(w *world) *ca.CA) func(w *world) {
		return func(w *world) {
			by(w).Replace(w.t, ca.Pair{CertFile: filepath.Join(w.dir, "client.pem"), KeyFile: filepath.Join(w.dir, "client-key.pem")}, "rotatord", time.Hour)
		}
	}
	return method{
		name: "cert",
		tls:  `, cert_file: "%[1]s/client.pem", key_file: "%[1]s/client-key.pem"`,
		prepare: func(w *world) (string, string, string) {
			w.enable("cert")
			return "cert: {role: rotatord}", "cert: {role: nobody}", `does the role \\"nobody\\"`
		},
		role: func(w *world, ttl, maximum time.Duration) {
			w.write("auth/cert/certs/rotatord", settings(ttl, maximum, map[string]any{"certificate": w.ca.PEM(), "allowed_common_names": "rotatord"}))
		},
		good: replace(func(w *world) *ca.CA { return w.ca }), bad: replace(func(w *world) *ca.CA { return ca.New(w.t, "another") }),
		badSays: `does the role .* accept the certificate.*CN=another`,
	}
}

func appRole(wrapped bool) method {
	const path = "auth/approle/role/rotatord"
	m := method{
		name: "approle",
		prepare: func(w *world) (string, string, string) {
			w.enable("approle")
			w.write(path, settings(time.Hour, time.Hour, nil))
			role, err := w.vault.Root(w.t).Logical().Read(path + "/role-id")
			w.must(err)
			w.file("role-id", role.Data["role_id"].(string))
			w.file("wrong", "nobody")
			form := fmt.Sprintf(`approle: {role_id: {file: "%[1]s/%%s"}, secret_id: {file: "%[1]s/secret-id"}, wrapped: %[2]t}`, w.dir, wrapped)
			return fmt.Sprintf(form, "role-id"), fmt.Sprintf(form, "wrong"), `invalid role or secret ID`
		},
		role: func(w *world, ttl, maximum time.Duration) { w.write(path, settings(ttl, maximum, nil)) },
		good: func(w *world) { w.file("secret-id", w.write(path+"/secret-id", nil)["secret_id"].(string)) },
		bad:  func(w *world) { w.file("secret-id", "00000000-0000-0000-0000-000000000000") }, badSays: `invalid role or secret ID`,
	}
	if !wrapped {
		return m
	}
	wrap := func(w *world) string {
		client, err := w.vault.Root(w.t).Clone()
		w.must(err)
		client.SetToken(w.vault.RootToken)
		client.SetWrappingLookupFunc(func(string, string) string { return "10m" })
		s, err := client.Logical().Write(path+"/secret-id", nil)
		w.must(err)
		return s.WrapInfo.Token
	}
	m.name = "approle, wrapped"
	m.good = func(w *world) { w.file("secret-id", wrap(w)) }
	m.bad = func(w *world) { // another program has unwrapped it on the way
		stolen := wrap(w)
		if _, err := w.vault.Root(w.t).Logical().Unwrap(stolen); err != nil {
			w.t.Error(err)
		}
		w.file("secret-id", stolen)
	}
	m.badSays = `the wrapping token cannot be unwrapped: another program may have the secret ID`
	return m
}

// lent makes a token for another program, as long as the role of the test says.
type lent struct {
	mu           sync.Mutex
	ttl, maximum time.Duration
}

func (l *lent) role(_ *world, ttl, maximum time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ttl, l.maximum = ttl, maximum
}

func (l *lent) token(w *world) string {
	w.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	s, err := w.vault.Root(w.t).Auth().Token().CreateOrphan(&api.TokenCreateRequest{Policies: []string{"rotatord"}, NoDefaultPolicy: true, TTL: l.ttl.String(), ExplicitMaxTTL: l.maximum.String()})
	w.must(err)
	return s.Auth.ClientToken
}

func token() method {
	l := &lent{}
	return method{
		name: "token", given: true, role: l.role,
		prepare: func(w *world) (string, string, string) {
			w.file("wrong", "hvs.nobody")
			form := `token: {file: "` + w.dir + `/%s"}`
			return fmt.Sprintf(form, "token"), fmt.Sprintf(form, "wrong"), `permission denied`
		},
		good: func(w *world) { w.file("token", l.token(w)) }, bad: func(w *world) { w.file("token", "hvs.nobody") }, badSays: `permission denied`,
	}
}

// agent is in the place of a Vault Agent: it adds its token to each request with the header X-Vault-Request.
type agent struct {
	mu    sync.Mutex
	token string
}

func (a *agent) set(token string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.token = token
}

func (a *agent) handler(w *world) http.Handler {
	target, err := url.Parse(w.vault.Address)
	w.must(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(w.ca.PEM()))
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Vault-Request") != "true" {
			http.Error(rw, `{"errors":["missing 'X-Vault-Request' header"]}`, http.StatusPreconditionFailed)
			return
		}
		a.mu.Lock()
		if a.token != "" {
			r.Header.Set("X-Vault-Token", a.token)
		}
		a.mu.Unlock()
		proxy.ServeHTTP(rw, r)
	})
}

func agents(network string) method {
	l := &lent{}
	return method{
		name: "agent, " + network, given: true, role: l.role,
		prepare: func(w *world) (string, string, string) {
			w.agent = &agent{}
			var listener net.Listener
			var err error
			if network == "unix" {
				socket := filepath.Join(w.dir, "agent.sock")
				listener, err = net.Listen("unix", socket)
				w.address = "unix://" + socket
			} else {
				listener, err = net.Listen("tcp", "127.0.0.1:0")
				if err == nil {
					w.address = "http://" + listener.Addr().String()
				}
			}
			w.must(err)
			server := &http.Server{Handler: w.agent.handler(w)}
			go func() { _ = server.Serve(listener) }()
			w.t.Cleanup(func() { _ = server.Close() })
			return "agent: {}", "agent: {}", `the agent at vault.address has no token yet`
		},
		good: func(w *world) { w.agent.set(l.token(w)) }, bad: func(w *world) { w.agent.set("") }, badSays: `the agent at vault.address has no token yet`,
	}
}
