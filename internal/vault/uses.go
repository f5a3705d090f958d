package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// rotationTime is the longest time from the preflight to the last read-back. A session must last that long, and
// requests stay reserved for a rotation that long.
const rotationTime = 3 * time.Minute

// uses has the known facts about the token's token_num_uses. The semaphore protects it, also while Vault is
// asked.
type uses struct {
	semaphore    chan struct{} // of capacity 1
	login        time.Time     // the login that the rest is about
	unlimited    bool
	limited      bool           // it is known; neither is set before Vault was asked
	full         int            // the uses that were left right after this login; 0 if that is not known
	left         int            // when Vault was asked last
	reservations []*Reservation // they outlive a login: the rotations go on with the next session
}

// Reservation is a number of requests that a rotation may still need. It ends by itself after three minutes.
type Reservation struct {
	requests int
	until    time.Time
}

// errFewUses is in the error of [Session.ReadyFor] if the token is good for too few requests.
var errFewUses = errors.New("the session with Vault has too few uses left")

// errShort is in the error of [Session.ReadyFor] if the session would end during a rotation.
var errShort = errors.New("the session with Vault would end during a rotation")

// ReadyFor is Ready for a caller that will send up to that many requests within three minutes. It makes sure that the
// session lasts that long: by its lease, or because it is renewed and can be renewed further. If the token's uses are
// limited (token_num_uses), it also makes sure that so many are left, beside those that are reserved for other callers. A
// session that does not suffice is replaced by another login; if that does not suffice either, the error says so. For a
// session without a limit of uses it sends one request for each login, and the reservation is nil.
func (s *Session) ReadyFor(ctx context.Context, atLeast time.Duration, requests int) (*Reservation, error) {
	if err := s.Ready(ctx, atLeast); err != nil {
		return nil, err
	}
	select {
	case s.uses.semaphore <- struct{}{}:
		defer func() { <-s.uses.semaphore }()
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting to find out how many uses the session with Vault has left: %w", ctx.Err())
	}
	suffices := func() (*Reservation, error) {
		if err := s.lasts(); err != nil {
			return nil, err
		}
		return s.reserveUses(ctx, requests)
	}
	r, err := suffices()
	switch {
	case errors.Is(err, errFewUses) && (s.uses.full == 0 || s.reserved()+requests <= s.uses.full):
	case errors.Is(err, errShort) && !s.loginIsFresh():
	default:
		return r, err // nil, or another login would change nothing
	}
	if loginErr := s.logInAgain(ctx); loginErr != nil {
		return nil, fmt.Errorf("%w; logging in again: %w", err, loginErr)
	}
	if r, err = suffices(); errors.Is(err, errFewUses) {
		s.uses.full = max(s.uses.left, 1)
	}
	return r, err
}

// lasts returns nil if the session lasts as long as a rotation.
func (s *Session) lasts() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch left := time.Until(s.expiry); {
	case s.expiry.IsZero(), left >= rotationTime, !s.final:
		return nil
	case s.config.Auth.LogsIn() && s.held.ttl < rotationTime:
		return fmt.Errorf("%w: each session lasts %s and cannot be renewed, and a rotation may take %s: set token_ttl of the role to %s or more",
			errShort, s.held.ttl, rotationTime, 2*rotationTime)
	default:
		return fmt.Errorf("%w: it ends at %s, cannot be renewed any further, and a rotation may take %s", errShort, s.expiry.UTC().Format(time.RFC3339), rotationTime)
	}
}

// loginIsFresh reports whether the last login was a moment ago, so that another one would change nothing.
func (s *Session) loginIsFresh() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.loginAt) < s.pause
}

// reserveUses reserves that many requests for the caller, or returns errFewUses.
func (s *Session) reserveUses(ctx context.Context, requests int) (*Reservation, error) {
	s.forgetOldLogin()
	if s.uses.unlimited {
		return nil, nil
	}
	left, limited, err := s.usesLeft(ctx)
	if err != nil {
		return nil, err
	}
	if s.uses.limited, s.uses.unlimited = limited, !limited; !limited {
		return nil, nil
	}
	s.uses.left = left
	reserved := s.reserved()
	if left-reserved < requests {
		return nil, fmt.Errorf("%w: its token can be used for %d more request(s), %d of them are reserved for other rotations, and a rotation needs up to %d "+
			"(set token_num_uses to 0 at the role, or use a token without a limit)", errFewUses, left, min(reserved, left), requests)
	}
	r := &Reservation{requests, time.Now().Add(rotationTime)}
	s.uses.reservations = append(s.uses.reservations, r)
	return r, nil
}

// Release gives back what ReadyFor has reserved for a caller that needs it no longer. If another caller asks Vault
// right now it does not wait for that: the reservation then ends by itself. r may be nil, and may have ended.
func (s *Session) Release(r *Reservation) {
	if r == nil {
		return
	}
	select {
	case s.uses.semaphore <- struct{}{}:
		defer func() { <-s.uses.semaphore }()
	default:
		return
	}
	if i := slices.Index(s.uses.reservations, r); i >= 0 {
		s.uses.reservations = slices.Delete(s.uses.reservations, i, i+1)
	}
}

// reserved returns how many requests are reserved now. The caller holds the semaphore.
func (s *Session) reserved() (all int) {
	s.uses.reservations = slices.DeleteFunc(s.uses.reservations, func(r *Reservation) bool { return !time.Now().Before(r.until) })
	for _, r := range s.uses.reservations {
		all += r.requests
	}
	return all
}

// forgetOldLogin drops the facts about an earlier login. The caller holds the semaphore.
func (s *Session) forgetOldLogin() {
	s.mu.Lock()
	login := s.loginAt
	s.mu.Unlock()
	if !s.uses.login.Equal(login) {
		s.uses.login, s.uses.limited, s.uses.unlimited, s.uses.full = login, false, false, 0
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
	if s.once.Load() {
		return errors.New("this session is for one command")
	}
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
