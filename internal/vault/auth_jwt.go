package vault

import (
	"context"

	"github.com/hashicorp/vault/api"

	"rotatord/internal/config"
)

// JWT implements [config.AuthMethods].
func (m *methods) JWT(c *config.JWTAuth) {
	m.chosen = &jwtAuth{jwtLogin{field: "vault.auth.jwt", mount: c.Mount, role: c.Role, source: c.JWT}}
}

// jwtAuth logs in with a JWT whose signature Vault checks by itself.
type jwtAuth struct{ jwtLogin }

func (*jwtAuth) name() string { return "jwt" }

func (j *jwtAuth) hint(refusal *ResponseError, namespace string) string {
	return "does the role exist, and is jwt mounted at auth/" + j.mount + "?" + askNamespace(namespace)
}

// jwtLogin logs in with a JWT and the name of a role, as the methods kubernetes and jwt do. The library's
// own packages for them read the file only once, when they are created.
type jwtLogin struct {
	field       string // of the configuration, for errors
	mount, role string
	source      config.SecretSource
	used        lastUsed
}

func (j *jwtLogin) logIn(ctx context.Context, library *api.Client) (lease, error) {
	jwt, err := j.source.ReadAs(ctx, config.JWT)
	if err != nil {
		return lease{}, unreadable(j.field, err)
	}
	j.used.set(jwt)
	return logInAt(ctx, library, j.mount, map[string]any{"role": j.role, "jwt": jwt.Reveal()})
}

func (j *jwtLogin) changed(ctx context.Context) bool {
	return j.used.differs(ctx, j.source, config.JWT)
}
