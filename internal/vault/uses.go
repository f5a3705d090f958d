package vault

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// promiseTime is how long requests that were promised to a rotation are kept for it: as long as
// it may take from the preflight to the last read-back.
const promiseTime = 3 * time.Minute

// uses is what is known of the token's token_num_uses. Its semaphore is held by whoever reads or
// changes it, also while Vault is asked.
type uses struct {
	semaphore chan struct{} // of capacity 1
	login     time.Time     // the login that the rest is about
	unlimited bool
	limited   bool // it is known; neither is set before Vault was asked
	promises  []promise
}

// promise is a number of requests that a rotation may still need.
type promise struct {
	requests int
	until    time.Time
}

// errFewUses is in the error of [Session.ReadyFor] if the token is good for too few requests.
var errFewUses = errors.New("the session with Vault has too few uses left")

// ReadyFor is Ready for a caller that will send up to that many requests within three minutes. If
// the token's uses are limited (token_num_uses), it also makes sure that so many are left, beside
// those that were promised to other callers, and logs in again if not. A session without such a
// limit costs one request for each login.
func (s *Session) ReadyFor(ctx context.Context, atLeast time.Duration, requests int) error {
	if err := s.Ready(ctx, atLeast); err != nil {
		return err
	}
	select {
	case s.uses.semaphore <- struct{}{}:
		defer func() { <-s.uses.semaphore }()
	case <-ctx.Done():
		return fmt.Errorf("waiting to learn how many uses the session with Vault has left: %w", ctx.Err())
	}
	err := s.promiseUses(ctx, requests)
	if !errors.Is(err, errFewUses) {
		return err
	}
	if loginErr := s.logInAgain(ctx); loginErr != nil {
		return fmt.Errorf("%w; logging in again: %w", err, loginErr)
	}
	return s.promiseUses(ctx, requests)
}

// promiseUses promises that many requests to the caller, or returns errFewUses.
func (s *Session) promiseUses(ctx context.Context, requests int) error {
	s.ofThisLogin()
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
	now, promised := time.Now(), 0
	kept := s.uses.promises[:0]
	for _, p := range s.uses.promises {
		if now.Before(p.until) {
			kept, promised = append(kept, p), promised+p.requests
		}
	}
	s.uses.promises = kept
	if left-promised < requests {
		return fmt.Errorf("%w: its token is good for %d more request(s), %d of them are kept for other rotations, and a rotation needs up to %d "+
			"(set token_num_uses to 0 at the role, or use a token without a limit)", errFewUses, left, min(promised, left), requests)
	}
	s.uses.promises = append(s.uses.promises, promise{requests, now.Add(promiseTime)})
	return nil
}

// ofThisLogin forgets what is known of an earlier login. The caller holds the semaphore.
func (s *Session) ofThisLogin() {
	s.mu.Lock()
	login := s.loginAt
	s.mu.Unlock()
	if !s.uses.login.Equal(login) {
		s.uses.login, s.uses.limited, s.uses.unlimited, s.uses.promises = login, false, false, nil
	}
}

// Limited reports whether the token is good for a limited number of requests (token_num_uses). It asks
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
	s.ofThisLogin()
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

// usesLeft asks Vault how many requests the token is still good for. A token that may not look
// at itself counts as one without a limit.
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

// logInAgain has Run replace a session that is still good, and waits for it.
func (s *Session) logInAgain(ctx context.Context) error {
	reply := make(chan error, 1)
	select {
	case s.again <- reply:
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
