package vault

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
)

// Self is what Vault says about the token in use.
type Self struct {
	TTL       time.Duration // the time left; 0 in its last second, or if Forever
	Forever   bool          // it does not end
	Renewable bool
	// Batch is set for a token that cannot be renewed, and cannot be revoked.
	Batch    bool
	Policies []string
	// Limited is set if the token can be used for a limited number of requests. Uses is how many are
	// left.
	Limited bool
	Uses    int
	Origin
}

// LookUp asks Vault about the session's token.
func (s *Session) LookUp(ctx context.Context) (Self, error) {
	self, err := lookUp(ctx, s.client.session)
	return self, s.noteRefusal(err)
}

func lookUp(ctx context.Context, library *api.Client) (Self, error) {
	answer, err := library.Auth().Token().LookupSelfWithContext(ctx)
	if err != nil {
		return Self{}, plain(err)
	}
	self, err := selfFrom(answer)
	if err != nil {
		return Self{}, describe(request{operation: "lookup"}, err)
	}
	return self, nil
}

func selfFrom(a *api.Secret) (self Self, err error) {
	if a == nil || a.Data == nil {
		return Self{}, foreign("an answer without data")
	}
	// The library's TokenTTL takes a missing number for 0.
	if self.TTL, err = seconds(a.Data, "ttl"); err != nil {
		return Self{}, err
	}
	// Vault counts whole seconds. A token in its last second has a ttl of 0, and so has a token without an
	// end. Only the latter has no expire_time.
	self.Forever = self.TTL == 0 && a.Data["expire_time"] == nil
	if self.Renewable, err = a.TokenIsRenewable(); err != nil {
		return Self{}, foreign("an answer whose renewable is neither true nor false")
	}
	kind, _ := a.Data["type"].(string)
	self.Batch = kind == batchType
	if self.Policies, err = a.TokenPolicies(); err != nil {
		return Self{}, foreign("an answer whose policies are not names")
	}
	self.Origin = originFrom(a.Data)
	self.Limited, self.Uses, err = usesFrom(a.Data["num_uses"])
	return self, err
}

// usesFrom reads num_uses. Vault counts down to 1 and shows the last use as -1, because 0 means that
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
	batch     bool // it can be neither renewed nor revoked
	managed   bool // an agent has the token, renews it, and gets another one before its end
}

// batchType is the type of a batch token in Vault's answers.
const batchType = "batch"

// isBatch reports whether a token is a batch token by its form, if Vault does not say its type.
func isBatch(token string) bool {
	return strings.HasPrefix(token, "hvb.") || strings.HasPrefix(token, "b.")
}

// minLife is how long the session must last so that the next login follows at once.
func (l lease) minLife() time.Duration {
	if l.forever {
		return minSession
	}
	return min(minSession, l.ttl/2)
}

// maxLease replaces every longer lease, so that times do not overflow.
const maxLease = 100 * 365 * 24 * time.Hour

// leased reports whether an answer must give a token and its lease.
func (r request) leased() bool { return r.operation == "login" || r.operation == "renew" }

// checkLease checks the auth part of an answer to a login or a renewal. With a lease that is not a time
// the lifetime watcher would panic, renew without a pause, or log in at once.
func checkLease(auth map[string]any, wrapped bool) error {
	switch {
	case auth == nil && wrapped:
		return foreign("a wrapped answer, which rotatord did not ask for: does a proxy add X-Vault-Wrap-TTL?")
	case auth == nil:
		return foreign("an answer without auth")
	case auth["mfa_requirement"] != nil:
		return &describedError{text: "Vault asks for a second factor (MFA), which a daemon does not have: exempt its role from MFA"}
	}
	token, ok := auth["client_token"].(string)
	switch {
	case !ok || token == "":
		return foreign("an answer without a client_token")
	case !sendable(token):
		return foreign("an answer whose client_token has characters that are not allowed in a token")
	}
	if _, err := seconds(auth, "lease_duration"); err != nil {
		return err
	}
	if n, err := auth["lease_duration"].(json.Number).Int64(); err != nil || n > math.MaxInt64/int64(time.Second) {
		return foreign("an answer whose lease_duration is longer than 292 years")
	}
	if _, ok := auth["renewable"].(bool); !ok && auth["renewable"] != nil {
		return foreign("an answer whose renewable is neither true nor false")
	}
	return nil
}

// leaseOf reads an answer to a login or a renewal that checkLease has passed.
func leaseOf(a *api.Secret) lease {
	l := lease{
		token: a.Auth.ClientToken, ttl: min(time.Duration(a.Auth.LeaseDuration)*time.Second, maxLease), renewable: a.Auth.Renewable,
		batch: isBatch(a.Auth.ClientToken),
	}
	if l.batch && l.ttl > time.Second {
		l.ttl -= time.Second // Vault rounds the second in which a batch token was created down, so it ends up to a second earlier
	}
	return l
}

// watched returns the lease in the form of the library's lifetime watcher.
func (l lease) watched() *api.Secret {
	return &api.Secret{Auth: &api.SecretAuth{
		ClientToken: l.token, LeaseDuration: int(min(int64(l.ttl/time.Second), math.MaxInt)), Renewable: l.renewable,
	}}
}

// sendable reports whether a token can be sent in a header.
func sendable(token string) bool {
	return !strings.ContainsFunc(token, func(b rune) bool { return b < '!' || b > '~' })
}

// seconds reads a required number of seconds.
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
