package cloudflare_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rotatord/internal/cloudflare"
	"rotatord/internal/config"
	"rotatord/internal/rotation"
)

const (
	accountID = "023e105f4ecef8ad9ca31a8372d0c353"
	tokenID   = "f174e90a-fafe-4643-bbbc-4a0ed4fc8415"
	apiToken  = "cloudflare-api-token-CANARY"
	canary    = "cfast_CANARYcanaryCANARYcanaryCANARYcanary0123deadbeef"
	goodBody  = `{"success":true,"errors":[],"messages":[],"result":{"id":"` + tokenID + `","client_id":"x.access","client_secret":"` + canary +
		`","name":"ci","updated_at":"2026-11-23T04:00:00.12345Z","expires_at":null}}`
)

func secretFile(t *testing.T, content string) config.SecretSource {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(content+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return config.SecretSource{File: path}
}

func client(t *testing.T, baseURL string, o cloudflare.Options) *cloudflare.Client {
	t.Helper()
	return cloudflare.New(config.Account{
		Name: "prod", AccountID: accountID, APIToken: secretFile(t, apiToken), BaseURL: baseURL, RequestsPer5m: 1000,
	}, o)
}

// serve starts a server and counts what reaches it.
func serve(t *testing.T, h http.HandlerFunc) (url string, requests *atomic.Int64) {
	t.Helper()
	requests = new(atomic.Int64)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		h(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL + "/client/v4", requests
}

func answer(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func hangUp(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }

func cutOff(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", fmt.Sprint(len(goodBody)))
	_, _ = io.WriteString(w, goodBody[:20])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

// TestRotateFailuresAreClassified: each failure has its class, is sent once, and reveals nothing that it must
// not.
func TestRotateFailuresAreClassified(t *testing.T) {
	const asJSON, part = "application/json", canary + "x" // not a complete secret: that would be kept
	refusal := `{"success":false,"errors":[{"code":10000,"message":"Authentication error"}],"messages":[],"result":null}`
	for name, test := range map[string]struct {
		handler  http.HandlerFunc
		class    rotation.Class
		code     int
		requests int64
		want     string
	}{
		"hung up":             {hangUp, rotation.Unknown, 0, 1, "no answer came"},
		"cut off":             {cutOff, rotation.Unknown, 0, 1, "the answer was cut off"},
		"500":                 {answer(500, asJSON, refusal), rotation.Unknown, 0, 1, "HTTP 500"},
		"502 from a proxy":    {answer(502, "text/html", "<html>"+part), rotation.Unknown, 0, 1, "HTTP 502"},
		"408":                 {answer(408, asJSON, refusal), rotation.Unknown, 0, 1, "HTTP 408"},
		"409":                 {answer(409, asJSON, refusal), rotation.Refused, 10000, 1, "code 10000"},
		"403":                 {answer(403, asJSON, refusal), rotation.Refused, 10000, 1, "Authentication error"},
		"403 from a proxy":    {answer(403, "text/html", "<html>no</html>"), rotation.Refused, 0, 1, "Forbidden"},
		"error with a secret": {answer(400, asJSON, strings.Replace(refusal, "Authentication error", part, 1)), rotation.Refused, 10000, 1, "[redacted]"},
		"redirect":            {answer(307, asJSON, ""), rotation.Unknown, 0, 1, "HTTP 307"},
		"success false":       {answer(200, asJSON, refusal), rotation.Unknown, 0, 1, "success: false (code 10000: Authentication error)"},
		"not JSON":            {answer(200, "text/html", "<html>"+part), rotation.Unknown, 0, 1, "the answer is not from Cloudflare's API: text/html, no CF-Ray: a proxy, a captive portal or a login page answered"},
		"empty":               {answer(200, asJSON, ""), rotation.Unknown, 0, 1, "the answer is not from Cloudflare's API: an empty body"},
	} {
		t.Run(name, func(t *testing.T) {
			url, requests := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if name == "redirect" {
					w.Header().Set("Location", r.URL.String())
				}
				test.handler(w, r)
			})
			_, err := client(t, url, cloudflare.Options{}).Rotate(t.Context(), rotation.RotateRequest{TokenID: tokenID})
			e, ok := errors.AsType[*rotation.IssuerError](err)
			if !ok {
				t.Fatalf("error %v", err)
			}
			if e.Class != test.class || e.Code != test.code || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v (class %s, code %d), want class %s, code %d and %q", err, e.Class, e.Code, test.class, test.code, test.want)
			}
			if strings.Contains(err.Error(), "CANARY") {
				t.Errorf("the error contains a secret: %v", err)
			}
			if requests.Load() != test.requests {
				t.Errorf("%d requests, want %d", requests.Load(), test.requests)
			}
		})
	}
}

func TestNotCarriedOutNeedsNoConnection(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	good, requests := serve(t, answer(200, "application/json", goodBody))
	for name, test := range map[string]struct {
		ctx context.Context
		url string
	}{
		"refused connection": {t.Context(), "http://127.0.0.1:1"}, // a port without a server
		"no TLS there":       {t.Context(), strings.Replace(plain.URL, "http:", "https:", 1)},
		"context had ended":  {cancelled, good},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := client(t, test.url, cloudflare.Options{}).Rotate(test.ctx, rotation.RotateRequest{TokenID: tokenID})
			if e, ok := errors.AsType[*rotation.IssuerError](err); !ok || e.Class != rotation.NotCarriedOut {
				t.Errorf("%v", err)
			}
		})
	}
	c := cloudflare.New(config.Account{Name: "prod", AccountID: accountID, BaseURL: good, RequestsPer5m: 10,
		APIToken: config.SecretSource{File: filepath.Join(t.TempDir(), "absent")}}, cloudflare.Options{})
	for _, err := range []error{c.Ready(t.Context()), func() error {
		_, err := c.Rotate(t.Context(), rotation.RotateRequest{TokenID: tokenID})
		return err
	}()} {
		if e, ok := errors.AsType[*rotation.IssuerError](err); !ok || e.Class != rotation.NotCarriedOut || !strings.Contains(err.Error(), "accounts.prod.api_token") {
			t.Errorf("without a credential: %v", err)
		}
	}
	if requests.Load() != 0 {
		t.Errorf("%d requests were sent", requests.Load())
	}
}

