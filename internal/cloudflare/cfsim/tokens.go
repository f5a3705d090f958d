package cfsim

import (
	"errors"
	"time"

	"rotatord/internal/secret"
)

// The two kinds of owner, as they are written in paths.
const (
	accounts = "accounts"
	zones    = "zones"
)

const (
	defaultDuration = "8760h"
	forever         = "forever"
)

// owner is the account or zone of a token.
type owner struct{ kind, id string }

func (o owner) String() string { return o.kind + "/" + o.id }

// token is one service token. The Simulator's mu guards it.
type token struct {
	id, clientID string
	owner        owner
	name         string
	duration     string
	enabled      bool
	version      float64 // client_secret_version
	createdAt    time.Time
	updatedAt    time.Time
	expiresAt    time.Time // zero if it lasts forever
	lastSeenAt   time.Time // zero for never
	secrets      []*issued // every one ever issued; the last is current
	rotations    int
	inPolicy     bool
	deleted      bool
}

// issued is one client secret. The current one has no end of its own.
type issued struct {
	value      secret.Value
	at         time.Time
	superseded bool
	until      time.Time // for a superseded one: it is accepted before this time and refused from then on
}

func (i *issued) accepted(now time.Time) bool { return !i.superseded || now.Before(i.until) }

// newToken describes a token that is to be created. Empty IDs are random.
type newToken struct {
	id, clientID   string
	owner          owner
	name, duration string
	enabled        bool
	version        float64
}

// addToken creates a token with its first secret. The duration was checked.
func (s *Simulator) addToken(n newToken, now time.Time) *token {
	if n.id == "" {
		n.id = s.random.uuid()
	}
	if n.clientID == "" {
		n.clientID = s.random.clientID()
	}
	t := &token{
		id: n.id, clientID: n.clientID, owner: n.owner, name: n.name, duration: n.duration, enabled: n.enabled,
		version: n.version, createdAt: now, updatedAt: now,
		secrets: []*issued{{value: s.random.clientSecret(), at: now}},
	}
	t.renew(n.duration, now)
	s.keep(t)
	return t
}

func (s *Simulator) keep(t *token) {
	s.tokens = append(s.tokens, t)
	s.byID[t.id] = t
	s.byClient[t.clientID] = t
}

// renew returns the end of a checked duration that begins now.
func (t *token) renew(duration string, now time.Time) {
	t.duration, t.expiresAt = duration, time.Time{}
	if duration != forever {
		d, _ := time.ParseDuration(duration)
		t.expiresAt = now.Add(d)
	}
}

// checkDuration accepts what Cloudflare documents: a positive Go duration, or forever.
func checkDuration(s string) error {
	if s == forever {
		return nil
	}
	if d, err := time.ParseDuration(s); err != nil || d <= 0 {
		return errors.New("duration must be in the format 300ms or 2h45m, or forever")
	}
	return nil
}

func (t *token) current() *issued { return t.secrets[len(t.secrets)-1] }

// previous returns the secret before the current one, whether it is still accepted or not; nil if there was
// none.
func (t *token) previous() *issued {
	if len(t.secrets) < 2 {
		return nil
	}
	return t.secrets[len(t.secrets)-2]
}

// rotate issues a new secret. The old one is accepted until previousUntil.
func (s *Simulator) rotate(t *token, previousUntil, now time.Time) {
	if !s.behaviour.KeepAllPrevious {
		for _, old := range t.secrets {
			if old.superseded && now.Before(old.until) {
				old.until = now // a newer secret has replaced it
			}
		}
	}
	t.current().superseded, t.current().until = true, previousUntil
	t.secrets = append(t.secrets, &issued{value: s.random.clientSecret(), at: now})
	t.rotations++
	t.version++
	if !s.behaviour.FrozenUpdatedAt {
		t.updatedAt = now
	}
	s.stats.Rotations[t.id]++
}

// movePrevious moves the end of the grace period. A secret that is no longer accepted stays so.
func (t *token) movePrevious(until, now time.Time) {
	if p := t.previous(); p != nil && p.accepted(now) {
		p.until = until
	}
}

// Which secret a client authenticated with.
const (
	usedNone     = ""
	usedCurrent  = "current"
	usedPrevious = "previous"
)

