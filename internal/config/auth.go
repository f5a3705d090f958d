package config

import (
	"strings"

	"rotatord/internal/config/raw"
)

// AuthMethods is the table of the ways to log in to Vault: one line for each method. See kinds.go
// for how to add one.
type AuthMethods interface {
	Kubernetes(*KubernetesAuth)
	JWT(*JWTAuth)
	Cert(*CertAuth)
	AppRole(*AppRole)
	Token(*TokenAuth)
	Agent(*AgentAuth)
}

// VaultAuth is one way to log in to Vault.
type VaultAuth interface {
	// Kind is the key of the method in the configuration file, such as approle.
	Kind() string
	// Consumes says what a login uses up that the daemon may need, such as one use of a secret id.
	// It is empty if a login costs nothing.
	Consumes() string
	// LogsIn reports whether the daemon gets its session by itself. It then owns the session: it may
	// get another one, and end it.
	LogsIn() bool
	// Document is what the configuration file says below the key of the method. It has no secret.
	Document() map[string]any
	// Dispatch calls the method of the table for this kind.
	Dispatch(AuthMethods)

	// check takes over what the file says at path, which is the key of the method, and reports what
	// is wrong.
	check(c *checker, path string, in raw.VaultAuth)
	// eachSecret calls do for each secret that the method needs.
	eachSecret(path string, do func(field string, source *SecretSource, kind SecretKind))
}

func (c *checker) checkVaultAuth() {
	const path = "vault.auth"
	if !c.has(path) || c.isBroken(path) {
		return
	}
	in := c.raw.Vault.Auth
	chosen, ok := chosenKinds[VaultAuth, AuthMethods, raw.VaultAuth](c, path)
	all := list(keysOf(kindsIn[VaultAuth, AuthMethods]()))
	switch {
	case len(chosen) > 1:
		c.wrong(path, "has more than one method: keep exactly one of %s", all)
	case len(chosen) == 1:
		c.cfg.Vault.Auth = chosen[0]
		chosen[0].check(c, path+"."+chosen[0].Kind(), in)
	case ok:
		c.wrong(path, "has no method: give exactly one of %s", all)
	}
}

// role returns the name of a role, which is one part of a path of Vault; empty if there is none.
func (c *checker) role(path string, value *string) string {
	role := or(value, "")
	switch {
	case value == nil:
	case hasTemplate(role), strings.Contains(role, "$"):
		c.wrong(path, "has a variable or a template in it, which is not filled in: write the name out")
	case strings.Contains(role, "/"):
		c.wrong(path, "must be the name of a role alone, without a slash, such as rotatord: the path before it belongs in mount")
	}
	return role
}

// authMount returns the mount of an auth method without slashes at its ends.
func (c *checker) authMount(path string, value *string, otherwise string) string {
	if value != nil {
		c.segments(path, *value)
	}
	return strings.Trim(or(value, otherwise), "/")
}
