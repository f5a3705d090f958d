package app_test

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
	"io"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rotatord/internal/app"
)

// webUsers requires the password "secret" of prometheus.
const webUsers = "basic_auth_users: {prometheus: $2a$04$1HNQSecWf1CLQCGQA1y1DeSIYDVey8WSpzCFoHWnPew3czCe.1Kxe}\n"

// served is a daemon with a web configuration, and a client for it.
type served struct {
	t      *testing.T
	client *http.Client
	url    string
}

// answer is the answer to a request, without the body of a page.
func (s served) answer(method, path, password string) string {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if password != "" {
		req.SetBasicAuth("prometheus", password)
	}
	res, err := s.client.Do(req)
	if err != nil {
		return "no answer"
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	if len(body) > 200 {
		body = []byte("a page")
	}
	got := fmt.Sprintf("%d %s", res.StatusCode, strings.TrimSpace(string(body)))
	if res.StatusCode != http.StatusUnauthorized && res.Header.Get("WWW-Authenticate") != "" {
		got += " and asks for a password"
	}
	return got
}

func (w *world) serveWith(web string, client *http.Client, scheme string) served {
	w.t.Helper()
	a, err := app.New(app.Options{Config: w.config(), Now: w.now, WebConfigFile: w.write("web.yaml", web)})
	if err != nil {
		w.t.Fatal(err)
	}
	a.Start()
	w.t.Cleanup(func() {
		client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := a.Stop(ctx); err != nil {
			w.t.Error(err)
		}
	})
	s := served{w.t, client, scheme + "://" + a.Addr().String()}
	w.eventually("it is ready", func() bool { return strings.HasPrefix(s.answer("GET", "/readyz", "secret"), "200") })
	return s
}

// TestProbesNeedNoPassword: a kubelet has none. Everything else requires it as before.
func TestProbesNeedNoPassword(t *testing.T) {
	t.Parallel()
	certificates := newCertificates(t)
	for name, test := range map[string]struct {
		web    string
		client *http.Client
		scheme string
	}{
		"plain":          {"", &http.Client{Transport: &http.Transport{}}, "http"},
		"TLS and HTTP 2": {certificates.web("NoClientCert"), certificates.client(true, false), "https"},
		"TLS and HTTP 1": {certificates.web("NoClientCert"), certificates.client(false, false), "https"},
		"certificates":   {certificates.web("RequireAndVerifyClientCert"), certificates.client(true, true), "https"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.due("a", "0s")
			s := w.serveWith(webUsers+test.web, test.client, test.scheme)
			const refused = "401 Unauthorized"
			for _, c := range []struct{ method, path, password, want string }{
				{"GET", "/livez", "", "200 ok"},
				{"GET", "/readyz", "", "200 ok"},
				{"HEAD", "/livez", "", "200"},
				{"GET", "/livez", "wrong", "200 ok"},
				{"GET", "/livez?verbose", "", "200 ok"},
				{"GET", "/readyz?verbose", "", "200 ok"},
				{"GET", "/readyz?verbose", "wrong", "200 ok"},
				{"GET", "/metrics", "secret", "200 a page"},
				{"GET", "/metrics", "", refused},
				{"GET", "/metrics", "wrong", refused},
				{"GET", "/", "", refused},
				{"GET", "/api/v1/tokens", "", refused},
				{"GET", "/livez/", "", refused},
				{"GET", "//livez", "", refused},
				{"GET", "/livez/../metrics", "", refused},
				{"GET", "/LIVEZ", "", refused},
				{"GET", "/livez%2f..%2fmetrics", "", refused},
				{"POST", "/livez", "", refused},
				{"POST", "/livez", "secret", "405 Method Not Allowed"},
			} {
				if got := strings.TrimSpace(s.answer(c.method, c.path, c.password)); got != c.want {
					t.Errorf("%s %s with the password %q: %s, want %s", c.method, c.path, c.password, got, c.want)
				}
			}
			if got := s.answer("GET", "/readyz?verbose", "secret"); !strings.Contains(got, "[+] ") {
				t.Errorf("with the password it should say more: %s", got)
			}
		})
	}
}

