package vault

import (
	"context"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/api/auth/approle"

	"rotatord/internal/config"
	"rotatord/internal/secret"
)

// AppRole implements [config.AuthMethods].
func (m *methods) AppRole(c *config.AppRole) {
	a := &appRoleAuth{config: *c}
	if c.Wrapped {
		a.wrapped = &wrappedID{source: c.SecretID, mount: c.Mount, address: m.session.config.Address, tell: m.session.tell}
	}
	m.chosen = a
}

// appRoleAuth logs in with a role ID and a secret ID.
type appRoleAuth struct {
	config  config.AppRole
	wrapped *wrappedID // nil: the secret ID is delivered as it is
	credentials
}

func (a *appRoleAuth) name() string { return "approle" }

func (a *appRoleAuth) hint(refusal *ResponseError, namespace string) string {
	switch {
	case a.wrapped != nil && refusal.says("invalid role or secret ID"):
		return a.wrapped.describe()
	case refusal.says("permission denied"):
		return noMount("approle", a.config.Mount) + " Vault also answers this while it locks the role_id out, for 15 minutes after 5 wrong secret IDs " +
			"(vault write -f sys/locked-users/ACCESSOR/unlock/ROLE_ID), and to a client outside of token_bound_cidrs." + askNamespace(namespace)
	case a.wrapped == nil && a.isToken(a.config.SecretID):
		return "the secret_id in " + a.config.SecretID.String() + " looks like a token of Vault, such as a wrapping token: set wrapped: true beside it, or unwrap it first " +
			"(VAULT_TOKEN=WRAPPING-TOKEN vault unwrap -field=secret_id), and put what comes out there"
	}
	return "are role_id and secret_id right, not expired, and is approle mounted at auth/" + a.config.Mount + "?" + askNamespace(namespace)
}

func (a *appRoleAuth) logIn(ctx context.Context, library *api.Client) (lease, error) {
	roleID, err := a.get(ctx, "vault.auth.approle.role_id", a.config.RoleID, config.RoleID)
	if err != nil {
		return lease{}, err
	}
	secretID, err := a.secretID(ctx, library)
	if err != nil {
		return lease{}, err
	}
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

func (a *appRoleAuth) secretID(ctx context.Context, library *api.Client) (secret.Value, error) {
	if a.wrapped != nil {
		return a.wrapped.get(ctx, &a.credentials, library)
	}
	return a.get(ctx, "vault.auth.approle.secret_id", a.config.SecretID, config.SecretID)
}

func (a *appRoleAuth) changed(ctx context.Context) bool {
	if a.wrapped != nil {
		a.wrapped.saveIfNeeded()
	}
	return a.credentials.changed(ctx)
}
