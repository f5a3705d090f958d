package cfsim_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/secret"
)

var epoch = time.Date(2026, 11, 2, 4, 0, 0, 0, time.UTC)

const otherAccount = "ffffffffffffffffffffffffffffffff"

// clock is a hand-driven clock.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// rig is a simulator behind a real server.
type rig struct {
	*testing.T
	sim   *cfsim.Simulator
	clock *clock
	url   string
	http  *http.Client
}

func newRig(t *testing.T, o cfsim.Options) *rig {
	t.Helper()
	c := &clock{now: epoch}
	if o.Now == nil {
		o.Now = c.Now
	}
	return serveRig(t, cfsim.New(o), c)
}

func serveRig(t *testing.T, sim *cfsim.Simulator, c *clock) *rig {
	t.Helper()
	r := &rig{T: t, sim: sim, clock: c}
	server := httptest.NewServer(r.sim.Handler())
	t.Cleanup(server.Close)
	r.url, r.http = server.URL, server.Client()
	r.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return r
}

// answer is an answer of the API.
type answer struct {
	status  int
	header  http.Header
	raw     string
	err     error // from connecting or from reading the body
	Success bool
	Errors  []struct {
		Code    int
		Message string
		Source  struct{ Pointer string }
	}
	Messages []any
	Result   json.RawMessage
	Info     struct {
		Count      int
		Page       int
		PerPage    int `json:"per_page"`
		TotalCount int `json:"total_count"`
		TotalPages int `json:"total_pages"`
	} `json:"result_info"`
}

// result is a service token in an answer.
type result struct {
	ID, Name, Duration string
	ClientID           string `json:"client_id"`
	ClientSecret       string `json:"client_secret"`
	Enabled            bool
	CreatedAt          string `json:"created_at"`
	UpdatedAt          string `json:"updated_at"`
	ExpiresAt          string `json:"expires_at"`
	LastSeenAt         string `json:"last_seen_at"`
}

func (a answer) token(t testing.TB) result {
	t.Helper()
	var r result
	if err := json.Unmarshal(a.Result, &r); err != nil || r.ID == "" {
		t.Fatalf("no service token in the answer: status %d, %v, errors %v", a.status, err, a.Errors)
	}
	return r
}

func (a answer) code() int {
	if len(a.Errors) == 0 {
		return 0
	}
	return a.Errors[0].Code
}

// send sends a request with the given headers, as name, value, name, value.
func (r *rig) send(method, path, body string, headers ...string) answer {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	return answer{status: resp.StatusCode, header: resp.Header, raw: string(raw), err: err}
}

// api sends an authenticated request and reads the envelope.
func (r *rig) api(method, path, body string) answer {
	r.Helper()
	return r.envelope(r.send(method, "/client/v4"+path, body, "Authorization", "Bearer test-token", "Content-Type", "application/json"))
}

// envelope reads an answer of the API and checks what holds for all of them.
func (r *rig) envelope(a answer) answer {
	r.Helper()
	if a.err != nil {
		r.Fatal(a.err)
	}
	if err := json.Unmarshal([]byte(a.raw), &a); err != nil {
		r.Fatalf("status %d: %v", a.status, err)
	}
	for _, field := range []string{`"success":`, `"errors":[`, `"messages":[`, `"result":`} {
		if !strings.Contains(a.raw, field) {
			r.Errorf("the envelope has no %s", field)
		}
	}
	if a.Success != (a.status < 300) || a.Success != (len(a.Errors) == 0) {
		r.Errorf("status %d with success %v and errors %v", a.status, a.Success, a.Errors)
	}
	if !a.Success && string(a.Result) != "null" {
		r.Errorf("a failure with a result: %s", a.Result)
	}
	for _, name := range []string{"Date", "Ratelimit", "Ratelimit-Policy"} {
		if a.header.Get(name) == "" {
			r.Errorf("status %d without a %s header", a.status, name)
		}
	}
	return a
}

const tokensPath = "/accounts/" + cfsim.DefaultAccountID + "/access/service_tokens"

func (r *rig) rotate(id, body string) answer {
	r.Helper()
	return r.api("POST", tokensPath+"/"+id+"/rotate", body)
}

// rotated rotates with a grace period and returns the new secret.
func (r *rig) rotated(id string, grace time.Duration) secret.Value {
	r.Helper()
	body := ""
	if grace > 0 {
		body = `{"previous_client_secret_expires_at":"` + r.clock.Now().Add(grace).Format(time.RFC3339Nano) + `"}`
	}
	a := r.rotate(id, body)
	if a.status != 200 {
		r.Fatalf("rotate: status %d, %v", a.status, a.Errors)
	}
	return secret.New(a.token(r).ClientSecret)
}

// get returns the token as the API shows it.
func (r *rig) get(id string) result {
	r.Helper()
	return r.api("GET", tokensPath+"/"+id, "").token(r)
}

// use sends a request to the application, and returns the status and which secret
// was used.
func (r *rig) use(path, clientID string, v secret.Value) (int, string) {
	r.Helper()
	a := r.send("GET", path, "", "CF-Access-Client-Id", clientID, "CF-Access-Client-Secret", v.Reveal())
	if a.err != nil {
		r.Fatal(a.err)
	}
	var body struct{ Secret string }
	if err := json.Unmarshal([]byte(a.raw), &body); err != nil {
		r.Fatalf("the application answered %d with %q", a.status, a.raw)
	}
	return a.status, body.Secret
}

// wantUse checks what the application does with a secret.
func (r *rig) wantUse(id string, v secret.Value, status int, which string) {
	r.Helper()
	token, ok := r.sim.Token(id)
	if !ok {
		r.Fatalf("no token %s", id)
	}
	if gotStatus, got := r.use("/app/", token.ClientID, v); gotStatus != status || got != which {
		r.Errorf("the application answered %d %q, want %d %q", gotStatus, got, status, which)
	}
}

// first returns the secret that a token was created with.
func (r *rig) first(id string) secret.Value {
	r.Helper()
	all := r.sim.Secrets(id)
	if len(all) == 0 {
		r.Fatalf("no secrets of %s", id)
	}
	return all[0].Value
}

var secretShape = regexp.MustCompile(`^cfast_[A-Za-z0-9]{40}[0-9a-f]{8}$`)

// testSecret is a credential that no test sends.
var testSecret = secret.New("nobody-sends-this")
