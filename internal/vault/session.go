// Package vault holds one authenticated session with HashiCorp Vault, shared by all sinks.
//
// Guarantees: the session is renewed before it ends, and logged in anew when it cannot be
// renewed, was revoked, or its credential was replaced; losing it is repaired without a
// restart. A request is sent once: whether to repeat it is the caller's decision. The
// configuration file alone decides: VAULT_* environment variables have no effect, except
// that the library refuses to start with one that it cannot read. No error contains a
// token or a secret.
package vault

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/hashicorp/vault/api"

	"rotatord/internal/config"
)

// Observer is told of requests, for metrics. It must be safe for concurrent use.
type Observer interface {
	// VaultRequest reports one request. operation is login, renew, lookup, capabilities,
	// mounts, read or write; code is the HTTP status, or "error" if no answer came.
	VaultRequest(operation, code string, d time.Duration)
}

// How a session is kept.
const (
	// pause is how often a credential file is looked at for a new content, and how long
	// after a login a refused request may cause the next one.
	pause        = 10 * time.Second
	loginTimeout = 30 * time.Second
	maxLoginWait = 15 * time.Second
)

// Session is one login at one Vault. It is safe for concurrent use.
type Session struct {
	config   config.Vault
	login    authMethod
	log      *slog.Logger
	client   *api.Client
	refused  chan struct{} // a request was refused with 403
	pause    time.Duration // the constant; shorter in tests
	attempts chan struct{} // closed after the first login, good or bad

	mu       sync.Mutex
	loggedIn bool
	loginAt  time.Time
	expiry   time.Time      // zero: does not end
	err      error          // why there is no session
	versions map[string]int // of KV mounts, as detected
}

// New returns a session that is not logged in yet. It sends nothing.
func New(c config.Vault, log *slog.Logger, observer Observer) (*Session, error) {
	client, err := newClient(c, observer)
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	return &Session{
		config: c, login: methodOf(c.Auth), log: log.With("vault", c.Address), client: client, pause: pause,
		refused: make(chan struct{}, 1), attempts: make(chan struct{}), versions: make(map[string]int),
		err: errors.New("not logged in yet"),
	}, nil
}

// Run keeps the session until ctx ends.
func (s *Session) Run(ctx context.Context) {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = 500*time.Millisecond, maxLoginWait
	var auth *api.Secret // of a login that replaced the session while it was kept
	for first := true; ctx.Err() == nil; first = false {
		var err error
		if auth == nil {
			auth, err = s.logIn(ctx)
		}
		if first {
			close(s.attempts)
		}
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			next := wait.NextBackOff()
			s.log.Warn("logging in to Vault failed", "error", err, "retry_in", next.Round(time.Millisecond).String())
			sleep(ctx, next)
			continue
		}
		wait.Reset()
		var reason string
		if auth, reason = s.keep(ctx, auth); ctx.Err() == nil {
			s.log.Info("the session with Vault ended", "reason", reason)
		}
	}
}

// logIn takes a token and makes it the session's.
func (s *Session) logIn(ctx context.Context) (*api.Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	// Its own client: while the login is under way, others may still use the old token.
	client, err := s.client.Clone()
	if err != nil {
		return nil, err
	}
	forgetEnvironment(client, s.config.Namespace)
	auth, err := s.login.logIn(ctx, client)
	if err == nil && (auth == nil || auth.Auth == nil || auth.Auth.ClientToken == "") {
		err = errors.New("the answer to the login has no token")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		// An older token may still be good; only its end ends the session.
		if !s.loggedIn || s.ended() {
			s.loggedIn, s.err = false, describe(err, s.login.hint())
		}
		return nil, describe(err, s.login.hint())
	}
	s.client.SetToken(auth.Auth.ClientToken)
	s.loggedIn, s.loginAt, s.err = true, time.Now(), nil
	s.setExpiry(auth.Auth.LeaseDuration)
	s.log.Info("logged in to Vault", "method", s.login.name(), "lease", (time.Duration(auth.Auth.LeaseDuration) * time.Second).String(),
		"renewable", auth.Auth.Renewable)
	return auth, nil
}

