package config

import (
	"maps"
	"path/filepath"
	"slices"
)

// NamedFile is a file that the configuration names and the daemon reads.
type NamedFile struct {
	Field  string // where it is named, as in vault.tls.ca_file
	Path   string
	Secret bool // a credential: only the daemon should read it
}

// Files returns all files that the daemon reads, beside the configuration and the state directory,
// in the order of their fields.
func (c *Config) Files() []NamedFile {
	var all []NamedFile
	c.eachFile(func(field string, path *string, secret bool) { all = append(all, NamedFile{field, *path, secret}) })
	return all
}

// Relocate changes the paths of all files in one directory to another directory, and returns how many
// files these are. The credentials of a systemd unit are in a directory that exists only while the unit runs.
func (c *Config) Relocate(from, to string) (moved int) {
	c.eachFile(func(_ string, path *string, _ bool) {
		if filepath.Dir(*path) == from {
			*path = filepath.Join(to, filepath.Base(*path))
			moved++
		}
	})
	return moved
}

// eachFile calls do for each file that is named.
func (c *Config) eachFile(do func(field string, path *string, secret bool)) {
	visit := func(field string, path *string, secret bool) {
		if *path != "" {
			do(field, path, secret)
		}
	}
	c.eachSecret(func(field string, source *SecretSource, _ SecretKind) { visit(field, &source.File, true) })
	for i := range c.Notify {
		r := &c.Notify[i]
		visit(itemPath("notify", i)+"."+r.Kind.Kind()+".ca_file", r.Kind.authorities(), false)
	}
	c.eachHook(func(token string, i int, hook Hook) {
		if w, ok := hook.(*WebhookHook); ok {
			visit(itemPath(join("tokens", token)+".after", i)+".webhook.ca_file", &w.CAFile, false)
		}
	})
	visit("kubernetes.kubeconfig", &c.Kubernetes.Kubeconfig, true)
	if c.Vault == nil {
		return
	}
	visit("vault.tls.ca_file", &c.Vault.TLS.CAFile, false)
	visit("vault.tls.cert_file", &c.Vault.TLS.CertFile, false)
	visit("vault.tls.key_file", &c.Vault.TLS.KeyFile, true)
}

// NamedSecret is the place of a secret and its kind.
type NamedSecret struct {
	Field  string // where it is named, as in vault.auth.token
	Source SecretSource
	Kind   SecretKind
}

// Secrets returns all secrets that are configured, in the order of their fields.
func (c *Config) Secrets() []NamedSecret {
	var all []NamedSecret
	c.eachSecret(func(field string, source *SecretSource, kind SecretKind) {
		if !source.IsZero() {
			all = append(all, NamedSecret{field, *source, kind})
		}
	})
	return all
}

// eachSecret calls do for each place of a secret. Some are not configured.
func (c *Config) eachSecret(do func(field string, source *SecretSource, kind SecretKind)) {
	for _, name := range slices.Sorted(maps.Keys(c.Accounts)) {
		a := c.Accounts[name]
		do(join("accounts", name)+".api_token", &a.APIToken, APIToken)
		do(join("accounts", name)+".api_key", &a.APIKey, GlobalKey)
		c.Accounts[name] = a
	}
	do("state.identity", &c.State.Identity, AgeIdentity)
	if c.Vault != nil && c.Vault.Auth != nil {
		c.Vault.Auth.eachSecret("vault.auth."+c.Vault.Auth.Kind(), do)
	}
	for i, r := range c.Notify {
		r.Kind.eachSecret(itemPath("notify", i)+"."+r.Kind.Kind(), do)
	}
	// Most tokens have no secret, so the path is made for one that has.
	below := func(token, list string, i int, kind string) func(string, *SecretSource, SecretKind) {
		return func(field string, source *SecretSource, secret SecretKind) {
			do(itemPath(join("tokens", token)+list, i)+"."+kind+field, source, secret)
		}
	}
	for _, t := range c.Tokens {
		for i, sink := range t.Sinks {
			sink.eachSecret("", below(t.Name, ".sinks", i, sink.Kind()))
		}
	}
	c.eachHook(func(token string, i int, hook Hook) { hook.eachSecret("", below(token, ".after", i, hook.Kind())) })
}

// eachHook calls do for each hook, with a token that has it and its place there. One that tokens share, from defaults, comes
// once: its files need not be read, nor be reported, for each of them.
func (c *Config) eachHook(do func(token string, i int, hook Hook)) {
	seen := make(map[Hook]bool)
	for _, t := range c.Tokens {
		for i, hook := range t.After {
			if !seen[hook] {
				seen[hook] = true
				do(t.Name, i, hook)
			}
		}
	}
}
