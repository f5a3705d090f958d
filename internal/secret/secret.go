// Package secret has a type for values that must not be printed.
//
// Guarantee: only [Value.Reveal] returns the content of a [Value]. Every formatting verb, encoder and log handler
// that gets a Value, or a structure with a Value, gets the word [Redacted] instead. The content is in a closure, so
// that even a nested %#v, which reads unexported fields by reflection and calls no methods, cannot reach it.
//
// The threat is a secret that gets into a log line, an error, a page or a panic. The memory of a running process
// is out of scope: Go's garbage collector may copy and retain bytes.
package secret

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"regexp"
)

// Redacted is printed in place of a secret.
const Redacted = "[redacted]"

// Value is a secret. The zero Value is empty and usable. Values are immutable and
// may be shared between goroutines; compare them with [Value.Equal], not with ==.
type Value struct {
	reveal func() string
}

// New wraps s.
func New(s string) Value {
	if s == "" {
		return Value{}
	}
	return Value{reveal: func() string { return s }}
}

// Reveal returns the content. Each call takes a secret out of this package's protection, so have few calls, close to
// where the secret is sent or written.
func (v Value) Reveal() string {
	if v.reveal == nil {
		return ""
	}
	return v.reveal()
}

// IsZero reports whether the value is empty.
func (v Value) IsZero() bool { return v.Reveal() == "" }

// Equal compares in constant time.
func (v Value) Equal(w Value) bool {
	return subtle.ConstantTimeCompare([]byte(v.Reveal()), []byte(w.Reveal())) == 1
}

// Digest returns a digest that identifies the content without revealing it. The digest of an empty value is empty.
func (v Value) Digest() Digest {
	if v.IsZero() {
		return ""
	}
	sum := sha256.Sum256([]byte(v.Reveal()))
	return Digest("sha256:" + base64.RawURLEncoding.EncodeToString(sum[:]))
}

// Digest is the SHA-256 of a secret, as "sha256:" and unpadded base64url. Service
// token secrets have at least 200 random bits, so a digest may be stored and
// logged. It is not written in hex because 64 hex digits are what an older client
// secret looks like, and [Scrub] could not tell them apart.
type Digest string

// Format implements fmt.Formatter for every verb.
func (v Value) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, Redacted) }

// String implements fmt.Stringer.
func (v Value) String() string { return Redacted }

// GoString implements fmt.GoStringer.
func (v Value) GoString() string { return Redacted }

// MarshalText implements encoding.TextMarshaler, and so covers JSON, YAML and XML.
func (v Value) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// LogValue implements slog.LogValuer.
func (v Value) LogValue() slog.Value { return slog.StringValue(Redacted) }

// wellFormed matches the two published formats of an Access client secret: "cfast_" with 40 alphanumeric characters
// and an 8-character checksum (since August 2026), and before that 64 hex digits.
var wellFormed = regexp.MustCompile(`^(?:cfast_[A-Za-z0-9]{48}|[0-9a-f]{64})$`)

// damaged matches a text that resembles a published format.
var damaged = regexp.MustCompile(`^(?:cfast_.*|[0-9a-fA-F]+)$`)

// Damaged reports whether v resembles one of the two published formats but is too short, too long, or has a wrong
// character.
func Damaged(v Value) bool { return !WellFormed(v) && damaged.MatchString(v.Reveal()) }

// WellFormed reports whether v has one of the two published formats. The checksum
// of the newer one is not verified: its algorithm is not published.
func WellFormed(v Value) bool { return wellFormed.MatchString(v.Reveal()) }
