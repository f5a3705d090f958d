package access_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"rotatord/internal/access"
	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

// The credential of all tests. The secret is not one that secret.Scrub would find.
const (
	clientID = "88bf3b6d86161464f6509f7219099e57.access"
	canary   = "canary-0123456789-secret"
)

var credential = rotation.Credential{ClientID: clientID, ClientSecret: secret.New(canary)}

// probe tries the credential at url, by a client of its own.
func probe(t *testing.T, url string) (rotation.Probe, error) {
	t.Helper()
	return prober(url).Probe(t.Context(), credential)
}

func prober(url string) *access.Prober {
	return access.New(access.Options{}).Prober("ci", config.Verify{URL: url})
}

// application answers requests with a credential and those without one.
func application(t *testing.T, with, without http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.Header.Get("User-Agent") != "rotatord" || r.Header.Get("Cookie") != "" {
			t.Errorf("%s %s with %v", r.Method, r.URL, r.Header)
		}
		id, value := r.Header.Get("Cf-Access-Client-Id"), r.Header.Get("Cf-Access-Client-Secret")
		switch {
		case id == clientID && value == canary:
			with(w, r)
		case id == "" && value == "":
			without(w, r)
		default:
			t.Errorf("half a credential: %v", r.Header)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func answering(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
}

// TestEveryStatus holds what an answer proves where a request without a credential is refused.
func TestEveryStatus(t *testing.T) {
	status := 0
	url := application(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }, answering(401))
	for status = 200; status < 600; status++ {
		want := rotation.ProbeUnknown
		switch {
		case status < 300, status == 403:
			want = rotation.ProbeGood
		case status == 401:
			want = rotation.ProbeBad
		}
		got, err := probe(t, url)
		if got != want || (err == nil) != (want == rotation.ProbeGood) {
			t.Errorf("HTTP %d proves %d, %v; want %d", status, got, err, want)
		}
		if err != nil && !strings.HasPrefix(err.Error(), fmt.Sprintf("verify.url %s: HTTP %d", url, status)) {
			t.Errorf("HTTP %d: %v", status, err)
		}
	}
}

// TestWithoutCredential holds that an answer proves nothing which anybody gets.
func TestWithoutCredential(t *testing.T) {
	for _, test := range []struct {
		with, without int
		want          rotation.Probe
		reason        string
	}{
		{200, 302, rotation.ProbeGood, ""},
		{200, 403, rotation.ProbeGood, ""},
		{200, 200, rotation.ProbeUnknown, "HTTP 200, but HTTP 200 without a credential: the URL is not protected, so this proves nothing"},
		{204, 206, rotation.ProbeUnknown, "HTTP 204, but HTTP 206 without a credential: the URL is not protected, so this proves nothing"},
		{200, 404, rotation.ProbeUnknown, "HTTP 200, but HTTP 404 without a credential: the URL is not protected, so this proves nothing"},
		{200, 500, rotation.ProbeUnknown, "HTTP 200, but HTTP 500 without a credential: the URL is not protected, so this proves nothing"},
		{403, 302, rotation.ProbeGood, ""},
		{403, 200, rotation.ProbeUnknown, "HTTP 403, but HTTP 200 without a credential: the URL is not protected, so this proves nothing"},
		{403, 403, rotation.ProbeUnknown, "HTTP 403, and the same without a credential: perhaps the credential was not checked"},
		{401, 200, rotation.ProbeBad, "HTTP 401: the credential is refused"},
		{401, 401, rotation.ProbeBad, "HTTP 401: the credential is refused"},
	} {
		url := application(t, answering(test.with), answering(test.without))
		got, err := probe(t, url)
		if got != test.want || (err == nil) != (test.reason == "") || err != nil && err.Error() != "verify.url "+url+": "+test.reason {
			t.Errorf("%d and %d: got %d, %v", test.with, test.without, got, err)
		}
	}
	// Whether that is so may not be found out.
	url := application(t, answering(200), func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	if got, err := probe(t, url); got != rotation.ProbeUnknown || err == nil ||
		!strings.HasSuffix(err.Error(), ": HTTP 200, but it is not known whether a request without a credential gets the same: no answer: the connection was closed") {
		t.Errorf("got %d, %v", got, err)
	}
}

// TestRedirectIsNotFollowed: neither on the same host, nor to another one.
func TestRedirectIsNotFollowed(t *testing.T) {
	trap := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("a redirect was followed to another host: %v", r.Header)
	}))
	defer trap.Close()
	requests := 0
	for _, target := range []string{trap.URL + "/login?kid=" + clientID, "/elsewhere", "?again", trap.URL, ":bad"} {
		for _, status := range []int{301, 302, 303, 307, 308} {
			requests = 0
			url := application(t, func(w http.ResponseWriter, r *http.Request) {
				requests++
				if r.URL.Path != "/health" {
					t.Errorf("a redirect was followed to %s", r.URL)
				}
				w.Header().Set("Location", target)
				w.Header().Set("Set-Cookie", "CF_AppSession=1; Path=/")
				w.WriteHeader(status)
			}, answering(500))
			got, err := probe(t, url+"/health")
			if got != rotation.ProbeUnknown || err == nil || requests != 1 || strings.Contains(err.Error(), "kid") {
				t.Errorf("%d to %s: got %d, %v with %d requests", status, target, got, err, requests)
			}
		}
	}
}

