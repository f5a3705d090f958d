package vault

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"rotatord/internal/secret"
)

// Paths of Vault's API that are used, beside those of secrets and logins.
const (
	pathLookup       = "auth/token/lookup-self"
	pathRenew        = "auth/token/renew-self"
	pathRevoke       = "auth/token/revoke-self"
	pathCapabilities = "sys/capabilities-self"
	pathWrapInfo     = "sys/wrapping/lookup"
	pathUnwrap       = "sys/wrapping/unwrap"
	// pathMounts is the path that Vault's own command line uses. Every token with a right
	// below a mount may read it.
	pathMounts = "sys/internal/ui/mounts/"
)

// request is what must be known about a request to check its answer.
type request struct {
	method    string
	operation string // its name in metrics
	raw       bool   // the caller checks the answer: see [Session.Send]
	token     string // empty for a login
	body      []byte // JSON; empty for none
	path      string // of the API, without /v1/
	// asked is the URL; namespace is the configured namespace, or empty.
	asked     *url.URL
	namespace string
}

// operationOf returns the name of a request in metrics and errors. The set of names is small and fixed.
func operationOf(method, path string) string {
	switch {
	case strings.HasPrefix(path, "auth/") && strings.HasSuffix(path, "/login"):
		return "login"
	case path == pathRenew:
		return "renew"
	case path == pathLookup:
		return "lookup"
	case path == pathRevoke:
		return "revoke"
	case path == pathWrapInfo:
		return "wrapping_lookup"
	case path == pathUnwrap:
		return "unwrap"
	case path == pathCapabilities:
		return "capabilities"
	case strings.HasPrefix(path, pathMounts):
		return "mounts"
	case method == http.MethodGet:
		return "read"
	default:
		return "write"
	}
}

// name is the request's name in errors: that of Vault's documentation if that is short.
func (r request) name() string {
	switch r.operation {
	case "renew":
		return "renew-self"
	case "lookup":
		return "lookup-self"
	case "revoke":
		return "revoke-self"
	case "wrapping_lookup":
		return "wrapping lookup"
	case "capabilities":
		return "capabilities-self"
	default:
		return r.operation
	}
}

// stanza returns what a policy needs for a request, in Vault's language. It is empty if that is not one
// path: a login needs none, for a mount any right below it is enough, and the sink has its own message about
// the probe.
func (r request) stanza() string {
	need := ""
	switch r.operation {
	case "lookup", "read", "lifetime":
		need = `"read"`
	case "renew", "revoke", "capabilities":
		need = `"update"`
	case "write":
		need = `"create", "update"`
	}
	if need == "" || r.path == "" {
		return ""
	}
	return fmt.Sprintf("path %q { capabilities = [%s] }", r.path, need)
}

// scrubbed returns a text without the secrets that were sent: the server may have sent them back.
func (r request) scrubbed(text string) string {
	for _, sent := range r.secrets() {
		text = strings.ReplaceAll(text, sent, secret.Redacted)
	}
	return text
}

// shortestSecret is the shortest text that is removed from errors. Short words such as "true", which may be
// beside a secret, stay.
const shortestSecret = 6

// secrets are the parts of a request that no error may repeat.
func (r request) secrets() (all []string) {
	if r.token != "" {
		all = append(all, r.token)
	}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			if len(v) >= shortestSecret {
				all = append(all, v)
			}
		case map[string]any:
			for _, inner := range v {
				walk(inner)
			}
		}
	}
	var body any
	if json.Unmarshal(r.body, &body) == nil {
		walk(body)
	}
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) }) // one may be part of another
	return all
}
