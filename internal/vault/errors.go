package vault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"rotatord/internal/outbound"
	"rotatord/internal/secret"
)

// ResponseError is an answer with an HTTP status of 400 or above.
type ResponseError struct {
	Status int
	// Errors are Vault's own words.
	Errors []string
	// Foreign is set if the body is not in Vault's form: a proxy or something else answered.
	Foreign bool

	mediaType string
}

// Error implements error.
func (e *ResponseError) Error() string {
	if e.Foreign {
		return fmt.Sprintf("HTTP %d, and not in Vault's words%s: did a proxy answer?", e.Status, e.mediaType)
	}
	return fmt.Sprintf("HTTP %d: %s", e.Status, strings.Join(e.Errors, "; "))
}

// foreignError is an answer that Vault does not give.
type foreignError struct{ what string }

func foreign(what string) error { return &foreignError{what} }

// Error implements error.
func (e *foreignError) Error() string {
	return "the answer is not one of Vault's (" + e.what + "): is something else at this address?"
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
	text := r.meaning(err)
	for _, sent := range r.secrets() {
		text = strings.ReplaceAll(text, sent, secret.Redacted)
	}
	text = secret.Scrub(text)
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "..."
	}
	return &describedError{text: text, cause: err}
}

// meaning starts with the operation where another server than Vault may have answered.
func (r request) meaning(err error) string {
	if response, ok := errors.AsType[*ResponseError](err); ok {
		return meaningOf(response.Status) + " (" + response.Error() + ")"
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
	return &describedError{text: secret.Scrub("Vault's client library: " + err.Error()), cause: err}
}

// hinted adds a hint to the error of a login that Vault refused.
func hinted(err error, hint string) error {
	if status := StatusOf(err); hint != "" && (status == http.StatusBadRequest || status == http.StatusForbidden) {
		return &describedError{text: err.Error() + ": " + hint, cause: err}
	}
	return err
}

// unreadable is a credential that could not even be presented.
func unreadable(path string, err error) error {
	return &describedError{text: path + ": " + err.Error(), cause: err}
}
