package cloudflare

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cloudflare/cloudflare-go/v7/option"
	"github.com/cloudflare/cloudflare-go/v7/zero_trust"

	"rotatord/internal/outbound"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

// maxBody is more than a page of the largest listing takes.
const maxBody = 8 << 20

// envelope is what every answer is wrapped in.
type envelope struct {
	Success    bool            `json:"success"`
	Errors     []apiMessage    `json:"errors"`
	Result     json.RawMessage `json:"result"`
	ResultInfo resultInfo      `json:"result_info"`
}

type apiMessage struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

type resultInfo struct {
	PerPage    int `json:"per_page"`
	TotalCount int `json:"total_count"`
}

// tokenResult is a service token as answers show it. The SDK's own types lack
// created_at, updated_at and last_seen_at.
type tokenResult struct {
	ID           string       `json:"id"`
	ClientID     string       `json:"client_id"`
	ClientSecret secretString `json:"client_secret"`
	Name         string       `json:"name"`
	Enabled      *bool        `json:"enabled"`
	Duration     string       `json:"duration"`
	CreatedAt    timestamp    `json:"created_at"`
	ExpiresAt    timestamp    `json:"expires_at"`
	UpdatedAt    timestamp    `json:"updated_at"`
	LastSeenAt   timestamp    `json:"last_seen_at"`
}

func (r tokenResult) facts() rotation.TokenFacts {
	return rotation.TokenFacts{
		ID: r.ID, ClientID: r.ClientID, Name: r.Name,
		Enabled:  r.Enabled == nil || *r.Enabled, // older answers do not show it
		Duration: r.Duration, CreatedAt: r.CreatedAt.Time,
		ExpiresAt: r.ExpiresAt.Time, UpdatedAt: r.UpdatedAt.Time, LastSeenAt: r.LastSeenAt.Time,
	}
}

// secretString decodes straight into a value that cannot be printed.
type secretString struct{ secret.Value }

func (s *secretString) UnmarshalJSON(b []byte) error {
	var text *string
	if err := json.Unmarshal(b, &text); err != nil {
		return errors.New("client_secret is not a string") // the decoder's error could quote it
	}
	if text != nil {
		s.Value = secret.New(*text)
	}
	return nil
}

// timestamp is a time that may be null, empty or absent. One that cannot be read is
// taken as absent: a rotate answer must not be lost because of it.
type timestamp struct{ time.Time }

func (t *timestamp) UnmarshalJSON(b []byte) error {
	if parsed, err := time.Parse(`"`+time.RFC3339+`"`, string(b)); err == nil {
		t.Time = parsed.UTC()
	}
	return nil
}

type sdkCall func(*zero_trust.AccessServiceTokenService, []option.RequestOption) error

// call makes one request and decodes its result.
func (c *Client) call(ctx context.Context, operation string, rt http.RoundTripper, result any, do sdkCall) error {
	answer, err := c.exchange(ctx, operation, rt, do)
	if err != nil {
		return err
	}
	return decodeResult(operation, answer, result)
}

func decodeResult(operation string, answer envelope, result any) error {
	if err := json.Unmarshal(answer.Result, result); err != nil {
		return &rotation.IssuerError{Class: rotation.Unknown, Operation: operation, Status: http.StatusOK,
			Message: "the result of the answer cannot be read: " + describeJSON(err)}
	}
	return nil
}

// exchange makes one request through the SDK and judges what came back. The SDK builds
// and sends the request; the answer is taken from the wire by a recorder, because the
// SDK drops it when a deadline passes while it arrives, and does not look at "success".
func (c *Client) exchange(ctx context.Context, operation string, rt http.RoundTripper, do sdkCall) (envelope, error) {
	login, err := c.login()
	if err != nil {
		return envelope{}, &rotation.IssuerError{Class: rotation.NotCarriedOut, Operation: operation, Err: err}
	}
	recorder := &recorder{next: rt}
	service := zero_trust.NewAccessServiceTokenService(append(login.options(),
		option.WithBaseURL(c.account.BaseURL+"/"),
		option.WithMaxRetries(0),
		option.WithHTTPClient(&http.Client{
			Transport:     recorder,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}),
	)...)
	start := time.Now()
	end := c.budgetOf(login).begin() // of the credential that is sent, whatever has taken its place since
	sdkErr := do(service, nil)
	c.observer.CloudflareRequest(operation, statusLabel(recorder.status), time.Since(start))
	end(c.learn(recorder, start))
	return c.judge(operation, recorder, sdkErr)
}

