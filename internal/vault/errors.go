package vault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"rotatord/internal/outbound"
	"rotatord/internal/printable"
)

// ResponseError is an answer with an HTTP status of 400 or above.
type ResponseError struct {
	Status int
	// Errors are the messages of Vault.
	Errors []string
	// Foreign is set if the body is not in Vault's form: a proxy or something else answered.
	Foreign bool

	// RetryAfter is how long Vault asks to wait, as with a quota; 0 if it does not say.
	RetryAfter time.Duration

	page, advice string // if Foreign: what answered, and what the operator should check
}

// Error implements error.
func (e *ResponseError) Error() string {
	if e.Foreign {
		text := fmt.Sprintf("HTTP %d, and not an answer of Vault (%s): did a proxy answer?", e.Status, e.page)
		if e.advice != "" {
			text += " " + e.advice
		}
		return text
	}
	said := make([]string, len(e.Errors))
	for i := range said {
		said[i] = strings.TrimSpace(e.Errors[i])
	}
	text := fmt.Sprintf("HTTP %d: %s", e.Status, strings.Join(said, "; "))
	if e.RetryAfter > 0 {
		text += fmt.Sprintf("; it asks to wait %s", e.RetryAfter)
	}
	return text
}

// says reports whether one of Vault's messages contains a text.
func (e *ResponseError) says(text string) bool {
	return slices.ContainsFunc(e.Errors, func(said string) bool { return strings.Contains(said, text) })
}

// foreignError is an answer that Vault never gives, or that did not come from Vault itself just now (cached).
type foreignError struct {
	what, advice string
	cached       bool
}

func foreign(what string) error { return &foreignError{what: what} }

// peer is the name of Vault and of its settings in errors.
var peer = outbound.Peer{Name: "Vault", Address: "vault.address", TLS: "vault.tls"}

// foreign returns the same error with a description of the answer and with advice. Of a page it shows only the
// title, because the page may repeat what was sent.
func (r request) foreign(what string, a answered) error {
	page := outbound.ReadPage(a.Header, a.content)
	if shown := page.Shown(false, r.scrubbed); shown != "application/json" {
		what += " (it is " + shown + ")"
	}
	return &foreignError{what: what, advice: r.advice(a.StatusCode, page)}
}

// advice says what the operator should check if something else than Vault has answered.
func (r request) advice(status int, page outbound.Page) string {
	if r.asked == nil {
		return ""
	}
	way := ""
	if proxy := outbound.Route(r.asked); proxy != "" {
		way = ", which was asked through " + proxy
	}
	switch {
	case page.PlainOnTLS:
		return "The server speaks TLS and was asked in plain http: write https:// in vault.address"
	case slices.Contains(strings.Split(strings.TrimSuffix(r.asked.Path, "/v1/"+r.path), "/"), "ui"):
		return "vault.address ends with /ui, the path of Vault's web interface: remove it"
	case status == http.StatusProxyAuthRequired:
		return "A proxy on the way asks for a user and a password" + way
	case status == http.StatusNetworkAuthenticationRequired:
		return "This network asks for a login first (a captive portal)"
	}
	return fmt.Sprintf("Look at vault.address (%s%s) and at a login page or a load balancer in front of it", printable.Line(r.asked.Host, maxHost), way)
}

// maxHost is how many bytes of a host are shown.
const maxHost = 200

// Error implements error.
func (e *foreignError) Error() string {
	text := "the answer is not one of Vault's (" + e.what + "): is something else at this address?"
	if e.cached {
		text = "the answer is not used: " + e.what + "."
	}
	if e.advice != "" {
		text += " " + e.advice
	}
	return text
}

// StatusOf returns the HTTP status of an error. It is 0 if no answer came, or if the status was not the
// error.
func StatusOf(err error) int {
	if e, ok := errors.AsType[*ResponseError](err); ok {
		return e.Status
	}
	return 0
}

// maxRetryAfter is the longest wait that is taken from an answer.
const maxRetryAfter = time.Minute

