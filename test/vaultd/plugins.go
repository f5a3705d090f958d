package main

import (
	"slices"

	jwt "github.com/hashicorp/vault-plugin-auth-jwt"
	kubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/builtin/credential/cert"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// plugin is one built-in plugin.
type plugin struct {
	name string
	new  logical.Factory
}

// What can be mounted.
var (
	engines     = []plugin{{"kv", kv.Factory}}
	authMethods = []plugin{{"approle", approle.Factory}, {"cert", cert.Factory}, {"jwt", jwt.Factory}, {"kubernetes", kubernetes.Factory}}
)

func backends(plugins []plugin) map[string]logical.Factory {
	m := map[string]logical.Factory{}
	for _, p := range plugins {
		m[p.name] = p.new
	}
	return m
}

// registry names the built-in plugins, which is all that mounting them asks for.
type registry struct{}

// Keys returns the names of a kind.
func (registry) Keys(kind consts.PluginType) []string {
	plugins := map[consts.PluginType][]plugin{consts.PluginTypeSecrets: engines, consts.PluginTypeCredential: authMethods}
	var names []string
	for _, p := range plugins[kind] {
		names = append(names, p.name)
	}
	return names
}

// Contains reports whether there is such a plugin.
func (r registry) Contains(name string, kind consts.PluginType) bool {
	return slices.Contains(r.Keys(kind), name)
}

// Get reports the same. No plugin is run as a program, so there is nothing to return.
func (r registry) Get(name string, kind consts.PluginType) (func() (any, error), bool) {
	return nil, r.Contains(name, kind)
}

// DeprecationStatus says that no plugin is deprecated.
func (r registry) DeprecationStatus(name string, kind consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, r.Contains(name, kind)
}

// IsBuiltinEntPlugin says that none is of the enterprise edition.
func (registry) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }
