package kubernetes

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"rotatord/internal/outbound"
)

// newTransport returns a transport for one API server. The proxy of the environment is not used: in a pod it
// is usually for addresses outside of the cluster.
func newTransport(with access) (*http.Transport, error) {
	t := outbound.Transport()
	t.Proxy = nil
	if with.proxy != nil {
		t.Proxy = func(*http.Request) (*url.URL, error) { return with.proxy, nil }
	}
	// Without compression a small answer cannot become a large one.
	t.DisableCompression = true
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, ServerName: with.serverName}
	if len(with.authorities) > 0 {
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(with.authorities) {
			return nil, errors.New("the certificate authority of the API server has no PEM certificate")
		}
	}
	if len(with.certificate) > 0 {
		pair, err := tls.X509KeyPair(with.certificate, with.key)
		if err != nil {
			return nil, fmt.Errorf("the client certificate for the API server: %w", err)
		}
		t.TLSClientConfig.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}
