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
	pathCapabilities = "sys/capabilities-self"
	// pathMounts is what vault's own command line uses; every token with a policy for
	// something below a mount may read it.
	pathMounts = "sys/internal/ui/mounts/"
)

// request is what must be known of a request to judge its answer.
type request struct {
	method    string
	operation string // its name in metrics
	raw       bool   // the caller judges the answer: see [Session.Send]
	token     string // empty for a login
	body      []byte // JSON; empty for none
	path      string // of the API, without /v1/
	// asked is the URL, and namespace Vault's, if one is configured.
	asked     *url.URL
	namespace string
}

// operationOf names a request for metrics and errors: a small, fixed set.
func operationOf(method, path string) string {
	switch {
	case strings.HasPrefix(path, "auth/") && strings.HasSuffix(path, "/login"):
		return "login"
	case path == pathRenew:
		return "renew"
	case path == pathLookup:
		return "lookup"
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

// name is the request's name in errors, as Vault's documentation has it where that is short.
func (r request) name() string {
	switch r.operation {
	case "renew":
		return "renew-self"
	case "lookup":
		return "lookup-self"
	case "capabilities":
		return "capabilities-self"
	default:
		return r.operation
	}
}

// stanza is what a policy must have for a request, in Vault's language; empty where that is not one path:
// a login needs none, of a mount anything below it will do, and the sink has its own for the probe.
func (r request) stanza() string {
	need := ""
	switch r.operation {
	case "lookup", "read", "lifetime":
		need = `"read"`
	case "renew", "capabilities":
		need = `"update"`
	case "write":
		need = `"create", "update"`
	}
	if need == "" || r.path == "" {
		return ""
	}
	return fmt.Sprintf("path %q { capabilities = [%s] }", r.path, need)
}

// cleaned is a text without what was sent, which the other side may send back.
func (r request) cleaned(text string) string {
	for _, sent := range r.secrets() {
		text = strings.ReplaceAll(text, sent, secret.Redacted)
	}
	return text
}

// shortestSecret keeps words such as "true", which may be beside a secret, from being taken out
// of errors.
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
