package vault

import (
	"context"
	"fmt"
	"sync"

	"github.com/hashicorp/vault/api"

	"rotatord/internal/config"
	"rotatord/internal/printable"
)

// Cert implements [config.AuthMethods].
func (m *methods) Cert(c *config.CertAuth) {
	m.chosen = &certAuth{config: *c, connections: m.session.client.connections}
}

// certAuth logs in with the client certificate of the TLS connection. Vault accepts a renewal of such a session only on a
// connection with the same certificate, so another certificate needs another login. It is on another connection,
// because new files of vault.tls make new connections.
type certAuth struct {
	config      config.CertAuth
	connections *connections

	mu   sync.Mutex
	used string // the fingerprint of the certificate of the last login
}

func (*certAuth) name() string { return "cert" }

func (c *certAuth) hint(refusal *ResponseError, namespace string) string {
	of := "the certificate in use cannot be read"
	if leaf := c.connections.certificate(); leaf != nil {
		of = fmt.Sprintf("it is of %s, from %s, and valid from %s to %s", printable.Line(leaf.Subject.String(), maxClaim), printable.Line(leaf.Issuer.String(), maxClaim),
			leaf.NotBefore.UTC().Format(timeLayout), leaf.NotAfter.UTC().Format(timeLayout))
	}
	role := "a role at auth/" + c.config.Mount + "/certs"
	if c.config.Role != "" {
		role = fmt.Sprintf("the role %q at auth/%s/certs", c.config.Role, c.config.Mount)
	}
	if refusal.says("no client certificate") || refusal.says("certificate must be supplied") || refusal.says("tls connection required") {
		return "Vault saw no client certificate: does a load balancer before it end the TLS connection, or is tls_disable_client_certs set at the listener?"
	}
	return "does " + role + " accept the certificate of vault.tls.cert_file (its CA, allowed_common_names and the other constraints)? Of this one, " + of + ". Otherwise " +
		noMount("cert", c.config.Mount) + askNamespace(namespace)
}

func (c *certAuth) logIn(ctx context.Context, library *api.Client) (lease, error) {
	fingerprint := c.connections.fingerprint()
	c.mu.Lock()
	c.used = fingerprint
	c.mu.Unlock()
	body := map[string]any{}
	if c.config.Role != "" {
		body["name"] = c.config.Role
	}
	return logInAt(ctx, library, c.config.Mount, body)
}

func (c *certAuth) changed(context.Context) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used != c.connections.fingerprint()
}
