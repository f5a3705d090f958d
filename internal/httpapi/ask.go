package httpapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"rotatord/internal/outbound"
	"rotatord/internal/printable"
)

// maxHealth is how many bytes of an answer about health are read.
const maxHealth = 64 << 10

// NotHealthyError is what a daemon answers that is not healthy: a line for each condition that fails.
type NotHealthyError struct{ Conditions string }

// Error implements error.
func (e *NotHealthyError) Error() string { return e.Conditions }

// AskHealth asks the daemon that listens at address for its health, from the same machine: "/livez" or "/readyz". The
// error is nil if it is good, and a [*NotHealthyError] if the daemon says that it is not.
//
// An address of all interfaces is asked at the loopback one. Neither a password nor a client certificate is sent. If the
// daemon speaks TLS, its certificate is not verified: it is not for the loopback address, and the answer is worth as much
// as one without TLS, which is believed too. No proxy is used, and no redirect followed.
func AskHealth(ctx context.Context, address, path string) error {
	host, port, err := net.SplitHostPort(address)
	switch {
	case err != nil:
		return fmt.Errorf("%q is not host:port", address)
	case port == "0":
		return fmt.Errorf("the port of %s is chosen when the daemon starts, and its log names it", address)
	}
	hosts := []string{host}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		hosts = []string{"127.0.0.1", "::1"}
	}
	var failed error
	for _, host := range hosts {
		err := ask(ctx, net.JoinHostPort(host, port), path)
		if op, ok := errors.AsType[*net.OpError](err); !ok || op.Op != "dial" {
			return err
		}
		failed = errors.Join(failed, err) // nothing listens there
	}
	return failed
}

// ask asks one address: with TLS, and without it if that is what is spoken there. In this order neither kind of server
// logs anything.
func ask(ctx context.Context, address, path string) error {
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: outbound.MaxHeader}
	transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} // see AskHealth
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	code, answer, err := get(ctx, client, "https://"+address+path)
	if errors.Is(err, http.ErrSchemeMismatch) {
		code, answer, err = get(ctx, client, "http://"+address+path)
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" && strings.Contains(op.Err.Error(), "certificate") {
		return fmt.Errorf("the daemon at %s refuses a TLS connection without a client certificate (client_auth_type in its web configuration), so its health cannot be asked for in this way: %w", address, op.Err)
	}
	lines := strings.TrimSpace(printable.Text(string(answer)))
	switch {
	case err != nil:
		return fmt.Errorf("the daemon does not answer: %w", outbound.Unquoted(err))
	case code == http.StatusOK && (lines == "ok" || strings.HasSuffix(lines, "\nok")):
		return nil
	case code == http.StatusServiceUnavailable && lines != "":
		return &NotHealthyError{lines}
	}
	return fmt.Errorf("the program that listens at %s is not rotatord: it answers %d to %s", address, code, path)
}

func get(ctx context.Context, client *http.Client, url string) (code int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	answer, err = outbound.ReadBody(res.Body, maxHealth)
	if _, tooLarge := errors.AsType[*outbound.TooLargeError](err); tooLarge || errors.Is(err, io.ErrUnexpectedEOF) {
		return res.StatusCode, nil, nil // rotatord answers in less
	}
	return res.StatusCode, answer, err
}
