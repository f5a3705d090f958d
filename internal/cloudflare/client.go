// Package cloudflare is the issuer: one Cloudflare account, reached through the official SDK.
//
// Guarantees: a rotate or create request is sent once and never repeated, neither by the SDK (its retries are
// off) nor by the HTTP transport (each request has a connection of its own, and no redirect is followed). The
// whole answer is read before anything looks at it, so neither a deadline nor a decoder can drop a secret
// that has arrived. Every failure says what is known about whether the request was carried out; if that is
// unclear, it says so. No error contains a credential or a secret.
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

// Observer is told about requests, for metrics. It must be safe for concurrent use.
type Observer interface {
	// CloudflareRequest reports one request. operation is that of [rotation.IssuerError]; code is the HTTP
	// status, or "error" if no answer came.
	CloudflareRequest(operation, code string, d time.Duration)
	// CloudflareBudget reports how many requests Cloudflare says are left.
	CloudflareBudget(account string, remaining int)
	// CloudflareThrottled reports a 429, and how much longer than before nothing is sent for the account.
	CloudflareThrottled(account string, d time.Duration)
	// CloudflareSkew reports how far Cloudflare's clock is ahead of the local one: an upper bound, up to a
	// second more than it is.
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
	asking   chan struct{}                    // held while the clock is asked for: one request serves all callers
	limit    atomic.Pointer[admission.Report] // the last report; nil: none
	rotate   http.RoundTripper                // one connection for each request: for rotate and create
	read     http.RoundTripper
}

// Options of a Client. The zero value is for production.
type Options struct {
	Observer Observer     // nil: requests are not reported
	Logger   *slog.Logger // nil: silent
	// Budgets are shared by all clients that may have a credential in common. nil: the client's own.
	Budgets *admission.Budgets
	// WrapTransport, if set, is put around both transports, for tests.
	WrapTransport func(http.RoundTripper) http.RoundTripper
}

// readTimeout limits requests that may be repeated. The caller of a rotate or create request sets its limit.
const readTimeout = 30 * time.Second

// MaxApart is the largest difference between the local clock and Cloudflare's for which slots still mean
// anything.
const MaxApart = 15 * time.Minute

// New returns a client. It sends nothing and reads no credential yet.
func New(account config.Account, o Options) *Client {
	if o.Observer == nil {
		o.Observer = noObserver{}
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

// rotateTransport never reuses a connection. On a reused one, the transport may send a request a second time
// if the server has just closed the connection. (HTTP/2 would share a connection; none of our transports
// speaks it.)
func rotateTransport() *http.Transport {
	t := outbound.Transport()
	t.DisableKeepAlives = true
	// We unpack bodies ourselves: the transport drops a body whose Content-Encoding is wrong.
	t.DisableCompression = true
	return t
}

func readTransport() *http.Transport { return outbound.Transport() }

// Ready implements [rotation.Issuer].
func (c *Client) Ready(ctx context.Context) error {
	if c.clock.missing() > 0 {
		if _, err := c.readLogin(ctx); err != nil {
			return &rotation.IssuerError{Class: rotation.NotCarriedOut, Operation: "rotate", Err: err}
		}
		if err := c.ReadClock(ctx); err != nil {
			return err
		}
	}
	if err := c.admit(ctx, "rotate"); err != nil { // it reads the credential as it is now
		return err
	}
	if apart, ok := c.Apart(); ok && apart > MaxApart {
		return &rotation.IssuerError{Class: rotation.NotCarriedOut, Operation: "rotate",
			Err: fmt.Errorf("%w: by %s, and it is not known which slots have come. Set this machine's clock (NTP)", rotation.ErrClock, apart.Round(time.Second))}
	}
	return nil
}

// clockTimeout limits the wait for Cloudflare's clock where the clock is not worth more.
const clockTimeout = 3 * time.Second

// ReadClock asks for as many answers as are needed to know Cloudflare's clock, with a cheap request that
// changes nothing. If the clock is known, it asks for none. If the answers do not show the clock, because
// they have no Date or contradict each other, the local clock is used, and Cloudflare is not asked again for
// a while. In that case, and if an earlier answer showed no great difference, the error is nil.
func (c *Client) ReadClock(ctx context.Context) error {
	if c.clock.missing() == 0 {
		return nil
	}
	select {
	case c.asking <- struct{}{}:
		defer func() { <-c.asking }()
	case <-ctx.Done():
		return &rotation.IssuerError{Class: rotation.NotCarriedOut, Operation: "list", Err: ctx.Err()}
	}
	missing := c.clock.missing()
	if missing == 0 { // another caller has asked meanwhile
		return nil
	}
	confirming := c.clock.close()
	if confirming { // a listing that hangs must not delay a rotation
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, clockTimeout)
		defer cancel()
	}
	err := c.askForDates(ctx, missing)
	c.clock.noteAsked()
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
		if c.clock.missing() == 0 {
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

// set sets an optional parameter of the SDK. The SDK's own constructor for them is in its root package, which
// would pull in every Cloudflare product.
func set[T any](value *T, present *bool, v T) { *value, *present = v, true }

// setScope names the account or the zone in the parameters of a call that exists for both.
func (c *Client) setScope(accountID *string, accountPresent *bool, zoneID *string, zonePresent *bool) {
	if c.account.ZoneID != "" {
		set(zoneID, zonePresent, c.account.ZoneID)
		return
	}
	set(accountID, accountPresent, c.account.AccountID)
}

// noObserver ignores everything.
type noObserver struct{}

func (noObserver) CloudflareRequest(string, string, time.Duration) {}
func (noObserver) CloudflareBudget(string, int)                    {}
func (noObserver) CloudflareThrottled(string, time.Duration)       {}
func (noObserver) CloudflareSkew(time.Duration)                    {}

func statusLabel(status int) string {
	if status == 0 {
		return "error"
	}
	return strconv.Itoa(status)
}
