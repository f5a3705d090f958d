package vault

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"

	"rotatord/internal/outbound"
	"rotatord/internal/printable"
)

const (
	// MaxBody is how many bytes of an answer are read. Vault's integrated storage accepts entries of up to
	// 1 MiB.
	MaxBody = 2 << 20
	// maxRedirects is how often one request is sent again because a standby redirects it.
	maxRedirects = 2
)

// transport sends the requests of the client library, and adds what the library lacks. It follows only
// redirects of a standby to a configured node. It limits the size and the time of an answer. It returns
// an error for each answer that is not Vault's. So the library only gets complete answers that it cannot
// misread: a success, or a 404 that means "nothing". All errors are described, and contain nothing of what
// was sent.
type transport struct {
	next     http.RoundTripper
	base     *url.URL
	nodes    []*url.URL    // of the same cluster, which a standby may redirect to
	timeout  time.Duration // of one request, the body of its answer included; 0 for none
	observer Observer      // may be nil
	listener atomic.Pointer[renewalListener]
	flights  flights
}

// renewalListener gets the result of each renewal that the library's lifetime watcher sends. The watcher
// has no context, and does not return the errors of renewals.
type renewalListener struct {
	ctx context.Context // when it ends, renewals in progress end
	// renewed is called after each try. A lease begins at begun, not when the answer came.
	renewed func(begun time.Time, l lease, err error)
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	if t.timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, t.timeout)
		defer cancel()
	}
	// Relative to the base, which may have a path.
	at := strings.TrimPrefix(r.URL.Path, strings.TrimSuffix(t.base.Path, "/"))
	sent := request{method: r.Method, operation: operationOf(r.Method, strings.TrimPrefix(at, "/v1/")), token: r.Header.Get("X-Vault-Token"),
		path: strings.TrimPrefix(at, "/v1/"), asked: r.URL, namespace: r.Header.Get("X-Vault-Namespace")}
	defer t.flights.begin(sent.token)()
	asked, raw := r.Context().Value(requestKey{}).(Request)
	if sent.raw = raw; asked.Operation != "" {
		sent.operation = asked.Operation
	}
	var err error
	if r.Body != nil {
		sent.body, err = io.ReadAll(r.Body) // the library has encoded it, so it is in memory
		_ = r.Body.Close()
		if err != nil {
			return nil, describe(sent, err)
		}
	}
	k := t.listener.Load()
	if sent.operation != "renew" || k == nil {
		res, _, err := t.roundTrip(ctx, r, sent, at)
		return res, err
	}
	defer context.AfterFunc(k.ctx, cancel)()
	begun := time.Now()
	res, renewal, err := t.roundTrip(ctx, r, sent, at)
	var l lease
	if err == nil {
		l = leaseOf(renewal)
	}
	k.renewed(begun, l, err)
	if err != nil && !denied(err) {
		// The watcher looks for these words in every error, and then stops renewing.
		err = &describedError{text: strings.ReplaceAll(err.Error(), "permission denied", "permission not given"), cause: err}
	}
	return res, err
}

// roundTrip sends a request once, or up to three times if a standby redirects it. It returns a
// checked answer whose body was read. It also returns the decoded answer, unless the caller checks it.
func (t *transport) roundTrip(ctx context.Context, r *http.Request, sent request, at string) (*http.Response, *api.Secret, error) {
	a, err := t.send(ctx, r, sent, at)
	if err != nil {
		return nil, nil, describe(sent, err)
	}
	decoded, err := checkAnswer(sent, a)
	if err != nil {
		return nil, nil, describe(sent, err)
	}
	a.Request, a.Body, a.ContentLength = r, io.NopCloser(bytes.NewReader(a.content)), int64(len(a.content))
	return a.Response, decoded, nil
}

// answered is an answer whose body was read.
type answered struct {
	*http.Response
	content []byte
}