// learn takes from an answer's headers what they say about the clock and the budget.
func (c *Client) learn(r *recorder, start time.Time) answer {
	if r.header == nil {
		return answer{unsent: !r.connected.Load()}
	}
	if date, err := http.ParseTime(r.header.Get("Date")); err == nil {
		c.clock.observe(start, time.Now(), date)
		_, skew := c.clock.bounds()
		c.observer.CloudflareSkew(skew)
	}
	a := answer{answered: true, limit: readRatelimit(r.header)}
	if a.limit.said {
		c.limit.Store(&a.limit)
		c.observer.CloudflareBudget(c.account.Name, a.limit.left)
	}
	switch {
	case r.status == http.StatusTooManyRequests:
		a.throttle = retryAfter(r.header)
		c.observer.CloudflareThrottled(c.account.Name, a.throttle)
	case a.limit.said && a.limit.left == 0:
		a.throttle = a.limit.reset
	}
	return a
}

// judge decides what an exchange came to. This is where a failure is classified, and
// the rule is: "not carried out" and "refused" need proof, all else is unknown.
func (c *Client) judge(operation string, r *recorder, sdkErr error) (envelope, error) {
	fail := func(class rotation.Class, message string, err error) (envelope, error) {
		return envelope{}, &rotation.IssuerError{Class: class, Operation: operation, Status: r.status,
			Message: secret.Scrub(message), Err: err}
	}
	switch {
	case r.status == 0 && !r.connected.Load():
		if sdkErr == nil {
			sdkErr = errors.New("nothing was sent")
		}
		return fail(rotation.NotCarriedOut, "no connection was made", scrubbed(errors.Join(r.err, unlessSame(sdkErr, r.err))))
	case r.status == 0:
		return fail(rotation.Unknown, "the request was sent and no answer came", scrubbed(r.err))
	}
	var answer envelope
	decodeErr := json.Unmarshal(r.body, &answer)
	if r.status >= 400 && r.status < 500 && r.status != http.StatusRequestTimeout {
		e := &rotation.IssuerError{Class: rotation.Refused, Operation: operation, Status: r.status}
		if len(answer.Errors) > 0 {
			e.Code, e.Message = answer.Errors[0].Code, said(answer.Errors[0].Message)
		}
		if e.Message == "" {
			e.Message = http.StatusText(r.status)
		}
		e.Err = meaning(e)
		if r.status == http.StatusTooManyRequests {
			e.Class, e.RetryAfter = rotation.Throttled, retryAfter(r.header)
		}
		return envelope{}, e
	}
	switch {
	case r.err != nil:
		if result, ok := salvage(r.body); ok && shown(operation) && r.status < 300 {
			c.log.Warn("the answer was cut off, but the secret had arrived whole", "operation", operation, "error", scrubbed(r.err))
			return envelope{Success: true, Result: result}, nil
		}
		return fail(rotation.Unknown, "the answer was cut off", scrubbed(r.err))
	case outbound.IsRedirect(r.status):
		return fail(rotation.Unknown, outbound.Redirected("Cloudflare's API", r.status, r.asked, r.header.Get("Location")).Error(), nil)
	case r.status < 200 || r.status > 299:
		return fail(rotation.Unknown, http.StatusText(r.status), nil)
	case decodeErr != nil:
		return fail(rotation.Unknown, "the answer is not the JSON of Cloudflare's API: "+describeJSON(decodeErr)+mediaType(r.header), nil)
	case !answer.Success:
		message := "the answer says success: false"
		if len(answer.Errors) > 0 {
			message = fmt.Sprintf("%s (code %d: %s)", message, answer.Errors[0].Code, said(answer.Errors[0].Message))
		}
		return fail(rotation.Unknown, message, nil)
	}
	return answer, nil
}

// shown reports whether an answer to operation shows a client secret.
func shown(operation string) bool { return operation == "rotate" || operation == "create" }

// Codes of Cloudflare's that decide something.
const (
	codeInvalidToken = 1000  // verify: no such API token, at this place
	codeNoRoute      = 7003  // the account or zone is wrong, or the path
	codeInUse        = 12139 // a policy names the service token
)

