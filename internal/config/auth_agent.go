package config

import (
	"net/url"

	"rotatord/internal/config/raw"
)

// AgentAuth is a Vault Agent or Vault Proxy on this machine that adds its own token to requests. It implements
// [VaultAuth].
type AgentAuth struct{}

// Kind implements [VaultAuth].
func (*AgentAuth) Kind() string { return "agent" }

// Consumes implements [VaultAuth].
func (*AgentAuth) Consumes() string { return "" }

// LogsIn implements [VaultAuth]. The session is the agent's.
func (*AgentAuth) LogsIn() bool { return false }

// Document implements [VaultAuth].
func (*AgentAuth) Document() map[string]any { return map[string]any{} }

// Dispatch implements [VaultAuth].
func (a *AgentAuth) Dispatch(to AuthMethods) { to.Agent(a) }

func (a *AgentAuth) check(c *checker, path string, _ raw.VaultAuth) {
	address := c.cfg.Vault.Address
	if u, err := url.Parse(address); err != nil || address == "" {
		return // reported
	} else if u.Scheme != unixScheme && !IsLoopback(u.Hostname()) {
		c.wrong(path, "needs a vault.address on this machine, such as http://127.0.0.1:8100 or unix:///run/vault/agent.sock: whoever reaches the agent is logged in")
	}
	if c.has("vault.nodes") && c.cfg.Vault.Socket() == "" {
		c.wrong("vault.nodes", "has no effect with vault.auth.agent: the agent itself follows the redirects of a standby; remove it")
	}
}

func (*AgentAuth) eachSecret(string, func(string, *SecretSource, SecretKind)) {}
