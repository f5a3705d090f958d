package vault

import (
	"context"
	"errors"
	"net/http"
	"time"

	"rotatord/internal/moment"
)

// This file says how soon a login that failed is tried again.

// refused reports whether Vault itself refused a login, so that the same credential would be refused again.
func refused(err error) bool {
	e, ok := errors.AsType[*ResponseError](err)
	return ok && !e.Foreign && e.Status >= 400 && e.Status < 500 && e.Status != http.StatusTooManyRequests && e.Status != http.StatusPreconditionFailed
}

// longestPause returns the longest pause after a login that failed with err. The same credential would be refused again, so that
// pause is a long one. What another program adds may be another credential by then.
func (s *Session) longestPause(err error) time.Duration {
	if _, borrows := s.login.(borrowingMethod); refused(err) && !borrows {
		return maxRefusedWait
	}
	return maxLoginWait
}

// keptBack returns for how long the method keeps back the credential that Vault refused with err.
func (s *Session) keptBack(err error) time.Duration {
	if m, ok := s.login.(patientMethod); ok && counts(err) {
		return max(0, time.Until(m.notBefore()))
	}
	return 0
}

// sleepUnlessChanged sleeps, and ends early if the credential has another content.
func (s *Session) sleepUnlessChanged(ctx context.Context, d time.Duration) {
	for end := time.Now().Add(d); ctx.Err() == nil; {
		left := time.Until(end)
		if left <= 0 || s.login.changed(ctx) {
			return
		}
		_ = moment.Sleep(ctx, min(left, s.pause))
	}
}

// failedLogin says when a login is tried again that failed while the session goes on. Each failure doubles the pause.
type failedLogin struct {
	next time.Time // zero if none has failed
	wait time.Duration
}

func (f *failedLogin) due() bool { return !f.next.IsZero() && !time.Now().Before(f.next) }

func (f *failedLogin) note(first time.Duration, err error, atLeast time.Duration) {
	longest := maxLoginWait
	if refused(err) {
		longest = maxReplaceWait
	}
	f.wait = min(max(2*f.wait, first), longest)
	f.next = time.Now().Add(max(f.wait, atLeast))
}
