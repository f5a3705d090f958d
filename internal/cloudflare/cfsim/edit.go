package cfsim

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"rotatord/internal/secret"
)

// The methods below change tokens without a request, as a colleague on the dashboard, time, or Cloudflare
// itself would. They are not counted as requests, and faults do not strike them.

// CreateParams describe the token that Create creates.
type CreateParams struct {
	// ID is a UUID. Empty means a random one. It must never have been in use.
	ID string `json:"id"`
	// Name is required.
	Name string `json:"name"`
	// AccountID or ZoneID own it. If both are empty, Options.AccountID does.
	AccountID string `json:"account_id"`
	ZoneID    string `json:"zone_id"`
	// Duration is a Go duration or "forever". Empty means 8760h.
	Duration string `json:"duration"`
	// Disabled makes it unusable until an update enables it.
	Disabled bool `json:"disabled"`
}

// Create creates a token.
func (s *Simulator) Create(p CreateParams) (Token, secret.Value, error) {
	fail := func(format string, args ...any) (Token, secret.Value, error) {
		return Token{}, secret.Value{}, fmt.Errorf("creating a service token: "+format, args...)
	}
	o := owner{accounts, p.AccountID}
	switch {
	case p.AccountID != "" && p.ZoneID != "":
		return fail("it belongs to an account or a zone, not to both")
	case p.ZoneID != "":
		o = owner{zones, p.ZoneID}
	case p.AccountID == "":
		o.id = s.options.AccountID
	}
	if !isIdentifier(o.id) {
		return fail("%q is not an account or zone ID of 32 hex digits", o.id)
	}
	if p.Duration == "" {
		p.Duration = defaultDuration
	}
	if p.Name == "" {
		return fail("it needs a name")
	}
	if err := checkDuration(p.Duration); err != nil {
		return fail("%w", err)
	}
	p.ID = strings.ToLower(p.ID)
	if p.ID != "" && !uuidShape.MatchString(p.ID) {
		return fail("%q is not a UUID", secret.Scrub(p.ID))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID[p.ID] != nil {
		return fail("there is or was one with the ID %s", p.ID)
	}
	t := s.addToken(newToken{id: p.ID, owner: o, name: p.Name, duration: p.Duration, enabled: !p.Disabled, version: 1}, s.apiNow())
	return t.view(), t.current().value, s.save()
}

// Edit says what to change in a token. A nil field stays as it is.
type Edit struct {
	Name     *string `json:"name"`
	Enabled  *bool   `json:"enabled"`
	InPolicy *bool   `json:"in_policy"`
	// UpdatedAt, because nothing else changes it here.
	UpdatedAt *time.Time `json:"updated_at"`
	// ExpiresAt: zero, in JSON 0001-01-01T00:00:00Z, means never.
	ExpiresAt *time.Time `json:"expires_at"`
	// LastSeenAt: zero means never.
	LastSeenAt *time.Time `json:"last_seen_at"`
}

// errNoToken says that the token does not exist, or was deleted.
var errNoToken = errors.New("there is no such service token")

// change finds a token, changes it and saves the state.
func (s *Simulator) change(id string, do func(t *token, now time.Time)) (Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.byID[strings.ToLower(id)]
	if t == nil || t.deleted {
		return Token{}, errNoToken
	}
	do(t, s.apiNow())
	return t.view(), s.save()
}

// Edit changes what e names in a token, and nothing else: updated_at stays.
func (s *Simulator) Edit(id string, e Edit) (Token, error) {
	if e.Name != nil && strings.TrimSpace(*e.Name) == "" {
		return Token{}, errors.New("name must not be empty")
	}
	return s.change(id, func(t *token, _ time.Time) {
		t.name, t.enabled, t.inPolicy = valueOr(e.Name, t.name), valueOr(e.Enabled, t.enabled), valueOr(e.InPolicy, t.inPolicy)
		t.updatedAt, t.expiresAt = valueOr(e.UpdatedAt, t.updatedAt), valueOr(e.ExpiresAt, t.expiresAt)
		t.lastSeenAt = valueOr(e.LastSeenAt, t.lastSeenAt)
	})
}

// SetInPolicy says whether an Access policy refers to the token, in which case it
// cannot be deleted.
func (s *Simulator) SetInPolicy(id string, in bool) error {
	_, err := s.Edit(id, Edit{InPolicy: &in})
	return err
}

// Rotate gives a token a new secret, as another user of the API would. The old one is accepted for grace.
func (s *Simulator) Rotate(id string, grace time.Duration) (Token, secret.Value, error) {
	var fresh secret.Value
	view, err := s.change(id, func(t *token, now time.Time) {
		s.rotate(t, now.Add(grace), now)
		fresh = t.current().value
	})
	return view, fresh, err
}

// Delete deletes a token, whether a policy refers to it or not.
func (s *Simulator) Delete(id string) error {
	_, err := s.change(id, func(t *token, _ time.Time) { t.deleted = true })
	return err
}

// Now returns the time on the API's clock.
func (s *Simulator) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.apiNow()
}

// Age makes everything older by d: what would happen in d happens now. The clock does not move, so programs
// that share it see time pass without waiting. The used part of the rate limit is forgotten.
func (s *Simulator) Age(d time.Duration) error {
	s.limit.reset()
	s.mu.Lock()
	defer s.mu.Unlock()
	back := func(times ...*time.Time) {
		for _, t := range times {
			if !t.IsZero() {
				*t = t.Add(-d)
			}
		}
	}
	back(&s.behaviour.APITokenExpiresOn, &s.behaviour.APITokenNotBefore)
	for _, t := range s.tokens {
		back(&t.createdAt, &t.updatedAt, &t.expiresAt, &t.lastSeenAt)
		for _, i := range t.secrets {
			back(&i.at, &i.until)
		}
	}
	return s.save()
}