// meaning is the sentinel of a refusal that says more than no. A 404 is about the service
// token only if it is Cloudflare's own and about no path: what a proxy does not find is not
// gone.
func meaning(e *rotation.IssuerError) error {
	switch {
	case e.Status == http.StatusNotFound && e.Code != 0 && e.Code != codeNoRoute &&
		slices.Contains([]string{"get", "rotate", "refresh", "update", "delete"}, e.Operation):
		return rotation.ErrGone
	case e.Operation == "delete" && e.Code == codeInUse:
		return rotation.ErrInUse
	}
	return nil
}

// salvage takes out of an answer that was cut off those fields of its result that arrived
// whole. It is of use only if the client secret is among them: that one will not be shown
// again.
func salvage(body []byte) (result json.RawMessage, ok bool) {
	d := json.NewDecoder(bytes.NewReader(body))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, false
	}
	for {
		key, err := d.Token()
		if err != nil {
			return nil, false
		}
		if key == "result" {
			break
		}
		var skipped json.RawMessage
		if err := d.Decode(&skipped); err != nil || key == "success" && string(skipped) != "true" {
			return nil, false
		}
	}
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, false
	}
	start := d.InputOffset() - 1
	end := start + 1
	for {
		key, err := d.Token()
		if err != nil || key == json.Delim('}') {
			break
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			break
		}
		end = d.InputOffset()
		ok = ok || key == "client_secret"
	}
	return append(bytes.Clone(body[start:end]), '}'), ok
}

// recorder sends a request and keeps what came back.
type recorder struct {
	next http.RoundTripper

	connected atomic.Bool // a connection was had: bytes of the request may have left
	asked     *url.URL    // where the request went
	status    int         // 0 if no answer began
	header    http.Header
	body      []byte
	err       error
}

// RoundTrip implements http.RoundTripper.
func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { r.connected.Store(true) },
	})
	res, err := r.next.RoundTrip(req.WithContext(ctx))
	if err != nil {
		r.err = outbound.Unquoted(err)
		return nil, r.err
	}
	r.asked, r.status, r.header = req.URL, res.StatusCode, res.Header
	r.body, r.err = outbound.ReadBody(res.Body, maxBody)
	closeErr := res.Body.Close()
	if r.err != nil {
		return nil, errors.Join(r.err, closeErr)
	}
	res.Body = io.NopCloser(bytes.NewReader(r.body))
	return res, nil
}

// retryAfter reads the header in both forms that HTTP knows. Without a usable one it is
// Cloudflare's documented penalty of five minutes.
func retryAfter(h http.Header) time.Duration {
	value := h.Get("Retry-After")
	if seconds, err := strconv.Atoi(value); err == nil && seconds >= 0 {
		return wait(seconds)
	}
	if at, err := http.ParseTime(value); err == nil {
		now := time.Now()
		if date, err := http.ParseTime(h.Get("Date")); err == nil {
			now = date
		}
		return min(max(at.Sub(now), 0), maxWait)
	}
	return budgetWindow
}

// maxWait is the longest that a header can make us leave an account alone: one wrong
// header must not stop it for good, nor overflow a duration.
const maxWait = time.Hour

func wait(seconds int) time.Duration {
	return time.Duration(min(max(seconds, 0), int(maxWait/time.Second))) * time.Second
}

// describeJSON says what is wrong with a document without quoting from it.
func describeJSON(err error) string {
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Sprintf("syntax error at byte %d", e.Offset)
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Sprintf("%s is of the wrong type", e.Field)
	}
	return "unexpected content"
}

func mediaType(h http.Header) string {
	if t, _, err := mime.ParseMediaType(h.Get("Content-Type")); err == nil && t != "application/json" {
		return " (it is " + t + ")"
	}
	return ""
}

// maxSaid is how many bytes of a message are kept: a server may put anything there.
const maxSaid = 1000

// said is a message as it may be shown, logged and stored.
func said(message string) string {
	message = secret.Scrub(message)
	if len(message) > maxSaid {
		message = strings.ToValidUTF8(message[:maxSaid], "") + "..."
	}
	return message
}

func unlessSame(err, other error) error {
	if errors.Is(err, other) || other != nil && strings.Contains(err.Error(), other.Error()) {
		return nil
	}
	return err
}

// scrubbed keeps an error for errors.Is, and its text free of anything secret.
func scrubbed(err error) error {
	if err == nil {
		return nil
	}
	return &scrubbedError{err}
}

type scrubbedError struct{ err error }

func (e *scrubbedError) Error() string { return secret.Scrub(e.err.Error()) }
func (e *scrubbedError) Unwrap() error { return e.err }
