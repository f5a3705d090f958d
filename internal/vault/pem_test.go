package vault

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/outbound"
)

// TestPEMFaults: what a TLS file holds in place of what it should is said, with its name.
func TestPEMFaults(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotAfter: time.Now().Add(time.Hour)},
		&x509.Certificate{Subject: pkix.Name{CommonName: "x"}}, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, content []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}))
	}
	certificate, private := block("CERTIFICATE", der), block("PRIVATE KEY", keyDER)
	for _, test := range []struct {
		key           bool
		content, want string
	}{
		{false, certificate, ""}, {false, private + certificate, ""}, {false, "# a comment\n" + certificate, ""}, {true, private, ""}, {true, certificate + private, ""},
		{false, "\ufeff" + certificate + certificate, ""},
		{false, "", "has no PEM certificate: it is empty"},
		{true, "\n", "has no PEM private key: it is empty"},
		{false, string(der), "has no PEM certificate: it is DER or PKCS#12, and must be PEM (-----BEGIN ...): convert it with openssl"},
		{true, string(keyDER), "has no PEM private key: it is DER or PKCS#12, and must be PEM (-----BEGIN ...): convert it with openssl"},
		{false, "hello", "has no PEM certificate: it has no line -----BEGIN ..."},
		{false, "\ufeff" + certificate, "has no PEM certificate: it begins with a byte order mark (BOM): save it without one"},
		{false, private, "has no PEM certificate: it is a private key"},
		{true, certificate, "has no PEM private key: it is a certificate"},
		{false, block("CERTIFICATE REQUEST", der), "has no PEM certificate: it is another kind of PEM, or damaged"},
		{false, certificate[:len(certificate)/2], "has no PEM certificate: it is another kind of PEM, or damaged"},
		{true, block("OPENSSH PRIVATE KEY", keyDER), "has no PEM private key: it is a key of OpenSSH"},
		{true, block("ENCRYPTED PRIVATE KEY", keyDER), "is encrypted with a passphrase, which a daemon cannot ask for: write the key without one, as openssl pkey does, and protect it by its mode"},
		{true, string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "x,y"}, Bytes: keyDER})),
			"is encrypted with a passphrase, which a daemon cannot ask for: write the key without one, as openssl pkey does, and protect it by its mode"},
	} {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := outbound.ReadPEM(t.Context(), path, test.key)
		if err != nil && err.Error() != path+" "+test.want || (err == nil) != (test.want == "") {
			t.Errorf("%.20q: %v, want %s", test.content, err, test.want)
		}
		field, files := "tls.ca_file: ", config.TLS{CAFile: path}
		if test.key {
			field, files = "tls.cert_file and key_file: ", config.TLS{CertFile: path, KeyFile: path}
		}
		if _, err := readTLS(t.Context(), files); test.want != "" && (err == nil || !strings.HasPrefix(err.Error(), field+path)) {
			t.Errorf("%.20q: %v", test.content, err)
		}
	}
}