// TestSlowAnswer: if the deadline passes before the answer arrives, the result is a doubt.
func TestSlowAnswer(t *testing.T) {
	release := make(chan struct{})
	url, _ := serve(t, func(http.ResponseWriter, *http.Request) { <-release })
	t.Cleanup(func() { close(release) })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := client(t, url, cloudflare.Options{}).Rotate(ctx, rotation.RotateRequest{TokenID: tokenID})
	if e, ok := errors.AsType[*rotation.IssuerError](err); !ok || e.Class != rotation.Unknown {
		t.Errorf("%v", err)
	}
}

// lateCancel ends the caller's context when the whole answer has arrived.
type lateCancel struct {
	next   http.RoundTripper
	cancel context.CancelFunc
}

func (l lateCancel) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := l.next.RoundTrip(r)
	if err == nil {
		b, _ := io.ReadAll(res.Body)
		res.Body = io.NopCloser(strings.NewReader(string(b)))
		l.cancel()
	}
	return res, err
}

// TestAnswerThatArrivedIsKept: if the deadline passes after the answer has arrived, the SDK returns only the
// context's error. The secret must still be returned.
func TestAnswerThatArrivedIsKept(t *testing.T) {
	url, _ := serve(t, answer(200, "application/json", goodBody))
	ctx, cancel := context.WithCancel(t.Context())
	c := client(t, url, cloudflare.Options{WrapTransport: func(rt http.RoundTripper) http.RoundTripper { return lateCancel{rt, cancel} }})
	issued, err := c.Rotate(ctx, rotation.RotateRequest{TokenID: tokenID})
	if err != nil || issued.ClientSecret.Reveal() != canary || ctx.Err() == nil {
		t.Errorf("%v, %v", issued, err)
	}
}

// TestAnswerWithAnOddFieldIsKept: a field that cannot be read does not lose the secret.
func TestAnswerWithAnOddFieldIsKept(t *testing.T) {
	odd := strings.Replace(goodBody, `"name":"ci"`, `"name":7,"enabled":"yes","last_seen_at":{}`, 1)
	for _, contentType := range []string{"application/json", "text/plain", ""} {
		url, _ := serve(t, answer(200, contentType, odd))
		issued, err := client(t, url, cloudflare.Options{}).Rotate(t.Context(), rotation.RotateRequest{TokenID: tokenID})
		if err != nil || issued.ClientSecret.Reveal() != canary || issued.ClientID != "x.access" {
			t.Errorf("content type %q: %+v, %v", contentType, issued, err)
		}
	}
}

