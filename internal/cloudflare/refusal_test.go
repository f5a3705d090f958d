package cloudflare_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/cloudflare"
	"rotatord/internal/rotation"
)

// refuser is a Cloudflare that answers 429, or the status that is set, with these headers and this body.
type refuser struct {
	status     func(n int) int // of the n-th request, counted from 1; nil: 429
	retryAfter []string
	body       string
	requests   int
}

func (r *refuser) RoundTrip(req *http.Request) (*http.Response, error) {
	r.requests++
	status, h := http.StatusTooManyRequests, http.Header{"Date": {time.Now().UTC().Format(http.TimeFormat)}}
	if r.status != nil {
		status = r.status(r.requests)
	}
	body := `{"success":true,"errors":[],"messages":[],"result":[]}`
	if status == http.StatusTooManyRequests {
		h["Retry-After"], body = r.retryAfter, r.body
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), Request: req}, nil
}

func (r *refuser) client(t *testing.T, o *told) *cloudflare.Client {
	return client(t, "http://cloudflare.test/client/v4", cloudflare.Options{Observer: o,
		WrapTransport: func(http.RoundTripper) http.RoundTripper { return r }})
}

// TestRefusedForEver: a server that refuses every request, and names no time to wait or a time in the past,
// is asked less and less often, whatever the operation. The wait is counted.
func TestRefusedForEver(t *testing.T) {
	past := time.Date(1999, 12, 31, 0, 0, 0, 0, time.UTC).Format(http.TimeFormat)
	for name, r := range map[string]refuser{
		"zero": {retryAfter: []string{"0"}}, "a past date": {retryAfter: []string{past}}, "none": {}, "one second": {retryAfter: []string{"1"}},
		"a fraction": {retryAfter: []string{"0.001"}}, "negative": {retryAfter: []string{"-1"}}, "not a number": {retryAfter: []string{"soon"}},
		"NaN": {retryAfter: []string{"NaN"}}, "empty": {retryAfter: []string{""}}, "zero in the body": {body: `{"retry_after":0}`},
		"one second in the body": {body: `{"retry_after":"1"}`}, "a list as body": {retryAfter: []string{"0"}, body: `[1]`},
	} {
		for operation, call := range everyCall {
			if testing.Short() && name != "zero" && operation != "Rotate" {
				continue
			}
			t.Run(name+"/"+operation, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					r, o := r, &told{}
					c := r.client(t, o)
					start := time.Now()
					for time.Since(start) < 30*time.Minute {
						err := call(t.Context(), c, tokenID)
						if err == nil && (operation == "Ready" || operation == "ReadClock") { // it sends nothing once the clock is known
							err = everyCall["Rotate"](t.Context(), c, tokenID)
						}
						e, ok := errors.AsType[*rotation.IssuerError](err)
						if !ok || e.Class != rotation.Throttled || e.RetryAfter < time.Second {
							t.Fatalf("after %s: %v", time.Since(start), err)
						}
						time.Sleep(e.RetryAfter)
					}
					if r.requests > 13 {
						t.Errorf("%d requests in 30 minutes", r.requests)
					}
					if least := 29 * time.Minute; o.throttled < least || o.throttled > time.Since(start) {
						t.Errorf("%s of %s were counted as throttled", o.throttled, time.Since(start))
					}
				})
			})
		}
	}
}

// TestRefusedNowAndThen: a refusal that names a time is obeyed to the second. The next refusal after a
// success counts as the first one again. A refusal without a time is not forgotten at once.
func TestRefusedNowAndThen(t *testing.T) {
	everySecond := func(n int) int {
		if n%2 == 0 {
			return http.StatusOK
		}
		return http.StatusTooManyRequests
	}
	for retryAfter, want := range map[string][]time.Duration{
		"7": {7 * time.Second, 7 * time.Second, 7 * time.Second},
		"0": {5 * time.Second, 10 * time.Second, 20 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := refuser{status: everySecond, retryAfter: []string{retryAfter}}
			c := r.client(t, &told{})
			for n, want := range want {
				_, err := c.List(t.Context())
				if e, ok := errors.AsType[*rotation.IssuerError](err); !ok || e.RetryAfter != want {
					t.Errorf("refusal %d with Retry-After %s: %v, want a wait of %s", n+1, retryAfter, err, want)
				}
				time.Sleep(want)
				if _, err := c.List(t.Context()); err != nil {
					t.Error(err)
				}
			}
			time.Sleep(10 * time.Minute) // now it is
			_, err := c.List(t.Context())
			if e, ok := errors.AsType[*rotation.IssuerError](err); !ok || e.RetryAfter != want[0] {
				t.Errorf("after a while: %v", err)
			}
		})
	}
}

