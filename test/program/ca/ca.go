// Package ca is a certificate authority for tests: it signs certificates for loopback servers and for clients,
// and writes them as PEM files, as a server or a daemon is given them.
package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// CA is an authority with its key. File is its certificate.
type CA struct {
	File        string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// Pair is a certificate and its key, as PEM files.
type Pair struct{ CertFile, KeyFile string }

// New makes an authority whose certificate is in a directory of the test.
func New(t testing.TB, name string) *CA {
	t.Helper()
	c := &CA{File: filepath.Join(t.TempDir(), "ca.pem"), key: newKey(t)}
	template := template(t, name, 24*time.Hour)
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, &c.key.PublicKey, c.key)
	if err != nil {
		t.Fatal(err)
	}
	if c.certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	write(t, c.File, "CERTIFICATE", der)
	return c
}

// PEM returns the authority's certificate.
func (c *CA) PEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.certificate.Raw}))
}

// Server signs a certificate for localhost and 127.0.0.1, good for a day.
func (c *CA) Server(t testing.TB) Pair {
	t.Helper()
	template := template(t, "localhost", 24*time.Hour)
	template.DNSNames = []string{"localhost"}
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	return c.sign(t, template, filepath.Join(t.TempDir(), "server"))
}

// Client signs a client's certificate with this common name, good for the given time, in a new directory.
func (c *CA) Client(t testing.TB, name string, lifetime time.Duration) Pair {
	t.Helper()
	pair := Pair{CertFile: filepath.Join(t.TempDir(), "client.pem")}
	pair.KeyFile = filepath.Join(filepath.Dir(pair.CertFile), "client-key.pem")
	c.Replace(t, pair, name, lifetime)
	return pair
}

// Replace signs a client's certificate as [CA.Client] does and puts it in place of an earlier one. Each file is
// renamed into place, the key first: between the two the files do not fit, as happens with real tools.
func (c *CA) Replace(t testing.TB, old Pair, name string, lifetime time.Duration) {
	t.Helper()
	template := template(t, name, lifetime)
	template.DNSNames = []string{name}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	signed := c.sign(t, template, filepath.Join(t.TempDir(), "client"))
	for _, f := range [][2]string{{signed.KeyFile, old.KeyFile}, {signed.CertFile, old.CertFile}} {
		b, err := os.ReadFile(f[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f[1]+".new", b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(f[1]+".new", f[1]); err != nil {
			t.Fatal(err)
		}
	}
}

func (c *CA) sign(t testing.TB, template *x509.Certificate, path string) Pair {
	t.Helper()
	key := newKey(t)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, c.certificate, &key.PublicKey, c.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	pair := Pair{CertFile: path + ".pem", KeyFile: path + "-key.pem"}
	write(t, pair.CertFile, "CERTIFICATE", der)
	write(t, pair.KeyFile, "EC PRIVATE KEY", keyDER)
	return pair
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// template is valid since a minute, for clocks that are read in whole seconds.
func template(t testing.TB, name string, lifetime time.Duration) *x509.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	return &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(lifetime)}
}

func write(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	var b bytes.Buffer
	if err := pem.Encode(&b, &pem.Block{Type: kind, Bytes: der}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}
