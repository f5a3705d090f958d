package vault

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// reservationTime is how long requests stay reserved for a rotation: the longest time from the preflight to
// the last read-back.
const reservationTime = 3 * time.Minute

// uses has the known facts about the token's token_num_uses. The semaphore protects it, also while Vault is
// asked.
type uses struct {
	semaphore    chan struct{} // of capacity 1
	login        time.Time     // the login that the rest is about
	unlimited    bool
	limited      bool // it is known; neither is set before Vault was asked
	reservations []reservation
}

// reservation is a number of requests that a rotation may still need.
type reservation struct {
	requests int
	until    time.Time
}

// errFewUses is in the error of [Session.ReadyFor] if the token is good for too few requests.
var errFewUses = errors.New("the session with Vault has too few uses left")

// ReadyFor is Ready for a caller that will send up to that many requests within three minutes. If
// the token's uses are limited (token_num_uses), it also makes sure that so many are left, beside
// those that are reserved for other callers, and otherwise logs in again. For a session without such a
// limit it sends one request for each login.
func (s *Session) ReadyFor(ctx context.Context, atLeast time.Duration, requests int) error {
	if err := s.Ready(ctx, atLeast); err != nil {
		return err
	}
	select {
	case s.uses.semaphore <- struct{}{}:
		defer func() { <-s.uses.semaphore }()
	case <-ctx.Done():
		return fmt.Errorf("waiting to find out how many uses the session with Vault has left: %w", ctx.Err())
	}
	err := s.reserveUses(ctx, requests)
	if !errors.Is(err, errFewUses) {
		return err
	}
	if loginErr := s.logInAgain(ctx); loginErr != nil {
		return fmt.Errorf("%w; logging in loginRequests: %w", err, loginErr)
	}
	return s.reserveUses(ctx, requests)
}

// reserveUses reserves that many requests for the caller, or returns errFewUses.
func (s *Session) reserveUses(ctx context.Context, requests int) error {
	s.forgetOldLogin()
	if s.uses.unlimited {
		return nil
	}
	left, limited, err := s.usesLeft(ctx)
	if err != nil {
		return err
	}
	if s.uses.limited, s.uses.unlimited = limited, !limited; !limited {
		return nil
	}
	now, reserved := time.Now(), 0
	kept := s.uses.reservations[:0]
	for _, p := range s.uses.reservations {
		if now.Before(p.until) {
			kept, reserved = append(kept, p), reserved+p.requests
		}
	}
	s.uses.reservations = kept
	if left-reserved < requests {
		return fmt.Errorf("%w: its token can be used for %d more request(s), %d of them are reserved for other rotations, and a rotation needs up to %d "+
			"(set token_num_uses to 0 at the role, or use a token without a limit)", errFewUses, left, min(reserved, left), requests)
	}
	s.uses.reservations = append(s.uses.reservations, reservation{requests, now.Add(reservationTime)})
	return nil
}

// forgetOldLogin drops the facts about an earlier login. The caller holds the semaphore.
func (s *Session) forgetOldLogin() {
	s.mu.Lock()
	login := s.loginAt
	s.mu.Unlock()
	if !s.uses.login.Equal(login) {
		s.uses.login, s.uses.limited, s.uses.unlimited, s.uses.reservations = login, false, false, nil
	}
}

// Limited reports whether the token can be used for a limited number of requests (token_num_uses). It asks
// Vault once for each login.
func (s *Session) Limited(ctx context.Context) (bool, error) {
	if err := s.Ready(ctx, 0); err != nil {
		return false, err
	}
	select {
	case s.uses.semaphore <- struct{}{}:
		defer func() { <-s.uses.semaphore }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	s.forgetOldLogin()
	if s.uses.limited || s.uses.unlimited {
		return s.uses.limited, nil
	}
	_, limited, err := s.usesLeft(ctx)
	if err != nil {
		return false, err
	}
	s.uses.limited, s.uses.unlimited = limited, !limited
	return limited, nil
}

// usesLeft asks Vault how many requests the token can still be used for. A token that may not look itself
// up counts as one without a limit.
func (s *Session) usesLeft(ctx context.Context) (left int, limited bool, err error) {
	self, err := lookUp(ctx, s.client.session)
	switch {
	case denied(err):
		return 0, false, nil
	case err != nil:
		return 0, false, fmt.Errorf("asking how many uses the session with Vault has left: %w", err)
	}
	return self.Uses, self.Limited, nil
}

// logInAgain has Run replace the session although it is still valid, and waits for that.
func (s *Session) logInAgain(ctx context.Context) error {
	reply := make(chan error, 1)
	select {
	case s.loginRequests <- reply:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-reply:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
