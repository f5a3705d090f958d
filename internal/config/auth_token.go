package config

import (
	"rotatord/internal/config/raw"
)

// TokenAuth is a Vault token that another program creates and renews. It implements [VaultAuth].
type TokenAuth struct {
	Source SecretSource
}

// Kind implements [VaultAuth].
func (*TokenAuth) Kind() string { return "token" }

// Consumes implements [VaultAuth]: the token is there already.
func (*TokenAuth) Consumes() string { return "" }

// LogsIn implements [VaultAuth]. The session is that of another program.
func (*TokenAuth) LogsIn() bool { return false }

// Document implements [VaultAuth].
func (t *TokenAuth) Document() map[string]any { return t.Source.Document() }

// Dispatch implements [VaultAuth].
func (t *TokenAuth) Dispatch(to AuthMethods) { to.Token(t) }

func (t *TokenAuth) check(c *checker, path string, auth raw.VaultAuth) {
	t.Source = c.source(path, auth.Token)
}

func (t *TokenAuth) eachSecret(path string, do func(field string, source *SecretSource, kind SecretKind)) {
	do(path, &t.Source, VaultToken)
}
