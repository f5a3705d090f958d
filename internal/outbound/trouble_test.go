package outbound

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/internal/printable"
)

var vaultPeer = Peer{Name: "Vault", Address: "vault.address", TLS: "vault.tls"}

// ask sends one request, and returns the explained error.
func ask(t *testing.T, transport *http.Transport, address string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := transport.RoundTrip(r)
	if err == nil {
		res.Body.Close()
		t.Fatalf("%s answered %s", address, res.Status)
	}
	explained := vaultPeer.Explained(err, r.URL)
	if !errors.Is(explained, err) && errors.Unwrap(explained) != nil {
		t.Errorf("the cause is lost: %v", explained)
	}
	return explained.Error()
}

// raw answers each connection with a text, and hangs up.
func raw(t *testing.T, answer string) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if answer == "" {
					return
				}
				_, _ = bufio.NewReader(conn).ReadByte()
				_, _ = io.WriteString(conn, answer)
				_ = conn.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, conn)
			}()
		}
	}()
	return listener.Addr().String()
}

func TestNoAnswerIsExplained(t *testing.T) {
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	wantsCertificate := httptest.NewUnstartedServer(http.NotFoundHandler())
	wantsCertificate.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12}
	wantsCertificate.StartTLS()
	defer wantsCertificate.Close()
	trusting := func() *http.Transport {
		transport := Transport()
		transport.TLSClientConfig.RootCAs = secure.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
		return transport
	}
	clock := func(at time.Time) *http.Transport {
		transport := trusting()
		transport.TLSClientConfig.Time = func() time.Time { return at }
		return transport
	}
	unresolved := Transport()
	unresolved.DialContext = func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "vault.exmaple.com", IsNotFound: true}}
	}
	noServer := Transport()
	noServer.DialContext = func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "i/o timeout", Name: "vault.example.com", IsTimeout: true}}
	}
	var all []string
	closing := raw(t, "")
	hangingUp := Transport()
	hangingUp.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, closing)
	}
	port := strings.TrimPrefix(secure.URL, "https://127.0.0.1:")
	for name, test := range map[string]struct {
		transport *http.Transport
		address   string
		want      []string
	}{
		"nothing listens":       {Transport(), "http://127.0.0.1:1/", []string{"connection refused", "nothing listens at 127.0.0.1:1: is Vault running there", "vault.address"}},
		"unknown authority":     {Transport(), secure.URL, []string{`is signed by "O=Acme Co"`, "vault.tls.ca_file", "inspects TLS"}},
		"another name":          {trusting(), "https://localhost:" + port, []string{"the certificate is for example.com, *.example.com, 127.0.0.1, ::1, not for localhost", "vault.tls.server_name"}},
		"ended":                 {clock(time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)), secure.URL, []string{"expired at 2084-01-29T16:00:00Z", "set the clock"}},
		"not begun":             {clock(time.Date(1960, 1, 1, 0, 0, 0, 0, time.UTC)), secure.URL, []string{"this machine's clock says", "set the clock"}},
		"plain where TLS":       {Transport(), strings.Replace(plain.URL, "http:", "https:", 1), []string{"speaks plain http, not TLS", "begin with http://?"}},
		"no TLS at all":         {Transport(), "https://" + raw(t, "SSH-2.0-OpenSSH_9.9\r\n"), []string{"does not speak TLS", "port in vault.address"}},
		"TLS where plain":       {Transport(), "http://" + raw(t, "\x15\x03\x01\x00\x02\x02\x28"), []string{"speaks TLS, but the request was plain http: write https:// in vault.address"}},
		"a certificate of ours": {insecure(), wantsCertificate.URL, []string{"does it require a client certificate (vault.tls.cert_file)"}},
		"no such name":          {unresolved, "https://vault.exmaple.com/", []string{"no such host", "is vault.address spelled right", "/etc/resolv.conf"}},
		"no name server":        {noServer, "https://vault.example.com/", []string{"name server does not answer"}},
		"hung up":               {Transport(), "http://" + raw(t, ""), nil},
		"hung up at a TLS port": {hangingUp, "http://vault.example.com:8443/", []string{"closed the connection: does it speak TLS? Then write https:// in vault.address"}},
	} {
		got := ask(t, test.transport, test.address)
		all = append(all, got)
		for _, want := range test.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %s\nwant %q in it", name, got, want)
			}
		}
	}
	documented(t, "the error has | look at", all)
}

