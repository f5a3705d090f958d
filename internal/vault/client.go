package vault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"rotatord/internal/config"
	"rotatord/internal/secret"
	"rotatord/internal/smallfile"
)

// newClient builds the API client from the configuration alone. The library reads the
// environment wherever a field is left open, so every field that matters is set.
func newClient(c config.Vault, observer Observer) (*api.Client, error) {
	tlsConfig, err := newTLS(c.TLS)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = tlsConfig
	client, err := api.NewClient(&api.Config{
		Address:    c.Address,
		Timeout:    c.Timeout,
		MaxRetries: 0, // a repeated write is ours to decide
		CloneToken: false,
		HttpClient: &http.Client{
			Transport: observed{transport, observer},
			// As the library wants it: it follows redirects itself.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	})
	if err != nil {
		// With all fields set, what is left to fail is the environment.
		return nil, fmt.Errorf("%w (a VAULT_* environment variable that cannot be parsed stops the client "+
			"library, although rotatord uses none of them: unset it)", err)
	}
	forgetEnvironment(client, c.Namespace)
	return client, nil
}

// forgetEnvironment drops what the library took from VAULT_TOKEN, VAULT_NAMESPACE and
// VAULT_HEADERS, which it reads for each new client and each clone.
func forgetEnvironment(client *api.Client, namespace string) {
	client.ClearToken()
	client.SetHeaders(http.Header{api.RequestHeaderName: {"true"}})
	if namespace != "" {
		client.SetNamespace(namespace)
	}
}

func newTLS(c config.TLS) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if c.CAFile != "" {
		pem, err := smallfile.Read(context.Background(), c.CAFile, smallfile.MaxPEM)
		if err != nil {
			return nil, fmt.Errorf("tls.ca_file: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls.ca_file: %s holds no PEM certificate", c.CAFile)
		}
	}
	if c.CertFile != "" || c.KeyFile != "" {
		pair, err := readKeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("tls.cert_file and key_file: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

func readKeyPair(certFile, keyFile string) (tls.Certificate, error) {
	cert, err := smallfile.Read(context.Background(), certFile, smallfile.MaxPEM)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := smallfile.Read(context.Background(), keyFile, smallfile.MaxPEM)
	if err != nil {
		return tls.Certificate{}, err
	}
	defer clear(key)
	return tls.X509KeyPair(cert, key)
}

// observed tells the observer of each request.
type observed struct {
	next     http.RoundTripper
	observer Observer
}

// RoundTrip implements http.RoundTripper.
func (o observed) RoundTrip(r *http.Request) (*http.Response, error) {
	start := time.Now()
	res, err := o.next.RoundTrip(r)
	code := "error"
	if err == nil {
		code = strconv.Itoa(res.StatusCode)
	}
	if o.observer != nil {
		o.observer.VaultRequest(operationOf(r), code, time.Since(start))
	}
	return res, err
}

// operationOf names a request for metrics: a small, fixed set.
func operationOf(r *http.Request) string {
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	switch {
	case strings.HasPrefix(path, "auth/") && strings.HasSuffix(path, "/login"):
		return "login"
	case path == "auth/token/renew-self":
		return "renew"
	case path == "auth/token/lookup-self":
		return "lookup"
	case path == "sys/capabilities-self":
		return "capabilities"
	case strings.HasPrefix(path, "sys/internal/ui/mounts/"):
		return "mounts"
	case r.Method == http.MethodGet:
		return "read"
	default:
		return "write"
	}
}

// StatusOf returns the HTTP status that an error came with, 0 if no answer came.
func StatusOf(err error) int {
	if e, ok := errors.AsType[*api.ResponseError](err); ok {
		return e.StatusCode
	}
	return 0
}

// describe says in an operator's words what a failed request means, and keeps the cause.
func describe(err error, hint string) error {
	var e *describedError
	if errors.As(err, &e) {
		return err
	}
	text := ""
	switch status := StatusOf(err); {
	case status == http.StatusServiceUnavailable:
		text = "Vault is sealed or in maintenance"
	case status == http.StatusForbidden:
		text = "Vault denied permission"
	case status == http.StatusTooManyRequests || status == 473:
		text = "Vault cannot answer now (standby, or its rate limit)"
	case status >= 500:
		text = "Vault failed"
	case status == 0:
		text = "Vault cannot be reached"
	default:
		text = "Vault refused the request"
	}
	if response, ok := errors.AsType[*api.ResponseError](err); ok {
		text += fmt.Sprintf(" (HTTP %d: %s)", response.StatusCode, strings.Join(response.Errors, "; "))
	} else {
		text += ": " + err.Error()
	}
	if status := StatusOf(err); hint != "" && (status == http.StatusBadRequest || status == http.StatusForbidden) {
		text += ": " + hint
	}
	return &describedError{text: secret.Scrub(text), cause: err}
}

type describedError struct {
	text  string
	cause error
}

func (e *describedError) Error() string { return e.text }
func (e *describedError) Unwrap() error { return e.cause }

// unreadable is a credential that could not even be presented.
func unreadable(path string, err error) error {
	return &describedError{text: path + ": " + err.Error(), cause: err}
}
