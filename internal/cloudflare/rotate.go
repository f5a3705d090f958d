package cloudflare

import (
	"context"
	"time"

	"github.com/cloudflare/cloudflare-go/v7/option"
	"github.com/cloudflare/cloudflare-go/v7/zero_trust"

	"rotatord/internal/rotation"
)

// Rotate implements [rotation.Issuer]. The request was admitted by Ready.
func (c *Client) Rotate(ctx context.Context, req rotation.RotateRequest) (rotation.Issued, error) {
	if c.account.ZoneID != "" {
		return rotation.Issued{}, &rotation.IssuerError{Class: rotation.Refused, Operation: "rotate",
			Message: "nothing was sent: Cloudflare rotates service tokens of accounts only. Use strategy: replace for this zone's"}
	}
	var params zero_trust.AccessServiceTokenRotateParams
	set(&params.AccountID.Value, &params.AccountID.Present, c.account.AccountID)
	var graceEndsAt time.Time
	if req.Grace > 0 {
		var expires time.Time
		expires, graceEndsAt = c.graceEnd(req.Grace)
		set(&params.PreviousClientSecretExpiresAt.Value, &params.PreviousClientSecretExpiresAt.Present, expires)
	}
	issued, err := c.issue(ctx, "rotate", wanted{tokenID: req.TokenID, clientID: req.ClientID}, func(s *zero_trust.AccessServiceTokenService, opts []option.RequestOption) error {
		_, err := s.Rotate(ctx, req.TokenID, params, opts...)
		return err
	})
	if err == nil {
		issued.GraceEndsAt = graceEndsAt
	}
	return issued, err
}

// graceEnd is when a grace that begins now ends: as it is told to Cloudflare, on its clock, and
// until when the previous secret may then work on ours.
//
// A promised grace holds whichever of the two clocks is right: it is told as the later of the two,
// and what is told is never earlier than the local time and the grace. It is rounded up to the
// second, since the SDK sends no fractions. No grace at all is rounded down, so that its end has
// passed there.
//
// On the local clock the secret works until theirs at the latest by the earliest plausible clock of
// Cloudflare's: rotations that have to wait for its end wait until then, but not for longer than
// MaxApart more than was promised.
func (c *Client) graceEnd(grace time.Duration) (theirs, ours time.Time) {
	low, high := c.clock.bounds()
	now := time.Now()
	if grace <= 0 {
		theirs = now.Add(low).UTC().Truncate(time.Second)
		return theirs, theirs.Add(-low)
	}
	theirs = now.Add(max(high, 0) + grace + time.Second - 1).UTC().Truncate(time.Second)
	ours = theirs.Add(-low)
	if latest := now.Add(grace + time.Second).Add(MaxApart); ours.After(latest) {
		ours = latest
	}
	return theirs, ours
}

// SetGrace implements [rotation.Issuer]. The request names no version of the secret, so
// it cannot rotate.
func (c *Client) SetGrace(ctx context.Context, tokenID string, grace time.Duration) (rotation.TokenFacts, time.Time, error) {
	// The end is told on Cloudflare's clock. Not to know it must not keep a secret from being
	// extended: the local clock then has to do.
	asking, cancel := context.WithTimeout(ctx, clockTimeout)
	_ = c.ReadClock(asking)
	cancel()
	// Last: what was admitted and is not sent yet holds others up.
	if err := c.admit(ctx, "update"); err != nil {
		return rotation.TokenFacts{}, time.Time{}, err
	}
	var params zero_trust.AccessServiceTokenUpdateParams
	theirs, ours := c.graceEnd(grace)
	set(&params.PreviousClientSecretExpiresAt.Value, &params.PreviousClientSecretExpiresAt.Present, theirs)
	facts, err := c.update(ctx, tokenID, params)
	if err != nil {
		return rotation.TokenFacts{}, time.Time{}, err
	}
	return facts, ours, nil
}

// zoneYear is what a refresh would give: there is none for a zone's service tokens.
const zoneYear = "8760h"

// Renew implements [rotation.Renewer].
func (c *Client) Renew(ctx context.Context, tokenID, duration string) (rotation.TokenFacts, error) {
	if duration == "" && c.account.ZoneID == "" {
		return c.refresh(ctx, tokenID)
	}
	if duration == "" {
		duration = zoneYear
	}
	if err := c.admit(ctx, "update"); err != nil {
		return rotation.TokenFacts{}, err
	}
	var params zero_trust.AccessServiceTokenUpdateParams
	set(&params.Duration.Value, &params.Duration.Present, duration)
	return c.update(ctx, tokenID, params)
}

func (c *Client) refresh(ctx context.Context, tokenID string) (rotation.TokenFacts, error) {
	if err := c.admit(ctx, "refresh"); err != nil {
		return rotation.TokenFacts{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	var params zero_trust.AccessServiceTokenRefreshParams
	set(&params.AccountID.Value, &params.AccountID.Present, c.account.AccountID)
	return c.callToken(ctx, "refresh", tokenID, func(s *zero_trust.AccessServiceTokenService, opts []option.RequestOption) error {
		_, err := s.Refresh(ctx, tokenID, params, opts...)
		return err
	})
}

// update changes what params say, and nothing else. It was admitted.
func (c *Client) update(ctx context.Context, tokenID string, params zero_trust.AccessServiceTokenUpdateParams) (rotation.TokenFacts, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	c.own(&params.AccountID.Value, &params.AccountID.Present, &params.ZoneID.Value, &params.ZoneID.Present)
	return c.callToken(ctx, "update", tokenID, func(s *zero_trust.AccessServiceTokenService, opts []option.RequestOption) error {
		_, err := s.Update(ctx, tokenID, params, opts...)
		return err
	})
}
