package cloudflare

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cloudflare/cloudflare-go/v7/option"
	"github.com/cloudflare/cloudflare-go/v7/zero_trust"

	"rotatord/internal/admission"
	"rotatord/internal/outbound"
	"rotatord/internal/printable"
	"rotatord/internal/rotation"
)

// maxBody is more than a page of the largest listing takes.
const maxBody = 8 << 20

// envelope is the outer object of every answer.
type envelope struct {
	Success    *truth          `json:"success"` // nil if the answer does not say
	Errors     apiErrors       `json:"errors"`
	Result     json.RawMessage `json:"result"`
	ResultInfo json.RawMessage `json:"result_info"` // only in listings
}

// truth is true for the word true, with or without quotation marks.
type truth bool

func (t *truth) UnmarshalJSON(b []byte) error {
	*t = truth(isTrue(strings.Trim(string(b), `"`)))
	return nil
}

// tokenResult is a service token as answers show it. The SDK's own types lack created_at, updated_at and
// last_seen_at. Client secrets are found in another way: see secrets.go.
type tokenResult struct {
	ID         string    `json:"id"`
	ClientID   string    `json:"client_id"`
	Name       *string   `json:"name"` // nil if the answer does not show one
	Enabled    *bool     `json:"enabled"`
	Duration   string    `json:"duration"`
	CreatedAt  timestamp `json:"created_at"`
	ExpiresAt  timestamp `json:"expires_at"`
	UpdatedAt  timestamp `json:"updated_at"`
	LastSeenAt timestamp `json:"last_seen_at"`
}

func (r tokenResult) facts() rotation.TokenFacts {
	name := ""
	if r.Name != nil {
		name = *r.Name
	}
	return rotation.TokenFacts{
		ID: r.ID, ClientID: r.ClientID, Name: name,
		Enabled:  r.Enabled == nil || *r.Enabled, // older answers do not show it
		Duration: r.Duration, CreatedAt: r.CreatedAt.past(),
		ExpiresAt: r.ExpiresAt.Time, UpdatedAt: r.UpdatedAt.past(), LastSeenAt: r.LastSeenAt.past(),
	}
}

// timestamp is a time that may be null, empty or absent. A time that cannot be read counts as absent, and is odd: a
// rotate answer must not be lost because of it.
type timestamp struct {
	time.Time
	odd bool
}

// UnmarshalJSON implements json.Unmarshaler. It never fails.
func (t *timestamp) UnmarshalJSON(b []byte) error {
	*t = timestamp{}
	parsed, err := time.Parse(`"`+time.RFC3339+`"`, string(b))
	if parsed = parsed.UTC(); err == nil && parsed.Year() >= 1 && parsed.Year() <= 9999 { // the ledger cannot store other years
		t.Time = parsed // zero where a server writes "never" as the year 1
	} else {
		t.odd = string(b) != "null" && string(b) != `""`
	}
	return nil
}

// past returns the time of something that has happened; zero if it cannot have happened. A time such as one
// in the year 9999 would be the latest forever, and would hide every later change.
func (t timestamp) past() time.Time {
	if !plausible(t.Time) {
		return time.Time{}
	}
	return t.Time
}

// plausible reports whether a clock, even a wrong one, may show this time.
func plausible(t time.Time) bool { return t.Year() >= 2000 && t.Year() < 2200 }

type sdkCall func(*zero_trust.AccessServiceTokenService, []option.RequestOption) error

// callToken sends one request whose answer is the service token that it names, and returns what the answer
// shows. An answer about no token or about another one is an error: it may come from a proxy.
func (c *Client) callToken(ctx context.Context, operation, tokenID string, do sdkCall) (rotation.TokenFacts, error) {
	answer, err := c.roundTrip(ctx, operation, c.read, do)
	if err != nil {
		return rotation.TokenFacts{}, err
	}
	var result tokenResult
	if err := decodeResult(operation, answer, &result); err != nil {
		return rotation.TokenFacts{}, err
	}
	if !strings.EqualFold(result.ID, tokenID) {
		shown := "about no service token"
		if result.ID != "" {
			shown = fmt.Sprintf("about the service token %q", printable.Line(result.ID, maxID))
		}
		return rotation.TokenFacts{}, unusable(operation, fmt.Sprintf("the answer is %s, and %s was asked for", shown, tokenID))
	}
	result.ID = tokenID
	return result.facts(), nil
}

// decodeResult decodes the result of an answer. A result that is null or missing is an error.
func decodeResult(operation string, answer envelope, result any) error {
	if len(answer.Result) == 0 || string(answer.Result) == "null" {
		return unusable(operation, "the answer has no result")
	}
	if err := json.Unmarshal(answer.Result, result); err != nil {
		return unusable(operation, "the result of the answer cannot be read: "+describeJSON(err))
	}
	return nil
}

// unusable returns the error for an answer with status 200 that does not say what was asked.
func unusable(operation, message string) error {
	return &rotation.IssuerError{Class: rotation.Unknown, Operation: operation, Status: http.StatusOK, Message: message}
}

// roundTrip sends one request through the SDK and classifies the answer.
func (c *Client) roundTrip(ctx context.Context, operation string, rt http.RoundTripper, do sdkCall) (envelope, error) {
	r, sdkErr, err := c.send(ctx, operation, rt, do)
	if err != nil {
		return envelope{}, err
	}
	return c.classify(operation, r, sdkErr)
}

