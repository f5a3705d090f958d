package vault

import (
	"context"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/api/auth/approle"

	"rotatord/internal/config"
	"rotatord/internal/printable"
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
	guard   lockoutGuard
	credentials
}

func (a *appRoleAuth) name() string { return "approle" }

func (a *appRoleAuth) hint(refusal *ResponseError, namespace string) string {
	return a.advice(refusal, namespace) + a.guard.describe(a.config.Mount)
}

func (a *appRoleAuth) advice(refusal *ResponseError, namespace string) string {
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
	if a.wrapped != nil {
		return a.logInWrapped(ctx, roleID, library)
	}
	secretID, err := a.get(ctx, "vault.auth.approle.secret_id", a.config.SecretID, config.SecretID)
	if err != nil {
		return lease{}, err
	}
	l, _, err := a.send(ctx, roleID, secretID, library)
	return l, err
}

// logInWrapped logs in with the secret ID that was delivered last, and with the one before it if Vault refuses that.
func (a *appRoleAuth) logInWrapped(ctx context.Context, roleID secret.Value, library *api.Client) (lease, error) {
	candidates, err := a.wrapped.get(ctx, roleID.Digest(), &a.credentials, library)
	if err != nil {
		return lease{}, err
	}
	for _, one := range candidates {
		var l lease
		var role string
		if l, role, err = a.send(ctx, roleID, secret.New(one.SecretID), library); err == nil {
			a.wrapped.accepted(one, role, roleID.Digest())
			return l, nil
		}
		if !refused(err) {
			break // the same would happen to the other one
		}
		a.wrapped.refuse(one, err)
	}
	return lease{}, err
}

// send logs in, and returns the name of the role, if Vault says it. What Vault has refused is not sent again too soon.
func (a *appRoleAuth) send(ctx context.Context, roleID, secretID secret.Value, library *api.Client) (lease, string, error) {
	credential := secret.New(roleID.Reveal() + "\n" + secretID.Reveal()).Digest()
	if err := a.guard.mayTry(credential); err != nil {
		return lease{}, "", err
	}
	method, err := approle.NewAppRoleAuth(roleID.Reveal(), &approle.SecretID{FromString: secretID.Reveal()}, approle.WithMountPath(a.config.Mount))
	if err != nil {
		return lease{}, "", unreadable("vault.auth.approle", err)
	}
	answer, err := library.Auth().Login(ctx, method)
	if err != nil {
		err = plain(err)
		a.guard.note(credential, err)
		return lease{}, "", err
	}
	a.guard.note(credential, nil)
	l := leaseOf(answer)
	l.forever = l.ttl == 0 // Vault never gives a token that has ended
	return l, printable.Line(answer.Auth.Metadata["role_name"], maxClaim), nil
}

// notBefore implements [patientMethod].
func (a *appRoleAuth) notBefore() time.Time { return a.guard.next() }

func (a *appRoleAuth) changed(ctx context.Context) bool {
	if a.wrapped != nil {
		a.wrapped.saveIfNeeded()
	}
	return a.credentials.changed(ctx)
}