// send returns the answer of the first node that does not redirect. A redirect to another place, and an
// answer that is too large, are errors. Any other answer is not, whatever its status is.
func (t *transport) send(ctx context.Context, r *http.Request, sent request, at string) (answered, error) {
	node := t.base
	for redirects := 0; ; redirects++ {
		a, err := t.once(ctx, r, sent, onNode(node, at))
		if err != nil || !outbound.IsRedirect(a.StatusCode) {
			return a, err
		}
		to := t.standby(a.Response, at)
		switch {
		case to == nil:
			return answered{}, outbound.Redirected("Vault", a.StatusCode, a.Request.URL, a.Header.Get("Location"))
		case redirects == maxRedirects:
			return answered{}, fmt.Errorf("%d nodes in a row redirected, the last one %s to %s: is there an active node in the cluster?", redirects+1, node.Host, to.Host)
		}
		node = to
	}
}

// standby returns the address of the active node, if a standby has answered with it and the configuration
// names it. Otherwise it returns nil: rotatord does not follow a redirect to another place or path, with
// another status, or from https to http.
func (t *transport) standby(res *http.Response, at string) *url.URL {
	to, err := url.Parse(res.Header.Get("Location"))
	if err != nil || res.StatusCode != http.StatusTemporaryRedirect || to.User != nil || to.RawQuery != res.Request.URL.RawQuery {
		return nil
	}
	for _, known := range append([]*url.URL{t.base}, t.nodes...) {
		if outbound.Origin(to) == outbound.Origin(known) && to.EscapedPath() == onNode(known, at).EscapedPath() &&
			(known.Scheme == "https" || res.Request.URL.Scheme != "https") {
			return known
		}
	}
	return nil
}

// onNode returns the URL of a request to one node.
func onNode(node *url.URL, at string) *url.URL {
	address := *node
	address.Path, address.RawPath = path.Join(node.Path, at), ""
	return &address
}

// once sends a request to one node.
func (t *transport) once(ctx context.Context, r *http.Request, sent request, to *url.URL) (answered, error) {
	req := r.Clone(ctx)
	to.RawQuery = r.URL.RawQuery
	req.URL, req.Host = to, to.Host
	req.Body, req.ContentLength = http.NoBody, int64(len(sent.body))
	if len(sent.body) > 0 {
		req.Body = io.NopCloser(bytes.NewReader(sent.body))
		req.Header.Set("Content-Type", "application/json")
	}
	asked, _ := r.Context().Value(requestKey{}).(Request)
	if asked.Index != "" {
		req.Header.Set(api.HeaderIndex, asked.Index)
	}
	if asked.Merge {
		req.Method = http.MethodPatch
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	if sent.path == pathSealStatus {
		req.Header.Del(api.NamespaceHeaderName) // Vault answers it in the root namespace only
	}
	req.GetBody = nil // so net/http never repeats the request
	start, code := time.Now(), "error"
	defer func() {
		if t.observer != nil {
			t.observer.VaultRequest(sent.operation, code, time.Since(start))
		}
	}()
	res, err := t.next.RoundTrip(req)
	if err != nil {
		return answered{}, peer.Explained(err, to)
	}
	defer res.Body.Close()
	code = strconv.Itoa(res.StatusCode)
	res.Request = req
	if outbound.IsRedirect(res.StatusCode) {
		return answered{res, nil}, nil
	}
	if from := cachedBy(res.Header); from != "" {
		return answered{}, &foreignError{cached: true, what: "it comes from a cache (" + from + ")", advice: "A read must show what Vault has now: switch off the cache of the agent or proxy at " +
			printable.Line(to.Host, maxHost) + " (cache { cache_static_secrets })"}
	}
	content, err := outbound.ReadBody(res.Body, MaxBody)
	return answered{res, content}, err
}

// cachedBy returns the header that says that an answer comes from a cache; empty if it does not. Vault forbids caches to
// keep its answers. A Vault Proxy with a cache for static secrets says what it did.
func cachedBy(h http.Header) string {
	if state := h.Get("X-Cache"); strings.HasPrefix(strings.ToUpper(state), "HIT") {
		return "X-Cache: HIT"
	}
	if age, err := strconv.ParseUint(h.Get("Age"), 10, 31); err == nil && age > 0 {
		return fmt.Sprintf("Age: %d", age)
	}
	return ""
}