// send sends one request through the SDK, which builds it. A recorder takes the answer from the wire, because
// the SDK drops an answer if a deadline passes while it arrives, and does not look at "success". err is set
// if nothing was sent; sdkErr is what the SDK returned.
func (c *Client) send(ctx context.Context, operation string, rt http.RoundTripper, do sdkCall) (r *recorder, sdkErr, err error) {
	login, err := c.login()
	if err != nil {
		return nil, nil, &rotation.IssuerError{Class: rotation.NotCarriedOut, Operation: operation, Err: err}
	}
	recorder := &recorder{next: rt, login: login}
	service := zero_trust.NewAccessServiceTokenService(append(login.options(),
		option.WithBaseURL(c.account.BaseURL+"/"),
		option.WithMaxRetries(0),
		option.WithHTTPClient(&http.Client{
			Transport:     recorder,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}),
	)...)
	end, err := c.budgetOf(login).Send(ctx) // of the credential that is sent, even if it was replaced since
	if err != nil {
		return nil, nil, &rotation.IssuerError{Class: rotation.NotCarriedOut, Operation: operation, Err: err}
	}
	start := time.Now()
	sdkErr = do(service, nil)
	c.observer.CloudflareRequest(operation, statusLabel(recorder.status), time.Since(start))
	blocked, more := end(c.noteHeaders(recorder, start))
	if recorder.status == http.StatusTooManyRequests {
		recorder.retryAfter = blocked
		c.observer.CloudflareThrottled(c.account.Name, more)
	}
	return recorder, sdkErr, nil
}

// noteHeaders notes what the headers of an answer say about Cloudflare's clock, and returns what the
// budget has to know.
func (c *Client) noteHeaders(r *recorder, start time.Time) admission.Answer {
	if r.header == nil {
		return admission.Answer{Unsent: !r.connected.Load()}
	}
	if date, ok := dateOf(r.header); ok {
		c.clock.observe(start, time.Now(), date)
		if skew, ok := c.clock.skew(); ok {
			c.observer.CloudflareSkew(skew)
		}
	}
	a := admission.Answer{Answered: true, Limit: admission.ReadReport(r.header)}
	if a.Limit.Said {
		c.limit.Store(&a.Limit)
		c.observer.CloudflareBudget(c.account.Name, a.Limit.Left)
	}
	switch {
	case r.status == http.StatusTooManyRequests:
		a.Refused, a.Throttle = true, admission.RetryAfter(r.header, r.body)
	case a.Limit.Said && a.Limit.Left == 0:
		a.Throttle = min(a.Limit.Reset, cmp.Or(a.Limit.Length, admission.Window))
	}
	return a
}

// Cloudflare's error codes that decide something.
const (
	codeInvalidToken = 1000  // verify: no such API token, at this place
	codeNoRoute      = 7003  // the account or zone is wrong, or the path
	codeInUse        = 12139 // a policy names the service token
)

// sentinelOf returns the sentinel error of a refusal that says more than no. A 404 says that the service
// token is gone only if it is Cloudflare's own answer and not about the path: what a proxy does not find is
// not gone.
func sentinelOf(e *rotation.IssuerError) error {
	switch {
	case e.Status == http.StatusNotFound && e.Code != 0 && e.Code != codeNoRoute &&
		slices.Contains([]string{"get", "rotate", "refresh", "update", "delete"}, e.Operation):
		return rotation.ErrGone
	case e.Operation == "delete" && e.Code == codeInUse:
		return rotation.ErrInUse
	}
	return nil
}

// recorder sends a request and records the answer.
type recorder struct {
	next  http.RoundTripper
	login login // the credential that was sent, which no error may repeat

	retryAfter time.Duration // after a 429: how long nothing is sent from then on

	connected atomic.Bool           // there was a connection, so bytes of the request may have left
	refused   atomic.Pointer[error] // why the request must not leave, at the last moment: see [rotation.MaySend]
	asked     *url.URL              // where the request went
	status    int                   // 0 if no answer arrived
	header    http.Header
	body      []byte
	err       error
}

// RoundTrip implements http.RoundTripper.
func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GotConn: func(got httptrace.GotConnInfo) {
			if err := rotation.MaySend(req.Context()); err != nil { // a closed connection takes no byte
				r.refused.Store(&err)
				_ = got.Conn.Close()
				return
			}
			r.connected.Store(true)
		},
	})
	res, err := r.next.RoundTrip(req.WithContext(ctx))
	if refused := r.refused.Load(); refused != nil {
		r.err = *refused
		return nil, r.err
	}
	if err != nil {
		r.err = peer.Explained(err, req.URL)
		return nil, r.err
	}
	r.asked, r.status, r.header = req.URL, res.StatusCode, res.Header
	r.body, r.err = outbound.ReadBody(res.Body, maxBody)
	r.body = unpack(r.body, maxBody)
	closeErr := res.Body.Close()
	if r.err != nil {
		return nil, errors.Join(r.err, closeErr)
	}
	res.Body = io.NopCloser(strings.NewReader("{}")) // what the SDK would decode is not used: it would be a second copy of each page and secret
	return res, nil
}

// describeJSON says what is wrong with a document, without a quotation from it.
func describeJSON(err error) string {
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Sprintf("syntax error at byte %d", e.Offset)
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Sprintf("%s is of the wrong type", e.Field)
	}
	return "unexpected content"
}

func unlessSame(err, other error) error {
	if errors.Is(err, other) || other != nil && strings.Contains(err.Error(), other.Error()) {
		return nil
	}
	return err
}
