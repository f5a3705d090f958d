// Package vault has one authenticated session with HashiCorp Vault, shared by all sinks.
//
// Guarantees:
//
//   - The session is renewed before it ends. If it cannot be renewed, was revoked, or its credential
//     was replaced, the package logs in again. A lost session needs no restart.
//   - The token of a session that was replaced is revoked, if the package has created it, when no request
//     uses it any more.
//   - The files of credentials and of TLS are read again when they change. Files that cannot be used change
//     nothing.
//   - A request is sent once. The caller decides whether to repeat it.
//   - A request is sent to the configured servers and nowhere else.
//   - An answer has a largest size, and is checked. An answer that is empty, too large, or not Vault's
//     is an error.
//   - Only the configuration file counts: VAULT_* environment variables have no effect.
//   - No error contains a token or a secret.
package vault

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/hashicorp/vault/api"

	"rotatord/internal/config"
	"rotatord/internal/event"
	"rotatord/internal/moment"
)

// Observer is told of requests, for metrics. It must be safe for concurrent use.
type Observer interface {
	// VaultRequest reports one request. operation is login, wrapping_lookup, unwrap, renew, lookup, revoke, capabilities,
	// mounts, lifetime, seal_status, metadata, probe, read or write; code is the HTTP status, or "error" if no answer came.
	VaultRequest(operation, code string, d time.Duration)
}

// Times of a session.
const (
	// pause is how often a credential file is checked for new content. A request that is refused
	// within pause of a login does not cause another login.
	pause        = 10 * time.Second
	loginTimeout = 30 * time.Second
	// maxLoginWait is the longest pause between two logins while Vault does not answer, is sealed, or refuses the token
	// of an agent, which may have another one each time.
	maxLoginWait = 15 * time.Second
	// maxRefusedWait is the longest pause after logins that Vault refused. Another content of the credential's file
	// ends it. Approle waits longer: see lockoutGuard.
	maxRefusedWait = time.Minute
	// agentLook is how often an agent's token is looked up.
	agentLook = time.Minute
	// maxReplaceWait is the longest pause after Vault has refused a new credential, while the old session goes on.
	maxReplaceWait = 5 * time.Minute
	// finalSlack is by how much a renewed lease may be shorter than another one without being the last.
	finalSlack = 2 * time.Second
	// minSession is how long a session must last so that the next login follows at once. If half
	// of its lease is shorter, that is enough.
	minSession = time.Second
)

// Session is one login at one Vault. It is safe for concurrent use.
type Session struct {
	config        config.Vault
	login         authMethod
	tell          func(event.Detail)
	client        *client
	refused       chan struct{}   // Vault answered a request with 403
	loginRequests chan chan error // of callers who need a new login; each gets its error
	uses          uses
	lifetimes     lifetimes
	refusals      metadataRefusals
	// metadataAskedAgain is the constant; shorter in tests.
	metadataAskedAgain time.Duration
	pause              time.Duration   // the constant; shorter in tests
	attempts           chan struct{}   // closed after the first login, also if it failed
	once               atomic.Bool     // it is for one command: see LogInOnce
	ending             context.Context // ends when Run ends
	beginEnd           context.CancelFunc
	retiring           sync.WaitGroup // revocations of replaced sessions

	mu           sync.Mutex
	loggedIn     bool
	loginAt      time.Time
	held         lease          // of the session
	longest      time.Duration  // the longest lease that the session was given
	final        bool           // its end is known, and will not be moved any further
	expiry       time.Time      // zero: does not end
	err          error          // why there is no session
	loginFault   error          // why the last login failed; nil if it succeeded
	loginFaultAt time.Time      // since when; zero if it succeeded
	tlsFault     string         // why the present files of vault.tls are not used; empty if they are
	tlsFaultAt   time.Time      // since when; zero if they are
	versions     map[string]int // of KV mounts, as Vault has said
}

// New returns a session that is not logged in yet. It sends nothing. tell is told of logins, and of
// sessions that end or are not renewed; it must not block. tell and observer may be nil.
func New(c config.Vault, tell func(event.Detail), observer Observer) (*Session, error) {
	if tell == nil {
		tell = func(event.Detail) {}
	}
	client, err := newClient(c, observer)
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	s := &Session{
		config: c, tell: tell, client: client, pause: pause,
		refused: make(chan struct{}, 1), loginRequests: make(chan chan error), uses: uses{semaphore: make(chan struct{}, 1)},
		lifetimes: lifetimes{configs: make(map[string]mountLifetime), metadata: make(map[string]time.Time)},
		refusals:  metadataRefusals{all: make(map[string]metadataRefusal)}, metadataAskedAgain: metadataAskedAgain,
		attempts: make(chan struct{}), versions: make(map[string]int),
		err: errors.New("not logged in yet"),
	}
	s.ending, s.beginEnd = context.WithCancel(context.Background())
	s.login = s.methodOf(c.Auth)
	return s, nil
}