// retryAfter returns how long Vault asks to wait after a login that it refused; 0 if it does not say.
func retryAfter(err error) time.Duration {
	if e, ok := errors.AsType[*ResponseError](err); ok {
		return min(e.RetryAfter, maxRetryAfter)
	}
	return 0
}

// denied reports whether Vault itself answered 403. A proxy's 403 says nothing about the token.
func denied(err error) bool {
	e, ok := errors.AsType[*ResponseError](err)
	return ok && e.Status == http.StatusForbidden && !e.Foreign
}

// maxText is how many bytes of an error are shown: a server may send any text.
const maxText = 2000

// describe returns an error that tells an operator what a failed request means. It wraps the cause.
// Its text has nothing of what was sent, even if the server has sent that back.
func describe(r request, err error) error {
	if _, ok := errors.AsType[*describedError](err); ok {
		return err
	}
	return &describedError{text: printable.Line(r.scrubbed(r.meaning(err)), maxText), cause: err}
}

// meaning describes an error. If something else than Vault may have answered, it begins with the operation.
func (r request) meaning(err error) string {
	if response, ok := errors.AsType[*ResponseError](err); ok {
		return meaningOf(response.Status) + " (" + response.Error() + ")" + r.missing(response)
	}
	var redirect *outbound.RedirectError
	var large *outbound.TooLargeError
	var other *foreignError
	switch {
	case errors.As(err, &redirect), errors.As(err, &large), errors.As(err, &other):
		return r.name() + ": " + err.Error()
	case errors.Is(err, context.DeadlineExceeded):
		return "Vault cannot be reached: it gave no complete answer in time (" + err.Error() + ")"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "Vault cannot be reached: the connection was closed before the answer was complete (" + err.Error() + ")"
	}
	return "Vault cannot be reached: " + err.Error()
}

// missing says which right the policy may lack if Vault denied permission.
func (r request) missing(e *ResponseError) string {
	stanza := r.stanza()
	switch {
	case e.Status != http.StatusForbidden || e.Foreign || stanza == "":
		return ""
	case e.says("invalid token"):
		return ": the token is not valid, or no longer valid"
	}
	return ": its policy lacks " + stanza + ", or the token is no longer valid"
}

func meaningOf(status int) string {
	switch {
	case status == http.StatusServiceUnavailable:
		return "Vault is sealed or in maintenance"
	case status == http.StatusForbidden:
		return "Vault denied permission"
	case status == http.StatusTooManyRequests || status == 473:
		return "Vault cannot answer now (standby, or its rate limit)"
	case status >= 500:
		return "Vault failed"
	default:
		return "Vault refused the request"
	}
}

type describedError struct {
	text  string
	cause error
}

func (e *describedError) Error() string { return e.text }
func (e *describedError) Unwrap() error { return e.cause }

// plain returns the error of the transport without what the library and net/http add to it, such as
// the URL of the request.
func plain(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*describedError](err); ok {
		return e
	}
	return &describedError{text: printable.Line("Vault's client library: "+err.Error(), maxText), cause: err}
}

// withHint adds advice to the error of a login that Vault refused.
func withHint(err error, hint func(*ResponseError, string) string, namespace string) error {
	e, ok := errors.AsType[*ResponseError](err)
	if !ok || e.Foreign || !slices.Contains([]int{http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound}, e.Status) {
		return err
	}
	return &describedError{text: err.Error() + ": " + hint(e, namespace), cause: err}
}

// askNamespace asks whether the namespace is right.
func askNamespace(namespace string) string {
	if namespace == "" {
		return " Is it in a namespace? Then set vault.namespace (admin on HCP)"
	}
	return fmt.Sprintf(" Is it in the namespace %q (vault.namespace)?", namespace)
}

// unreadable is the error about a credential that could not be sent.
func unreadable(path string, err error) error {
	return &describedError{text: path + ": " + err.Error(), cause: err}
}
