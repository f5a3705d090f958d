package outbound

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"syscall"
	"time"

	"rotatord/internal/printable"
)

// Peer is the server that requests are for, in an operator's words.
type Peer struct {
	Name string // such as Vault
	// Address is the key of its address in the configuration. TLS is the key of its TLS settings, such as
	// vault.tls; empty if there are none, and the system's authorities count.
	Address, TLS string
	// CA is the key of the file with its authorities if there is one without other TLS settings, such as
	// smtp.ca_file. Empty: it is as TLS says.
	CA string
}

// Explained returns the error of a request without an answer. It has a hint about what to check, and nothing that
// the server sent. It wraps the cause.
func (p Peer) Explained(err error, asked *url.URL) error {
	if err == nil {
		return nil
	}
	if proxy, ok := errors.AsType[*ProxyError](err); ok {
		return proxy
	}
	hint := p.hint(err, asked)
	text := printable.Line(Unquoted(err).Error(), maxError)
	if hint != "" {
		text += ": " + hint
	}
	return Reworded(text, err)
}

// hint returns what to check; empty if the error says enough.
func (p Peer) hint(err error, asked *url.URL) string {
	proxy, _ := proxyFor(asked)
	if proxy != nil {
		if hint, its := proxyHint(err, proxy); its {
			return hint
		}
	}
	host := printable.Line(asked.Host, maxShown)
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		if dns.IsNotFound {
			return "there is no such name in DNS: is " + p.Address + " spelled right, and does this machine's DNS know it (/etc/resolv.conf)?"
		}
		return "this machine's name server does not answer: check /etc/resolv.conf and the network"
	}
	if certificate, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return p.certificateHint(certificate, asked, proxy)
	}
	record, isRecord := errors.AsType[tls.RecordHeaderError](err)
	switch text := err.Error(); {
	case isRecord && strings.HasPrefix(string(record.RecordHeader[:]), "HTTP"), strings.Contains(text, "server gave HTTP response to HTTPS client"):
		return host + " speaks plain http, not TLS: is the port in " + p.Address + " right, or should it begin with http://?"
	case isRecord:
		return host + " does not speak TLS: is the port in " + p.Address + " right?"
	case strings.Contains(text, `malformed HTTP response "\x15\x03`), strings.Contains(text, `malformed HTTP response "\x16\x03`):
		return host + " speaks TLS, but the request was plain http: write https:// in " + p.Address
	}
	at := host
	op, _ := errors.AsType[*net.OpError](err)
	switch {
	case op != nil && op.Op == "remote error":
		return p.alertHint(op.Error(), host)
	case op != nil && op.Op == "dial" && op.Addr != nil:
		at = op.Addr.String()
		if op.Timeout() {
			return at + " does not answer: is a firewall in between, and is " + p.Address + " right?"
		}
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens at " + at + ": is " + p.Name + " running there, and are host and port in " + p.Address + " right?"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "this machine has no route to " + at + ": check its network"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		strings.Contains(err.Error(), "server closed idle connection"):
		switch {
		case proxy != nil:
			return "the request went through " + Route(asked) + ": is that a proxy, and is its scheme right?"
		case asked.Scheme == "http" && strings.HasSuffix(asked.Port(), "443"): // 443 and 8443, where TLS is usual
			return host + " closed the connection: does it speak TLS? Then write https:// in " + p.Address
		}
	}
	return ""
}

// proxyHint returns a hint about an error of the proxy, and false if the error is not about the proxy.
func proxyHint(err error, proxy *url.URL) (hint string, its bool) {
	name := "the proxy " + proxyName(proxy) + " of " + proxyVariable()
	op, _ := errors.AsType[*net.OpError](err)
	_, isRecord := errors.AsType[tls.RecordHeaderError](err)
	tlsInstead := strings.Contains(err.Error(), `malformed HTTP response "\x15\x03`)
	switch {
	case tlsInstead && proxy.Scheme == "http":
		return name + " speaks TLS itself: write https:// in " + proxyVariable(), true
	case op == nil || op.Op != "proxyconnect" && !strings.HasPrefix(op.Op, "socks"):
		return "", false
	case isRecord:
		return name + " does not speak TLS itself: write http:// in " + proxyVariable() + ", also for requests to https addresses", true
	case strings.HasPrefix(op.Op, "socks"):
		return name + " does not connect: check its rules, its user and its password", true
	}
	return name + " cannot be reached: are its host and port right? Requests to hosts in NO_PROXY do not use it", true
}

// certificateHint says why the server's certificate is not accepted, and what would help.
func (p Peer) certificateHint(e *tls.CertificateVerificationError, asked, proxy *url.URL) string {
	host := printable.Line(asked.Host, maxShown)
	var leaf *x509.Certificate
	if len(e.UnverifiedCertificates) > 0 {
		leaf = e.UnverifiedCertificates[0]
	}
	trust := "name the file with its authority in " + p.TLS + ".ca_file"
	switch {
	case p.CA != "":
		trust = "name the file with its authority in " + p.CA
	case p.TLS == "":
		trust = "add its authority to this machine's (SSL_CERT_FILE)"
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](e); ok && invalid.Reason == x509.Expired {
		leaf, now := invalid.Cert, time.Now()
		what := fmt.Sprintf("the certificate of %s expired at %s", host, leaf.NotAfter.UTC().Format(time.RFC3339))
		if now.Before(leaf.NotBefore) {
			what = fmt.Sprintf("the certificate of %s is not valid before %s", host, leaf.NotBefore.UTC().Format(time.RFC3339))
		}
		return fmt.Sprintf("%s, and this machine's clock says %s: set the clock if that is wrong (NTP), or renew the certificate", what, now.UTC().Format(time.RFC3339))
	}
	if _, ok := errors.AsType[x509.HostnameError](e); ok && leaf != nil {
		names := append(append([]string{}, leaf.DNSNames...), addresses(leaf)...)
		if len(names) == 0 {
			names = []string{"no name"}
		}
		hint := fmt.Sprintf("the certificate is for %s, not for %s: correct %s", printable.Line(strings.Join(names, ", "), maxShown), hostOf(host), p.Address)
		if p.TLS != "" {
			hint += ", or name the server in " + p.TLS + ".server_name"
		}
		return hint
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](e); ok {
		by := "an authority"
		if leaf != nil && leaf.Issuer.String() != "" {
			by = fmt.Sprintf("%q", printable.Line(leaf.Issuer.String(), maxShown))
		}
		hint := fmt.Sprintf("the certificate of %s is signed by %s, which this machine does not trust: %s", host, by, trust)
		if proxy != nil {
			return hint + "; does " + Route(asked) + " inspect TLS?"
		}
		return hint + ", unless a proxy inspects TLS"
	}
	return trust
}

func addresses(c *x509.Certificate) (all []string) {
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	return all
}

// alertHint says why a server may refuse the TLS connection. Go has no type for the alert.
func (p Peer) alertHint(alert, host string) string {
	certificate := "a client certificate"
	if p.TLS != "" {
		certificate += " (" + p.TLS + ".cert_file)"
	}
	if strings.Contains(alert, "certificate") { // required, bad, unknown, or of an unknown authority
		return host + " requires " + certificate + ", or does not accept the one that it got"
	}
	return host + " refuses the TLS connection: does it require " + certificate + ", and does it speak TLS 1.2 or later?"
}

// hostOf returns a host without its port.
func hostOf(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return hostport
}