// TestCutAnswerIsSalvaged cuts an answer after each of its bytes. The secret is returned exactly if all of it
// had arrived, and never a part of it.
func TestCutAnswerIsSalvaged(t *testing.T) {
	whole := strings.Index(goodBody, canary) + len(canary)
	for n := range len(goodBody) {
		url, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(goodBody)))
			_, _ = io.WriteString(w, goodBody[:n])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		})
		issued, err := client(t, url, cloudflare.Options{}).Rotate(t.Context(), rotation.RotateRequest{TokenID: tokenID})
		if e, ok := errors.AsType[*rotation.IssuerError](err); n < whole && (!ok || e.Class != rotation.Unknown || !issued.ClientSecret.IsZero()) {
			t.Errorf("cut after %d bytes: %v, %v", n, issued, err)
		}
		// Right after the secret, nothing has shown yet that it is over.
		if n >= whole && (err != nil || issued.ClientSecret.Reveal() != canary || issued.ClientID != "x.access" || (issued.Objection != "") != (n == whole)) {
			t.Errorf("cut after %d bytes, with the secret in them: %v, %v", n, issued, err)
		}
	}
}

func TestRotateRequest(t *testing.T) {
	cloudflareClock := time.Now().Add(90 * time.Second) // it is ahead of ours
	type request struct{ method, path, authorization, email, key, body string }
	var seen []request
	url, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		seen = append(seen, request{r.Method, r.URL.Path, r.Header.Get("Authorization"), r.Header.Get("X-Auth-Email"), r.Header.Get("X-Auth-Key"), string(b)})
		w.Header().Set("Date", cloudflareClock.UTC().Format(http.TimeFormat))
		answer(200, "application/json", goodBody)(w, r)
	})
	c := client(t, url, cloudflare.Options{})
	issued, err := c.Rotate(t.Context(), rotation.RotateRequest{TokenID: tokenID})
	if err != nil {
		t.Fatal(err)
	}
	if !issued.GraceEndsAt.IsZero() || strings.Contains(seen[0].body, "previous") {
		t.Errorf("without grace the request is %q", seen[0].body)
	}
	want := request{"POST", "/client/v4/accounts/" + accountID + "/access/service_tokens/" + tokenID + "/rotate", "Bearer " + apiToken, "", "", seen[0].body}
	if seen[0] != want {
		t.Errorf("%+v", seen[0])
	}
	if f := issued.Facts; f.ID != tokenID || !f.UpdatedAt.Equal(time.Date(2026, 11, 23, 4, 0, 0, 123450000, time.UTC)) || !f.ExpiresAt.IsZero() {
		t.Errorf("facts %+v", f)
	}

	// Now the clock is known, and the grace is counted on it, because it is the later one.
	if err := c.ReadClock(t.Context()); err != nil {
		t.Fatal(err)
	}
	seen = seen[:1]
	issued, err = c.Rotate(t.Context(), rotation.RotateRequest{TokenID: tokenID, Grace: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	var body struct {
		At time.Time `json:"previous_client_secret_expires_at"`
	}
	if err := json.Unmarshal([]byte(seen[1].body), &body); err != nil {
		t.Fatal(err)
	}
	if grace := body.At.Sub(cloudflareClock); grace < time.Hour || grace > time.Hour+3*time.Second {
		t.Errorf("on Cloudflare's clock the grace is %s, want an hour and hardly more", grace)
	}
	if local := time.Until(issued.GraceEndsAt); local < 59*time.Minute+55*time.Second || local > time.Hour+3*time.Second {
		t.Errorf("on our clock the grace ends in %s", local)
	}

	c = cloudflare.New(config.Account{Name: "old", AccountID: accountID, APIEmail: "ops@example.com", APIKey: secretFile(t, "key"), BaseURL: url, RequestsPer5m: 10}, cloudflare.Options{})
	if _, err := c.Rotate(t.Context(), rotation.RotateRequest{TokenID: tokenID}); err != nil {
		t.Fatal(err)
	}
	if last := seen[2]; last.email != "ops@example.com" || last.key != "key" || last.authorization != "" {
		t.Errorf("with e-mail and key: %+v", last)
	}
}

// TestCredentialIsReadAgain: a replaced file is used without a restart.
func TestCredentialIsReadAgain(t *testing.T) {
	var seen []string
	url, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Header.Get("Authorization"))
		answer(200, "application/json", goodBody)(w, r)
	})
	source := secretFile(t, "first")
	c := cloudflare.New(config.Account{Name: "prod", AccountID: accountID, APIToken: source, BaseURL: url, RequestsPer5m: 10}, cloudflare.Options{})
	for _, token := range []string{"first", "second"} {
		if err := os.WriteFile(source.File, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Inspect(t.Context(), tokenID); err != nil {
			t.Fatal(err)
		}
	}
	if fmt.Sprint(seen) != "[Bearer first Bearer second]" {
		t.Error(seen)
	}
}

