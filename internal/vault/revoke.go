package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/moment"
)

// This file ends sessions at Vault. A token that is not needed any more is revoked, so that no leases pile up in Vault
// and nobody finds a token that still works. A token that the daemon did not create is never revoked.

const (
	// lingering is the part of pause for which a replaced token stays usable: a request may have taken the token and not be
	// sent yet.
	lingering = 10
	// flightTime is how long a revocation waits for the requests that use the token.
	flightTime = time.Minute
	// endTime is how long the end of the session may take when the daemon stops.
	endTime = 2 * time.Second
)

// flights counts the requests in progress by their token. The zero value is ready to use.
type flights struct {
	mu      sync.Mutex
	count   map[string]int
	changed chan struct{} // closed when a request ends; nil if nothing waits
}

// begin counts a request until its end.
func (f *flights) begin(token string) (end func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count == nil {
		f.count = make(map[string]int)
	}
	f.count[token]++
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.count[token]--; f.count[token] == 0 {
			delete(f.count, token)
		}
		if f.changed != nil {
			close(f.changed)
			f.changed = nil
		}
	}
}

// wait waits until no request with that token is in progress. It returns false if ctx ends before.
func (f *flights) wait(ctx context.Context, token string) bool {
	for {
		f.mu.Lock()
		if f.count[token] == 0 {
			f.mu.Unlock()
			return true
		}
		if f.changed == nil {
			f.changed = make(chan struct{})
		}
		changed := f.changed
		f.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// retire revokes the token of a session that another one has replaced, when no request uses it any more. It returns at
// once. It tries once: a token that stays ends with its lease.
func (s *Session) retire(l lease) {
	s.retiring.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), flightTime)
		defer cancel()
		defer context.AfterFunc(s.ending, func() { _ = moment.Sleep(ctx, endTime/2); cancel() })()
		_ = moment.Sleep(s.ending, s.pause/lingering)
		if !s.client.transport.flights.wait(ctx, l.token) {
			return
		}
		if err := s.revokeToken(ctx, l.token); err != nil {
			s.tell(event.VaultRevocationFailure{Vault: s.config.Address, Err: err})
		}
	})
}

// end revokes the session when the daemon stops, unless a request still uses it. The next start logs in again, so nothing
// unfinished needs this session.
func (s *Session) end() {
	s.beginEnd()
	ctx, cancel := context.WithTimeout(context.Background(), endTime)
	defer cancel()
	s.mu.Lock()
	held, valid := s.held, s.loggedIn && !s.ended()
	s.mu.Unlock()
	if valid && s.owns(held) && s.client.transport.flights.wait(ctx, held.token) {
		if err := s.revokeToken(ctx, held.token); err != nil {
			s.tell(event.VaultRevocationFailure{Vault: s.config.Address, Err: err})
		}
	}
	s.retiring.Wait()
}

// owns reports whether a token is the daemon's own, and can be revoked.
func (s *Session) owns(l lease) bool { return s.config.Auth.LogsIn() && !l.batch && l.token != "" }

// revokeToken revokes one token. A token that Vault does not know is not an error.
func (s *Session) revokeToken(ctx context.Context, token string) error {
	library, err := newLibrary(s.config, s.client.transport)
	if err != nil {
		return err
	}
	library.SetToken(token)
	_, err = library.Logical().WriteWithContext(ctx, pathRevoke, nil)
	err = plain(err)
	if e, ok := errors.AsType[*ResponseError](err); err == nil || ok && e.Status == http.StatusForbidden && e.says("invalid token") {
		return nil // a token without uses left, and one that has ended, are refused
	}
	return fmt.Errorf("revoking the session: %w", err)
}
