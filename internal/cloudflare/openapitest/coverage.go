package openapitest

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/routers"
)

// Coverage says which operations of the document succeeded through the transports that [Covering] was given
// to. The zero Coverage is empty.
type Coverage struct {
	mu   sync.Mutex
	seen map[string]bool
}

// Covering makes a transport note in c the operations that succeed.
func Covering(c *Coverage) Option { return func(t *transport) { t.coverage = c } }

// Missing returns, sorted, the operations of the wanted paths that did not succeed. An operation that the
// document has for accounts and for zones counts twice. An operation that a later document adds is missing
// until a client uses it, or it is listed as unused.
func (c *Coverage) Missing(t testing.TB) []string {
	t.Helper()
	all, err := router()
	if err != nil {
		t.Fatalf("openapitest: %v", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	missing := map[string]bool{}
	for path, item := range all.paths {
		for method := range item.Operations() {
			for _, kind := range []string{"accounts", "zones"} {
				if name := operationName(method, path, kind); !c.seen[name] {
					missing[name] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(missing))
}

// operationName keeps the operations for accounts and for zones apart.
func operationName(method, path, kind string) string {
	return method + " " + strings.Replace(path, "{accounts_or_zones}", kind, 1)
}

// note counts an operation as covered if it succeeded.
func (c *Coverage) note(route *routers.Route, params map[string]string, status int) {
	if c == nil || status < 200 || status > 299 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == nil {
		c.seen = map[string]bool{}
	}
	c.seen[operationName(route.Method, route.Path, params["accounts_or_zones"])] = true
}