// keep renews the session until it ends, and returns why it did. If a new login took its
// place meanwhile it is returned too; the old one is renewed until then.
func (s *Session) keep(ctx context.Context, auth *api.Secret) (next *api.Secret, reason string) {
	// Without a lease the token does not end, and there is nothing to watch.
	renewed, done := (<-chan *api.RenewOutput)(nil), (<-chan error)(nil)
	if auth.Auth.LeaseDuration > 0 {
		watcher, err := s.client.NewLifetimeWatcher(&api.LifetimeWatcherInput{Secret: auth})
		if err != nil {
			return nil, err.Error()
		}
		go watcher.Start()
		defer watcher.Stop()
		renewed, done = watcher.RenewCh(), watcher.DoneCh()
	}
	changed := time.NewTicker(s.pause)
	defer changed.Stop()
	retry := false
	for {
		select {
		case <-ctx.Done():
			return nil, "stopping"
		case out := <-renewed:
			s.mu.Lock()
			// This token has an end, so no time left is not "for ever" here.
			s.expiry = time.Now().Add(time.Duration(out.Secret.Auth.LeaseDuration) * time.Second)
			s.mu.Unlock()
		case err := <-done:
			if err != nil {
				return nil, "it could not be renewed: " + describe(err, "").Error()
			}
			return nil, "it cannot be renewed any further"
		case <-s.refused:
			// A policy that lacks something refuses as well. Only a dead token is replaced.
			if s.dead(ctx) {
				return nil, "a request was refused, and the token is no longer valid"
			}
		case <-changed.C:
			if !retry && !s.login.changed(ctx) {
				continue
			}
			if next, err := s.logIn(ctx); err == nil {
				return next, "the credential was replaced"
			} else if retry = true; ctx.Err() == nil { // Vault may have been away
				s.log.Warn("the credential was replaced, and logging in with the new one failed", "error", err)
			}
		}
	}
}

// dead reports whether Vault says that the session's token is not valid. If so there is no
// session any more, however long its lease would have lasted.
func (s *Session) dead(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	if _, err := s.client.Auth().Token().LookupSelfWithContext(ctx); StatusOf(err) != http.StatusForbidden {
		return false // it is valid, or Vault cannot say so now
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loggedIn, s.err = false, errors.New("the token was revoked, and a new login is under way")
	return true
}

// Ready returns nil if there is a session that lasts at least that long. It waits for
// the first login of the process within ctx.
func (s *Session) Ready(ctx context.Context, atLeast time.Duration) error {
	select {
	case <-s.attempts:
	case <-ctx.Done():
		return fmt.Errorf("waiting for the first login to Vault: %w", ctx.Err())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.loggedIn:
		return fmt.Errorf("no session with Vault: %w", s.err)
	case !s.expiry.IsZero() && time.Until(s.expiry) < atLeast:
		return fmt.Errorf("the session with Vault ends at %s and could not be renewed yet", s.expiry.UTC().Format(time.RFC3339))
	}
	return nil
}

// Expiry returns when the session ends unless it is renewed, zero if it does not end, and
// false if there is none.
func (s *Session) Expiry() (time.Time, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.expiry, s.loggedIn && !s.ended()
}

// Read reads a path. It returns nil if there is nothing there.
func (s *Session) Read(ctx context.Context, path string) (*api.Secret, error) {
	secret, err := s.client.Logical().ReadWithContext(ctx, path)
	return secret, s.judge(err)
}

// Write writes to a path.
func (s *Session) Write(ctx context.Context, path string, data map[string]any) (*api.Secret, error) {
	secret, err := s.client.Logical().WriteWithContext(ctx, path, data)
	return secret, s.judge(err)
}

// judge describes an error, and starts a new login if the token may have been revoked.
func (s *Session) judge(err error) error {
	if err == nil {
		return nil
	}
	if StatusOf(err) == http.StatusForbidden {
		s.mu.Lock()
		old := time.Since(s.loginAt) > s.pause
		s.mu.Unlock()
		if old {
			select {
			case s.refused <- struct{}{}:
			default:
			}
		}
	}
	return describe(err, "")
}

// ended reports whether the lease has run out. The caller holds mu.
func (s *Session) ended() bool { return !s.expiry.IsZero() && !time.Now().Before(s.expiry) }

// setExpiry counts a lease from now. The caller holds mu.
func (s *Session) setExpiry(seconds int) {
	s.expiry = time.Time{}
	if seconds > 0 {
		s.expiry = time.Now().Add(time.Duration(seconds) * time.Second)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
