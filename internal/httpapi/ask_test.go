package httpapi_test

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"rotatord/internal/httpapi"
)

// TestAskHealth: good and bad answers of the handler are told apart, over HTTP and TLS, with and without a password; and
// from those of other programs.
func TestAskHealth(t *testing.T) {
	bad := &fakeSource{live: []httpapi.Check{{Name: "scheduler", OK: true}}, ready: []httpapi.Check{{Name: "recovery", Detail: "2 rotations\x1b[2J are left"}, {Name: "running", OK: true}}}
	whole := httpapi.Handler(httpapi.Options{Source: bad, Metrics: httpapi.NewMetrics(httpapi.Build{}), Logger: slog.New(slog.DiscardHandler), Now: time.Now})
	for name, test := range map[string]struct {
		handler http.Handler
		path    string
		want    string // a part of the error; empty: healthy
		answer  bool   // the daemon itself says so
	}{
		"alive":                         {whole, "/livez", "", false},
		"not ready":                     {whole, "/readyz", `[-] recovery: 2 rotations\x1b[2J are left`, true},
		"alive, with a password":        {httpapi.Probes(bad), "/livez", "", false},
		"not ready, with a password":    {httpapi.Probes(bad), "/readyz", "not ok: ask with the password", true},
		"another program":               {http.NotFoundHandler(), "/livez", "is not rotatord: it answers 404", false},
		"another program that is happy": {answers(200, "<html>hello"), "/livez", "is not rotatord: it answers 200", false},
		"a redirect":                    {http.RedirectHandler("http://203.0.113.1/", http.StatusFound), "/livez", "is not rotatord: it answers 302", false},
		"an endless answer":             {answers(503, strings.Repeat("x", 1<<20)), "/livez", "is not rotatord: it answers 503", false},
		"an empty refusal":              {answers(503, ""), "/livez", "is not rotatord: it answers 503", false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, start := range []func(http.Handler) *httptest.Server{httptest.NewServer, newTLSServer} {
				server := start(test.handler)
				defer server.Close()
				err := httpapi.AskHealth(t.Context(), server.Listener.Addr().String(), test.path)
				if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
					t.Errorf("%v, want %q", err, test.want)
				}
				if _, said := errors.AsType[*httpapi.NotHealthyError](err); said != test.answer {
					t.Errorf("the daemon itself says so: %v, want %v", said, test.answer)
				}
			}
		})
	}
}

func answers(code int, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = w.Write([]byte(body))
	})
}

// newTLSServer returns a server that logs nothing: a probe asks it without TLS first.
func newTLSServer(handler http.Handler) *httptest.Server {
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	server.StartTLS()
	return server
}

// TestAskWhere: an address of all interfaces is asked at the loopback one, and what cannot be asked is said.
func TestAskWhere(t *testing.T) {
	server := httptest.NewServer(httpapi.Probes(&fakeSource{}))
	defer server.Close()
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	for _, host := range []string{"", "0.0.0.0", "[::]", "127.0.0.1"} {
		if err := httpapi.AskHealth(t.Context(), host+":"+port, "/livez"); err != nil {
			t.Errorf("%q: %v", host, err)
		}
	}
	closed := httptest.NewServer(http.NotFoundHandler())
	nowhere := closed.Listener.Addr().String()
	closed.Close()
	mutual := httptest.NewUnstartedServer(httpapi.Probes(&fakeSource{}))
	mutual.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13}
	mutual.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	mutual.StartTLS()
	defer mutual.Close()
	for address, want := range map[string]string{
		nowhere: "connection refused", "127.0.0.1:0": "chosen when the daemon starts", "9321": "is not host:port",
		mutual.Listener.Addr().String(): "client certificate",
	} {
		if err := httpapi.AskHealth(t.Context(), address, "/livez"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", address, err, want)
		}
	}
}
