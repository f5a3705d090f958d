package vault

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

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

// patientMethod is a method that keeps a refused credential back for a while: a login before that sends nothing.
type patientMethod interface {
	// notBefore is when a credential that was refused may be sent again; zero if none was.
	notBefore() time.Time
}

// borrowingMethod is a method whose credential only another program has. Its replacement is not seen before the next login.
type borrowingMethod interface {
	borrows()
}

// methodOf returns the method that is configured.
func (s *Session) methodOf(c config.VaultAuth) authMethod {
	m := methods{session: s}
	c.Dispatch(&m)
	return m.chosen
}

// methods implements [config.AuthMethods]. Its methods are in the files of the auth methods.
type methods struct {
	session *Session // what a method may need beside its configuration
	chosen  authMethod
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

// noMount advises on an answer that says that nothing is mounted there.
func noMount(method, mount string) string {
	return "is " + method + " mounted at auth/" + mount + " (vault auth list)?"
}

// credentials reads the files and variables of a method, and remembers what it has read. The zero value is ready
// to use.
type credentials struct {
	mu   sync.Mutex
	read map[config.SecretSource]readCredential
}

// readCredential is what was read from one source.
type readCredential struct {
	kind   config.SecretKind
	digest secret.Digest
	token  bool // it looks like a token of Vault
}

// get returns what a source has now. field is its name in the configuration, for the error.
func (c *credentials) get(ctx context.Context, field string, source config.SecretSource, kind config.SecretKind) (secret.Value, error) {
	v, err := source.ReadAs(ctx, kind)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.read == nil {
		c.read = make(map[config.SecretSource]readCredential)
	}
	if err != nil {
		if _, known := c.read[source]; !known {
			c.read[source] = readCredential{kind: kind} // what comes there later is new
		}
		return secret.Value{}, unreadable(field, err)
	}
	isToken := slices.ContainsFunc(tokenPrefixes, func(prefix string) bool { return strings.HasPrefix(v.Reveal(), prefix) })
	c.read[source] = readCredential{kind, v.Digest(), isToken}
	return v, nil
}

// tokenPrefixes are the prefixes of Vault's tokens, wrapping tokens included: since version 1.10, and before.
var tokenPrefixes = []string{"hvs.", "s."}

// isToken reports whether what was read looks like a Vault token. A wrapping token is one.
func (c *credentials) isToken(source config.SecretSource) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.read[source].token
}

// changed reports whether a source has another content now than when it was read. A source that cannot be read now
// counts as unchanged.
func (c *credentials) changed(ctx context.Context) bool {
	c.mu.Lock()
	read := maps.Clone(c.read)
	c.mu.Unlock()
	for source, was := range read {
		if v, err := source.ReadAs(ctx, was.kind); err == nil && v.Digest() != was.digest {
			return true
		}
	}
	return false
}
