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
	// changed reports whether the credential differs from that of the last login.
	changed(ctx context.Context) bool
	// hint says what an operator should check if Vault refuses a login like that.
	hint(refusal *ResponseError, namespace string) string
}

// logInAt sends the body to the login path of an auth method.
func logInAt(ctx context.Context, library *api.Client, mount string, body map[string]any) (lease, error) {
	answer, err := library.Logical().WriteWithContext(ctx, "auth/"+mount+"/login", body)
	if err != nil {
		return lease{}, plain(err)
	}
	l := leaseOf(answer)
	l.forever = l.ttl == 0 // Vault never gives a token that has ended
	return l, nil
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

// tokenPrefixes are the prefixes of Vault's tokens, wrapping tokens included: since version 1.10, and before.
var tokenPrefixes = []string{"hvs.", "s."}

// isToken reports whether the credential looks like a Vault token. A wrapping token is one.
func (l *lastUsed) isToken() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.token
}

// differs reports whether source has another content now. A source that cannot be read now counts as
// unchanged.
func (l *lastUsed) differs(ctx context.Context, source config.SecretSource, kind config.SecretKind) bool {
	v, err := source.ReadAs(ctx, kind)
	if err != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return v.Digest() != l.digest
}