// Run keeps the session until ctx ends. Then it revokes the session within two seconds, if the daemon has created it
// and no request uses it.
func (s *Session) Run(ctx context.Context) {
	defer s.end()
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = 500*time.Millisecond, maxLoginWait
	var next *lease // of a login that replaced the session before its end
	for first := true; ctx.Err() == nil; first = false {
		var l lease
		var err error
		if next != nil {
			l = *next
		} else {
			l, err = s.logIn(ctx)
		}
		if first {
			close(s.attempts)
		}
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			longest := s.longestPause(err)
			wait.MaxInterval = longest * 2 / 3 // the pauses vary by half
			pause := max(min(wait.NextBackOff(), longest), retryAfter(err), s.keptBack(err))
			s.tell(event.VaultLogin{Vault: s.config.Address, Method: s.login.name(), Err: err, RetryIn: pause})
			s.sleepUnlessChanged(ctx, pause)
			continue
		}
		begun := time.Now()
		var reason string
		if next, reason = s.maintain(ctx, l); ctx.Err() != nil {
			return
		}
		s.tell(event.VaultSessionEnd{Vault: s.config.Address, Reason: reason})
		if next != nil || time.Since(begun) >= l.minLife() {
			wait.Reset()
			continue
		}
		_ = moment.Sleep(ctx, wait.NextBackOff()) // a token that ends at once must not cause logins without a pause
	}
}

// logIn gets a token and uses it for the session from then on.
func (s *Session) logIn(ctx context.Context) (lease, error) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	s.reloadTLS(ctx)
	begun := time.Now()
	s.client.login.ClearToken() // a login must not send the token of an older one
	l, err := s.login.logIn(ctx, s.client.login)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		err = withHint(err, s.login.hint, s.config.Namespace)
		if s.loginFault == nil {
			s.loginFaultAt = time.Now()
		}
		s.loginFault = err
		// An older token may still be valid: the session goes on with it until its end.
		if !s.loggedIn || s.ended() {
			s.loggedIn, s.err = false, err
		}
		return lease{}, err
	}
	if s.owns(s.held) && s.held.token != l.token && !s.ended() {
		s.retire(s.held)
	}
	s.client.session.SetToken(l.token)
	s.loggedIn, s.loginAt, s.err = true, time.Now(), nil
	s.loginFault, s.loginFaultAt = nil, time.Time{}
	s.held, s.longest, s.final = l, l.ttl, !l.renewable && !l.managed
	s.expiry = time.Time{}
	if !l.forever {
		s.expiry = begun.Add(l.ttl)
	}
	s.tell(event.VaultLogin{Vault: s.config.Address, Method: s.login.name(), Lease: l.ttl, Renewable: l.renewable})
	return l, nil
}

// maintain renews the session until it ends, and returns why it ended. If a new login has
// replaced it, maintain returns that too. It renews the old session until then.
func (s *Session) maintain(ctx context.Context, l lease) (next *lease, reason string) {
	var done <-chan error
	if !l.forever && !l.managed { // otherwise there is nothing to renew
		watcher, err := s.client.session.NewLifetimeWatcher(&api.LifetimeWatcherInput{Secret: l.watched()})
		if err != nil {
			return nil, err.Error()
		}
		done = watcher.DoneCh()
		watching, cancel := context.WithCancel(ctx)
		s.client.transport.listener.Store(&renewalListener{watching, func(begun time.Time, renewed lease, err error) {
			if watching.Err() == nil {
				s.renewed(l.token, begun, renewed, err)
			}
		}})
		var ended sync.WaitGroup
		ended.Go(watcher.Start)
		defer func() { watcher.Stop(); cancel(); ended.Wait() }()
	}
	changed := time.NewTicker(s.pause)
	defer changed.Stop()
	looked := time.Now()
	var failed failedLogin
	for {
		select {
		case <-ctx.Done():
			return nil, "stopping"
		case err := <-done:
			if err != nil {
				return nil, "it could not be renewed: " + plain(err).Error()
			}
			return nil, "it cannot be renewed any further"
		case <-s.refused:
			// A missing right causes a 403 as well. Only a token that is no longer valid is replaced.
			if s.revoked(ctx) {
				return nil, "a request was refused, and the token is no longer valid"
			}
		case reply := <-s.loginRequests:
			next, err := s.logIn(ctx)
			reply <- err
			if err == nil {
				return &next, "its token had too few uses left, or would have ended during a rotation"
			}
		case <-changed.C:
			s.reloadTLS(ctx)
			if l.managed && time.Since(looked) >= min(agentLook, l.ttl/2) {
				looked = time.Now()
				if gone := s.lookAtAgent(ctx); gone {
					return nil, "the agent at vault.address has no valid token"
				}
			}
			if !s.login.changed(ctx) && !failed.due() {
				continue
			}
			if next, err := s.logIn(ctx); err == nil {
				return &next, "the credential was replaced"
			} else if ctx.Err() == nil { // Vault may have been unreachable: try again
				failed.note(s.pause, err, s.keptBack(err))
				s.tell(event.VaultLogin{Vault: s.config.Address, Method: s.login.name(), Err: err, Replaced: true})
			}
		}
	}
}

