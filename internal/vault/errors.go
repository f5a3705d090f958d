package vault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"rotatord/internal/outbound"
	"rotatord/internal/printable"
)

// ResponseError is an answer with an HTTP status of 400 or above.
type ResponseError struct {
	Status int
	// Errors are Vault's own words.
	Errors []string
	// Foreign is set if the body is not in Vault's form: a proxy or something else answered.
	Foreign bool

	page, advice string // what answered then, and what to look at
}

// Error implements error.
func (e *ResponseError) Error() string {
	if e.Foreign {
		text := fmt.Sprintf("HTTP %d, and not in Vault's words (%s): did a proxy answer?", e.Status, e.page)
		if e.advice != "" {
			text += " " + e.advice
		}
		return text
	}
	said := make([]string, len(e.Errors))
	for i := range said {
		said[i] = strings.TrimSpace(e.Errors[i])
	}
	return fmt.Sprintf("HTTP %d: %s", e.Status, strings.Join(said, "; "))
}

// says reports whether Vault's words have a text in them.
func (e *ResponseError) says(text string) bool {
	return slices.ContainsFunc(e.Errors, func(said string) bool { return strings.Contains(said, text) })
}

// foreignError is an answer that Vault does not give.
type foreignError struct{ what, advice string }

func foreign(what string) error { return &foreignError{what: what} }

// peer is Vault as errors name it.
var peer = outbound.Peer{Name: "Vault", Address: "vault.address", TLS: "vault.tls"}

// foreign is the same with what can be seen of the answer, and what to look at. Of a page its title is shown
// and nothing else: it may repeat what was sent.
func (r request) foreign(what string, a answered) error {
	page := outbound.ReadPage(a.Header, a.content)
	if shown := page.Shown(false, r.cleaned); shown != "application/json" {
		what += " (it is " + shown + ")"
	}
	return &foreignError{what, r.advice(a.StatusCode, page)}
}

// advice says what to look at where something else than Vault has answered.
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
		return "vault.address ends with the path of Vault's pages, /ui: take it away"
	case status == http.StatusProxyAuthRequired:
		return "A proxy in between wants a user and a password" + way
	case status == http.StatusNetworkAuthenticationRequired:
		return "This network wants a login first (a captive portal)"
	}
	return fmt.Sprintf("Look at vault.address (%s%s) and at a login page or a load balancer in front of it", printable.Line(r.asked.Host, maxHost), way)
}

// maxHost is how many bytes of a host are shown.
const maxHost = 200

// Error implements error.
func (e *foreignError) Error() string {
	text := "the answer is not one of Vault's (" + e.what + "): is something else at this address?"
	if e.advice != "" {
		text += " " + e.advice
	}
	return text
}

// StatusOf returns the HTTP status that an error came with, 0 if no answer came, or none that
// is an error by its status.
func StatusOf(err error) int {
	if e, ok := errors.AsType[*ResponseError](err); ok {
		return e.Status
	}
	return 0
}

// denied reports whether Vault itself answered 403. A proxy's 403 says nothing of the token.
func denied(err error) bool {
	e, ok := errors.AsType[*ResponseError](err)
	return ok && e.Status == http.StatusForbidden && !e.Foreign
}

// maxText is how many bytes of an error are kept: a server may put anything there.
const maxText = 2000

// describe says in an operator's words what a failed request means, and keeps the cause. What
// was sent is not in the text, even if the server sent it back.
func describe(r request, err error) error {
	if _, ok := errors.AsType[*describedError](err); ok {
		return err
	}
	return &describedError{text: printable.Line(r.cleaned(r.meaning(err)), maxText), cause: err}
}

// meaning starts with the operation where another server than Vault may have answered.
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

// missing says what the policy may lack where Vault denied permission.
func (r request) missing(e *ResponseError) string {
	stanza := r.stanza()
	switch {
	case e.Status != http.StatusForbidden || e.Foreign || stanza == "":
		return ""
	case e.says("invalid token"):
		return ": the token is not valid, or not any more"
	}
	return ": its policy lacks " + stanza + ", unless the token is not valid any more"
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

// plain returns the error of the transport without what the library and net/http put around it:
// the URL of the request, and words that say nothing more.
func plain(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*describedError](err); ok {
		return e
	}
	return &describedError{text: printable.Line("Vault's client library: "+err.Error(), maxText), cause: err}
}

// hinted adds to the error of a login that Vault refused what to look at.
func hinted(err error, hint string) error {
	e, ok := errors.AsType[*ResponseError](err)
	if !ok || e.Foreign || !slices.Contains([]int{http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound}, e.Status) {
		return err
	}
	return &describedError{text: err.Error() + ": " + hint, cause: err}
}

// askNamespace asks whether the namespace is right.
func askNamespace(namespace string) string {
	if namespace == "" {
		return " Is it in a namespace? Then set vault.namespace (admin on HCP)"
	}
	return fmt.Sprintf(" Is it in the namespace %q (vault.namespace)?", namespace)
}

// unreadable is a credential that could not even be presented.
func unreadable(path string, err error) error {
	return &describedError{text: path + ": " + err.Error(), cause: err}
}
