package vault

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/vault/vaulttest"
)

// replace writes a file as Kubernetes and good programs do, so that no reader sees a part of it.
func replace(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// serviceAccount is the token of the service account that the tests' role accepts.
func serviceAccount(ends time.Duration) string {
	return vaulttest.ServiceAccountToken("rotatord", "rotatord", "vault", time.Now().Add(ends))
}

// TestJWTMethods logs in with kubernetes and jwt, and again when the file has another token. The replaced session is
// revoked.
func TestJWTMethods(t *testing.T) {
	for _, method := range []string{"kubernetes", "jwt"} {
		t.Run(method, func(t *testing.T) {
			server := vaulttest.New(vaulttest.Options{Mounts: []vaulttest.Mount{{Path: "kv", Version: 2}}, JWTRoles: []vaulttest.JWTRole{{
				Kubernetes: method == "kubernetes", Mount: "k8s/" + method, Name: "rotatord", Audience: "vault", Subject: "system:serviceaccount:rotatord:rotatord",
				TokenSettings: vaulttest.TokenSettings{TTL: time.Hour}}}})
			http := httptest.NewServer(server)
			t.Cleanup(http.Close)
			source := file(t, serviceAccount(time.Hour))
			c := config.Vault{Address: http.URL, Auth: &config.KubernetesAuth{Role: "rotatord", Mount: "k8s/kubernetes", JWT: source}}
			if method == "jwt" {
				c.Auth = &config.JWTAuth{Role: "rotatord", Mount: "k8s/jwt", JWT: source}
			}
			s, o, log := startSession(t, c)
			if err := s.Ready(t.Context(), 30*time.Minute); err != nil {
				t.Fatal(err)
			}
			replace(t, source.File, serviceAccount(2*time.Hour))
			eventually(t, "a second login", func() bool { return server.Logins() == 2 })
			eventually(t, "the first session revoked", func() bool { return server.Sessions() == 1 && o.count("revoke 204") == 1 })
			if _, err := s.Read(t.Context(), "kv/data/x"); err != nil {
				t.Error(err)
			}
			replace(t, source.File, "no token at all")
			time.Sleep(3 * s.pause)
			if err := s.Ready(t.Context(), 30*time.Minute); err != nil || server.Logins() != 2 {
				t.Errorf("a bad file ended the session: %v", err)
			}
			if strings.Contains(log.String(), "eyJ") {
				t.Errorf("the log has a JWT:\n%s", log)
			}
		})
	}
}

// TestRefusedJWT: each reason for which Vault refuses a JWT leads to a message that says what to do, and no message has
// the JWT.
func TestRefusedJWT(t *testing.T) {
	token := func(change map[string]any) string {
		claims := map[string]any{"iss": "https://issuer.example.com", "sub": "system:serviceaccount:rotatord:rotatord", "aud": []string{"vault"}, "exp": time.Now().Add(time.Hour).Unix()}
		maps.Copy(claims, change)
		return vaulttest.JWT(claims)
	}
	in := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	for name, test := range map[string]struct {
		jwt, role, mount    string
		kubernetes, refused string // what the message has
	}{
		"another role":     {token(nil), "other", "m", `the role "other" at auth/m/role does not exist`, `the role "other" at auth/m/role does not exist`},
		"another mount":    {token(nil), "rotatord", "elsewhere", "is kubernetes mounted at auth/elsewhere", "is jwt mounted at auth/elsewhere"},
		"another audience": {token(map[string]any{"aud": "https://kubernetes.default.svc"}), "rotatord", "m", "for the audience https://kubernetes.default.svc; compare audience", "for the audience https://kubernetes.default.svc; compare bound_audiences"},
		"another account":  {token(map[string]any{"sub": "system:serviceaccount:default:x"}), "rotatord", "m", "system:serviceaccount:default:x", "it is of system:serviceaccount:default:x"},
		"expired":          {token(map[string]any{"exp": in(-10 * time.Minute)}), "rotatord", "m", "it expired 10m", "it expired 10m"},
		"not valid yet":    {token(map[string]any{"nbf": in(10 * time.Minute)}), "rotatord", "m", "(nbf), which is", "(nbf), which is"},
		"issued later":     {token(map[string]any{"iat": in(10 * time.Minute)}), "rotatord", "m", "(iat), which is", "(iat), which is"},
		"review forbidden": {token(nil), "reviewed", "m", "system:auth-delegator", ""},
		"expired a second": {token(map[string]any{"exp": in(-10 * time.Second)}), "rotatord", "m", "it expired 1", ""},
	} {
		for _, kubernetes := range []bool{true, false} {
			if test.refused == "" && !kubernetes {
				continue
			}
			role := vaulttest.JWTRole{Kubernetes: kubernetes, Mount: "m", Name: "rotatord", Audience: "vault", Subject: "system:serviceaccount:rotatord:rotatord"}
			reviewed := role
			reviewed.Name, reviewed.ReviewForbidden = "reviewed", true
			server := httptest.NewServer(vaulttest.New(vaulttest.Options{JWTRoles: []vaulttest.JWTRole{role, reviewed}}))
			var auth config.VaultAuth = &config.JWTAuth{Role: test.role, Mount: test.mount, JWT: file(t, test.jwt)}
			want := test.refused
			if kubernetes {
				auth, want = &config.KubernetesAuth{Role: test.role, Mount: test.mount, JWT: file(t, test.jwt)}, test.kubernetes
			}
			s, err := New(config.Vault{Address: server.URL, Timeout: 5 * time.Second, Auth: auth}, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			err = s.LogInOnce(t.Context())
			server.Close()
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "eyJ") || strings.Contains(err.Error(), test.jwt[len(test.jwt)-20:]) {
				t.Errorf("%s (kubernetes %t): %v\nwant %s", name, kubernetes, err, want)
			}
		}
	}
}

// TestCredentialFiles: what is wrong with the file of a JWT is said before anything is sent.
func TestCredentialFiles(t *testing.T) {
	for content, want := range map[string]string{"": "is empty", "hvs.CANARY": "is a Vault token", "CANARY": "is not a JWT", serviceAccount(time.Hour) + "\n" + serviceAccount(time.Hour): "has 2 lines"} {
		s, err := New(config.Vault{Address: "http://127.0.0.1:1", Auth: &config.KubernetesAuth{Role: "r", Mount: "kubernetes", JWT: file(t, content)}}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.LogInOnce(t.Context()); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "CANARY") || strings.Contains(err.Error(), "eyJh") {
			t.Errorf("%.10q: %v, want %s", content, err, want)
		}
	}
}

// TestBatchTokens: a batch token is neither renewed nor revoked, and no rotation begins on one that is too short.
func TestBatchTokens(t *testing.T) {
	server := vaulttest.New(vaulttest.Options{JWTRoles: []vaulttest.JWTRole{{
		Kubernetes: true, Name: "rotatord", Subject: "system:serviceaccount:rotatord:rotatord", TokenSettings: vaulttest.TokenSettings{TTL: 2 * time.Minute, Batch: true}}}})
	http := httptest.NewServer(server)
	t.Cleanup(http.Close)
	s, o, _ := startSession(t, config.Vault{Address: http.URL, Auth: &config.KubernetesAuth{Role: "rotatord", Mount: "kubernetes", JWT: file(t, serviceAccount(time.Hour))}})
	if err := s.Ready(t.Context(), time.Minute); err != nil {
		t.Error(err)
	}
	if _, err := s.ReadyFor(t.Context(), 0, 12); err == nil || !strings.Contains(err.Error(), "each session lasts 1m59s and cannot be renewed") {
		t.Errorf("a rotation may begin on a session that ends during it: %v", err)
	}
	if err := s.Revoke(t.Context()); err != nil {
		t.Error(err)
	}
	if o.count("renew 400")+o.count("revoke 400") != 0 {
		t.Error("a batch token was renewed or revoked")
	}
}

// TestSessionThatEnds: a rotation begins only on a session that lasts. One whose lease ends before is replaced by another
// login, and refused if that does not help.
func TestSessionThatEnds(t *testing.T) {
	for name, test := range map[string]struct {
		ttl, max  time.Duration
		renewable bool
		logins    int
		want      string // empty: it is ready
	}{
		"long":                            {time.Hour, 0, true, 1, ""},
		"short and renewed":               {time.Minute, 0, true, 1, ""},
		"at its maximum":                  {time.Hour, time.Hour + time.Minute, true, 2, ""},
		"a role whose sessions are short": {time.Minute, time.Minute, false, 1, "each session lasts 1m0s and cannot be renewed"},
	} {
		t.Run(name, func(t *testing.T) {
			server, c := approleServer(t, test.ttl, test.max)
			s, _, _ := startSession(t, c)
			if err := s.Ready(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			s.mu.Lock()
			s.final = !test.renewable || test.max > 0
			if test.logins > 1 { // most of its life is over
				s.expiry, s.loginAt = time.Now().Add(time.Minute), time.Now().Add(-time.Hour)
			}
			s.mu.Unlock()
			_, err := s.ReadyFor(t.Context(), 0, 12)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) || server.Logins() != test.logins {
				t.Errorf("%v after %d logins, want %d", err, server.Logins(), test.logins)
			}
		})
	}
	t.Run("a token that another program gave", func(t *testing.T) {
		server, c := approleServer(t, 0, 0)
		c.Auth = &config.TokenAuth{Source: file(t, server.AddToken(time.Minute, time.Minute))}
		s, _, _ := startSession(t, c)
		if err := s.Ready(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		s.renewed(s.currentToken(), time.Now(), lease{ttl: 50 * time.Second, renewable: true}, nil)
		if _, err := s.ReadyFor(t.Context(), 0, 12); err == nil || !strings.Contains(err.Error(), "cannot be renewed any further") {
			t.Errorf("%v", err)
		}
	})
}

// TestRevocationWaits: the token of a replaced session is revoked after the requests that use it.
func TestRevocationWaits(t *testing.T) {
	server, c := approleServer(t, time.Hour, 0)
	s, o, _ := startSession(t, c)
	if err := s.Ready(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	held, entered := make(chan struct{}), make(chan struct{})
	server.Inject(vaulttest.Fault{Reads: true, Do: func() { close(entered); <-held }})
	read := make(chan error, 1)
	go func() { _, err := s.Read(context.Background(), "kv/data/x"); read <- err }()
	<-entered
	if err := s.logInAgain(t.Context()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * s.pause)
	if server.Sessions() != 2 || o.count("revoke 204") != 0 {
		t.Errorf("the token of a request in progress was revoked: %d sessions", server.Sessions())
	}
	close(held)
	if err := <-read; err != nil {
		t.Error(err)
	}
	eventually(t, "the first session revoked", func() bool { return server.Sessions() == 1 })
}

// TestStopRevokes: the daemon's own session ends when it stops, and that of another program does not.
func TestStopRevokes(t *testing.T) {
	server, c := approleServer(t, time.Hour, 0)
	given := c
	given.Auth = &config.TokenAuth{Source: file(t, server.AddToken(time.Hour, 0))}
	for name, test := range map[string]struct {
		vault config.Vault
		want  int // sessions that stay
	}{"approle": {c, 1}, "token": {given, 1}} {
		s, err := New(test.vault, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); s.Run(ctx) }()
		if err := s.Ready(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		cancel()
		<-ended
		if server.Sessions() != test.want {
			t.Errorf("%s: %d sessions are left, want %d", name, server.Sessions(), test.want)
		}
	}
}

// TestAgent: an agent adds the token, on a loopback address and on a unix socket. The daemon sends none.
func TestAgent(t *testing.T) {
	server, _ := approleServer(t, 0, 0)
	agent := &fakeAgent{vault: server, token: server.AddToken(time.Hour, 0)}
	socket := filepath.Join(t.TempDir(), "agent.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	onSocket := &http.Server{Handler: agent}
	go func() { _ = onSocket.Serve(listener) }()
	t.Cleanup(func() { _ = onSocket.Close() })
	onTCP := httptest.NewServer(agent)
	t.Cleanup(onTCP.Close)
	for _, address := range []string{onTCP.URL, "unix://" + socket} {
		s, o, _ := startSession(t, config.Vault{Address: address, Auth: &config.AgentAuth{}})
		if err := s.Ready(t.Context(), 30*time.Minute); err != nil {
			t.Fatal(err)
		}
		if _, err := s.ReadyFor(t.Context(), 0, 12); err != nil {
			t.Error(err)
		}
		if _, err := s.Read(t.Context(), "kv/data/x"); err != nil {
			t.Error(err)
		}
		if o.count("renew 200")+o.count("login 200") != 0 {
			t.Error("the agent's token was renewed, or the daemon logged in")
		}
		agent.set("X-Cache", "HIT")
		if _, err := s.Read(t.Context(), "kv/data/x"); err == nil || !strings.Contains(err.Error(), "it comes from a cache (X-Cache: HIT)") {
			t.Errorf("an answer from a cache: %v", err)
		}
		agent.set("X-Cache", "MISS")
		if _, err := s.Read(t.Context(), "kv/data/x"); err != nil {
			t.Error(err)
		}
		// The agent loses its token, and gets another one.
		server.RevokeAll()
		eventually(t, "the session ended", func() bool {
			_, _ = s.Read(t.Context(), "kv/data/x") // a refusal has the token looked up
			_, there := s.Expiry()
			return !there
		})
		eventually(t, "the reason", func() bool {
			err := s.Ready(t.Context(), 0)
			return err != nil && strings.Contains(err.Error(), "the agent at vault.address has no token yet")
		})
		agent.renew(server.AddToken(time.Hour, 0))
		eventually(t, "a session again", func() bool { return s.Ready(t.Context(), 0) == nil })
	}
	if agent.tokens.Load() != 0 {
		t.Errorf("the daemon sent a token %d times", agent.tokens.Load())
	}
}

// certificate makes a certificate of a name, by an authority or by itself.
func certificate(t *testing.T, name string, parent *x509.Certificate, parentKey *ecdsa.PrivateKey, ends time.Duration) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<60))
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(ends),
		IsCA: parent == nil, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c, key
}

func certPEM(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

func keyPEM(t *testing.T, key *ecdsa.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// TestCert logs in with a client certificate, and again on another connection when the certificate was renewed. A pair of
// which only one half is new stays unused, and the fault is told once.
func TestCert(t *testing.T) {
	ca, caKey := certificate(t, "authority", nil, nil, time.Hour)
	serverCert, serverKey := certificate(t, "vault", ca, caKey, time.Hour)
	server := vaulttest.New(vaulttest.Options{CertRoles: []vaulttest.CertRole{{Name: "rotatord", CommonName: "rotatord", TokenSettings: vaulttest.TokenSettings{TTL: time.Hour}}}})
	listening := httptest.NewUnstartedServer(server)
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	listening.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{serverCert.Raw}, PrivateKey: serverKey}}, ClientAuth: tls.RequestClientCert, ClientCAs: pool}
	listening.StartTLS()
	t.Cleanup(listening.Close)

	dir := t.TempDir()
	files := config.TLS{CAFile: filepath.Join(dir, "ca.pem"), CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem")}
	first, firstKey := certificate(t, "rotatord", ca, caKey, time.Hour)
	replace(t, files.CAFile, certPEM(ca))
	replace(t, files.CertFile, certPEM(first))
	replace(t, files.KeyFile, keyPEM(t, firstKey))
	s, o, log := startSession(t, config.Vault{Address: listening.URL, TLS: files, Auth: &config.CertAuth{Role: "rotatord", Mount: "cert"}})
	if err := s.Ready(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if ends := s.certificateEnd(); !ends.Equal(first.NotAfter) {
		t.Errorf("the certificate ends at %s, want %s", ends, first.NotAfter)
	}

	second, secondKey := certificate(t, "rotatord", ca, caKey, 2*time.Hour)
	replace(t, files.CertFile, certPEM(second))
	eventually(t, "a word about the half that is new", func() bool { return strings.Contains(log.String(), "connections go on with what was read before") })
	time.Sleep(5 * s.pause)
	if err := s.Ready(t.Context(), time.Minute); err != nil || server.Logins() != 1 || strings.Count(log.String(), "connections go on") != 1 {
		t.Errorf("half a pair: %v, %d logins\n%s", err, server.Logins(), log)
	}
	replace(t, files.KeyFile, keyPEM(t, secondKey))
	eventually(t, "a login with the new certificate", func() bool { return server.Logins() == 2 })
	eventually(t, "the first session revoked", func() bool { return server.Sessions() == 1 && o.count("revoke 204") == 1 })
	if ends := s.certificateEnd(); !ends.Equal(second.NotAfter) {
		t.Errorf("the new certificate ends at %s, want %s", ends, second.NotAfter)
	}

	// A certificate that no role accepts leaves the session, and the message says whose it is.
	third, thirdKey := certificate(t, "another", ca, caKey, time.Hour)
	replace(t, files.KeyFile, keyPEM(t, thirdKey))
	replace(t, files.CertFile, certPEM(third))
	eventually(t, "a refused login", func() bool { return o.count("login 400") > 0 })
	eventually(t, "its reason", func() bool { return strings.Contains(log.String(), "it is of CN=another") })
	if err := s.Ready(t.Context(), time.Minute); err != nil {
		t.Error(err)
	}
}

// TestNewAuthority: a CA file that changes is read again, so a server that gets its certificate from another authority is
// reached without a restart.
func TestNewAuthority(t *testing.T) {
	ca, caKey := certificate(t, "authority", nil, nil, time.Hour)
	other, _ := certificate(t, "another authority", nil, nil, time.Hour)
	serverCert, serverKey := certificate(t, "vault", ca, caKey, time.Hour)
	server, c := approleServer(t, time.Hour, 0)
	listening := httptest.NewUnstartedServer(server)
	listening.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{serverCert.Raw}, PrivateKey: serverKey}}}
	listening.StartTLS()
	t.Cleanup(listening.Close)
	c.Address, c.TLS.CAFile = listening.URL, filepath.Join(t.TempDir(), "ca.pem")
	replace(t, c.TLS.CAFile, certPEM(other))
	s, o, _ := startSession(t, c)
	if err := s.Ready(t.Context(), 0); err == nil {
		t.Fatal("a server of an unknown authority was used")
	}
	replace(t, c.TLS.CAFile, certPEM(other)+certPEM(ca))
	eventually(t, "a session", func() bool { return s.Ready(t.Context(), 0) == nil })
	if o.count("login 200") != 1 {
		t.Error(fmt.Sprint(o.n))
	}
}
