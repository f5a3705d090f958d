package vault

import (
	"context"
	"time"

	"github.com/hashicorp/vault/api"

	"rotatord/internal/config"
)

// Token implements [config.AuthMethods].
func (m *methods) Token(c *config.TokenAuth) { m.chosen = &tokenAuth{source: c.Source} }

// tokenAuth uses a token that another program has created, and renews it.
type tokenAuth struct {
	source config.SecretSource
	credentials
}

func (t *tokenAuth) name() string { return "token" }

func (t *tokenAuth) hint(_ *ResponseError, namespace string) string {
	return "is the token in " + t.source.String() + " still valid? One that may not look itself up is not used, because the daemon could not know when it ends. " +
		"A wrapping token must be unwrapped first (vault unwrap), and is good for one request only." + askNamespace(namespace)
}

func (t *tokenAuth) logIn(ctx context.Context, library *api.Client) (lease, error) {
	token, err := t.get(ctx, "vault.auth.token", t.source, config.VaultToken)
	if err != nil {
		return lease{}, err
	}
	library.SetToken(token.Reveal())
	self, err := lookUp(ctx, library)
	switch {
	case err != nil:
		return lease{}, err
	case self.TTL < time.Second && !self.Forever:
		return lease{}, &describedError{text: "vault.auth.token: the token has expired"}
	}
	return lease{token: token.Reveal(), ttl: self.TTL, forever: self.Forever, renewable: self.Renewable, batch: self.Batch}, nil
}
