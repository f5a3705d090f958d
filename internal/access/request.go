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

const userAgent = "rotatord" // for firewalls and logs

// credential returns the headers with c.
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
			return nil, errors.New("the credential has characters that are not allowed in a header")
		}
	}
	return header, nil
}

// oneHeader returns the header for an application with read_service_tokens_from_header.
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

// get sends one GET request and returns the status of the answer. It uses the transport directly, because a
// client would follow redirects.
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
	// Only the status counts. The body is read because a server may report a connection that breaks as a
	// fault.
	_, _ = outbound.ReadBody(resp.Body, maxBody)
	_ = resp.Body.Close()
	return resp.StatusCode, nil
}

// peer is the application, for errors.
var peer = outbound.Peer{Name: "the application", Address: "verify.url"}

// reason returns an error that says why there was no answer. It repeats only errors about names, addresses
// and certificates. Others quote what the server sent, which can be our own request.
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

// maxMessage is the longest text of an error, in bytes.
const maxMessage = 1000

// failed returns an error about the request to p's URL. It is one line without a secret.
func (p *Prober) failed(format string, args ...any) error {
	message := fmt.Sprintf("verify.url %s: %s", shown(p.url), fmt.Sprintf(format, args...))
	return errors.New(printable.Line(message, maxMessage))
}

// shown returns a URL without the parts that may be secret.
func shown(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "(unreadable)"
	}
	return printable.Line((&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String(), maxMessage)
}
