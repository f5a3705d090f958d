package config

import (
	"strings"

	"rotatord/internal/config/raw"
)

// CertAuth is Vault's cert auth method. The certificate is that of [TLS]. It implements [VaultAuth].
type CertAuth struct {
	Role  string // empty: Vault tries all its roles
	Mount string // default "cert"
}

// Kind implements [VaultAuth].
func (*CertAuth) Kind() string { return "cert" }

// Consumes implements [VaultAuth].
func (*CertAuth) Consumes() string { return "" }

// LogsIn implements [VaultAuth].
func (*CertAuth) LogsIn() bool { return true }

// Document implements [VaultAuth].
func (a *CertAuth) Document() map[string]any {
	document := map[string]any{"mount": a.Mount}
	if a.Role != "" {
		document["role"] = a.Role
	}
	return document
}

// Dispatch implements [VaultAuth].
func (a *CertAuth) Dispatch(to AuthMethods) { to.Cert(a) }

func (a *CertAuth) check(c *checker, path string, auth raw.VaultAuth) {
	in := auth.Cert
	a.Role, a.Mount = c.role(path+".role", in.Role), c.authMount(path+".mount", in.Mount, "cert")
	switch address := c.cfg.Vault.Address; {
	case address != "" && !strings.HasPrefix(strings.ToLower(address), "https:"):
		c.wrong(path, "needs a vault.address that is https: the certificate is shown when the TLS connection is made")
	case !c.has("vault.tls.cert_file") && !c.has("vault.tls.key_file") && !c.isBroken("vault.tls"):
		c.wrong(path, "logs in with the client certificate of vault.tls, and there is none: give vault.tls.cert_file and vault.tls.key_file")
	}
}

func (*CertAuth) eachSecret(string, func(string, *SecretSource, SecretKind)) {}
