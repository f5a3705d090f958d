package doctor

import (
	"context"

	"rotatord/internal/config"
	"rotatord/internal/vault"
)

// unwraps reports whether a login needs a secret ID that only the daemon has unwrapped.
func unwraps(auth config.VaultAuth) bool {
	a, ok := auth.(*config.AppRole)
	return ok && a.Wrapped
}

// loginFiles looks at the files that a login needs. unusable gets what the login itself, or its absence, says in another
// way; nil leaves that out.
func (e *examination) loginFiles(ctx context.Context, unusable func(vault.Remark)) {
	for _, r := range vault.Inspect(ctx, *e.Config.Vault, e.Now()) {
		level := Warning
		switch {
		case r.Unusable:
			if unusable != nil {
				unusable(r)
			}
			continue
		case r.Advice == "":
			level = Good
		case r.Hopeless:
			level = Bad
		}
		e.add(level, VaultCredential, r.Field, r.Text, r.Advice)
	}
}

// health reports what is wrong with the running daemon's login, although it may have a session.
func (e *examination) health(ctx context.Context, s *vault.Session) {
	e.loginFiles(ctx, func(r vault.Remark) {
		e.add(Warning, VaultCertificate, r.Field, "the daemon goes on with the files that it read before: "+r.Text, "correct the files: the daemon reads them again without a restart")
	})
	if unwrap := s.Health().Unwrap; unwrap != "" {
		e.add(Bad, VaultUnwrap, "vault.auth.approle.secret_id", unwrap, "treat the secret ID as stolen, as the runbook says, and deliver another wrapping token")
	}
}
