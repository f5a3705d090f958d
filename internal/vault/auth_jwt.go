package vault

import (
	"context"
	"fmt"
	"sync"
	"time"

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
	sent := j.lastClaims()
	role := fmt.Sprintf("the role %q at auth/%s/role", j.role, j.mount)
	switch {
	case refusal.says("could not be found"), refusal.says("missing role"):
		return role + " does not exist: create it, or correct vault.auth.jwt.role." + askNamespace(namespace)
	case refusal.says("oidc role_type"):
		return role + " is for logins in a browser: create one with role_type=jwt"
	case refusal.says("could not load configuration"), refusal.says("could not load backend"):
		return "auth/" + j.mount + "/config is not written yet: jwks_url, oidc_discovery_url or jwt_validation_pubkeys says how Vault checks a JWT"
	case refusal.says("no audiences bound"), refusal.says("audience"), refusal.says("aud claim"):
		return "the JWT in " + j.source.String() + " is not for the audience that the role accepts: " + sent.describe() + "; compare bound_audiences of " + role
	case refusal.says("invalid issuer"):
		return "compare bound_issuer at auth/" + j.mount + "/config: of the JWT in " + j.source.String() + ", " + sent.describe()
	case refusal.says("claim"), refusal.says("bound"):
		return j.times(sent, "the JWT in "+j.source.String()+" does not have what "+role+" asks for (bound_subject, bound_claims, user_claim): "+sent.describe())
	case refusal.says("signature"), refusal.says("no known key"), refusal.says("key"):
		return "the JWT in " + j.source.String() + " is not signed with a key that Vault knows: " + sent.describe() + "; compare auth/" + j.mount + "/config"
	}
	return j.times(sent, "of the JWT in "+j.source.String()+", "+sent.describe()+"; does "+role+" exist, and "+noMount("jwt", j.mount)+askNamespace(namespace))
}

// jwtLogin logs in with a JWT and the name of a role, as the methods kubernetes and jwt do. The library's own
// packages for them are not used: they read the file once, when they are created, and a file that is renewed
// while the daemon runs is the usual case.
type jwtLogin struct {
	field       string // of the configuration, for errors
	mount, role string
	source      config.SecretSource
	credentials

	mu   sync.Mutex
	sent claims // those of the last login
}

func (j *jwtLogin) logIn(ctx context.Context, library *api.Client) (lease, error) {
	jwt, err := j.get(ctx, j.field, j.source, config.JWT)
	if err != nil {
		return lease{}, err
	}
	j.mu.Lock()
	j.sent = claimsOf(jwt.Reveal())
	j.mu.Unlock()
	return logInAt(ctx, library, j.mount, map[string]any{"role": j.role, "jwt": jwt.Reveal()})
}

func (j *jwtLogin) lastClaims() claims {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.sent
}

// times returns what is wrong with the times of the JWT, and otherwise what else may be the reason.
func (j *jwtLogin) times(sent claims, otherwise string) string {
	if problem := sent.clockProblem(time.Now()); problem != "" {
		return "of the JWT in " + j.source.String() + ", " + problem
	}
	return otherwise
}
