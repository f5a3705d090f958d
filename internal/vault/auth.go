package vault

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/api/auth/approle"

	"rotatord/internal/config"
	"rotatord/internal/secret"
)

// authMethod is a way to get a token.
type authMethod interface {
	name() string
	// logIn returns a token and how long it lasts.
	logIn(ctx context.Context, library *api.Client) (lease, error)
	// changed reports whether the credential is another one than at the last login.
	changed(ctx context.Context) bool
	// hint says what to look at if a login is refused.
	hint() string
}

func methodOf(a config.VaultAuth) authMethod {
	if a.AppRole != nil {
		return &appRoleAuth{config: *a.AppRole}
	}
	return &tokenAuth{source: *a.Token}
}

// tokenAuth uses a token that somebody else made, and keeps it alive.
type tokenAuth struct {
	source config.SecretSource
	used   lastUsed
}

func (t *tokenAuth) name() string { return "token" }
func (t *tokenAuth) hint() string { return "is the token in " + t.source.String() + " still valid?" }

func (t *tokenAuth) logIn(ctx context.Context, library *api.Client) (lease, error) {
	token, err := t.source.ReadAs(ctx, config.VaultToken)
	if err != nil {
		return lease{}, unreadable("vault.auth.token", err)
	}
	t.used.set(token)
	library.SetToken(token.Reveal())
	self, err := lookUp(ctx, library)
	switch {
	case err != nil:
		return lease{}, err
	case self.TTL < time.Second && !self.Forever:
		return lease{}, &describedError{text: "vault.auth.token: the token has expired"}
	}
	return lease{token: token.Reveal(), ttl: self.TTL, forever: self.Forever, renewable: self.Renewable}, nil
}

func (t *tokenAuth) changed(ctx context.Context) bool {
	return t.used.differs(ctx, t.source, config.VaultToken)
}

// appRoleAuth logs in with a role ID and a secret ID.
type appRoleAuth struct {
	config config.AppRole
	used   lastUsed
}

func (a *appRoleAuth) name() string { return "approle" }

func (a *appRoleAuth) hint() string {
	return "are role_id and secret_id right, not expired, and is approle mounted at auth/" + a.config.Mount + "?"
}

func (a *appRoleAuth) logIn(ctx context.Context, library *api.Client) (lease, error) {
	roleID, err := a.config.RoleID.ReadAs(ctx, config.RoleID)
	if err != nil {
		return lease{}, unreadable("vault.auth.approle.role_id", err)
	}
	secretID, err := a.config.SecretID.ReadAs(ctx, config.SecretID)
	if err != nil {
		return lease{}, unreadable("vault.auth.approle.secret_id", err)
	}
	a.used.set(secretID)
	method, err := approle.NewAppRoleAuth(roleID.Reveal(), &approle.SecretID{FromString: secretID.Reveal()}, approle.WithMountPath(a.config.Mount))
	if err != nil {
		return lease{}, unreadable("vault.auth.approle", err)
	}
	answer, err := library.Auth().Login(ctx, method)
	if err != nil {
		return lease{}, plain(err)
	}
	l := leaseOf(answer)
	l.forever = l.ttl == 0 // Vault gives no token that has ended
	return l, nil
}

func (a *appRoleAuth) changed(ctx context.Context) bool {
	return a.used.differs(ctx, a.config.SecretID, config.SecretID)
}

// lastUsed remembers the digest of the credential that was last used.
type lastUsed struct {
	mu     sync.Mutex
	digest secret.Digest
}

func (l *lastUsed) set(v secret.Value) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.digest = v.Digest()
}

// differs reports whether source holds something else now. A source that cannot be read
// at the moment has not changed.
func (l *lastUsed) differs(ctx context.Context, source config.SecretSource, kind config.Kind) bool {
	v, err := source.ReadAs(ctx, kind)
	if err != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return v.Digest() != l.digest
}
