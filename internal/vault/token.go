package vault

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"
)

// Self is what Vault says of the token in use.
type Self struct {
	TTL       time.Duration // what is left; 0 in its last second, or if Forever
	Forever   bool          // it does not end
	Renewable bool
	Policies  []string
	// Limited is set if the token is good for a number of requests only, and Uses is how many
	// are left.
	Limited bool
	Uses    int
}

// LookUp asks Vault about the session's token.
func (s *Session) LookUp(ctx context.Context) (Self, error) {
	self, err := s.client.lookUp(ctx, s.currentToken())
	return self, s.judge(err)
}

func (c *client) lookUp(ctx context.Context, token string) (Self, error) {
	r := request{method: http.MethodGet, path: pathLookup, token: token}
	answer, err := c.do(ctx, r)
	if err != nil {
		return Self{}, err
	}
	self, err := selfFrom(answer)
	if err != nil {
		return Self{}, describe(r, err)
	}
	return self, nil
}

func selfFrom(a *Secret) (self Self, err error) {
	if a == nil || a.Data == nil {
		return Self{}, foreign("an answer without data")
	}
	if self.TTL, err = seconds(a.Data, "ttl"); err != nil {
		return Self{}, err
	}
	// Vault tells whole seconds: a token in its last one has a ttl of 0, as has one that does
	// not end. Only the latter has no expire_time.
	self.Forever = self.TTL == 0 && a.Data["expire_time"] == nil
	if self.Renewable, err = boolean(a.Data, "renewable"); err != nil {
		return Self{}, err
	}
	if self.Limited, self.Uses, err = usesFrom(a.Data["num_uses"]); err != nil {
		return Self{}, err
	}
	for _, name := range []string{"policies", "identity_policies"} {
		list, ok := a.Data[name].([]any)
		if !ok && a.Data[name] != nil {
			return Self{}, foreign("an answer whose " + name + " is not a list")
		}
		for _, p := range list {
			policy, ok := p.(string)
			if !ok {
				return Self{}, foreign("an answer whose " + name + " are not names")
			}
			self.Policies = append(self.Policies, policy)
		}
	}
	return self, nil
}

// usesFrom reads num_uses. Vault counts down to 1, and calls the last use -1, since 0 means that
// there is no limit.
func usesFrom(value any) (limited bool, left int, err error) {
	if value == nil {
		return false, 0, nil
	}
	number, ok := value.(json.Number)
	n, err := strconv.Atoi(number.String())
	if !ok || err != nil {
		return false, 0, foreign("an answer whose num_uses is not a number")
	}
	return n != 0, max(n, 0), nil
}

// lease is a token and how long it lasts.
type lease struct {
	token     string
	ttl       time.Duration // from the answer on
	forever   bool          // it does not end; ttl is 0
	renewable bool
}

// enough is how long a session must last that is not thought to have failed.
func (l lease) enough() time.Duration {
	if l.forever {
		return minSession
	}
	return min(minSession, l.ttl/2)
}

// maxLease is what a longer lease is taken for. It keeps times in range.
const maxLease = 100 * 365 * 24 * time.Hour

// lease sends a request that is answered with a lease.
func (c *client) lease(ctx context.Context, r request) (lease, error) {
	answer, err := c.do(ctx, r)
	if err != nil {
		return lease{}, err
	}
	l, err := leaseFrom(answer)
	if err != nil {
		return lease{}, describe(r, err)
	}
	return l, nil
}

// renew extends the token's lease. Its answer is a lease that ends, however short it is.
func (c *client) renew(ctx context.Context, token string) (lease, error) {
	l, err := c.lease(ctx, request{method: http.MethodPut, path: pathRenew, token: token, body: map[string]any{}})
	l.token = token
	return l, err
}

// leaseFrom reads the auth part of an answer to a login or a renewal.
func leaseFrom(a *Secret) (lease, error) {
	switch {
	case a == nil:
		return lease{}, foreign("HTTP 204 without a body")
	case a.auth == nil && a.wrapped:
		return lease{}, foreign("a wrapped answer, which rotatord did not ask for: does a proxy add X-Vault-Wrap-TTL?")
	case a.auth == nil:
		return lease{}, foreign("an answer without auth")
	case a.auth["mfa_requirement"] != nil:
		return lease{}, &describedError{text: "Vault asks for a second factor (MFA), which a daemon does not have: exempt its role from MFA"}
	}
	l := lease{}
	var ok bool
	if l.token, ok = a.auth["client_token"].(string); !ok || l.token == "" {
		return lease{}, foreign("an answer without a client_token")
	}
	var err error
	if l.ttl, err = seconds(a.auth, "lease_duration"); err != nil {
		return lease{}, err
	}
	l.renewable, err = boolean(a.auth, "renewable")
	return l, err
}

// seconds reads a number of seconds that must be there.
func seconds(from map[string]any, name string) (time.Duration, error) {
	value, there := from[name]
	if !there || value == nil {
		return 0, foreign("an answer without " + name)
	}
	number, ok := value.(json.Number)
	n, err := strconv.ParseInt(number.String(), 10, 64)
	switch {
	case !ok || err != nil && !errors.Is(err, strconv.ErrRange) || n < 0:
		return 0, foreign("an answer whose " + name + " is not a number of seconds")
	case err != nil || n > int64(maxLease/time.Second): // ParseInt saturates
		return maxLease, nil
	}
	return time.Duration(n) * time.Second, nil
}

// boolean reads a flag, false if it is not there.
func boolean(from map[string]any, name string) (bool, error) {
	value, ok := from[name].(bool)
	if !ok && from[name] != nil {
		return false, foreign("an answer whose " + name + " is neither true nor false")
	}
	return value, nil
}
