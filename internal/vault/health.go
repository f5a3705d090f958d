package vault

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// Health is what an operator should know of the session beside [Session.Ready] and [Session.Expiry].
type Health struct {
	// TLS says why the present files of vault.tls are not in use, or that the client certificate is about to end; empty if
	// all is well. TLSReason is the same in one stable word.
	TLS, TLSReason string
	TLSSince       time.Time // since when; zero if TLS is empty
	// CertificateEnds is when the client certificate in use ends; zero if there is none.
	CertificateEnds time.Time
	// Login says why the last login failed, although a session goes on: at its end there may be none. Empty if it succeeded,
	// or if there is no session. LoginReason is the same in one stable word. LoginSince is since when logins fail; zero if Login is
	// empty.
	Login, LoginReason string
	LoginSince         time.Time
	// Unwrap says why the wrapping token that was delivered last cannot be unwrapped, which may mean theft; empty if it
	// could be, or if there is none; or why Vault refused the secret ID that came out. UnwrapSince is since when; zero if Unwrap is empty.
	Unwrap      string
	UnwrapSince time.Time
}

// certificateWarning is the part of a certificate's life, at its end, in which its end is a fault: whoever renews it
// should have done so by then.
const certificateWarning = 10

// renewedBy returns when a certificate should have been renewed.
func renewedBy(c *x509.Certificate) time.Time {
	return c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore) / certificateWarning)
}

// Health returns the health of the session as it is now. It asks nothing.
func (s *Session) Health() (h Health) {
	if a, ok := s.login.(*appRoleAuth); ok && a.wrapped != nil {
		h.Unwrap, h.UnwrapSince = a.wrapped.fault()
	}
	s.mu.Lock()
	h.TLS, h.TLSSince = s.tlsFault, s.tlsFaultAt
	if s.loginFault != nil && s.loggedIn && !s.ended() {
		h.Login, h.LoginReason, h.LoginSince = s.loginFault.Error(), "failed", s.loginFaultAt
		if e, ok := errors.AsType[*describedError](s.loginFault); ok && StatusOf(e) != 0 {
			h.LoginReason = e.Cause()
		}
	}
	s.mu.Unlock()
	if h.TLS != "" {
		h.TLSReason = "malformed"
	}
	leaf := s.client.connections.certificate()
	if leaf == nil {
		return h
	}
	h.CertificateEnds = leaf.NotAfter
	left, late := time.Until(leaf.NotAfter), time.Until(renewedBy(leaf)) < 0
	if late && h.TLS == "" {
		h.TLSSince = renewedBy(leaf)
	}
	switch {
	case left <= 0:
		h.TLSReason, h.TLS = "expired", fmt.Sprintf("the client certificate in %s ended at %s: renew it%s", s.config.TLS.CertFile, leaf.NotAfter.UTC().Format(timeLayout), also(h.TLS))
	case late:
		h.TLSReason, h.TLS = "expires", fmt.Sprintf("the client certificate in %s ends at %s and was not renewed yet%s", s.config.TLS.CertFile, leaf.NotAfter.UTC().Format(timeLayout), also(h.TLS))
	}
	return h
}

// also appends a second fault.
func also(fault string) string {
	if fault == "" {
		return ""
	}
	return "; " + fault
}
