// Package kubernetes talks to the API server of one cluster, for the Secrets that rotatord writes.
//
// Guarantees:
//
//   - A write is sent once. It is repeated only after a 401, which proves that it was not carried out, and
//     only if the files have another token by then. Everything else is the caller's decision.
//   - Only the configured API server gets a token or a secret: no redirect is followed, and no proxy of the
//     environment is used.
//   - Each answer is bounded in size and time. An answer that the API server does not give is an error.
//   - The kubeconfig, the token and the certificates are read again for each request, so a token that the
//     kubelet replaces is used at once. No program is run to get one.
//   - No error contains a token, or anything of the data of a Secret.
package kubernetes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/outbound"
	"rotatord/internal/printable"
	"rotatord/internal/secret"
)

const (
	// MaxBody is how many bytes of an answer are read. A Secret has at most 1 MiB of data, which base64 makes a
	// third larger, and 256 KiB of annotations.
	MaxBody = 3 << 20
	// timeout is how long a request may take, its answer included.
	timeout = 30 * time.Second
)

// Observer learns of each request. It must be safe for concurrent use.
type Observer interface {
	// KubernetesRequest is called after each request with its operation and its HTTP status, which is
	// error if there was no answer.
	KubernetesRequest(operation, code string, took time.Duration)
}

// Client sends requests to the API server of one cluster. It is safe for concurrent use.
type Client struct {
	source   source
	observer Observer // may be nil

	mu      sync.Mutex
	current *transport // nil before the first request
}

// New returns a client. It reads no file and reaches for nothing yet. observer may be nil.
func New(c config.Kubernetes, observer Observer) *Client {
	client := &Client{observer: observer}
	if c.Kubeconfig != "" {
		client.source = kubeconfigFile{path: c.Kubeconfig, context: c.Context}
	} else {
		client.source = pod{dir: serviceAccountDir, host: os.Getenv(hostVariable), port: os.Getenv(portVariable)}
	}
	return client
}

// source is where the address of the API server and the credential for it come from.
type source interface {
	// read reads all files. What it returns is complete.
	read(ctx context.Context) (access, error)
	// peer names the API server in the words of the configuration.
	peer() outbound.Peer
}

// access is all that a request needs.
type access struct {
	base       *url.URL // of the API server, without a slash at its end
	serverName string   // that its certificate must have; empty for the host of base
	proxy      *url.URL // nil for none
	// PEM; empty for the system's authorities, and for no client certificate.
	authorities, certificate, key []byte
	token                         secret.Value // zero for none
}

// request is one request.
type request struct {
	operation string // its name in metrics
	method    string
	path      string // of the API
	query     url.Values
	body      []byte // JSON; empty for none
	kind      string // content type of the body
}

// answer is an answer whose body was read.
type answer struct {
	status int
	header http.Header
	body   []byte
	host   string // that has answered
}

// send sends a request and returns the answer of the API server, whatever its status is. An error means that
// there is no such answer. It does not mean that the request was not carried out.
func (c *Client) send(ctx context.Context, r request) (answer, error) {
	with, err := c.source.read(ctx)
	if err != nil {
		return answer{}, err
	}
	a, err := c.once(ctx, with, r)
	if err != nil || a.status != http.StatusUnauthorized {
		return a, err
	}
	// The token may have been replaced right after it was read.
	again, err := c.source.read(ctx)
	if err != nil || again.token.Equal(with.token) {
		return a, nil
	}
	return c.once(ctx, again, r)
}

func (c *Client) once(ctx context.Context, with access, r request) (answer, error) {
	t, err := c.transport(with)
	if err != nil {
		return answer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	asked := *with.base
	asked.Path, asked.RawQuery = strings.TrimSuffix(with.base.Path, "/")+r.path, r.query.Encode()
	req, err := http.NewRequestWithContext(ctx, r.method, asked.String(), bytes.NewReader(r.body))
	if err != nil {
		return answer{}, fmt.Errorf("the request for %s: %w", r.path, err)
	}
	req.GetBody = nil // so net/http never repeats the request
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "rotatord")
	if len(r.body) > 0 {
		req.Header.Set("Content-Type", r.kind)
	}
	if !with.token.IsZero() {
		req.Header.Set("Authorization", "Bearer "+with.token.Reveal())
	}
	start, code := time.Now(), "error"
	defer func() {
		if c.observer != nil {
			c.observer.KubernetesRequest(r.operation, code, time.Since(start))
		}
	}()
	res, err := t.RoundTrip(req)
	if err != nil {
		return answer{}, c.explained(ctx, err, with)
	}
	defer func() { _ = res.Body.Close() }()
	code = strconv.Itoa(res.StatusCode)
	if outbound.IsRedirect(res.StatusCode) {
		return answer{}, outbound.Redirected("the API server", res.StatusCode, &asked, res.Header.Get("Location"))
	}
	body, err := outbound.ReadBody(res.Body, MaxBody)
	if err != nil {
		if large, ok := errors.AsType[*outbound.TooLargeError](err); ok {
			return answer{}, large
		}
		return answer{}, fmt.Errorf("the answer of the API server (HTTP %d) is not complete: %w", res.StatusCode, c.explained(ctx, err, with))
	}
	return answer{res.StatusCode, res.Header, body, printable.Line(asked.Host, maxWords)}, nil
}

// explained returns the error of a request without an answer, with a hint.
func (c *Client) explained(ctx context.Context, err error, with access) error {
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		return fmt.Errorf("the API server at %s did not answer in time: %w", printable.Line(with.base.Host, maxWords), err)
	}
	return c.source.peer().Explained(err, with.base)
}

// transport is a transport and what it was made from.
type transport struct {
	*http.Transport
	made access
}

// transport returns a transport for an access, the same one as long as nothing but the token changes.
func (c *Client) transport(with access) (*transport, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != nil && sameTransport(c.current.made, with) {
		return c.current, nil
	}
	next, err := newTransport(with)
	if err != nil {
		return nil, err
	}
	if c.current != nil {
		c.current.CloseIdleConnections()
	}
	c.current = &transport{next, with}
	return c.current, nil
}

func sameTransport(a, b access) bool {
	return a.base.String() == b.base.String() && a.serverName == b.serverName && fmt.Sprint(a.proxy) == fmt.Sprint(b.proxy) &&
		bytes.Equal(a.authorities, b.authorities) && bytes.Equal(a.certificate, b.certificate) && bytes.Equal(a.key, b.key)
}

// Close closes the idle connections.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != nil {
		c.current.CloseIdleConnections()
	}
}
