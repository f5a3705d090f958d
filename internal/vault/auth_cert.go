package vault

import (
	"context"

	"github.com/hashicorp/vault/api"

	"rotatord/internal/config"
)

// Cert implements [config.AuthMethods].
func (m *methods) Cert(c *config.CertAuth) { m.chosen = &certAuth{config: *c} }

// certAuth logs in with the client certificate of the TLS connection.
type certAuth struct{ config config.CertAuth }

func (*certAuth) name() string { return "cert" }

func (c *certAuth) hint(_ *ResponseError, namespace string) string {
	return "does a role of auth/" + c.config.Mount + " accept the certificate of vault.tls.cert_file?" + askNamespace(namespace)
}

func (c *certAuth) logIn(ctx context.Context, library *api.Client) (lease, error) {
	body := map[string]any{}
	if c.config.Role != "" {
		body["name"] = c.config.Role
	}
	return logInAt(ctx, library, c.config.Mount, body)
}

func (*certAuth) changed(context.Context) bool { return false }
