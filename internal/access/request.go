package access

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"rotatord/internal/outbound"
	"rotatord/internal/printable"
	"rotatord/internal/rotation"
)

const userAgent = "rotatord" // by which firewalls and logs may know us

// credential returns the headers that present c.
func (p *Prober) credential(c rotation.Credential) (http.Header, error) {
	header := http.Header{}
	if p.header == "" {
		header.Set("CF-Access-Client-Id", c.ClientID)
		header.Set("CF-Access-Client-Secret", c.ClientSecret.Reveal())
	} else {
		both, err := oneHeader(c)
		if err != nil {
			return nil, err
		}
		header.Set(p.header, both)
	}
	for _, values := range header {
		if strings.ContainsFunc(values[0], func(r rune) bool { return r > unicode.MaxASCII || unicode.IsControl(r) }) {
			return nil, errors.New("the credential has characters that no header may have")
		}
	}
	return header, nil
}

// oneHeader is what an application reads that has read_service_tokens_from_header.
func oneHeader(c rotation.Credential) (string, error) {
	text, err := json.Marshal(struct {
		ID     string `json:"cf-access-client-id"`
		Secret string `json:"cf-access-client-secret"`
	}{c.ClientID, c.ClientSecret.Reveal()})
	if err != nil {
		return "", errors.New("the credential cannot be written as JSON")
	}
	return string(text), nil
}

// get sends one GET request and returns the status of the answer, whatever it is. It goes to
// the transport directly: a client would follow redirects.
func (c *Client) get(ctx context.Context, address string, header http.Header) (int, error) {
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(bounded, http.MethodGet, address, nil)
	if err != nil {
		return 0, errors.New("the URL cannot be read")
	}
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("Accept", "*/*")
	maps.Copy(req.Header, header)
	resp, err := c.transport.RoundTrip(req)
	switch {
	case err != nil && ctx.Err() == nil && bounded.Err() != nil:
		return 0, fmt.Errorf("no answer within %s", timeout)
	case err != nil && ctx.Err() != nil:
		return 0, fmt.Errorf("no answer: %w", ctx.Err())
	case err != nil:
		return 0, reason(err, req.URL)
	}
	// The status is all that counts. What follows is read for the sake of the other side, which
	// may take a connection that is cut for a fault.
	_, _ = io.CopyN(io.Discard, resp.Body, maxBody)
	_ = resp.Body.Close()
	return resp.StatusCode, nil
}

// peer is an application as errors name it.
var peer = outbound.Peer{Name: "the application", Address: "verify.url"}

// reason words why there was no answer. Only errors whose text is about names, addresses and
// certificates are repeated: others quote what the other side sent, which may be an echo.
func reason(err error, asked *url.URL) error {
	_, isDNS := errors.AsType[*net.DNSError](err)
	_, isCertificate := errors.AsType[*tls.CertificateVerificationError](err)
	_, isConnection := errors.AsType[*net.OpError](err)
	_, isProxy := errors.AsType[*outbound.ProxyError](err)
	if isDNS || isCertificate || isConnection || isProxy {
		return fmt.Errorf("no answer: %w", peer.Explained(err, asked))
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return errors.New("no answer: the server does not speak TLS")
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("no answer: the connection was closed")
	}
	return errors.New("no answer that can be read")
}

// maxMessage is how many bytes of an error are kept.
const maxMessage = 1000

// failed is an error about the request to p's URL. It is one line and has no secret.
func (p *Prober) failed(format string, args ...any) error {
	message := fmt.Sprintf("verify.url %s: %s", shown(p.url), fmt.Sprintf(format, args...))
	return errors.New(printable.Line(message, maxMessage))
}

// shown is a URL without what may be meant for the application alone.
func shown(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "(unreadable)"
	}
	return printable.Line((&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String(), maxMessage)
}
