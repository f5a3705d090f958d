package vault

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/hashicorp/vault/api"

	"rotatord/internal/config"
)

// client is HashiCorp's client library for one Vault, with our own transport.
type client struct {
	session *api.Client // has the session's token
	// login is used for logins only, because other requests still use the old token meanwhile.
	login       *api.Client
	connections *connections
	transport   *transport
}

func newClient(c config.Vault, observer Observer) (*client, error) {
	connections, err := newConnections(c)
	if err != nil {
		return nil, err
	}
	t, err := newTransport(c, connections, observer)
	if err != nil {
		return nil, err
	}
	session, err := newLibrary(c, t)
	if err != nil {
		return nil, err
	}
	login, err := newLibrary(c, t)
	if err != nil {
		return nil, err
	}
	return &client{session, login, connections, t}, nil
}

// newLibrary returns a client of the library that depends on the configuration alone. The library
// reads VAULT_* variables for each new client and each clone. So they are hidden from it, and a client
// is never cloned.
func newLibrary(c config.Vault, t *transport) (library *api.Client, err error) {
	config.WithoutEnvironment("VAULT_", func() {
		library, err = api.NewClient(&api.Config{
			Address:          baseOf(c),
			DisableRedirects: true, // the transport passes none on either
			// Our callers decide whether to repeat a request.
			MaxRetries: 0,
			CheckRetry: func(context.Context, *http.Response, error) (bool, error) { return false, nil },
			HttpClient: &http.Client{
				Transport:     t,
				CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			},
		})
	})
	if err != nil {
		return nil, err
	}
	library.SetHeaders(http.Header{api.RequestHeaderName: {"true"}, "User-Agent": {"rotatord"}})
	if c.Namespace != "" {
		library.SetNamespace(c.Namespace)
	}
	// Without this the library reads VAULT_WRAP_TTL for each request.
	library.SetWrappingLookupFunc(func(string, string) string { return "" })
	return library, nil
}

// baseOf returns the URL of the server. Behind a unix socket it is this machine, as the library has it.
func baseOf(c config.Vault) string {
	if c.Socket() != "" {
		return "http://localhost"
	}
	return c.Address
}

func newTransport(c config.Vault, next http.RoundTripper, observer Observer) (*transport, error) {
	base, err := url.Parse(baseOf(c))
	if err != nil || base.Host == "" {
		return nil, fmt.Errorf("address: %q cannot be read as a URL", c.Address)
	}
	var nodes []*url.URL
	for _, address := range c.Nodes {
		node, err := url.Parse(address)
		if err != nil || node.Host == "" {
			return nil, fmt.Errorf("nodes: %q cannot be read as a URL", address)
		}
		nodes = append(nodes, node)
	}
	return &transport{next: next, base: base, nodes: nodes, timeout: c.Timeout, observer: observer}, nil
}
