package rotation

import (
	"time"

	"rotatord/internal/scheduler"
)

// Token is one service token as the configuration describes it.
type Token struct {
	Name    string // config name, and the ledger's key
	Account string // config name of the account
	ID      string // Cloudflare's UUID
	// Partner is the UUID of the second service token of a pair; empty for a single token. ID is the one
	// that was in use at the beginning.
	Partner   string
	Grace     time.Duration
	Timetable scheduler.Timetable
	Issuer    Issuer
	Sinks     []Sink

	// Create says how to create the service token if it does not exist; nil if ID names it.
	Create *Creation
	// Replace says that each rotation creates a new service token and deletes the old one after
	// the grace, because a zone's service tokens cannot be rotated.
	Replace bool
	Creator Creator // needed for Create and Replace
	// RenewBefore is how long before its end the service token is renewed; 0 for never. It
	// gets RenewFor from then on: a Go duration, or empty for a year.
	RenewBefore time.Duration
	RenewFor    string
	Renewer     Renewer // needed for RenewBefore
	// Prober tries a new secret; nil if it is not tried. VerifyWithin is how long the edge may
	// take to know it.
	Prober       Prober
	VerifyWithin time.Duration
	// RotateAfterOutside says that after a rotation by another person or program the daemon rotates too.
	RotateAfterOutside bool
	// Restore says that the daemon writes a secret back to a sink that no longer holds it. VerifyEvery is how
	// often the secret in use is tried again; 0 for never.
	Restore     bool
	VerifyEvery time.Duration
	// Hooks run after each rotation. A forecast needs none.
	Hooks []Hook
}

// Creation is how a service token is created.
type Creation struct {
	Name     string
	Duration string // a Go duration or "forever"; empty for a year
	// Adopt takes over a service token of that name that is there already.
	Adopt bool
}

// LedgerHasID reports whether the ledger, and not the configuration, says which service token it is.
func (t Token) LedgerHasID() bool { return t.Create != nil || t.Replace }

// Uncreated reports whether the service token does not exist yet: it is created by the first rotation.
func (t Token) Uncreated(r Record) bool { return t.Create != nil && r.TokenID == "" }

// Origin returns how the configuration names a token that is not a pair. The ledger stores this text, so
// it must not change.
func (t Token) Origin() string {
	if t.Create != nil {
		return "made as " + t.Create.Name
	}
	return t.ID
}

// MatchesRecord reports whether r is a record of the service token of t, or of one of its two.
func (t Token) MatchesRecord(r Record) bool {
	return t.Owns(r.TokenID) || t.LedgerHasID() && r.Origin == t.Origin()
}

// MatchesRotation reports whether the rotation in progress of r is one of t.
func (t Token) MatchesRotation(r Record) bool {
	if t.LedgerHasID() {
		return t.MatchesRecord(r)
	}
	return t.Owns(r.Work.TokenID)
}

// ServiceToken returns the UUID that a rotation works on, from the token's record; empty if the service
// token is not created yet. For a pair it is the one that the configuration names first.
func (t Token) ServiceToken(r Record) string {
	if t.LedgerHasID() {
		return r.TokenID
	}
	return t.ID
}