// TestRefusedTogether: if requests that were in progress together are refused, they count as one refusal, and
// the wait is counted once.
func TestRefusedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, o := &refuser{retryAfter: []string{"0"}}, &told{}
		slow := client(t, "http://cloudflare.test/client/v4", cloudflare.Options{Observer: o,
			WrapTransport: func(http.RoundTripper) http.RoundTripper { return slowly{r, new(sync.Mutex)} }})
		errs := make(chan error)
		for range 16 {
			go func() {
				_, err := slow.Rotate(t.Context(), rotation.RotateRequest{TokenID: tokenID})
				errs <- err
			}()
		}
		for range 16 {
			if e, ok := errors.AsType[*rotation.IssuerError](<-errs); !ok || e.RetryAfter != 5*time.Second {
				t.Errorf("%v", e)
			}
		}
		if o.throttled != 5*time.Second {
			t.Errorf("%s were counted", o.throttled)
		}
	})
}

// slowly takes a second, and may be used by several callers at once.
type slowly struct {
	*refuser
	mu *sync.Mutex
}

func (s slowly) RoundTrip(req *http.Request) (*http.Response, error) {
	time.Sleep(time.Second)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refuser.RoundTrip(req)
}

// TestRetryAfterIsRead in every form and place.
func TestRetryAfterIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, test := range []struct {
			header []string
			body   string
			want   time.Duration
		}{
			{[]string{"12"}, "", 12 * time.Second},
			{[]string{" 12 "}, "", 12 * time.Second},
			{[]string{"11.2"}, "", 12 * time.Second},
			{[]string{"3", "12"}, "", 12 * time.Second},
			{[]string{time.Now().Add(12 * time.Second).UTC().Format(http.TimeFormat)}, "", 12 * time.Second},
			{[]string{"10000000000"}, "", time.Hour},
			{[]string{strings.Repeat("9", 400)}, "", time.Hour},
			{[]string{time.Now().AddDate(100, 0, 0).UTC().Format(http.TimeFormat)}, "", time.Hour},
			{nil, `{"retry_after":12}`, 12 * time.Second},
			{nil, `{"retry_after":11.5}`, 12 * time.Second},
			{nil, `{"retry_after":"12"}`, 12 * time.Second},
			{nil, `{"errors":[{"code":971,"retry_after":12}]}`, 12 * time.Second},
			{nil, `{"errors":"none","retry_after":12}`, 12 * time.Second},
			{nil, `{"errors":[null,7],"retry_after":"12"}`, 12 * time.Second},
			{[]string{"0"}, `{"retry_after":12}`, 12 * time.Second},
			{[]string{"12"}, `{"retry_after":3}`, 12 * time.Second},
			{[]string{"soon"}, `{"retry_after":12}`, 12 * time.Second},
			{nil, `{"retry_after":-12}`, 5 * time.Minute},
			{nil, `{"retry_after":null}`, 5 * time.Minute},
			{nil, `{"retry_after":[12]}`, 5 * time.Minute},
			{nil, `{"retry_after":`, 5 * time.Minute},
			{nil, `<html>1015</html>`, 5 * time.Minute},
			{[]string{"-12"}, "", 5 * time.Minute},
			{[]string{"0"}, "", 5 * time.Second},
			{[]string{"-0"}, "", 5 * time.Second},
		} {
			r := &refuser{retryAfter: test.header, body: test.body}
			_, err := r.client(t, &told{}).Rotate(context.Background(), rotation.RotateRequest{TokenID: tokenID})
			if e, ok := errors.AsType[*rotation.IssuerError](err); !ok || e.Class != rotation.Throttled || e.RetryAfter != test.want {
				t.Errorf("%q and %s: %v, want a wait of %s", test.header, test.body, err, test.want)
			}
		}
	})
}
