package access_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/access"
	"rotatord/internal/config"
	"rotatord/internal/rotation"
)

// tcp serves each connection with f, and returns the address.
func tcp(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			wait.Go(func() { f(conn); _ = conn.Close() })
		}
	})
	t.Cleanup(func() { _ = listener.Close(); wait.Wait() })
	return listener.Addr().String()
}

// echo sends back what it gets, as a proxy that explains itself might.
func echo(prefix string) func(net.Conn) {
	return func(conn net.Conn) {
		buf := make([]byte, 4096)
		n, _ := conn.Read(buf)
		_, _ = io.WriteString(conn, prefix+string(buf[:n]))
	}
}

// TestNoSecretComesOut looks for the credential, and for the query of the URL, in every error
// and log line, whatever the other side does with them.
func TestNoSecretComesOut(t *testing.T) {
	trusted := httptest.NewTLSServer(answering(200))
	defer trusted.Close()
	trusted.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	echoing := application(t, func(w http.ResponseWriter, r *http.Request) {
		maps.Copy(w.Header(), r.Header)
		w.Header().Set("Location", "/?"+r.URL.RawQuery)
		w.WriteHeader(302)
		fmt.Fprint(w, r.Header)
	}, answering(401))
	const query = "?private=" + canary
	for name, test := range map[string]struct{ url, want string }{
		"an echo":                 {"http://" + tcp(t, echo("")) + "/" + query, "no answer that can be read"},
		"an echo as a status":     {"http://" + tcp(t, echo("HTTP/1.1 200 ")) + "/" + query, ""},
		"an echo as a bad header": {"http://" + tcp(t, echo("HTTP/1.1 200 OK\r\n")) + "/" + query, "no answer"},
		"an echo as a length":     {"http://" + tcp(t, echo("HTTP/1.1 200 OK\r\nContent-Length: "+canary+"\r\n\r\n")) + "/" + query, "no answer"},
		"headers sent back":       {echoing + "/" + query, "HTTP 302"},
		"closed at once":          {"http://" + tcp(t, func(net.Conn) {}) + "/" + query, "no answer"},
		"not TLS":                 {"https://" + tcp(t, echo("")) + "/" + query, "no answer"},
		"a stranger's certificate": {
			trusted.URL + "/" + query, "no answer: tls: failed to verify certificate: x509: certificate signed by unknown authority",
		},
		"nobody there":        {"http://127.0.0.1:1/" + query, "no answer: dial tcp 127.0.0.1:1: connect: connection refused"},
		"no such name":        {"https://rotatord.invalid/" + query, "no answer: dial tcp: lookup rotatord.invalid"},
		"a path with escapes": {"http://127.0.0.1:1/100%25%2Fd" + query, "verify.url http://127.0.0.1:1/100%25%2Fd: no answer: "},
		"unreadable":          {"http://[::1/" + query, "verify.url (unreadable): the URL cannot be read"},
	} {
		for _, header := range []string{"", "Authorization"} {
			var log safeBuffer
			options := access.Options{Logger: slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
			p := access.New(options).Prober("ci", config.Verify{URL: test.url, Header: header})
			got, err := p.Probe(t.Context(), credential)
			if header != "" && name == "headers sent back" {
				continue // which knows the usual headers alone
			}
			if got != rotation.ProbeUnknown || err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: got %d, %v; want %s", name, got, err, test.want)
			}
			said := fmt.Sprintf("%v %+v %#v %q %v", err, err, err, err, errors.Unwrap(err)) + log.String()
			if strings.Contains(said, canary) || strings.Contains(said, "private") || strings.Contains(said, clientID) {
				t.Errorf("%s: a secret came out: %s", name, said)
			}
			if strings.ContainsAny(err.Error(), "\r\n") {
				t.Errorf("%s: more than one line: %q", name, err)
			}
		}
	}
}

// TestTLS holds that a certificate which is trusted is enough, and that a server which offers
// HTTP/2 is asked over HTTP/1.1.
func TestTLS(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.ProtoMajor != 1 {
				t.Errorf("%s", r.Proto)
			}
			if r.Header.Get("CF-Access-Client-Secret") != canary {
				w.WriteHeader(401)
			}
		}))
		server.EnableHTTP2 = h2
		server.StartTLS()
		client := access.New(access.Options{WrapTransport: func(inner http.RoundTripper) http.RoundTripper {
			inner.(*http.Transport).TLSClientConfig.RootCAs = server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
			return inner
		}})
		if got, err := client.Prober("ci", config.Verify{URL: server.URL}).Probe(t.Context(), credential); got != rotation.ProbeGood {
			t.Errorf("HTTP/2 %t: got %d, %v", h2, got, err)
		}
		server.Close()
	}
}

// TestProxy holds that a proxy sees where a credential goes, and not the credential.
func TestProxy(t *testing.T) {
	asked := 0
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.Method != http.MethodConnect || r.Host != "app.example.com:443" || strings.Contains(fmt.Sprint(r.Header), "canary") {
			t.Errorf("%s %s %v", r.Method, r.Host, r.Header)
		}
		w.WriteHeader(http.StatusProxyAuthRequired)
	}))
	defer proxy.Close()
	var log safeBuffer
	client := access.New(access.Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), WrapTransport: func(inner http.RoundTripper) http.RoundTripper {
		through, err := url.Parse(strings.Replace(proxy.URL, "http://", "http://user:"+canary+"@", 1))
		if err != nil {
			t.Error(err)
		}
		inner.(*http.Transport).Proxy = http.ProxyURL(through)
		return inner
	}})
	// The proxy's own password is in a header of its own, in base64.
	got, err := client.Prober("ci", config.Verify{URL: "https://app.example.com/health"}).Probe(t.Context(), credential)
	if got != rotation.ProbeUnknown || err == nil || asked != 1 || strings.Contains(err.Error()+log.String(), canary) {
		t.Errorf("got %d, %v after %d requests to the proxy", got, err, asked)
	}
}

