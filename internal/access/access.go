// Package access tries service tokens at applications behind Cloudflare Access, as a consumer
// would use them.
//
// Guarantees: a credential is sent to the host that the configuration names and nowhere else,
// once for each call, over a connection of its own; no redirect is followed and no cookie kept.
// No error and no log line has a credential in it, nor the query of a URL, nor anything that
// the other side answered. A credential is called good or bad only if the answer proves it, and
// is not one that the same URL gives to a request without any credential.
//
// What it cannot see is whether it was Access that answered: an application or a firewall that
// refuses requests for reasons of its own, with 401 or 403, looks the same.
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
	// timeout of one request, its body included.
	timeout = 10 * time.Second
	// bareFor is how long it is believed how a URL answers a request without a credential.
	bareFor = 10 * time.Minute
	// maxBody and maxHeader are how much of an answer is read.
	maxBody   = 64 << 10
	maxHeader = 64 << 10
)

// Options of a Client. The zero value is that of production.
type Options struct {
	Logger *slog.Logger // nil: silent
	// WrapTransport, if set, is put around the transport, for tests and rehearsals.
	WrapTransport func(http.RoundTripper) http.RoundTripper
}

// Client is what all probers of one daemon share. It is safe for concurrent use.
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

// newTransport keeps no connection, and unpacks no body that would grow.
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
	header string // the one header that carries the whole credential; empty: the two usual ones
}

// Probe implements [rotation.Prober]. It sends one request with c, and at times another one
// with none.
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
		return rotation.ProbeUnknown, p.failed("HTTP %d: a redirect, which may be to a login; strict service-token authentication in the "+
			"organisation makes this a plain answer", status)
	case status == http.StatusForbidden, status >= 200 && status <= 299:
		return p.granted(ctx, status)
	}
	return rotation.ProbeUnknown, p.failed("HTTP %d, which says nothing of the credential", status)
}

// granted decides what an answer is worth that only a good credential should get.
func (p *Prober) granted(ctx context.Context, status int) (rotation.Probe, error) {
	without, err := p.client.withoutCredential(ctx, p.url)
	forbidden := status == http.StatusForbidden
	switch {
	case err != nil:
		return rotation.ProbeUnknown, p.failed("HTTP %d, but not whether a request without a credential gets the same: %v", status, err)
	case forbidden && without == http.StatusForbidden:
		return rotation.ProbeUnknown, p.failed("HTTP 403, and the same without a credential: whoever refuses so may not have looked at it")
	case !refused(without):
		return rotation.ProbeUnknown, p.failed("HTTP %d, but HTTP %d without a credential: the URL is not protected, and proves nothing", status, without)
	case forbidden:
		p.log.Info("the credential is valid, and not authorised at verify.url", "url", shown(p.url), "status", status)
	default:
		p.log.Debug("the credential is valid at verify.url", "url", shown(p.url), "status", status)
	}
	return rotation.ProbeGood, nil
}

// refused reports whether a status may be that of Access for a request that it does not let in.
func refused(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusForbidden || status >= 300 && status <= 399
}

// bare is how a URL answers a request without a credential.
type bare struct {
	turn   chan struct{} // holds a value while a caller asks
	status int           // 0 if not known
	asked  time.Time     // when it was
}

// withoutCredential returns the status that a request without any credential gets. It is asked
// for once, however many tokens want to know, and again after a while: configurations change.
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
	if status < 500 && status != http.StatusTooManyRequests { // else it will not stay so
		b.status, b.asked = status, time.Now()
	}
	return status, nil
}

var _ rotation.Prober = (*Prober)(nil)
