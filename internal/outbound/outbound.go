// Package outbound has what all HTTP clients of rotatord share. A peer is a server that rotatord sends requests
// to: Vault, Cloudflare's API, an application behind Access, the daemon's socket.
//
// Guarantees: nothing is sent to a host that the configuration does not name, regardless of what a peer
// answers. A proxy from the environment gets only CONNECT requests for https addresses, so it sees host names and
// no credential. An answer needs a bounded amount of memory. No error quotes what a peer sent, except the host
// of a redirect, the names in a certificate, and the title or the first words of a page. These are cleaned.
package outbound

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"rotatord/internal/printable"
)

// MaxHeader is how many bytes of headers an answer may have, including the 1xx answers before it. Answers of
// Vault and Cloudflare have about 2 KiB.
const MaxHeader = 256 << 10

// idle is how many unused connections to one host stay open.
const idle = 8

// Transport returns a new transport with the bounds of this package. Otherwise it is Go's default transport. It
// does not bound bodies: use [ReadBody].
//
// It speaks only HTTP/1.1. With GODEBUG=http2debug=2 in the environment, Go's HTTP/2 client logs each header
// that it sends, and so each credential.
//
// It uses a proxy from the environment only for https. A plain http request would show its headers and its
// body to the proxy.
func Transport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxResponseHeaderBytes = MaxHeader
	t.MaxIdleConnsPerHost = idle
	t.Proxy = func(r *http.Request) (*url.URL, error) { return proxyFor(r.URL) }
	t.OnProxyConnectResponse = connected
	t.ForceAttemptHTTP2 = false
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	// The clone would offer h2 to the server, but cannot speak it.
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	return t
}

// Unquoted returns err without what the server sent. Go's HTTP client quotes an answer that it cannot parse, and
// a server or a proxy may answer with the request that it got.
func Unquoted(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	for _, quoting := range []string{"malformed ", "bad Content-Length", "empty Content-Length", "multiple Content-Length", "transfer encoding", "bad trailer key"} {
		if i := strings.Index(text, quoting); i >= 0 {
			if at := strings.IndexAny(text[i:], `":;`); at >= 0 {
				return Reworded(strings.TrimRight(text[:i+at], ": "), err)
			}
		}
	}
	if len(text) > maxError || !printable.IsPlain(text) {
		return Reworded(printable.Shortened(printable.Escaped(text), maxError), err)
	}
	return err
}

// maxError is the longest text of an error, in bytes.
const maxError = 1000

// Reworded returns an error with another text that wraps cause.
func Reworded(text string, cause error) error { return &rewordedError{text, cause} }

type rewordedError struct {
	text  string
	cause error
}

func (e *rewordedError) Error() string { return e.text }
func (e *rewordedError) Unwrap() error { return e.cause }

// TooLargeError says that the body of an answer is too large.
type TooLargeError struct {
	Limit int64 // in bytes
}

// Error implements error.
func (e *TooLargeError) Error() string {
	size := fmt.Sprintf("%d bytes", e.Limit)
	if e.Limit >= 1<<20 {
		size = fmt.Sprintf("%d MiB", e.Limit>>20)
	} else if e.Limit >= 1<<10 {
		size = fmt.Sprintf("%d KiB", e.Limit>>10)
	}
	return "the answer is larger than " + size + ": is something else at this address?"
}

// DecodeOne decodes a body that is exactly one JSON value. Numbers keep their text. Where nothing is of type any, json.Unmarshal
// does the same with less memory.
func DecodeOne(body []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}

// RetryAfter returns how long an answer asks to wait, which may be decades; 0 if it does not say. A date is compared with
// the server's own clock if the answer has a Date, so that a wrong clock here does not count.
func RetryAfter(h http.Header) time.Duration {
	asked := h.Get("Retry-After")
	if until, err := http.ParseTime(asked); err == nil {
		now, err := http.ParseTime(h.Get("Date"))
		if err != nil {
			now = time.Now()
		}
		return max(0, until.Sub(now))
	}
	n, err := strconv.ParseUint(asked, 10, 31)
	if err != nil && !errors.Is(err, strconv.ErrRange) { // out of range, n is the largest
		return 0
	}
	return time.Duration(n) * time.Second
}

// errSwitched is the error of an answer that ends HTTP on the connection.
var errSwitched = errors.New("the server wants to change to another protocol (HTTP 101), which nobody asked for: is something else at this address?")

// ReadBody reads a body of at most limit bytes. It always returns what it read, and a [TooLargeError] if there is
// more. The body of an answer 101 it does not read: that is the connection itself, which no context ends.
func ReadBody(body io.Reader, limit int64) ([]byte, error) {
	if _, connection := body.(io.Writer); connection {
		return nil, errSwitched
	}
	content, err := io.ReadAll(io.LimitReader(body, limit+1))
	if int64(len(content)) > limit {
		return content[:limit], &TooLargeError{limit}
	}
	return content, err
}

// RedirectError is a redirect that was not followed.
type RedirectError struct {
	Status int
	// From is the host that answered. To is the host that it redirects to, with its scheme if that differs. To
	// is empty if the answer has no readable address. Neither has a path or a query, which may contain a
	// secret.
	From, To string
	// Peer is the server that should have answered, such as Vault.
	Peer string
}

// Error implements error.
func (e *RedirectError) Error() string {
	to := "redirected to " + e.To
	if e.To == "" {
		to = "redirected without a readable address"
	}
	return fmt.Sprintf("%s %s: is an SSO policy in front of %s? (HTTP %d; nothing was sent there)", e.From, to, e.Peer, e.Status)
}

// IsRedirect reports whether a status is a redirect of any kind.
func IsRedirect(status int) bool { return status >= 300 && status <= 399 }

// Redirected returns the error for a redirect that answers a request to asked. location is the
// value of its header.
func Redirected(peer string, status int, asked *url.URL, location string) *RedirectError {
	e := &RedirectError{Status: status, From: printable.Line(asked.Host, maxShown), Peer: peer}
	if location == "" {
		return e
	}
	to, err := asked.Parse(location)
	if err != nil || to.Host == "" {
		return e
	}
	e.To = printable.Line(to.Host, maxShown)
	if to.Scheme != asked.Scheme {
		e.To = printable.Line(to.Scheme+"://"+to.Host, maxShown)
	}
	return e
}

// maxShown is the longest host that is shown, in bytes.
const maxShown = 200

// Origin returns the scheme, host and port of a URL in a normal form.
func Origin(u *url.URL) string {
	scheme, port := strings.ToLower(u.Scheme), u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[scheme]
	}
	return scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port
}
