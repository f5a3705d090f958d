package realvault

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
)

// Forward sends a request that a balancer has got on to this server, and returns the answer with its whole body.
func (v *Vault) Forward(transport http.RoundTripper, r *http.Request, body []byte) (*http.Response, []byte, error) {
	target, err := url.Parse(v.Address)
	if err != nil {
		return nil, nil, err
	}
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host, out.RequestURI = target.Scheme, target.Host, ""
	out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	if len(body) == 0 {
		out.Body = http.NoBody
	}
	response, err := transport.RoundTrip(out)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	return response, answer, err
}

// NotConnected reports whether [Vault.Forward] failed because no connection was made: then the server has got nothing, and
// a balancer may ask another one.
func NotConnected(err error) bool {
	dial, ok := errors.AsType[*net.OpError](err)
	return ok && dial.Op == "dial"
}
