package outbound

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestProxyIsForHTTPSOnly(t *testing.T) {
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"} {
		t.Setenv(name, "http://proxy.example:3128")
	}
	for address, through := range map[string]bool{
		"https://vault.example/":   true,
		"http://localhost:8200/":   false,
		"http://LOCALHOST:8200/":   false, // which Go itself takes for a name like any other
		"http://127.0.0.1:8200/":   false,
		"http://vault.example:80/": false,
	} {
		r := httptest.NewRequest(http.MethodGet, address, nil)
		if got, err := Transport().Proxy(r); err != nil || (got != nil) != through || through && got.Host != "proxy.example:3128" {
			t.Errorf("%s goes through %v (%v), want a proxy: %t", address, got, err, through)
		}
	}
}

// TestEnvironmentLeaksNothing starts itself again with an environment that would show each header:
// as a request to a proxy, and as lines of Go's HTTP/2 client.
func TestEnvironmentLeaksNothing(t *testing.T) {
	const child = "ROTATORD_TEST_CHILD"
	if address := os.Getenv(child); address != "" {
		sendCanary(t, address)
		return
	}
	var got, canaries atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got.Add(1); r.Header.Get("X-Vault-Token") != "" {
			canaries.Add(1)
		}
		w.WriteHeader(http.StatusBadGateway)
	}))
	defer proxy.Close()
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer plain.Close()
	secure := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	secure.EnableHTTP2 = true
	secure.StartTLS()
	defer secure.Close()
	// The name in capitals is not one that Go excepts from proxies.
	asked := strings.Replace(plain.URL, "127.0.0.1", "LOCALHOST", 1) + " " + secure.URL
	for name, env := range map[string][]string{
		"proxy":      {"HTTP_PROXY=" + proxy.URL, "http_proxy=" + proxy.URL, "HTTPS_PROXY=" + proxy.URL, "ALL_PROXY=" + proxy.URL},
		"http2debug": {"GODEBUG=http2debug=2"},
	} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestEnvironmentLeaksNothing$", "-test.v")
		cmd.Env = append(append(os.Environ(), child+"="+asked), env...)
		out, err := cmd.CombinedOutput()
		if err != nil || bytes.Contains(out, []byte("CANARY")) || got.Load() != 0 || canaries.Load() != 0 {
			t.Errorf("%s: %v; the proxy got %d requests, %d with a token; output:\n%s", name, err, got.Load(), canaries.Load(), out)
		}
	}
}

func sendCanary(t *testing.T, addresses string) {
	log.SetOutput(os.Stderr)
	transport := Transport()
	transport.TLSClientConfig.InsecureSkipVerify = true // a test's own server
	for address := range strings.FieldsSeq(addresses) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Vault-Token", "hvs.CANARY")
		res, err := transport.RoundTrip(r)
		if err != nil {
			t.Error(err)
			continue
		}
		_ = res.Body.Close()
		if res.ProtoMajor != 1 {
			t.Errorf("%s was asked by %s", address, res.Proto)
		}
	}
}

func TestReadBody(t *testing.T) {
	for size, fits := range map[int]bool{0: true, 9: true, 10: true, 11: false, 1 << 20: false} {
		got, err := ReadBody(strings.NewReader(strings.Repeat("x", size)), 10)
		large, ok := errors.AsType[*TooLargeError](err)
		if fits && (err != nil || len(got) != size) || !fits && (!ok || large.Limit != 10 || len(got) != 10) {
			t.Errorf("%d bytes: got %d, %v", size, len(got), err)
		}
	}
	cut := io.MultiReader(strings.NewReader("abc"), errReader{})
	if got, err := ReadBody(cut, 10); string(got) != "abc" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a body that is cut off: %q, %v", got, err)
	}
	for limit, want := range map[int64]string{2 << 20: "larger than 2 MiB", 64 << 10: "larger than 64 KiB", 7: "larger than 7 bytes"} {
		if text := (&TooLargeError{limit}).Error(); !strings.Contains(text, want) || !strings.Contains(text, "is something else at this address?") {
			t.Errorf("%q, want %q", text, want)
		}
	}
}

