package vault

import "context"

// This file has a session for one command.

// LogInOnce starts a session that is not renewed and not replaced. Call it instead of Run. See
// [config.VaultAuth] for what a login uses up.
func (s *Session) LogInOnce(ctx context.Context) error {
	s.once.Store(true)
	defer close(s.attempts)
	_, err := s.logIn(ctx)
	return err
}

// Revoke ends the session at Vault, so that its lease does not stay. It does nothing if the session belongs to
// another program, such as a configured token, or cannot be revoked, as a batch token.
func (s *Session) Revoke(ctx context.Context) error {
	s.mu.Lock()
	held := s.held
	s.mu.Unlock()
	if !s.owns(held) {
		return nil
	}
	return s.revokeToken(ctx, held.token)
}
