package profile_test

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"rotatord/internal/profile"
)

func TestParse(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1:6060": "", "127.9.8.7:1": "", "[::1]:6060": "", "localhost:6060": "", "[::ffff:127.0.0.1]:6060": "",
		"":                     "is not host:port",
		"6060":                 "is not host:port",
		":6060":                "is not a loopback address",
		"0.0.0.0:6060":         "is not a loopback address",
		"[::]:6060":            "is not a loopback address",
		"10.0.0.1:6060":        "is not a loopback address",
		"localhost.evil:6060":  "is not a loopback address",
		"127.0.0.1.evil:6060":  "is not a loopback address",
		"2130706433:6060":      "is not a loopback address",
		"[fe80::1%lo]:6060":    "is not a loopback address",
		"127.0.0.1:":           "has no port",
		"127.0.0.1:0":          "has no port",
		"127.0.0.1:65536":      "has no port",
		"127.0.0.1:http":       "has no port",
		"http://127.0.0.1:606": "is not host:port",
	} {
		err := profile.Parse(address)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", address, err, want)
		}
	}
}

// serve serves profiles on a free port.
func serve(t *testing.T) (base string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := profile.Serve(address, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := net.Dial("tcp", address); err == nil {
			t.Error("it listens after Close")
		}
	})
	return "http://" + address
}

// TestSites: a site that has a browser on this machine ask is refused, whether it uses a name of its own for the
// address or another one.
func TestSites(t *testing.T) {
	base := serve(t)
	for _, test := range []struct {
		name, method, path, host, site string
		want                           int
	}{
		{"a person with curl", "GET", "/debug/pprof/heap", "", "", 200},
		{"by its name", "GET", "/debug/pprof/heap", "localhost:6060", "", 200},
		{"a person with a browser", "GET", "/debug/pprof/", "", "none", 200},
		{"a link on the page", "GET", "/debug/pprof/heap?debug=1", "", "same-origin", 200},
		{"a name that was bound to 127.0.0.1", "GET", "/debug/pprof/heap", "evil.example:6060", "same-origin", 421},
		{"no host", "GET", "/debug/pprof/heap", "-", "", 421},
		{"another site", "GET", "/debug/pprof/profile?seconds=600", "", "cross-site", 403},
		{"another port of this host", "GET", "/debug/pprof/profile?seconds=600", "", "same-site", 403},
		{"longer than a profile may be", "GET", "/debug/pprof/profile?seconds=600", "", "", 400},
		{"not a profile", "GET", "/metrics", "", "", 404},
		{"not read", "POST", "/debug/pprof/heap", "", "", 405},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), test.method, base+test.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if test.host != "" {
				r.Host = strings.TrimPrefix(test.host, "-")
				if r.Host == "" {
					r.Host = "."
				}
			}
			if test.site != "" {
				r.Header.Set("Sec-Fetch-Site", test.site)
			}
			answer, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(answer.Body)
			_ = answer.Body.Close()
			if answer.StatusCode != test.want {
				t.Errorf("%s: %s", answer.Status, body)
			}
		})
	}
}

// TestInUse: an address that another program listens on is an error.
func TestInUse(t *testing.T) {
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	if _, err := profile.Serve(strings.TrimPrefix(other.URL, "http://"), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("%v", err)
	}
}
