package cloudflare

import (
	"context"
	"math"
	"time"

	"rotatord/internal/admission"
	"rotatord/internal/rotation"
)

// This file says which budget of requests a client uses: that of its credential.

var (
	_ admission.Limiter   = (*Client)(nil)
	_ admission.Explainer = (*Client)(nil)
)

// budget returns the budget of the credential as it is now.
func (c *Client) budget(ctx context.Context) (*admission.Budget, error) {
	login, err := c.readLogin(ctx)
	if err != nil {
		return nil, err
	}
	return c.budgetOf(login), nil
}

func (c *Client) budgetOf(l login) *admission.Budget {
	return c.user.Budget(admission.Key{BaseURL: c.account.BaseURL, Credential: l.digest()})
}

// CountEarlier counts requests of the account that an earlier process sent at these times: see
// [admission.User.CountEarlier].
func (c *Client) CountEarlier(at []time.Time) { c.user.CountEarlier(at) }

// Refused returns for how long a 429 to this process lasts: see [admission.User.Refused].
func (c *Client) Refused() time.Duration { return c.user.Refused() }

// Block sends nothing for a time, because another process was answered with a 429: see [admission.User.Block].
func (c *Client) Block(d time.Duration) { c.user.Block(d) }

// Close takes the client out of the budget that it shares. Requests that are under way may finish.
func (c *Client) Close() { c.user.Close() }

// Capacity implements [admission.Limiter]. The scheduler calls it, so it reads no file.
func (c *Client) Capacity(d time.Duration, u rotation.Urgency) (requests int, wait time.Duration) {
	c.last.mu.Lock()
	login, known := c.last.login, c.last.known
	c.last.mu.Unlock()
	if !known {
		return math.MaxInt, 0 // a request reads the credential, or fails with why it cannot be read
	}
	return c.budgetOf(login).Capacity(d, u)
}

// DelayReason implements [admission.Explainer], for the credential that was used last. It reads no file.
func (c *Client) DelayReason(u rotation.Urgency) (why string, until time.Time) {
	b := c.user.Current()
	if b == nil {
		return "", time.Time{}
	}
	return b.DelayReason(u)
}

// RateLimit returns how many requests Cloudflare's last report left to all users of the credential, and
// how many they have in a window. quota is 0 if that was not said, and ok is false if nothing was.
func (c *Client) RateLimit() (left, quota int, ok bool) {
	r := c.limit.Load()
	if r == nil {
		return 0, 0, false
	}
	return r.Left, r.Quota, true
}
