// Package access tries service tokens at applications behind Cloudflare Access, as a consumer would use
// them.
//
// Guarantees: a credential is sent only to the host that the configuration names, once for each call, over
// its own connection. No redirect is followed and no cookie is stored. No error and no log line contains a
// credential, the query of a URL, or anything from the answer. A credential is called good or bad only if
// the answer proves it, and only if the same URL answers a request without a credential differently.
//
// The package cannot see whether Access answered. An application or a firewall that refuses requests with
// 401 or 403 looks the same.
package access

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/outbound"
	"rotatord/internal/rotation"
)

const (
	// timeout is the longest time for one request with its body.
	timeout = 10 * time.Second
	// bareFor is how long the answer of a URL to a request without a credential is remembered.
	bareFor = 10 * time.Minute
	// maxBody and maxHeader are how many bytes of an answer are read.
	maxBody   = 64 << 10
	maxHeader = 64 << 10
)

// Options are the options of a Client. The zero value is for production.
type Options struct {
	Logger *slog.Logger // nil: silent
	// WrapTransport, if set, wraps the transport, for tests.
	WrapTransport func(http.RoundTripper) http.RoundTripper
}

// Client is shared by all probers of a daemon. It is safe for concurrent use.
type Client struct {
	log       *slog.Logger
	transport http.RoundTripper

	mu   sync.Mutex
	bare map[string]*bare // by URL
}

// New returns a client. It sends nothing yet.
func New(o Options) *Client {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Client{log: o.Logger, transport: newTransport(), bare: map[string]*bare{}}
	if o.WrapTransport != nil {
		c.transport = o.WrapTransport(c.transport)
	}
	return c
}

// newTransport returns a transport that reuses no connection and decompresses no body.
func newTransport() *http.Transport {
	t := outbound.Transport()
	t.DisableKeepAlives = true
	t.DisableCompression = true
	t.MaxResponseHeaderBytes = maxHeader
	return t
}

// Prober returns the prober of one token.
func (c *Client) Prober(token string, v config.Verify) *Prober {
	return &Prober{client: c, log: c.log.With("token", token), url: v.URL, header: v.Header}
}

// Prober tries the credentials of one token. It implements [rotation.Prober].
type Prober struct {
	client *Client
	log    *slog.Logger
	url    string
	header string // the header for client ID and client secret together; empty: the two usual headers
}

// Probe implements [rotation.Prober]. It sends one request with c, and sometimes another one without a
// credential.
func (p *Prober) Probe(ctx context.Context, c rotation.Credential) (rotation.Probe, error) {
	if c.ClientID == "" || c.ClientSecret.IsZero() {
		return rotation.ProbeUnknown, p.failed("there is no credential to try")
	}
	header, err := p.credential(c)
	if err != nil {
		return rotation.ProbeUnknown, p.failed("%v", err)
	}
	status, err := p.client.get(ctx, p.url, header)
	if err != nil {
		return rotation.ProbeUnknown, p.failed("%v", err)
	}
	switch {
	case status == http.StatusUnauthorized:
		return rotation.ProbeBad, p.failed("HTTP 401: the credential is refused")
	case status >= 300 && status <= 399:
		return rotation.ProbeUnknown, p.failed("HTTP %d: a redirect, perhaps to a login page; with strict service-token authentication in the "+
			"organisation Cloudflare answers 401 instead", status)
	case status == http.StatusForbidden, status >= 200 && status <= 299:
		return p.granted(ctx, status)
	}
	return rotation.ProbeUnknown, p.failed("HTTP %d, which says nothing about the credential", status)
}

// granted decides about an answer that only a good credential should get.
func (p *Prober) granted(ctx context.Context, status int) (rotation.Probe, error) {
	without, err := p.client.withoutCredential(ctx, p.url)
	forbidden := status == http.StatusForbidden
	switch {
	case err != nil:
		return rotation.ProbeUnknown, p.failed("HTTP %d, but it is not known whether a request without a credential gets the same: %v", status, err)
	case forbidden && without == http.StatusForbidden:
		return rotation.ProbeUnknown, p.failed("HTTP 403, and the same without a credential: perhaps the credential was not checked")
	case !refused(without):
		return rotation.ProbeUnknown, p.failed("HTTP %d, but HTTP %d without a credential: the URL is not protected, so this proves nothing", status, without)
	case forbidden:
		p.log.Info("the credential is valid, and not authorised at verify.url", "url", shown(p.url), "status", status)
	default:
		p.log.Debug("the credential is valid at verify.url", "url", shown(p.url), "status", status)
	}
	return rotation.ProbeGood, nil
}

// refused reports whether Access may answer a request that it refuses with a status.
func refused(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusForbidden || status >= 300 && status <= 399
}

// bare is the answer of a URL to a request without a credential.
type bare struct {
	turn   chan struct{} // has a value while a request is in progress
	status int           // 0 if not known
	asked  time.Time     // when it was
}

// withoutCredential returns the status of a request without a credential. It sends one request for all
// tokens, and another one after some time, because configurations change.
func (c *Client) withoutCredential(ctx context.Context, url string) (int, error) {
	c.mu.Lock()
	b := c.bare[url]
	if b == nil {
		b = &bare{turn: make(chan struct{}, 1)}
		c.bare[url] = b
	}
	c.mu.Unlock()

	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if b.status != 0 && time.Since(b.asked) < bareFor {
		return b.status, nil
	}
	status, err := c.get(ctx, url, nil)
	if err != nil {
		return 0, err
	}
	if status < 500 && status != http.StatusTooManyRequests { // other answers do not last
		b.status, b.asked = status, time.Now()
	}
	return status, nil
}

var _ rotation.Prober = (*Prober)(nil)