// documented holds that each text in the first column of a table of the documentation is in one of the errors.
func documented(t *testing.T, columns string, errors []string) {
	t.Helper()
	doc, err := os.ReadFile("../../docs/cloudflare-errors.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(doc), "| "+columns+" |\n| --- | --- |\n")
	rows := 0
	for line := range strings.Lines(table) {
		if !found || !strings.HasPrefix(line, "| `") {
			break
		}
		rows++
		text := strings.Split(line, "`")[1]
		if !slices.ContainsFunc(errors, func(e string) bool { return strings.Contains(e, text) }) {
			t.Errorf("%q is documented, and in no error", text)
		}
	}
	if rows < 9 {
		t.Errorf("only %d rows of %q", rows, columns)
	}
}

func insecure() *http.Transport {
	transport := Transport()
	transport.TLSClientConfig.InsecureSkipVerify = true
	return transport
}

// TestProxyIsNamed: whatever is wrong with a proxy, its address and the variable are in the error, and its
// password is not.
func TestProxyIsNamed(t *testing.T) {
	answering := func(status int) string {
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Proxy-Authenticate", `Basic realm="evil \x1b[2J"`)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "\x1b[2J CANARY-PAGE")
		}))
		t.Cleanup(proxy.Close)
		return strings.TrimPrefix(proxy.URL, "http://")
	}
	odd := raw(t, "HTTP/1.1 403 \x1b[31mCANARY-STATUS\r\n\r\n")
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	const user = "scott:CANARY-PASSWORD@"
	var all []string
	for name, test := range map[string]struct {
		variable, value string
		want            []string
	}{
		"authentication":     {"HTTPS_PROXY", "http://" + answering(407), []string{"(of HTTPS_PROXY)", "HTTP 407", "requires a user and a password", "NO_PROXY=vault.example.com"}},
		"wrong password":     {"HTTPS_PROXY", "http://" + user + answering(407), []string{"(of HTTPS_PROXY)", "HTTP 407", "does not accept the user and password"}},
		"refused":            {"https_proxy", "http://" + user + answering(403), []string{"(of https_proxy)", "does not connect to vault.example.com:8200 (HTTP 403 Forbidden)", "let its rules allow CONNECT"}},
		"an odd status":      {"HTTPS_PROXY", "http://" + odd, []string{"HTTP 403 Forbidden"}},
		"cannot reach":       {"HTTPS_PROXY", answering(502), []string{"HTTP 502", "can it resolve and reach that host"}},
		"is none":            {"HTTPS_PROXY", "http://" + answering(404), []string{"HTTP 404", "is it a proxy?"}},
		"down":               {"HTTPS_PROXY", "http://" + user + "127.0.0.1:1", []string{"the proxy http://127.0.0.1:1 of HTTPS_PROXY cannot be reached"}},
		"https to plain":     {"HTTPS_PROXY", "https://" + user + answering(407), []string{"does not speak TLS itself: write http:// in HTTPS_PROXY"}},
		"http to TLS":        {"HTTPS_PROXY", "http://" + raw(t, "\x15\x03\x01\x00\x02\x02\x28"), []string{"speaks TLS itself: write https:// in HTTPS_PROXY"}},
		"http to Go's TLS":   {"HTTPS_PROXY", "http://" + strings.TrimPrefix(secure.URL, "https://"), []string{"the request went through the proxy http://127.0.0.1", "is its scheme right"}},
		"wrong scheme":       {"HTTPS_PROXY", "ftp://" + user + "proxy.example:21", []string{"the proxy ftp://proxy.example:21 (of HTTPS_PROXY)", "is not a scheme for a proxy"}},
		"no URL":             {"HTTPS_PROXY", "http://" + user + "proxy example", []string{"the proxy of HTTPS_PROXY: it is not the address"}},
		"socks that is none": {"HTTPS_PROXY", "socks5://" + user + raw(t, "HTTP/1.1 400 Bad Request\r\n\r\n"), []string{"of HTTPS_PROXY does not connect"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, variable := range []string{"HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"} {
				t.Setenv(variable, "")
			}
			t.Setenv(test.variable, test.value)
			got := ask(t, Transport(), "https://vault.example.com:8200/v1/x")
			all = append(all, got)
			for _, want := range test.want {
				if !strings.Contains(got, want) {
					t.Errorf("%s\nwant %q in it", got, want)
				}
			}
			if strings.Contains(got, "CANARY") || strings.Contains(got, "scott") || !printable.IsPlain(got) || strings.Contains(got, "\n") {
				t.Errorf("%q", got)
			}
		})
	}
	documented(t, "the error has | do", all)
}

