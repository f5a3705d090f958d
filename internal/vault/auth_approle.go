package vault

import (
	"context"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/api/auth/approle"

	"rotatord/internal/config"
)

// AppRole implements [config.AuthMethods].
func (m *methods) AppRole(c *config.AppRole) { m.chosen = &appRoleAuth{config: *c} }

// appRoleAuth logs in with a role ID and a secret ID.
type appRoleAuth struct {
	config config.AppRole
	used   lastUsed
}

func (a *appRoleAuth) name() string { return "approle" }

func (a *appRoleAuth) hint(_ *ResponseError, namespace string) string {
	if a.used.isToken() {
		return "the secret_id in " + a.config.SecretID.String() + " looks like a token of Vault, such as a wrapping token: unwrap it first " +
			"(VAULT_TOKEN=WRAPPING-TOKEN vault unwrap -field=secret_id), and put what comes out there"
	}
	return "are role_id and secret_id right, not expired, and is approle mounted at auth/" + a.config.Mount + "?" + askNamespace(namespace)
}

func (a *appRoleAuth) logIn(ctx context.Context, library *api.Client) (lease, error) {
	if a.config.Wrapped {
		return lease{}, &describedError{text: "vault.auth.approle.wrapped: this build cannot unwrap yet"}
	}
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
	l.forever = l.ttl == 0 // Vault never gives a token that has ended
	return l, nil
}

func (a *appRoleAuth) changed(ctx context.Context) bool {
	return a.used.differs(ctx, a.config.SecretID, config.SecretID)
}
