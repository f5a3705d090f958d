package vault

import (
	"context"
	"slices"
	"strings"
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
	hint(namespace string) string
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
func (t *tokenAuth) hint(namespace string) string {
	return "is the token in " + t.source.String() + " still valid? One that may not look itself up is not used, since nobody would know when it ends. " +
		"A wrapping token must be unwrapped first (vault unwrap), and is good for one request only." + askNamespace(namespace)
}

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

func (a *appRoleAuth) hint(namespace string) string {
	if a.used.isToken() {
		return "the secret_id in " + a.config.SecretID.String() + " looks like a token of Vault, such as a wrapping token: unwrap it first " +
			"(VAULT_TOKEN=WRAPPING-TOKEN vault unwrap -field=secret_id), and put what comes out there"
	}
	return "are role_id and secret_id right, not expired, and is approle mounted at auth/" + a.config.Mount + "?" + askNamespace(namespace)
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
	token  bool // it looks like a token of Vault
}

func (l *lastUsed) set(v secret.Value) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.digest = v.Digest()
	l.token = slices.ContainsFunc(tokenPrefixes, func(prefix string) bool { return strings.HasPrefix(v.Reveal(), prefix) })
}

// tokenPrefixes are how tokens of Vault begin, wrapping tokens among them: since version 1.10, and before.
var tokenPrefixes = []string{"hvs.", "s."}

// isToken reports whether the credential looks like a token of Vault, as a wrapping token is one.
func (l *lastUsed) isToken() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.token
}

// differs reports whether source holds something else now. A source that cannot be read
// at the moment has not changed.
func (l *lastUsed) differs(ctx context.Context, source config.SecretSource, kind config.SecretKind) bool {
	v, err := source.ReadAs(ctx, kind)
	if err != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return v.Digest() != l.digest
}