// renewed records the result of a renewal, which the lifetime watcher has sent.
func (s *Session) renewed(token string, begun time.Time, l lease, err error) {
	switch {
	case err == nil:
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.currentToken() == token { // no other login has replaced it
			// This token has an end, so a lease of 0 does not mean that it lasts forever.
			s.expiry = begun.Add(l.ttl)
			// A lease that is shorter than the one before ends at the maximum (token_max_ttl, explicit_max_ttl).
			s.final = !l.renewable || l.ttl < s.longest-finalSlack
			s.longest = max(s.longest, l.ttl)
		}
	case denied(err):
		s.mu.Lock()
		s.final = s.final || s.currentToken() == token
		s.mu.Unlock()
		s.tell(event.VaultRenewalFailure{Vault: s.config.Address, Refused: true, Err: err})
		_ = s.noteRefusal(err) // a token without the default policy may never renew itself
	default: // the watcher tries again while there is time
		s.tell(event.VaultRenewalFailure{Vault: s.config.Address, Err: err})
	}
}

// revoked reports whether Vault says that the session's token is not valid. Then there is no
// session any more, even if its lease has not ended.
func (s *Session) revoked(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	if _, err := lookUp(ctx, s.client.session); !denied(err) {
		return false // it is valid, or Vault cannot say so now
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held.token = "" // there is nothing to revoke
	s.loggedIn, s.err = false, errors.New("the token was revoked, or may not look itself up ("+request{operation: "lookup", path: pathLookup}.stanza()+"), and a new login is under way")
	return true
}

// Ready returns nil if there is a session that lasts at least that long. Before the first login of
// the process has ended, it waits for it, until ctx ends.
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

// Read reads a path. It returns nil if Vault says that nothing is there.
func (s *Session) Read(ctx context.Context, path string) (*api.Secret, error) {
	answer, err := s.client.session.Logical().ReadWithContext(ctx, path)
	return answer, s.noteRefusal(plain(err))
}

// Write writes to a path. It returns nil if Vault answers with 204, as to a write to KV version 1.
func (s *Session) Write(ctx context.Context, path string, data map[string]any) (*api.Secret, error) {
	answer, err := s.client.session.Logical().WriteWithContext(ctx, path, data)
	return answer, s.noteRefusal(plain(err))
}

// List lists the keys below a path. It returns nil if Vault says that there are none.
func (s *Session) List(ctx context.Context, path string) (*api.Secret, error) {
	answer, err := s.client.session.Logical().ListWithContext(ctx, path)
	return answer, s.noteRefusal(plain(err))
}

// Delete deletes what is at a path.
func (s *Session) Delete(ctx context.Context, path string) error {
	_, err := s.client.session.Logical().DeleteWithContext(ctx, path)
	return s.noteRefusal(plain(err))
}

// Capabilities asks what the session may do at each path.
func (s *Session) Capabilities(ctx context.Context, paths []string) (map[string][]string, error) {
	// The library's own method asks for one path only.
	answer, err := s.client.session.Logical().WriteWithContext(ctx, pathCapabilities, map[string]any{"paths": paths})
	err = plain(err)
	var all map[string][]string
	if err == nil {
		if all, err = capabilitiesFrom(answer, paths); err != nil {
			err = describe(request{operation: "capabilities"}, err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("asking what the session may do: %w", s.noteRefusal(err))
	}
	return all, nil
}

func capabilitiesFrom(a *api.Secret, paths []string) (map[string][]string, error) {
	if a == nil || a.Data == nil {
		return nil, foreign("an answer without data")
	}
	all := make(map[string][]string, len(paths))
	for _, path := range paths {
		list, ok := a.Data[path].([]any)
		if !ok {
			return nil, foreign("an answer without a list for " + path)
		}
		for _, c := range list {
			name, ok := c.(string)
			if !ok {
				return nil, foreign("an answer in which a capability is not a name")
			}
			all[path] = append(all[path], name)
		}
	}
	return all, nil
}

func (s *Session) currentToken() string { return s.client.session.Token() }

// noteRefusal returns err. If the token may have been revoked, it has maintain check that.
func (s *Session) noteRefusal(err error) error {
	if err == nil {
		return nil
	}
	if denied(err) {
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
	return err
}

// ended reports whether the lease has run out. The caller holds mu.
func (s *Session) ended() bool { return !s.expiry.IsZero() && !time.Now().Before(s.expiry) }