// TestAnswerOfAnotherProtocol: the body of an answer 101 is the connection, which no context ends, so it is not read.
func TestAnswerOfAnotherProtocol(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		_, _ = io.Copy(io.Discard, conn)
	}))
	defer server.Close()
	for name, transport := range map[string]*http.Transport{"request": Transport(), "delivery": DeliveryTransport(nil)} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		res, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if body, err := ReadBody(res.Body, 100); err == nil || !strings.Contains(err.Error(), "HTTP 101") || len(body) != 0 {
			t.Errorf("%s: %q, %v", name, body, err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s: it took %s", name, took)
		}
		_ = res.Body.Close()
		cancel()
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// TestHeadersAreBounded asks servers that do not end their headers. What they could write is
// counted by them; some of it is in buffers of the system.
func TestHeadersAreBounded(t *testing.T) {
	for name, write := range map[string]func(io.Writer) error{
		"one header without an end": func(w io.Writer) error { return endless(w, "HTTP/1.1 200 OK\r\nX-A: ", strings.Repeat("a", 8<<10)) },
		"headers without an end":    func(w io.Writer) error { return endless(w, "HTTP/1.1 200 OK\r\n", strings.Repeat("X-A: a\r\n", 1<<10)) },
		"a status without an end":   func(w io.Writer) error { return endless(w, "HTTP/1.1 200 ", strings.Repeat("a", 8<<10)) },
		"1xx answers without an end": func(w io.Writer) error {
			return endless(w, "", strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 200))
		},
	} {
		t.Run(name, func(t *testing.T) {
			var written atomic.Int64
			ended := make(chan error, 1)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				conn, _, err := w.(http.Hijacker).Hijack()
				if err != nil {
					ended <- err
					return
				}
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
				ended <- write(counted{conn, &written})
			}))
			defer server.Close()
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			transport := Transport()
			transport.DialContext = smallBuffers
			if res, err := transport.RoundTrip(r); err == nil {
				res.Body.Close()
				t.Fatal("no error")
			}
			<-ended
			if n := written.Load(); n > MaxHeader+slack {
				t.Errorf("the server could write %d bytes, want at most %d and what is in buffers", n, MaxHeader)
			}
		})
	}
}

func endless(w io.Writer, start, more string) error {
	_, err := io.WriteString(w, start)
	for err == nil {
		_, err = io.WriteString(w, more)
	}
	return fmt.Errorf("the other side hung up: %w", err)
}

func TestUnquoted(t *testing.T) {
	for text, want := range map[string]string{
		`net/http: HTTP/1.x transport connection broken: malformed MIME header line: "X-Vault-Token: hvs.CANARY"`: "net/http: HTTP/1.x transport connection broken: malformed MIME header line",
		`malformed HTTP response "GET /CANARY"`:                                            "malformed HTTP response",
		"malformed MIME header initial line: CANARY":                                       "malformed MIME header initial line",
		`bad Content-Length "CANARY"`:                                                      "bad Content-Length",
		`unsupported transfer encoding: "CANARY"`:                                          "unsupported transfer encoding",
		`http: message cannot contain multiple Content-Length headers; got ["1" "CANARY"]`: "http: message cannot contain multiple Content-Length headers",
		`too many transfer encodings: ["CANARY" "x"]`:                                      "too many transfer encodings",
		`bad trailer key "CANARY"`:                                                         "bad trailer key",
		`invalid empty Content-Length ""`:                                                  "invalid empty Content-Length",
		`dial tcp: lookup "x": no such host`:                                               `dial tcp: lookup "x": no such host`,
		"malformed HTTP response":                                                          "malformed HTTP response",
	} {
		err := errors.New(text)
		if got := Unquoted(err); got.Error() != want || !errors.Is(got, err) {
			t.Errorf("%s: got %s", text, got)
		}
	}
}

func TestDecodeOne(t *testing.T) {
	for body, good := range map[string]bool{`{"a": 1}`: true, " {}\n": true, `{"a": "x"}{}`: false, `{"a": 1} x`: false, `{"a": `: false, "": false, "<html>": false} {
		var into map[string]any
		if err := DecodeOne([]byte(body), &into); (err == nil) != good {
			t.Errorf("%q: %v", body, err)
		}
	}
	var number map[string]any
	if err := DecodeOne([]byte(`{"n": 12345678901234567890}`), &number); err != nil || fmt.Sprint(number["n"]) != "12345678901234567890" {
		t.Errorf("%v, %v", number, err)
	}
}

func TestRetryAfter(t *testing.T) {
	for header, want := range map[string]time.Duration{"": 0, "0": 0, "7": 7 * time.Second, "-1": 0, "soon": 0, "99999999999": (1<<31 - 1) * time.Second,
		"Wed, 21 Oct 2026 07:28:00 GMT": 30 * time.Second, "Wed, 21 Oct 2026 07:27:00 GMT": 0, "Wed, 21 Oct 2026 07:28:00": 0} {
		if got := RetryAfter(http.Header{"Retry-After": {header}, "Date": {"Wed, 21 Oct 2026 07:27:30 GMT"}}); got != want {
			t.Errorf("%q: %s", header, got)
		}
	}
	in := time.Now().Add(time.Minute).UTC().Format(http.TimeFormat)
	if got := RetryAfter(http.Header{"Retry-After": {in}}); got < 50*time.Second || got > time.Minute {
		t.Errorf("a date in a minute, without the server's clock: %s", got)
	}
}
