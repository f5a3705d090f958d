package vault

import (
	"context"
	"time"

	"github.com/hashicorp/vault/api"

	"rotatord/internal/config"
)

// Agent implements [config.AuthMethods].
func (m *methods) Agent(*config.AgentAuth) { m.chosen = agentAuth{} }

// agentAuth sends no token: a Vault Agent or Vault Proxy at the address adds its own (auto-auth), renews it, and
// gets another one before it ends. What the session knows about that token is from lookup-self.
type agentAuth struct{}

func (agentAuth) name() string { return "agent" }

func (agentAuth) hint(_ *ResponseError, namespace string) string {
	return "the agent at vault.address has no token yet (its log says why), does not add it (api_proxy { use_auto_auth_token = true }), or its token may not look itself up: " +
		"does it have the policy default?" + askNamespace(namespace)
}

func (agentAuth) logIn(ctx context.Context, library *api.Client) (lease, error) {
	self, err := lookUp(ctx, library)
	switch {
	case err != nil:
		return lease{}, err
	case self.TTL < time.Second && !self.Forever:
		return lease{}, &describedError{text: "the token of the agent at vault.address has expired: the agent has not got another one yet, and its log says why"}
	}
	return lease{ttl: self.TTL, forever: self.Forever, managed: true}, nil
}

func (agentAuth) changed(context.Context) bool { return false }

func (agentAuth) borrows() {}

// lookAtAgent asks how long the agent's token lasts now. It returns true if the agent has no valid token.
func (s *Session) lookAtAgent(ctx context.Context) (gone bool) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	begun := time.Now()
	self, err := lookUp(ctx, s.client.session)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil && self.Forever:
		s.expiry = time.Time{}
	case err == nil:
		s.expiry = begun.Add(self.TTL)
	case denied(err):
		s.loggedIn, s.err = false, withHint(err, s.login.hint, s.config.Namespace)
		return true
	}
	return s.ended()
}
