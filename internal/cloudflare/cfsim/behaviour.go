package cfsim

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Behaviour switches what is not published about Cloudflare, and what goes wrong permanently rather than for
// a number of requests.
type Behaviour struct {
	// ClockSkew is added to the API's clock: its Date header, the timestamps of tokens, and the time that
	// expiries are compared with. The rate limit counts durations and ignores it. Zero means no skew.
	ClockSkew Duration `json:"clock_skew,omitzero"`
	// FrozenUpdatedAt leaves updated_at unchanged when a secret is rotated.
	FrozenUpdatedAt bool `json:"frozen_updated_at,omitempty"`
	// KeepAllPrevious keeps every previous secret until its own expiry, instead of only the last one.
	KeepAllPrevious bool `json:"keep_all_previous,omitempty"`
	// PropagationDelay is how long a new secret takes to be accepted by the
	// application. Zero means that it is accepted at once.
	PropagationDelay Duration `json:"propagation_delay,omitzero"`
	// LoginRedirect makes the application answer as organisations did before strict service-token
	// authentication: 302 to a login page instead of 401 and 403.
	LoginRedirect bool `json:"login_redirect,omitempty"`
	// TokenHeader is a header in which the application accepts both halves of a service token at once, in
	// addition to the two headers that every application accepts. Cloudflare calls that
	// read_service_tokens_from_header. Its value is {"cf-access-client-id": "...", "cf-access-client-secret":
	// "..."}. If the two usual headers are there as well, they count. Empty means no such header.
	TokenHeader HeaderName `json:"token_header,omitempty"`
	// APITokenStatus is the status of the API token, whichever is presented. Empty means active. A global API
	// key is not a token and ignores it.
	APITokenStatus APITokenStatus `json:"api_token_status,omitempty"`
	// APITokenExpiresOn is when the API token expires, on the API's clock, and APITokenNotBefore is when it
	// starts to be accepted. Zero means never and always.
	APITokenExpiresOn time.Time `json:"api_token_expires_on,omitzero"`
	APITokenNotBefore time.Time `json:"api_token_not_before,omitzero"`
}

// APITokenStatus is the status of an API token.
type APITokenStatus string

// The first three are what the API shows of a token. A revoked token is unknown, as if it had never existed.
const (
	APITokenActive   APITokenStatus = "active"
	APITokenDisabled APITokenStatus = "disabled"
	APITokenExpired  APITokenStatus = "expired"
	APITokenRevoked  APITokenStatus = "revoked"
)

// MarshalText implements encoding.TextMarshaler.
func (s APITokenStatus) MarshalText() ([]byte, error) { return []byte(s), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It accepts the four names and the empty text.
func (s *APITokenStatus) UnmarshalText(b []byte) error {
	switch status := APITokenStatus(b); status {
	case "", APITokenActive, APITokenDisabled, APITokenExpired, APITokenRevoked:
		*s = status
		return nil
	}
	return fmt.Errorf("%q is not a status of an API token: use active, disabled, expired or revoked", b)
}

// HeaderName is the name of an HTTP header.
type HeaderName string

var headerShape = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]*$")

// MarshalText implements encoding.TextMarshaler.
func (n HeaderName) MarshalText() ([]byte, error) { return []byte(n), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (n *HeaderName) UnmarshalText(b []byte) error {
	if !headerShape.Match(b) {
		return fmt.Errorf("%q is not the name of a header: use one such as Authorization", b)
	}
	*n = HeaderName(b)
	return nil
}

// Behaviour returns what is assumed of Cloudflare at the moment.
func (s *Simulator) Behaviour() Behaviour {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.behaviour
}

// SetBehaviour changes what is assumed of Cloudflare from now on.
func (s *Simulator) SetBehaviour(b Behaviour) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behaviour = b
	s.saveOrLog()
}

// apiToken says what has become of the API token, and whether it is accepted.
func (b Behaviour) apiToken(now time.Time) (status APITokenStatus, accepted bool) {
	status = b.APITokenStatus
	if status == "" {
		status = APITokenActive
	}
	if status == APITokenActive && !b.APITokenExpiresOn.IsZero() && !now.Before(b.APITokenExpiresOn) {
		status = APITokenExpired
	}
	return status, status == APITokenActive && !now.Before(b.APITokenNotBefore)
}

// Duration is a time.Duration that reads and writes as text such as "1m30s".
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	parsed, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is not a duration: write a number with a unit, such as 90s or 1m30s", strings.TrimSpace(string(b)))
	}
	*d = Duration(parsed)
	return nil
}
