package vault

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/vault/api"

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

// methodOf returns the method that is configured.
func methodOf(c config.VaultAuth) authMethod {
	var m methods
	c.Dispatch(&m)
	return m.chosen
}

// methods implements [config.AuthMethods]. Its methods are in the files of the auth methods.
type methods struct{ chosen authMethod }

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
