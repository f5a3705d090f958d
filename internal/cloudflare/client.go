// Package cloudflare is the issuer: one Cloudflare account, reached through the official
// SDK.
//
// Guarantees: a rotate or create request is sent once and never repeated, neither by the
// SDK (its retries are off) nor by the HTTP transport (each of them has a connection of its
// own, no redirect is followed). Its answer is read whole before anything looks at it, so
// that neither a deadline nor a decoder can drop a secret that has arrived. Every
// failure says what is known about whether the request was carried out; in doubt it
// says so. No error contains a credential or a secret.
package cloudflare

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"rotatord/internal/admission"
	"rotatord/internal/config"
	"rotatord/internal/outbound"
	"rotatord/internal/rotation"
)

// Observer is told of requests, for metrics. It must be safe for concurrent use.
type Observer interface {
	// CloudflareRequest reports one request: operation is that of [rotation.IssuerError];
	// code is the HTTP status, or "error" if no answer came.
	CloudflareRequest(operation, code string, d time.Duration)
	// CloudflareBudget reports how many requests Cloudflare says are left.
	CloudflareBudget(account string, remaining int)
	// CloudflareThrottled reports a refusal because of the rate limit, and for how much
	// longer than before the account is left alone.
	CloudflareThrottled(account string, d time.Duration)
	// CloudflareSkew reports how far Cloudflare's clock is ahead of the local one, at
	// most: up to a second more than it is.
	CloudflareSkew(d time.Duration)
}

// Client is one account, or one zone's service tokens. It implements [rotation.Issuer],
// [rotation.Creator] and [rotation.Renewer], and is safe for concurrent use.
type Client struct {
	account  config.Account
	observer Observer
	log      *slog.Logger
	user     *admission.User
	last     lastLogin
	clock    clock
	asking   chan struct{}                    // held while the clock is asked for: one does it for all
	limit    atomic.Pointer[admission.Report] // the last report; nil: none
	rotate   http.RoundTripper                // a connection for each request, rotate and create
	read     http.RoundTripper
}

// Options of a Client. The zero value is that of production.
type Options struct {
	Observer Observer     // nil: nobody is told
	Logger   *slog.Logger // nil: silent
	// Budgets are shared by all clients that may have a credential in common. nil: the client's own.
	Budgets *admission.Budgets
	// WrapTransport, if set, is put around both transports, for tests.
	WrapTransport func(http.RoundTripper) http.RoundTripper
}

// readTimeout bounds what may be repeated. The bound of a rotate or create comes from its
// caller.
const readTimeout = 30 * time.Second

// MaxApart is how far the local clock may be from Cloudflare's for slots to mean anything.
const MaxApart = 15 * time.Minute

