// Package cloudflare is the issuer: one Cloudflare account, reached through the official
// SDK.
//
// Guarantees: a rotate request is sent once and never repeated, neither by the SDK (its
// retries are off) nor by the HTTP transport (every rotate has a connection of its own,
// no redirect is followed). Its answer is read whole before anything looks at it, so
// that neither a deadline nor a decoder can drop a secret that has arrived. Every
// failure says what is known about whether the request was carried out; in doubt it
// says so. No error contains a credential or a secret.
package cloudflare

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/cloudflare/cloudflare-go/v7/option"
	"github.com/cloudflare/cloudflare-go/v7/zero_trust"

	"rotatord/internal/config"
	"rotatord/internal/rotation"
)

// Observer is told of requests, for metrics. It must be safe for concurrent use.
type Observer interface {
	// CloudflareRequest reports one request: operation is rotate, get, list or update; code
	// is the HTTP status, or "error" if no answer came.
	CloudflareRequest(operation, code string, d time.Duration)
	// CloudflareBudget reports how many requests Cloudflare says are left.
	CloudflareBudget(account string, remaining int)
	// CloudflareThrottled reports a refusal because of the rate limit, and for how
	// long the account is left alone.
	CloudflareThrottled(account string, d time.Duration)
	// CloudflareSkew reports how far Cloudflare's clock is ahead of the local one, at
	// most: up to a second more than it is.
	CloudflareSkew(d time.Duration)
}

// Client is one account. It implements [rotation.Issuer] and is safe for concurrent use.
type Client struct {
	account  config.Account
	observer Observer
	log      *slog.Logger
	budget   *budget
	clock    clock
	rotate   http.RoundTripper // a connection for each request
	read     http.RoundTripper
}

// Options of a Client. The zero value is that of production.
type Options struct {
	Observer Observer     // nil: nobody is told
	Logger   *slog.Logger // nil: silent
	// WrapTransport, if set, is put around both transports, for tests.
	WrapTransport func(http.RoundTripper) http.RoundTripper
}

// readTimeout bounds a listing or a read. The bound of a rotate comes from its caller.
const readTimeout = 30 * time.Second

// maxApart is how far the local clock may be from Cloudflare's for slots to mean anything.
const maxApart = 15 * time.Minute

// pageSize of listings.
const pageSize = 100

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
		budget: newBudget(account.RequestsPer5m),
		rotate: rotateTransport(), read: readTransport(),
	}
	if o.WrapTransport != nil {
		c.rotate, c.read = o.WrapTransport(c.rotate), o.WrapTransport(c.read)
	}
	return c
}

// rotateTransport never reuses a connection. On a reused one the transport may send a
// request a second time when the server has just closed it; and HTTP/2 would share one.
func rotateTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DisableKeepAlives = true
	t.ForceAttemptHTTP2 = false
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	return t
}

func readTransport() *http.Transport {
	return http.DefaultTransport.(*http.Transport).Clone()
}

// Ready implements [rotation.Issuer].
func (c *Client) Ready(ctx context.Context) error {
	if _, err := c.credential(); err != nil {
		return &rotation.IssuerError{Class: rotation.NotCarriedOut, Operation: "rotate", Err: err}
	}
	if !c.clock.known() {
		// A grace is counted on Cloudflare's clock, and no answer has shown it yet, or none since
		// our own was set.
		if err := c.admit(ctx, "list"); err != nil {
			return err
		}
		var results []tokenResult
		if _, err := c.listPage(ctx, 1, &results); err != nil {
			return err
		}
	}
	if err := c.admit(ctx, "rotate"); err != nil {
		return err
	}
	if apart := c.clock.apart(); apart > maxApart {
		return &rotation.IssuerError{Class: rotation.NotCarriedOut, Operation: "rotate",
			Err: fmt.Errorf("%w: by %s, and it is not known which slots have come. Set this machine's clock (NTP)", rotation.ErrClock, apart.Round(time.Second))}
	}
	return nil
}

// admit takes one request out of the budget, waiting for it within ctx.
func (c *Client) admit(ctx context.Context, operation string) error {
	if left := c.budget.blocked(); left > 0 {
		return &rotation.IssuerError{Class: rotation.Throttled, Operation: operation, RetryAfter: left,
			Message: "nothing was sent: Cloudflare asked to be left alone"}
	}
	if err := c.budget.take(ctx); err != nil {
		return &rotation.IssuerError{Class: rotation.NotCarriedOut, Operation: operation,
			Err: fmt.Errorf("waiting for the budget of %d requests in five minutes: %w", c.account.RequestsPer5m, err)}
	}
	return nil
}

