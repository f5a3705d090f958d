package config

import (
	"rotatord/internal/config/raw"
)

// AppRole is Vault's approle auth method. It implements [VaultAuth].
type AppRole struct {
	Mount    string // default "approle"
	RoleID   SecretSource
	SecretID SecretSource
	// Wrapped says that SecretID has a wrapping token, which is unwrapped once. Default false.
	Wrapped bool
}

// Kind implements [VaultAuth].
func (*AppRole) Kind() string { return "approle" }

// Consumes implements [VaultAuth].
func (a *AppRole) Consumes() string {
	if a.Wrapped {
		return "the wrapping token"
	}
	return "one use of the secret_id"
}

// LogsIn implements [VaultAuth].
func (*AppRole) LogsIn() bool { return true }

// Document implements [VaultAuth].
func (a *AppRole) Document() map[string]any {
	document := map[string]any{"mount": a.Mount, "role_id": a.RoleID.Document(), "secret_id": a.SecretID.Document()}
	if a.Wrapped {
		document["wrapped"] = true
	}
	return document
}

// Dispatch implements [VaultAuth].
func (a *AppRole) Dispatch(to AuthMethods) { to.AppRole(a) }

func (a *AppRole) check(c *checker, path string, auth raw.VaultAuth) {
	in := auth.AppRole
	a.Mount = c.authMount(path+".mount", in.Mount, "approle")
	a.RoleID, a.SecretID = c.source(path+".role_id", in.RoleID), c.source(path+".secret_id", in.SecretID)
	a.Wrapped = or(in.Wrapped, false)
	if a.RoleID == a.SecretID && !a.RoleID.IsZero() {
		c.warn(path+".secret_id", "names the same place as role_id: they are two different values")
	}
}

func (a *AppRole) eachSecret(path string, do func(field string, source *SecretSource, kind SecretKind)) {
	do(path+".role_id", &a.RoleID, RoleID)
	kind := SecretID
	if a.Wrapped {
		kind = WrappingToken
	}
	do(path+".secret_id", &a.SecretID, kind)
}
