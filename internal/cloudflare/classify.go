package cloudflare

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"rotatord/internal/outbound"
	"rotatord/internal/printable"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

// peer is Cloudflare, as errors name it.
var peer = outbound.Peer{Name: "Cloudflare's API", Address: "base_url"}

const (
	// maxSaid limits how many bytes of an answer's text are kept, and maxID those of an ID: a server may send
	// anything.
	maxSaid, maxID = 1000, 64
)

// classify says what a request came to. Here every failure gets its class. The rule: "not carried out" and
// "refused" need proof, everything else is unknown.
func (c *Client) classify(operation string, r *recorder, sdkErr error) (envelope, error) {
	fail := func(class rotation.Class, message string, err error) (envelope, error) {
		return envelope{}, &rotation.IssuerError{Class: class, Operation: operation, Status: r.status,
			Message: printable.Line(r.withoutCredential(message), maxSaid), Err: err}
	}
	switch {
	case r.status == 0 && r.refused.Load() != nil:
		return fail(rotation.NotCarriedOut, "nothing was sent", r.err)
	case r.status == 0 && !r.connected.Load():
		if sdkErr == nil {
			sdkErr = errors.New("nothing was sent")
		}
		return fail(rotation.NotCarriedOut, "no connection was made", r.clean(errors.Join(r.err, unlessSame(sdkErr, r.err))))
	case r.status == 0:
		return fail(rotation.Unknown, "the request was sent and no answer came", r.clean(r.err))
	}
	var answer envelope
	decodeErr := json.Unmarshal(r.body, &answer)
	fromAPI := decodeErr == nil && (answer.Success != nil || len(answer.Errors) > 0)
	if r.status >= 400 && r.status < 500 && r.status != http.StatusRequestTimeout {
		return envelope{}, c.refusal(operation, r, answer, fromAPI)
	}
	if r.err != nil {
		return fail(rotation.Unknown, "the answer was cut off", r.clean(r.err))
	}
	if fault := r.fault(operation, answer, decodeErr, fromAPI); fault != "" {
		return fail(rotation.Unknown, fault, nil)
	}
	return answer, nil
}

// fault says why a complete answer is not a success; empty if it is one.
func (r *recorder) fault(operation string, answer envelope, decodeErr error, fromAPI bool) string {
	switch {
	case outbound.IsRedirect(r.status):
		return outbound.Redirected("Cloudflare's API", r.status, r.asked, r.header.Get("Location")).Error()
	case r.status < 200 || r.status > 299:
		return joined(statusText(r.status), r.failureText(operation, answer, fromAPI))
	case decodeErr != nil && bytes.HasPrefix(bytes.TrimSpace(r.body), []byte("{")): // it began as JSON
		return "the answer is not the JSON of Cloudflare's API: " + describeJSON(decodeErr)
	case !fromAPI:
		return "the answer is " + r.describeForeign(operation)
	case answer.Success != nil && bool(*answer.Success):
		return ""
	}
	message := "the answer says success: false"
	if answer.Success == nil {
		message = "the answer does not say success: true"
	}
	if len(answer.Errors) > 0 {
		message += " (" + answer.Errors.text(true) + ")"
	}
	return message
}

// refusal returns the error for a status of 4xx.
func (c *Client) refusal(operation string, r *recorder, answer envelope, fromAPI bool) error {
	e := &rotation.IssuerError{Class: rotation.Refused, Operation: operation, Status: r.status}
	message := ""
	if len(answer.Errors) > 0 {
		e.Code, message = answer.Errors[0].Code, answer.Errors.text(false)
	}
	if message == "" {
		message = statusText(r.status)
	}
	if !fromAPI {
		message = joined(message, r.describeForeign(operation))
	}
	e.Message = printable.Line(r.withoutCredential(message), maxSaid)
	e.Err = sentinelOf(e)
	if r.status == http.StatusTooManyRequests {
		e.Class, e.RetryAfter = rotation.Throttled, r.retryAfter
	}
	return e
}

// failureText returns what an answer says whose status is a failure.
func (r *recorder) failureText(operation string, answer envelope, fromAPI bool) string {
	if fromAPI {
		return answer.Errors.text(true)
	}
	return r.describeForeign(operation)
}

// withoutCredential returns a text without the credential that was sent, which the other side may send back.
func (r *recorder) withoutCredential(text string) string {
	if sent := r.login.value.Reveal(); len(sent) >= shortestSent {
		text = strings.ReplaceAll(text, sent, secret.Redacted)
	}
	return text
}

// shortestSent keeps a credential that is a short word, as in a rehearsal, from being removed from errors.
const shortestSent = 8

// clean makes the text of an error safe to show, and keeps the error for errors.Is.
func (r *recorder) clean(err error) error {
	if err == nil {
		return nil
	}
	return outbound.Reworded(printable.Line(r.withoutCredential(err.Error()), 2*maxSaid), err)
}

// joined puts a colon between two texts, unless one of them is empty.
func joined(first, second string) string {
	if first == "" || second == "" {
		return first + second
	}
	return first + ": " + second
}

// edgeStatus are the statuses of Cloudflare's edge, in its own words.
var edgeStatus = map[int]string{
	520: "Web server returns an unknown error", 521: "Web server is down", 522: "Connection timed out", 523: "Origin is unreachable",
	524: "A timeout occurred", 525: "SSL handshake failed", 526: "Invalid SSL certificate", 530: "Cloudflare could not reach the origin",
}

func statusText(status int) string {
	if text := http.StatusText(status); text != "" {
		return text
	}
	if text := edgeStatus[status]; text != "" {
		return text
	}
	return "HTTP " + strconv.Itoa(status)
}