// Inspect implements [rotation.Issuer].
func (c *Client) Inspect(ctx context.Context, tokenID string) (rotation.TokenFacts, error) {
	if err := c.admit(ctx, "get"); err != nil {
		return rotation.TokenFacts{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	var params zero_trust.AccessServiceTokenGetParams
	set(&params.AccountID.Value, &params.AccountID.Present, c.account.AccountID)
	var result tokenResult
	err := c.call(ctx, "get", c.read, &result, func(s *zero_trust.AccessServiceTokenService, opts []option.RequestOption) error {
		_, err := s.Get(ctx, tokenID, params, opts...)
		return err
	})
	return result.facts(), err
}

// List reads all service tokens of the account, page by page.
func (c *Client) List(ctx context.Context) ([]rotation.TokenFacts, error) {
	var all []rotation.TokenFacts
	for page := 1; ; page++ {
		if err := c.admit(ctx, "list"); err != nil {
			return nil, err
		}
		var results []tokenResult
		info, err := c.listPage(ctx, page, &results)
		if err != nil {
			return nil, err
		}
		for _, r := range results {
			all = append(all, r.facts())
		}
		if len(results) == 0 || info.TotalCount > 0 && len(all) >= info.TotalCount {
			return all, nil
		}
	}
}

func (c *Client) listPage(ctx context.Context, page int, results *[]tokenResult) (resultInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	var params zero_trust.AccessServiceTokenListParams
	set(&params.AccountID.Value, &params.AccountID.Present, c.account.AccountID)
	set(&params.Page.Value, &params.Page.Present, int64(page))
	set(&params.PerPage.Value, &params.PerPage.Present, pageSize)
	answer, err := c.exchange(ctx, "list", c.read, func(s *zero_trust.AccessServiceTokenService, opts []option.RequestOption) error {
		_, err := s.List(ctx, params, opts...)
		return err
	})
	if err != nil {
		return resultInfo{}, err
	}
	return answer.ResultInfo, decodeResult("list", answer, results)
}

// Rotate implements [rotation.Issuer]. The request was admitted by Ready.
func (c *Client) Rotate(ctx context.Context, req rotation.RotateRequest) (rotation.Issued, error) {
	var params zero_trust.AccessServiceTokenRotateParams
	set(&params.AccountID.Value, &params.AccountID.Present, c.account.AccountID)
	var graceEndsAt time.Time
	if req.Grace > 0 {
		var expires time.Time
		expires, graceEndsAt = c.graceEnd(req.Grace)
		set(&params.PreviousClientSecretExpiresAt.Value, &params.PreviousClientSecretExpiresAt.Present, expires)
	}
	var result tokenResult
	err := c.call(ctx, "rotate", c.rotate, &result, func(s *zero_trust.AccessServiceTokenService, opts []option.RequestOption) error {
		_, err := s.Rotate(ctx, req.TokenID, params, opts...)
		return err
	})
	if err != nil && result.ClientSecret.IsZero() {
		return rotation.Issued{}, err
	}
	// An answer that holds a secret is an answer, whatever else of it cannot be read.
	return rotation.Issued{
		Credential:  rotation.Credential{ClientID: result.ClientID, ClientSecret: result.ClientSecret.Value},
		Facts:       result.facts(),
		GraceEndsAt: graceEndsAt,
	}, nil
}

// graceEnd is when a grace that begins now ends: as it is told to Cloudflare, on its clock,
// and on ours. It is rounded up to the second, since the SDK sends no fractions: a promised
// grace is never cut short.
func (c *Client) graceEnd(grace time.Duration) (theirs, ours time.Time) {
	low, high := c.clock.bounds()
	theirs = time.Now().Add(high + grace + time.Second - 1).UTC().Truncate(time.Second)
	return theirs, theirs.Add(-low)
}

// SetGrace implements [rotation.Issuer]. The request names no version of the secret, so
// it cannot rotate.
func (c *Client) SetGrace(ctx context.Context, tokenID string, grace time.Duration) (rotation.TokenFacts, time.Time, error) {
	if err := c.admit(ctx, "update"); err != nil {
		return rotation.TokenFacts{}, time.Time{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	if !c.clock.known() { // the end is told on Cloudflare's clock
		if _, err := c.Inspect(ctx, tokenID); err != nil {
			return rotation.TokenFacts{}, time.Time{}, err
		}
	}
	var params zero_trust.AccessServiceTokenUpdateParams
	set(&params.AccountID.Value, &params.AccountID.Present, c.account.AccountID)
	theirs, ours := c.graceEnd(grace)
	set(&params.PreviousClientSecretExpiresAt.Value, &params.PreviousClientSecretExpiresAt.Present, theirs)
	var result tokenResult
	err := c.call(ctx, "update", c.read, &result, func(s *zero_trust.AccessServiceTokenService, opts []option.RequestOption) error {
		_, err := s.Update(ctx, tokenID, params, opts...)
		return err
	})
	return result.facts(), ours, err
}

// credential reads the configured credential as it is now.
func (c *Client) credential() ([]option.RequestOption, error) {
	if !c.account.APIToken.IsZero() {
		token, err := c.account.APIToken.Read()
		if err != nil {
			return nil, fmt.Errorf("accounts.%s.api_token: %w", c.account.Name, err)
		}
		return []option.RequestOption{option.WithAPIToken(token.Reveal())}, nil
	}
	key, err := c.account.APIKey.Read()
	if err != nil {
		return nil, fmt.Errorf("accounts.%s.api_key: %w", c.account.Name, err)
	}
	return []option.RequestOption{option.WithAPIEmail(c.account.APIEmail), option.WithAPIKey(key.Reveal())}, nil
}

// set sets an optional parameter of the SDK. Its own constructor for them is in its root
// package, which would pull in every Cloudflare product.
func set[T any](value *T, present *bool, v T) { *value, *present = v, true }

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
