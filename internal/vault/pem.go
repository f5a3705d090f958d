package vault

import (
	"context"
	"crypto/tls"
	"fmt"

	"rotatord/internal/outbound"
)

// readKeyPair reads a certificate and its key, and returns the content of the certificate's file too.
func readKeyPair(ctx context.Context, certFile, keyFile string) (pair tls.Certificate, cert []byte, err error) {
	if cert, err = outbound.ReadPEM(ctx, certFile, false); err != nil {
		return tls.Certificate{}, nil, err
	}
	key, err := outbound.ReadPEM(ctx, keyFile, true)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	defer clear(key)
	if pair, err = tls.X509KeyPair(cert, key); err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("%s and %s: %w", certFile, keyFile, err)
	}
	return pair, cert, nil
}
