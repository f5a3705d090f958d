package outbound

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"

	"rotatord/internal/smallfile"
)

// Authorities reads a file of certificate authorities, and returns them and the content of the file. The error names the
// file and says what it has instead. With an empty path the authorities are nil, which in a [tls.Config] stands for those
// of the system.
func Authorities(ctx context.Context, path string) (all *x509.CertPool, content []byte, err error) {
	if path == "" {
		return nil, nil, nil
	}
	if content, err = ReadPEM(ctx, path, false); err != nil {
		return nil, nil, err
	}
	all = x509.NewCertPool()
	if !all.AppendCertsFromPEM(content) {
		return nil, nil, fmt.Errorf("%s has no PEM certificate that can be read: it is damaged, copy it again", path)
	}
	return all, content, nil
}

// ReadPEM reads a file that must have a certificate or a private key. The error names the file
// and says what it has instead. It repeats nothing of a key.
func ReadPEM(ctx context.Context, path string, key bool) ([]byte, error) {
	content, err := smallfile.Read(ctx, path, smallfile.MaxPEM)
	if err != nil {
		return nil, err
	}
	if problem := pemProblem(content, key); problem != "" {
		clear(content)
		return nil, fmt.Errorf("%s %s", path, problem)
	}
	return content, nil
}

// pemProblem says why the content is not what is wanted; empty if it can be.
func pemProblem(content []byte, key bool) string {
	wanted := "PEM certificate"
	if key {
		wanted = "PEM private key"
	}
	holds := "has no " + wanted
	switch found := bytes.Contains(content, []byte("-----BEGIN ")); {
	case len(bytes.TrimSpace(content)) == 0:
		return holds + ": it is empty"
	case !found && content[0] == 0x30:
		return holds + ": it is DER or PKCS#12, and must be PEM (-----BEGIN ...): convert it with openssl"
	case !found:
		return holds + ": it has no line -----BEGIN ..."
	}
	var other string
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		isKey := strings.HasSuffix(block.Type, "PRIVATE KEY")
		switch {
		case key && isKey && (strings.HasPrefix(block.Type, "ENCRYPTED") || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED")):
			return "is encrypted with a passphrase, which a daemon cannot ask for: write the key without one, as openssl pkey does, and protect it by its mode"
		case key && block.Type == "OPENSSH PRIVATE KEY":
			return holds + ": it is a key of OpenSSH"
		case key == isKey && (key || block.Type == "CERTIFICATE"):
			return ""
		case isKey:
			other = ": it is a private key"
		case block.Type == "CERTIFICATE":
			other = ": it is a certificate"
		}
	}
	switch {
	case bytes.HasPrefix(content, []byte("\xef\xbb\xbf")):
		other = ": it begins with a byte order mark (BOM): save it without one"
	case other == "":
		other = ": it is another kind of PEM, or damaged"
	}
	return holds + other
}