// TestSimulator holds the verdicts about secrets of every age at the simulated application.
func TestSimulator(t *testing.T) {
	sim := cfsim.New(cfsim.Options{Seed: 1, SeedTokens: 2})
	server := httptest.NewServer(sim)
	defer server.Close()
	one, two := cfsim.SeedTokenID(1), cfsim.SeedTokenID(2)
	token, _ := sim.Token(one)
	try := func(path string, v secret.Value) (rotation.Probe, error) {
		return prober(server.URL+path).Probe(t.Context(), rotation.Credential{ClientID: token.ClientID, ClientSecret: v})
	}
	good := sim.Secrets(one)[0].Value
	for _, test := range []struct {
		path string
		v    secret.Value
		want rotation.Probe
	}{
		{"/app/", good, rotation.ProbeGood},
		{"/app/" + one + "/health?a=b", good, rotation.ProbeGood},
		{"/app/" + two, good, rotation.ProbeGood}, // 403
		{"/app/", sim.Secrets(two)[0].Value, rotation.ProbeBad},
		{"/app/" + two, secret.New("wrong"), rotation.ProbeBad},
		{"/elsewhere", good, rotation.ProbeUnknown}, // 404
	} {
		if got, err := try(test.path, test.v); got != test.want || (err == nil) != (got == rotation.ProbeGood) {
			t.Errorf("%s: got %d, %v; want %d", test.path, got, err, test.want)
		}
	}
	if err := sim.Inject(cfsim.Fault{Operation: cfsim.OpApp, Status: 503}); err != nil {
		t.Fatal(err)
	}
	if got, err := try("/app/", good); got != rotation.ProbeUnknown || err == nil {
		t.Errorf("an application that fails: got %d, %v", got, err)
	}
	sim.SetBehaviour(cfsim.Behaviour{LoginRedirect: true})
	if got, err := try("/app/", good); got != rotation.ProbeGood || err != nil {
		t.Errorf("in an older organisation: got %d, %v", got, err)
	}
	for path, v := range map[string]secret.Value{"/app/": secret.New("wrong"), "/app/" + two: good} {
		if got, err := try(path, v); got != rotation.ProbeUnknown || err == nil || !strings.Contains(err.Error(), "strict service-token authentication") {
			t.Errorf("in an older organisation, %s: got %d, %v", path, got, err)
		}
	}
}