// New returns a client. It sends nothing and reads no credential yet.
func New(account config.Account, o Options) *Client {
	if o.Observer == nil {
		o.Observer = nobody{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Client{
		account: account, observer: o.Observer, log: o.Logger.With("account", account.Name),
		rotate: rotateTransport(), read: readTransport(), asking: make(chan struct{}, 1),
	}
	if o.Budgets == nil {
		o.Budgets = admission.NewBudgets()
	}
	c.user = o.Budgets.Join(account.RequestsPer5m)
	if o.WrapTransport != nil {
		c.rotate, c.read = o.WrapTransport(c.rotate), o.WrapTransport(c.read)
	}
	return c
}

// rotateTransport never reuses a connection. On a reused one the transport may send a
// request a second time when the server has just closed it. (HTTP/2 would share one; no
// transport of ours speaks it.)
func rotateTransport() *http.Transport {
	t := outbound.Transport()
	t.DisableKeepAlives = true
	// Bodies are unpacked by us: the transport drops one whose Content-Encoding is wrong.
	t.DisableCompression = true
	return t
}

func readTransport() *http.Transport { return outbound.Transport() }

// Ready implements [rotation.Issuer].
func (c *Client) Ready(ctx context.Context) error {
	if _, err := c.readLogin(ctx); err != nil {
		return &rotation.IssuerError{Class: rotation.NotCarriedOut, Operation: "rotate", Err: err}
	}
	if err := c.ReadClock(ctx); err != nil {
		return err
	}
	if err := c.admit(ctx, "rotate"); err != nil {
		return err
	}
	if apart, ok := c.Apart(); ok && apart > MaxApart {
		return &rotation.IssuerError{Class: rotation.NotCarriedOut, Operation: "rotate",
			Err: fmt.Errorf("%w: by %s, and it is not known which slots have come. Set this machine's clock (NTP)", rotation.ErrClock, apart.Round(time.Second))}
	}
	return nil
}

// clockTimeout bounds how long is waited for Cloudflare's clock where that is not worth more.
const clockTimeout = 3 * time.Second

// ReadClock asks for as many answers as are needed to know Cloudflare's clock, with a request that
// is cheap and changes nothing: for none if it is known. Where they do not tell it, because they have
// no Date or contradict each other, the local clock has to do, and it is not asked again for a while.
// The error is nil also then, and if an earlier answer has shown no great difference.
func (c *Client) ReadClock(ctx context.Context) error {
	if c.clock.wanting() == 0 {
		return nil
	}
	select {
	case c.asking <- struct{}{}:
		defer func() { <-c.asking }()
	case <-ctx.Done():
		return &rotation.IssuerError{Class: rotation.NotCarriedOut, Operation: "list", Err: ctx.Err()}
	}
	wanting := c.clock.wanting()
	if wanting == 0 { // others have asked meanwhile
		return nil
	}
	confirming := c.clock.close()
	if confirming { // a listing that hangs must not hold up a rotation
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, clockTimeout)
		defer cancel()
	}
	err := c.askForDates(ctx, wanting)
	c.clock.asked()
	if confirming {
		return nil
	}
	return err
}

func (c *Client) askForDates(ctx context.Context, n int) error {
	for range n {
		if err := c.admit(ctx, "list"); err != nil {
			return err
		}
		if _, err := c.askForPage(ctx, 1, 1); err != nil {
			return err
		}
		if c.clock.wanting() == 0 {
			break
		}
	}
	return nil
}

// admit waits within ctx until the budget of the credential lets one request leave. The request is then
// sent by roundTrip.
func (c *Client) admit(ctx context.Context, operation string) error {
	b, err := c.budget(ctx)
	if err != nil {
		return &rotation.IssuerError{Class: rotation.NotCarriedOut, Operation: operation, Err: err}
	}
	err = b.Take(ctx)
	none, isNone := errors.AsType[*admission.NoCapacityError](err)
	switch {
	case err == nil:
		return nil
	case isNone && none.Blocked:
		return &rotation.IssuerError{Class: rotation.Throttled, Operation: operation, RetryAfter: none.Wait,
			Message: "nothing was sent: Cloudflare asked to be left alone"}
	case isNone:
		return &rotation.IssuerError{Class: rotation.Throttled, Operation: operation, RetryAfter: none.Wait,
			Message: "nothing was sent: the budget of requests in five minutes is spent"}
	default:
		return &rotation.IssuerError{Class: rotation.NotCarriedOut, Operation: operation,
			Err: fmt.Errorf("waiting for the budget of %d requests in five minutes: %w", c.account.RequestsPer5m, err)}
	}
}

// set sets an optional parameter of the SDK. Its own constructor for them is in its root
// package, which would pull in every Cloudflare product.
func set[T any](value *T, present *bool, v T) { *value, *present = v, true }

// own names the account or the zone in the parameters of a call that exists for both.
func (c *Client) own(accountID *string, accountPresent *bool, zoneID *string, zonePresent *bool) {
	if c.account.ZoneID != "" {
		set(zoneID, zonePresent, c.account.ZoneID)
		return
	}
	set(accountID, accountPresent, c.account.AccountID)
}

// nobody is told of nothing.
type nobody struct{}

func (nobody) CloudflareRequest(string, string, time.Duration) {}
func (nobody) CloudflareBudget(string, int)                    {}
func (nobody) CloudflareThrottled(string, time.Duration)       {}
func (nobody) CloudflareSkew(time.Duration)                    {}

func statusLabel(status int) string {
	if status == 0 {
		return "error"
	}
	return strconv.Itoa(status)
}
