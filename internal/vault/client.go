package vault

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/outbound"
)

const (
	// MaxBody is how many bytes of an answer are read. Vault's integrated storage takes no
	// entry above 1 MiB.
	MaxBody = 2 << 20
	// maxRedirects is how often one request is sent again because a standby redirects it.
	maxRedirects = 2
)

// client sends requests to one Vault. It takes nothing from the environment but the proxy for
// https, follows no redirect except a standby's to a named node, and reads a bounded answer.
type client struct {
	base      *url.URL
	nodes     []*url.URL // of the same cluster, which a standby may redirect to
	namespace string
	timeout   time.Duration // of one request, the body of its answer included
	transport http.RoundTripper
	observer  Observer // may be nil
}

func newClient(c config.Vault, observer Observer) (*client, error) {
	base, err := url.Parse(c.Address)
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
	tlsConfig, err := newTLS(c.TLS)
	if err != nil {
		return nil, err
	}
	transport := outbound.Transport()
	transport.TLSClientConfig = tlsConfig
	// A body must not grow when it is unpacked.
	transport.DisableCompression = true
	return &client{base: base, nodes: nodes, namespace: c.Namespace, timeout: c.Timeout, transport: transport, observer: observer}, nil
}

func newTLS(c config.TLS) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("tls.ca_file: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls.ca_file: %s holds no PEM certificate", c.CAFile)
		}
	}
	if c.CertFile != "" || c.KeyFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("tls.cert_file and key_file: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// request is one request to Vault.
type request struct {
	method string
	path   string // without /v1/
	token  string // empty for a login
	body   any    // nil for none
	index  string // X-Vault-Index; empty for none
	called string // its operation, if it is not what the path says
}

// operation names a request for metrics and errors: a small, fixed set.
func (r request) operation() string {
	switch {
	case r.called != "":
		return r.called
	case strings.HasPrefix(r.path, "auth/") && strings.HasSuffix(r.path, "/login"):
		return "login"
	case r.path == pathRenew:
		return "renew"
	case r.path == pathLookup:
		return "lookup"
	case r.path == pathCapabilities:
		return "capabilities"
	case strings.HasPrefix(r.path, pathMounts):
		return "mounts"
	case r.method == http.MethodGet:
		return "read"
	default:
		return "write"
	}
}

// Paths of Vault's API that are used, beside those of secrets and logins.
const (
	pathLookup       = "auth/token/lookup-self"
	pathRenew        = "auth/token/renew-self"
	pathCapabilities = "sys/capabilities-self"
	// pathMounts is what vault's own command line uses; every token with a policy for
	// something below a mount may read it.
	pathMounts = "sys/internal/ui/mounts/"
)

// answered is an answer whose body was read.
type answered struct {
	*http.Response
	content []byte
}

// do sends a request once and decodes the answer, which is nil, without an error, if a write
// was answered by 204, or a read by Vault's own 404. Errors are described.
func (c *client) do(ctx context.Context, r request) (*Secret, error) {
	a, err := c.send(ctx, r)
	if err != nil {
		return nil, describe(r, err)
	}
	decoded, err := decode(r, a)
	if err != nil {
		return nil, describe(r, err)
	}
	return decoded, nil
}

// send sends a request once, or up to three times if a standby redirects it, and reads the
// answer. An answer that redirects elsewhere, or is too large, is an error; any other is not,
// whatever its status.
func (c *client) send(ctx context.Context, r request) (answered, error) {
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	if strings.ContainsFunc(r.token, func(b rune) bool { return b < '!' || b > '~' }) {
		return answered{}, &describedError{text: "vault.auth: the token has characters that no token may have: a space, a line break, or one that is not ASCII"}
	}
	var body []byte
	if r.body != nil {
		var err error
		if body, err = json.Marshal(r.body); err != nil { // its text could quote the body
			return answered{}, &describedError{text: "the request cannot be written as JSON"}
		}
	}
	at := c.base
	for redirects := 0; ; redirects++ {
		a, err := c.roundTrip(ctx, r, at, body)
		if err != nil || !outbound.IsRedirect(a.StatusCode) {
			return a, err
		}
		to := c.standby(a.Response, r)
		switch {
		case to == nil:
			return answered{}, outbound.Redirected("Vault", a.StatusCode, a.Request.URL, a.Header.Get("Location"))
		case redirects == maxRedirects:
			return answered{}, fmt.Errorf("%d nodes in a row redirected, the last one %s to %s: is no node of the cluster active?", redirects+1, at.Host, to.Host)
		}
		at = to
	}
}

// standby returns where the active node is, if an answer is that of a standby which says so, and
// the configuration names that place. Else it returns nil: a redirect to any other place, by any
// other status or to any other path is not followed, nor one that gives up TLS.
func (c *client) standby(res *http.Response, r request) *url.URL {
	to, err := url.Parse(res.Header.Get("Location"))
	if err != nil || res.StatusCode != http.StatusTemporaryRedirect || to.User != nil || to.RawQuery != "" {
		return nil
	}
	for _, known := range append([]*url.URL{c.base}, c.nodes...) {
		if outbound.Origin(to) == outbound.Origin(known) && to.EscapedPath() == r.at(known).EscapedPath() &&
			(known.Scheme == "https" || res.Request.URL.Scheme != "https") {
			return known
		}
	}
	return nil
}

// at returns the URL of a request to one node.
func (r request) at(node *url.URL) *url.URL {
	address := *node
	address.Path, address.RawPath = path.Join(node.Path, "/v1", r.path), ""
	return &address
}

// roundTrip goes to the transport directly: an http.Client would follow redirects.
func (c *client) roundTrip(ctx context.Context, r request, at *url.URL, body []byte) (answered, error) {
	req, err := http.NewRequestWithContext(ctx, r.method, r.at(at).String(), bytes.NewReader(body))
	if err != nil {
		return answered{}, err
	}
	for name, value := range map[string]string{
		"User-Agent":        "rotatord",
		"X-Vault-Request":   "true", // an agent can be told to ask for it
		"X-Vault-Token":     r.token,
		"X-Vault-Namespace": c.namespace,
		"X-Vault-Index":     r.index,
	} {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	start, code := time.Now(), "error"
	defer func() {
		if c.observer != nil {
			c.observer.VaultRequest(r.operation(), code, time.Since(start))
		}
	}()
	res, err := c.transport.RoundTrip(req)
	if err != nil {
		return answered{}, outbound.Unquoted(err)
	}
	defer res.Body.Close()
	code = strconv.Itoa(res.StatusCode)
	res.Request = req
	if outbound.IsRedirect(res.StatusCode) {
		return answered{res, nil}, nil
	}
	content, err := outbound.ReadBody(res.Body, MaxBody)
	return answered{res, content}, err
}