// TestOneHeader holds the form that read_service_tokens_from_header takes, whatever the
// credential is made of, and that the usual headers are not sent beside it.
func TestOneHeader(t *testing.T) {
	for _, header := range []string{"Authorization", "x-service-token"} {
		for _, value := range []string{canary, `quote" and \ and <&>`} {
			requests := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests++
				if r.Header.Get("CF-Access-Client-Id") != "" || r.Header.Get("CF-Access-Client-Secret") != "" {
					t.Errorf("the usual headers are sent as well")
				}
				if r.Header.Get(header) == "" {
					w.WriteHeader(401)
					return
				}
				var got map[string]string
				if err := json.Unmarshal([]byte(r.Header.Get(header)), &got); err != nil || len(got) != 2 ||
					got["cf-access-client-id"] != clientID || got["cf-access-client-secret"] != value {
					t.Errorf("%s: %q", header, r.Header.Get(header))
				}
			}))
			p := access.New(access.Options{}).Prober("ci", config.Verify{URL: server.URL, Header: header})
			got, err := p.Probe(t.Context(), rotation.Credential{ClientID: clientID, ClientSecret: secret.New(value)})
			if got != rotation.ProbeGood || err != nil || requests != 2 {
				t.Errorf("%s: got %d, %v with %d requests", header, got, err, requests)
			}
			server.Close()
		}
	}
}

// TestNothingToTry: a credential that is not whole, or that no header can carry, is not sent.
func TestNothingToTry(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("it was sent: %v", r.Header) }))
	defer server.Close()
	for _, c := range []rotation.Credential{
		{}, {ClientID: clientID}, {ClientSecret: secret.New(canary)},
		{ClientID: clientID, ClientSecret: secret.New(canary + "\r\nX-Injected: yes")},
		{ClientID: clientID + "\x00", ClientSecret: secret.New(canary)}, {ClientID: clientID, ClientSecret: secret.New(canary + "ä")},
	} {
		if got, err := prober(server.URL).Probe(t.Context(), c); got != rotation.ProbeUnknown || err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("got %d, %v", got, err)
		}
	}
}

// TestIPv6 holds that an address in brackets is reached, and shown as it was written.
func TestIPv6(t *testing.T) {
	listener, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skipf("this host has no IPv6: %v", err)
	}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: answering(401)}}
	server.Start()
	defer server.Close()
	url := "http://" + listener.Addr().String()
	if got, err := probe(t, url+"/health"); got != rotation.ProbeBad || err == nil || !strings.Contains(err.Error(), url+"/health: HTTP 401") {
		t.Errorf("got %d, %v", got, err)
	}
}

// TestLog holds that a credential which is good but not authorised is told from one that is.
func TestLog(t *testing.T) {
	status := 0
	url := application(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }, answering(401))
	var log safeBuffer
	p := access.New(access.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}).Prober("ci", config.Verify{URL: url + "/h?q=private"})
	for _, status = range []int{200, 401, 403} {
		_, _ = p.Probe(t.Context(), credential)
	}
	got := log.String()
	if strings.Count(got, "\n") != 1 || !strings.Contains(got, `level=INFO msg="the credential is valid, and not authorised at verify.url" token=ci url=`+url+"/h status=403") {
		t.Errorf("%s", got)
	}
}

// safeBuffer is a buffer that several may write to.
type safeBuffer struct {
	mu sync.Mutex
	strings.Builder
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Builder.Write(p)
}

// TestConnections holds that none is kept, and that a credential has one of its own.
func TestConnections(t *testing.T) {
	var opened atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "" {
			t.Errorf("a body that grows was asked for: %v", r.Header)
		}
		if r.Header.Get("CF-Access-Client-Id") == "" {
			w.WriteHeader(401)
		}
		fmt.Fprint(w, "an answer after which a connection could be used again")
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	p := prober(server.URL)
	for range 3 {
		if got, err := p.Probe(t.Context(), credential); got != rotation.ProbeGood {
			t.Fatalf("got %d, %v", got, err)
		}
	}
	if n := opened.Load(); n != 4 {
		t.Errorf("%d connections for three requests with a credential and one without", n)
	}
}
