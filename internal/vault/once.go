package vault

import (
	"context"
	"fmt"
)

// This file has a session for one command.

// LogInOnce starts a session that is not renewed and not replaced. Call it instead of Run. See
// [config.VaultAuth] for what a login uses up.
func (s *Session) LogInOnce(ctx context.Context) error {
	defer close(s.attempts)
	_, err := s.logIn(ctx)
	return err
}

// Revoke ends the session at Vault, so that its lease does not stay. It does nothing if the session belongs to
// another program, such as a configured token.
func (s *Session) Revoke(ctx context.Context) error {
	if !s.config.Auth.LogsIn() {
		return nil
	}
	if _, err := s.Write(ctx, "auth/token/revoke-self", nil); err != nil {
		return fmt.Errorf("revoking the session: %w", err)
	}
	return nil
}