// tripper is a transport in memory.
type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func inMemory(f tripper) access.Options {
	return access.Options{WrapTransport: func(http.RoundTripper) http.RoundTripper { return f }}
}

func answer(r *http.Request, status int, body io.Reader) *http.Response {
	return &http.Response{StatusCode: status, Request: r, Body: io.NopCloser(body)}
}

// stuck is a body that ends with the request's context alone.
type stuck struct{ ctx context.Context }

func (s stuck) Read([]byte) (int, error) {
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}

// TestTimeout holds that a request is over after ten seconds, and when its caller has left.
func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := access.New(inMemory(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})).Prober("ci", config.Verify{URL: "https://app.example.com/?q"})
		started := time.Now()
		got, err := silent.Probe(t.Context(), credential)
		if took := time.Since(started); took != 10*time.Second || got != rotation.ProbeUnknown ||
			err.Error() != "verify.url https://app.example.com/: no answer within 10s" {
			t.Errorf("after %s: %d, %v", took, got, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		started = time.Now()
		got, err = silent.Probe(ctx, credential)
		if took := time.Since(started); took != time.Second || got != rotation.ProbeUnknown || !strings.HasSuffix(err.Error(), "no answer: context deadline exceeded") {
			t.Errorf("after %s: %d, %v", took, got, err)
		}
		// An answer whose body never comes is an answer.
		dripping := access.New(inMemory(func(r *http.Request) (*http.Response, error) {
			return answer(r, 401, stuck{r.Context()}), nil
		})).Prober("ci", config.Verify{URL: "https://app.example.com/"})
		started = time.Now()
		if got, err = dripping.Probe(t.Context(), credential); got != rotation.ProbeBad || time.Since(started) != 10*time.Second {
			t.Errorf("after %s: %d, %v", time.Since(started), got, err)
		}
	})
}

// endless is a body without an end that counts what is read of it.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	e.read += len(p)
	return len(p), nil
}

func TestBodyIsBounded(t *testing.T) {
	var body endless
	p := access.New(inMemory(func(r *http.Request) (*http.Response, error) { return answer(r, 401, &body), nil })).
		Prober("ci", config.Verify{URL: "https://app.example.com/"})
	if got, err := p.Probe(t.Context(), credential); got != rotation.ProbeBad || body.read > 64<<10+1 { // one more shows that there is more
		t.Errorf("%d bytes were read: %d, %v", body.read, got, err)
	}
}

// TestHeadersAreBounded: nobody fills our memory with headers.
func TestHeadersAreBounded(t *testing.T) {
	url := application(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Much", strings.Repeat("x", 128<<10)) }, answering(401))
	if got, err := probe(t, url); got != rotation.ProbeUnknown || err == nil {
		t.Errorf("got %d, %v", got, err)
	}
}

// TestWithoutCredentialIsAskedOnce holds that many tokens ask once, that it is asked again after
// ten minutes, and that what will not stay so is not remembered.
func TestWithoutCredentialIsAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		bare, without := 0, 200
		client := access.New(inMemory(func(r *http.Request) (*http.Response, error) {
			time.Sleep(time.Second)
			mu.Lock()
			defer mu.Unlock()
			if r.Header.Get("CF-Access-Client-Id") != "" {
				return answer(r, 200, strings.NewReader("")), nil
			}
			bare++
			if without == 0 {
				return nil, io.EOF
			}
			return answer(r, without, strings.NewReader("")), nil
		}))
		all := func(want rotation.Probe, asked int) {
			t.Helper()
			bare = 0
			var wait sync.WaitGroup
			for i := range 20 {
				wait.Go(func() {
					got, err := client.Prober(fmt.Sprint("token-", i), config.Verify{URL: "https://app.example.com/"}).Probe(t.Context(), credential)
					if got != want {
						t.Errorf("got %d, %v; want %d", got, err, want)
					}
				})
			}
			wait.Wait()
			if bare != asked {
				t.Errorf("%d requests without a credential, want %d", bare, asked)
			}
		}
		all(rotation.ProbeUnknown, 1) // not protected
		without = 302                 // it is mended, and that is not known yet
		all(rotation.ProbeUnknown, 0)
		time.Sleep(10 * time.Minute)
		all(rotation.ProbeGood, 1)
		// Another URL is another matter.
		if got, err := client.Prober("ci", config.Verify{URL: "https://other.example.com/"}).Probe(t.Context(), credential); got != rotation.ProbeGood || bare != 2 {
			t.Errorf("got %d, %v after %d requests", got, err, bare)
		}
		for _, without = range []int{503, 429, 0} {
			time.Sleep(10 * time.Minute)
			all(rotation.ProbeUnknown, 20)
		}
		without = 401
		all(rotation.ProbeGood, 1)

		// Who has no more time does not wait for those who ask.
		time.Sleep(10 * time.Minute)
		p := client.Prober("ci", config.Verify{URL: "https://app.example.com/"})
		go func() { _, _ = p.Probe(t.Context(), credential) }()
		time.Sleep(500 * time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), 1200*time.Millisecond)
		defer cancel()
		if got, err := p.Probe(ctx, credential); got != rotation.ProbeUnknown || err == nil || !strings.Contains(err.Error(), "context deadline exceeded") {
			t.Errorf("got %d, %v", got, err)
		}
		time.Sleep(time.Minute)
	})
}
