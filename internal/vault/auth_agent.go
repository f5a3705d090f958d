package vault

import (
	"context"
	"time"

	"github.com/hashicorp/vault/api"

	"rotatord/internal/config"
)

// Agent implements [config.AuthMethods].
func (m *methods) Agent(*config.AgentAuth) { m.chosen = agentAuth{} }

// agentAuth sends no token: a Vault Agent or Vault Proxy at the address adds its own.
type agentAuth struct{}

func (agentAuth) name() string { return "agent" }

func (agentAuth) hint(_ *ResponseError, namespace string) string {
	return "the agent at vault.address has no token yet, does not add it (use_auto_auth_token), or its token may not look itself up" + askNamespace(namespace)
}

func (agentAuth) logIn(ctx context.Context, library *api.Client) (lease, error) {
	self, err := lookUp(ctx, library)
	if err != nil {
		return lease{}, err
	}
	return lease{ttl: max(self.TTL, time.Second), forever: self.Forever}, nil
}

func (agentAuth) changed(context.Context) bool { return false }