func TestRoute(t *testing.T) {
	asked, _ := url.Parse("https://api.example.com/")
	t.Setenv("HTTPS_PROXY", "")
	t.Setenv("https_proxy", "")
	if got := Route(asked); got != "" {
		t.Error(got)
	}
	t.Setenv("https_proxy", "http://scott:tiger@proxy.example:3128")
	if got := Route(asked); got != "the proxy http://proxy.example:3128 of https_proxy" {
		t.Error(got)
	}
}

func TestPage(t *testing.T) {
	asIs := func(s string) string { return s }
	for name, test := range map[string]struct {
		mediaType, body, title, words string
	}{
		"a login page":         {"text/html; charset=utf-8", "<!DOCTYPE html><html><head><title> Sign in &amp; go </title><script>var a='CANARY'</script></head><body><h1>Welcome</h1>", `text/html, "Sign in & go"`, ""},
		"no title":             {"text/html", "<html><style>CANARY{}</style><p>Please <b>log in</b></p>", "text/html", `text/html, "Please log in"`},
		"no type":              {"", "<html><title>Router</title>", `no content type, "Router"`, ""},
		"plain text":           {"text/plain", "error code: 1020\n", "text/plain", `text/plain, "error code: 1020"`},
		"JSON":                 {"application/json", `{"error": "denied"}`, "application/json", `application/json, "{"error": "denied"}"`},
		"nothing":              {"text/html", "", "text/html", ""},
		"a picture":            {"image/png", "\x89PNG\r\n", "image/png", ""},
		"escapes":              {"text/html", "<title>\x1b[2J&#x202e;\u009b a\nb</title>", `text/html, "\x1b[2J\u202e\u009b a b"`, ""},
		"a title that is long": {"text/html", "<title>" + strings.Repeat("n", 500) + "</title>", `text/html, "` + strings.Repeat("n", maxWords) + `..."`, ""},
		"a page without end":   {"text/html", strings.Repeat("<p>", 1<<20), "text/html", ""},
		"two titles":           {"text/html", "<title>one</title><svg><title>two</title></svg>", `text/html, "one"`, ""},
		"a secret":             {"text/html", "<title>cfast_CANARYcanaryCANARYcanaryCANARYcanary0123deadbeef</title>", `text/html, "[redacted]"`, ""},
	} {
		page := ReadPage(http.Header{"Content-Type": {test.mediaType}}, []byte(test.body))
		want := test.words
		if want == "" {
			want = test.title
		}
		if got := page.Shown(false, asIs); got != test.title {
			t.Errorf("%s: %s, want %s", name, got, test.title)
		}
		if got := page.Shown(true, asIs); got != want {
			t.Errorf("%s, with words: %s, want %s", name, got, want)
		}
	}
	for body, want := range map[string]bool{
		"Client sent an HTTP request to an HTTPS server.\n":              true,
		"<center>The plain HTTP request was sent to HTTPS port</center>": true,
		"HTTP request": false,
	} {
		if got := ReadPage(http.Header{}, []byte(body)).PlainOnTLS; got != want {
			t.Errorf("%q: %t", body, got)
		}
	}
}