// told records what the observer is told.
type told struct {
	mu        sync.Mutex
	requests  map[string]int
	remaining int
	throttled time.Duration
	skew      time.Duration
}

func (o *told) CloudflareRequest(operation, code string, _ time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.requests == nil {
		o.requests = map[string]int{}
	}
	o.requests[operation+" "+code]++
}
func (o *told) CloudflareBudget(_ string, remaining int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.remaining = remaining
}
func (o *told) CloudflareThrottled(_ string, d time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.throttled += d
}
func (o *told) CloudflareSkew(d time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.skew = d
}

func TestThrottledAccountIsLeftAlone(t *testing.T) {
	for name, test := range map[string]struct {
		header string
		want   time.Duration
	}{"seconds": {"7", 7 * time.Second}, "absurd": {"10000000000", time.Hour}, "negative": {"-3", 5 * time.Minute}, "date": {"date", 30 * time.Second}, "nothing": {"", 5 * time.Minute}} {
		t.Run(name, func(t *testing.T) {
			url, requests := serve(t, func(w http.ResponseWriter, r *http.Request) {
				now := time.Now().UTC().Truncate(time.Second)
				w.Header().Set("Date", now.Format(http.TimeFormat))
				w.Header().Set("Ratelimit", `"default";r=0;t=3`)
				switch test.header {
				case "date":
					w.Header().Set("Retry-After", now.Add(30*time.Second).Format(http.TimeFormat))
				case "":
				default:
					w.Header().Set("Retry-After", test.header)
				}
				answer(429, "application/json", `{"success":false,"errors":[{"code":971,"message":"slow down"}],"result":null}`)(w, r)
			})
			var o told
			c := client(t, url, cloudflare.Options{Observer: &o})
			_, err := c.Rotate(t.Context(), rotation.RotateRequest{TokenID: tokenID})
			e, ok := errors.AsType[*rotation.IssuerError](err)
			if !ok || e.Class != rotation.Throttled || e.RetryAfter != test.want || e.Code != 971 {
				t.Fatalf("%v", err)
			}
			// From now on, nothing is sent at all.
			for _, err := range []error{c.Ready(t.Context()), func() error { _, err := c.Inspect(t.Context(), tokenID); return err }()} {
				e, ok := errors.AsType[*rotation.IssuerError](err)
				if !ok || e.Class != rotation.Throttled || e.RetryAfter > test.want || e.RetryAfter < test.want-5*time.Second {
					t.Errorf("afterwards: %v", err)
				}
			}
			if requests.Load() != 1 {
				t.Errorf("%d requests", requests.Load())
			}
			if o.requests["rotate 429"] != 1 || o.throttled != test.want || o.remaining != 0 {
				t.Errorf("the observer was told %+v", &o)
			}
		})
	}
}

// TestReadyRefusesAWrongClock: slots mean nothing on a clock that is far from Cloudflare's.
func TestReadyRefusesAWrongClock(t *testing.T) {
	for _, test := range []struct {
		ahead   time.Duration
		refused bool
	}{{0, false}, {14 * time.Minute, false}, {-14 * time.Minute, false}, {16 * time.Minute, true}, {-16 * time.Minute, true}, {-87600 * time.Hour, true}} {
		url, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Date", time.Now().Add(test.ahead).UTC().Format(http.TimeFormat))
			answer(200, "application/json", `{"success":true,"errors":[],"messages":[],"result":[]}`)(w, r)
		})
		err := client(t, url, cloudflare.Options{}).Ready(t.Context())
		if refused := errors.Is(err, rotation.ErrClock); refused != test.refused || !refused && err != nil {
			t.Errorf("Cloudflare's clock is %s ahead: %v", test.ahead, err)
		}
		if e, ok := errors.AsType[*rotation.IssuerError](err); test.refused && (!ok || e.Class != rotation.NotCarriedOut) {
			t.Errorf("%#v", err)
		}
	}
}