// TestProbesStayBehindCertificates: a requirement below HTTP also applies to a probe.
func TestProbesStayBehindCertificates(t *testing.T) {
	t.Parallel()
	w, certificates := newWorld(t), newCertificates(t)
	w.due("a", "0s")
	s := w.serveWith(certificates.web("RequireAndVerifyClientCert"), certificates.client(true, true), "https")
	s.client = certificates.client(true, false)
	if got := s.answer("GET", "/livez", ""); got != "no answer" {
		t.Errorf("without a client certificate: %s", got)
	}
}

// TestProbesWithoutPasswords: if no password is required, they say as much as before; and the rate limit does
// not apply to the short answer.
func TestProbesWithoutPasswords(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.due("a", "0s")
	s := w.serveWith("http_server_config: {headers: {X-Frame-Options: deny}}\n", &http.Client{Transport: &http.Transport{}}, "http")
	if got := s.answer("GET", "/readyz?verbose", ""); !strings.Contains(got, "[+] ") {
		t.Errorf("?verbose: %s", got)
	}
	limited := newWorld(t)
	limited.due("a", "0s")
	s = limited.serveWith("rate_limit: {interval: 1h, burst: 1}\n", &http.Client{Transport: &http.Transport{}}, "http")
	for range 3 {
		if got := s.answer("GET", "/livez", ""); got != "200 ok" {
			t.Errorf("past the limit: %s", got)
		}
	}
	if got := s.answer("GET", "/metrics", ""); !strings.HasPrefix(got, "429") {
		t.Errorf("the limit for pages: %s", got)
	}
}

// TestShortAnswerSaysNoMore: a daemon that is not ready does not tell every client why.
func TestShortAnswerSaysNoMore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.due("a", "0s")
	open := w.gate("list")
	client := &http.Client{Transport: &http.Transport{}}
	a, err := app.New(app.Options{Config: w.config(), Now: w.now, WebConfigFile: w.write("web.yaml", webUsers)})
	if err != nil {
		t.Fatal(err)
	}
	a.Start()
	t.Cleanup(func() { open(); client.CloseIdleConnections(); _ = a.Stop(context.Background()) })
	s := served{t, client, "http://" + a.Addr().String()}
	if got := s.answer("GET", "/readyz?verbose", ""); got != "503 not ok: ask with the password to see what is wrong" {
		t.Errorf("without the password: %s", got)
	}
	if got := s.answer("GET", "/readyz", "secret"); !strings.HasPrefix(got, "503 [-] ") {
		t.Errorf("with the password: %s", got)
	}
}

// certificates are an authority, and the certificates that it has signed for the server and for a client.
type certificates struct {
	dir       string
	authority *x509.CertPool
	pair      tls.Certificate
}

func newCertificates(t *testing.T) certificates {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "rotatord"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM, keyPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	c := certificates{dir: t.TempDir(), authority: x509.NewCertPool()}
	c.authority.AppendCertsFromPEM(certPEM)
	if c.pair, err = tls.X509KeyPair(certPEM, keyPEM); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: c.dir}
	w.write("cert.pem", string(certPEM))
	w.write("key.pem", string(keyPEM))
	return c
}

// web returns the part of a web configuration that is about TLS.
func (c certificates) web(clientAuth string) string {
	text := fmt.Sprintf("tls_server_config:\n  cert_file: %s\n  key_file: %s\n  client_auth_type: %s\n",
		filepath.Join(c.dir, "cert.pem"), filepath.Join(c.dir, "key.pem"), clientAuth)
	if clientAuth != "NoClientCert" {
		text += "  client_ca_file: " + filepath.Join(c.dir, "cert.pem") + "\n"
	}
	return text
}

func (c certificates) client(http2, withCertificate bool) *http.Client {
	config := &tls.Config{RootCAs: c.authority}
	if withCertificate {
		config.Certificates = []tls.Certificate{c.pair}
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: http2}}
}