// usedAs returns which secret of the token v is, if any, and whether it may be used at the edge.
func (s *Simulator) usedAs(t *token, v secret.Value, now time.Time) string {
	if t.deleted || !t.enabled || !t.expiresAt.IsZero() && !now.Before(t.expiresAt) {
		return usedNone
	}
	delay := time.Duration(s.behaviour.PropagationDelay)
	for _, i := range t.secrets {
		if !i.value.Equal(v) || !i.accepted(now) {
			continue
		}
		if i.superseded {
			return usedPrevious
		}
		if len(t.secrets) > 1 && now.Before(i.at.Add(delay)) {
			return usedNone
		}
		return usedCurrent
	}
	return usedNone
}

// Token is what the simulator knows about a service token, without its secrets.
type Token struct {
	ID        string    `json:"id"`
	ClientID  string    `json:"client_id"`
	Name      string    `json:"name"`
	Owner     string    `json:"owner"` // accounts/ID or zones/ID
	Duration  string    `json:"duration"`
	Enabled   bool      `json:"enabled"`
	InPolicy  bool      `json:"in_policy"`
	Version   float64   `json:"client_secret_version"`
	Rotations int       `json:"rotations"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
	// ExpiresAt is zero and absent if the token lasts forever.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	// LastSeenAt is zero and absent if the token was never used.
	LastSeenAt time.Time `json:"last_seen_at,omitzero"`

	CurrentDigest secret.Digest `json:"current_digest"`
	// PreviousDigest and PreviousExpiresAt describe the secret before the current one, whether it is still
	// accepted or not. They are absent before the first rotation.
	PreviousDigest    secret.Digest `json:"previous_digest,omitempty"`
	PreviousExpiresAt time.Time     `json:"previous_expires_at,omitzero"`
}

func (t *token) view() Token {
	v := Token{
		ID: t.id, ClientID: t.clientID, Name: t.name, Owner: t.owner.String(), Duration: t.duration,
		Enabled: t.enabled, InPolicy: t.inPolicy, Version: t.version, Rotations: t.rotations,
		CreatedAt: t.createdAt, UpdatedAt: t.updatedAt, ExpiresAt: t.expiresAt, LastSeenAt: t.lastSeenAt,
		CurrentDigest: t.current().value.Digest(),
	}
	if p := t.previous(); p != nil {
		v.PreviousDigest, v.PreviousExpiresAt = p.value.Digest(), p.until
	}
	return v
}

// Tokens returns every token that was not deleted, in order of creation.
func (s *Simulator) Tokens() []Token {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Token, 0, len(s.tokens))
	for _, t := range s.tokens {
		if !t.deleted {
			out = append(out, t.view())
		}
	}
	return out
}

// AllTokens returns every token that ever existed, including deleted ones, in order of creation.
// [Simulator.Token] says whether a token still exists.
func (s *Simulator) AllTokens() []Token {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Token, 0, len(s.tokens))
	for _, t := range s.tokens {
		out = append(out, t.view())
	}
	return out
}

// Token returns one token, and false if it does not exist or was deleted.
func (s *Simulator) Token(id string) (Token, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.byID[id]
	if t == nil || t.deleted {
		return Token{}, false
	}
	return t.view(), true
}

// Status is the status of a client secret.
type Status string

// The status of a client secret. It says nothing about the token, which may be disabled, expired or deleted.
const (
	StatusCurrent  Status = "current"
	StatusPrevious Status = "previous" // accepted until ExpiresAt
	StatusDead     Status = "dead"     // expired, revoked or displaced
)

// Secret is one client secret that was issued, whether or not a client received it.
type Secret struct {
	Value    secret.Value
	Digest   secret.Digest
	Status   Status
	IssuedAt time.Time
	// ExpiresAt is when it stopped or will stop being accepted; zero if it is current.
	ExpiresAt time.Time
}

// Secrets returns every secret that was ever issued for a token, oldest first, even if the token was deleted.
// A test compares what a client believes with this.
func (s *Simulator) Secrets(id string) []Secret {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.byID[id]
	if t == nil {
		return nil
	}
	now := s.apiNow()
	out := make([]Secret, 0, len(t.secrets))
	for _, i := range t.secrets {
		status := StatusDead
		switch {
		case !i.superseded:
			status = StatusCurrent
		case i.accepted(now):
			status = StatusPrevious
		}
		out = append(out, Secret{
			Value: i.value, Digest: i.value.Digest(), Status: status, IssuedAt: i.at, ExpiresAt: i.until,
		})
	}
	return out
}
