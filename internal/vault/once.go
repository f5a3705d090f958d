package vault

import (
	"context"
	"fmt"
)

// This file holds a session for one look, as a command takes it.

// LogInOnce takes a session that nothing renews and nothing replaces. Call it in the place of Run.
// With AppRole it uses up one use of the secret_id.
func (s *Session) LogInOnce(ctx context.Context) error {
	defer close(s.attempts)
	_, err := s.logIn(ctx)
	return err
}

// Revoke ends the session at Vault, so that no lease of it stays behind. A token that was configured
// is left alone: it is not the session's to end.
func (s *Session) Revoke(ctx context.Context) error {
	if !s.config.Auth.LogsIn() {
		return nil
	}
	if _, err := s.Write(ctx, "auth/token/revoke-self", nil); err != nil {
		return fmt.Errorf("revoking the session: %w", err)
	}
	return nil
}
