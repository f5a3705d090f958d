package vault

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/event"
	"rotatord/internal/outbound"
)

// timeLayout is how times are shown in errors.
const timeLayout = time.RFC3339

// idleConnections is how many unused connections to Vault stay open, for a minute and a half. As many rotations can be
// in progress, and each sends four requests one after the other: without a connection that waits, each request would
// cost a handshake. No more are open than were needed at once.
const idleConnections = 640

// connections makes the connections to Vault by the files of vault.tls, and makes other ones when the files change.
// It is safe for concurrent use.
//
// Files that cannot be used, such as a certificate whose key is not written yet, change nothing: the connections go
// on with what was read last.
type connections struct {
	config  config.Vault
	current atomic.Pointer[connection]

	mu sync.Mutex // held while the files are read
}

// connection is a transport, and the files that it was made by.
type connection struct {
	*http.Transport
	files tlsFiles
}

// tlsFiles is the content of the files of vault.tls.
type tlsFiles struct {
	authorities *x509.CertPool // nil: those of the system
	pair        *tls.Certificate
	digest      [sha256.Size]byte // of all contents
}

func newConnections(c config.Vault) (*connections, error) {
	files, err := readTLS(context.Background(), c.TLS)
	if err != nil {
		return nil, err
	}
	made := &connections{config: c}
	made.current.Store(made.connect(files))
	return made, nil
}

// RoundTrip implements http.RoundTripper.
func (c *connections) RoundTrip(r *http.Request) (*http.Response, error) {
	return c.current.Load().Transport.RoundTrip(r)
}

// reload reads the files again. It reports whether they have another content, which new connections use from then
// on. If they cannot be used, the error says why, and the old ones stay in use.
func (c *connections) reload(ctx context.Context) (changed bool, err error) {
	if c.config.TLS.CAFile == "" && c.config.TLS.CertFile == "" {
		return false, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	files, err := readTLS(ctx, c.config.TLS)
	old := c.current.Load()
	if err != nil || files.digest == old.files.digest {
		return false, err
	}
	c.current.Store(c.connect(files))
	old.CloseIdleConnections() // a connection in use is closed when its request ends
	return true, nil
}

// connect returns a transport without any connection yet.
func (c *connections) connect(files tlsFiles) *connection {
	t := outbound.Transport()
	t.MaxIdleConnsPerHost, t.MaxIdleConns = idleConnections, idleConnections
	t.TLSClientConfig.ServerName = c.config.TLS.ServerName
	t.TLSClientConfig.RootCAs = files.authorities
	if files.pair != nil {
		// Go would send no certificate at all if its authority is not in the server's list. The error of a server that
		// has got the wrong certificate says more.
		t.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return files.pair, nil }
	}
	// Without compression a small answer cannot become a large one.
	t.DisableCompression = true
	if socket := c.config.Socket(); socket != "" {
		t.Proxy = nil
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}
	}
	return &connection{t, files}
}

// certificate returns the client certificate in use; nil if there is none.
func (c *connections) certificate() *x509.Certificate {
	if pair := c.current.Load().files.pair; pair != nil {
		return pair.Leaf
	}
	return nil
}

// fingerprint identifies the client certificate in use; empty if there is none.
func (c *connections) fingerprint() string {
	leaf := c.certificate()
	if leaf == nil {
		return ""
	}
	sum := sha256.Sum256(leaf.Raw)
	return hex.EncodeToString(sum[:])
}

// readTLS reads the files. A certificate and a key that do not belong together are an error.
func readTLS(ctx context.Context, c config.TLS) (files tlsFiles, err error) {
	var all [][]byte
	if c.CAFile != "" {
		authorities, pem, err := outbound.Authorities(ctx, c.CAFile)
		if err != nil {
			return tlsFiles{}, fmt.Errorf("tls.ca_file: %w", err)
		}
		files.authorities = authorities
		all = append(all, pem)
	}
	if c.CertFile != "" || c.KeyFile != "" {
		pair, cert, err := readKeyPair(ctx, c.CertFile, c.KeyFile)
		if err != nil {
			return tlsFiles{}, fmt.Errorf("tls.cert_file and key_file: %w", err)
		}
		files.pair = &pair
		all = append(all, cert) // the key belongs to it
	}
	files.digest = sha256.Sum256(bytes.Join(all, []byte{0}))
	return files, nil
}

// reloadTLS takes over new files of vault.tls. It tells of each fault once.
func (s *Session) reloadTLS(ctx context.Context) {
	changed, err := s.client.connections.reload(ctx)
	if ctx.Err() != nil {
		return
	}
	fault := ""
	if err != nil {
		fault = err.Error()
	}
	s.mu.Lock()
	news := fault != s.tlsFault
	if s.tlsFault = fault; news {
		s.tlsFaultAt = time.Now()
		if fault == "" {
			s.tlsFaultAt = time.Time{}
		}
	}
	s.mu.Unlock()
	if changed || news {
		s.tell(event.VaultTLS{Vault: s.config.Address, Err: err, CertificateEnds: s.certificateEnd()})
	}
}

// certificateEnd returns when the client certificate in use ends; zero if there is none.
func (s *Session) certificateEnd() time.Time {
	if leaf := s.client.connections.certificate(); leaf != nil {
		return leaf.NotAfter
	}
	return time.Time{}
}
