package vault

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// Waits between renewals that failed.
const (
	minRenewalWait = 100 * time.Millisecond
	maxRenewalWait = time.Minute
)

// renewal plans how one token is kept alive. It is renewed after about two thirds of its lease;
// a renewal that failed is tried again until the margin begins, in which there is time for a
// new login while the token still works.
type renewal struct {
	lease
	full   time.Duration // the longest lease that the token had
	end    time.Time     // of the lease
	margin time.Duration // a tenth to a fifth of full
	next   time.Time     // when to do something
	failed time.Duration // the wait after the last failure; 0 if it did not fail
}

func newRenewal(l lease) *renewal {
	now := time.Now()
	r := &renewal{lease: l, full: l.ttl, end: now.Add(l.ttl), margin: l.ttl/10 + upTo(l.ttl/10)}
	r.plan(now)
	return r
}

// plan sets the next step after the lease began.
func (r *renewal) plan(now time.Time) {
	r.failed, r.next = 0, r.end.Add(-r.margin)
	if r.renewable {
		r.next = now.Add(r.ttl*2/3 - upTo(r.ttl/10)) // many daemons started at once do not renew at once
	}
}

// wait is the time until the next step.
func (r *renewal) wait() time.Duration { return time.Until(r.next) }

// over reports whether it is time for a new login.
func (r *renewal) over(now time.Time) bool {
	return !now.Before(r.end.Add(-r.margin))
}

// renewed takes a new lease, and reports whether it is worth keeping. A lease that is not half
// as long as it was has met the maximum of the token.
func (r *renewal) renewed(l lease, now time.Time) bool {
	r.ttl, r.renewable, r.end = l.ttl, l.renewable, now.Add(l.ttl)
	r.full = max(r.full, l.ttl)
	r.plan(now)
	return l.ttl > r.full/2
}

// retry plans the next try after a failure.
func (r *renewal) retry(now time.Time) {
	first := min(max(r.full/50, minRenewalWait), 10*time.Second)
	r.failed = min(max(2*r.failed, first), maxRenewalWait)
	r.next = now.Add(r.failed)
	if last := r.end.Add(-r.margin); r.next.After(last) {
		r.next = last
	}
}

// renew does what is due for the session's token. It returns why the session is over, and
// nothing if it goes on.
func (s *Session) renew(ctx context.Context, r *renewal) (over string) {
	now := time.Now()
	if r.over(now) {
		return "it cannot be renewed any further"
	}
	ctx, cancel := context.WithDeadline(ctx, now.Add(min(loginTimeout, max(time.Second, r.end.Sub(now)))))
	defer cancel()
	l, err := s.client.renew(ctx, r.token)
	switch {
	case err == nil:
		s.mu.Lock()
		// This token has an end, so no time left is not "for ever" here.
		s.expiry = now.Add(l.ttl)
		s.mu.Unlock()
		if !r.renewed(l, now) {
			return fmt.Sprintf("its renewal gave %s only: its maximum is near", l.ttl)
		}
	case denied(err) && s.dead(ctx):
		return "it could not be renewed, and the token is no longer valid"
	case denied(err):
		s.log.Warn("the policy does not allow to renew the session with Vault, so it is logged in again before its end", "error", err)
		r.renewable = false
		r.plan(now)
	default:
		r.retry(time.Now())
		s.log.Warn("renewing the session with Vault failed", "error", err, "retry_in", r.wait().Round(time.Millisecond).String(), "ends", r.end.UTC())
	}
	return ""
}

// upTo is a random duration below d, for which 0 gives 0.
func upTo(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d)
}
