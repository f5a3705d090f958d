package cloudflare

import (
	"context"
	"time"

	"github.com/cloudflare/cloudflare-go/v7/option"
	"github.com/cloudflare/cloudflare-go/v7/zero_trust"

	"rotatord/internal/rotation"
)

// Rotate implements [rotation.Issuer]. Ready has admitted the request.
func (c *Client) Rotate(ctx context.Context, req rotation.RotateRequest) (rotation.Issued, error) {
	if c.account.ZoneID != "" {
		return rotation.Issued{}, &rotation.IssuerError{Class: rotation.Refused, Operation: "rotate",
			Message: "nothing was sent: Cloudflare rotates service tokens of accounts only. Use strategy: replace for this zone's"}
	}
	var params zero_trust.AccessServiceTokenRotateParams
	set(&params.AccountID.Value, &params.AccountID.Present, c.account.AccountID)
	var graceEndsAt time.Time
	issued, err := c.issue(ctx, "rotate", wanted{tokenID: req.TokenID, clientID: req.ClientID}, func(s *zero_trust.AccessServiceTokenService, opts []option.RequestOption) error {
		if req.Grace > 0 { // it begins now, and not before the wait for the limit of the address
			var expires time.Time
			expires, graceEndsAt = c.graceEnd(req.Grace)
			set(&params.PreviousClientSecretExpiresAt.Value, &params.PreviousClientSecretExpiresAt.Present, expires)
		}
		_, err := s.Rotate(ctx, req.TokenID, params, opts...)
		return err
	})
	if err == nil {
		issued.GraceEndsAt = graceEndsAt
	}
	return issued, err
}

// graceEnd returns when a grace that begins now ends: the time that is sent to Cloudflare, on its clock, and
// the time until which the previous secret may then work, on ours.
//
// A promised grace holds, whichever of the two clocks is right: the time that is sent is the later of the
// two, and never earlier than the local time plus the grace. It is rounded up to the second, because the SDK
// sends no fractions. A grace of zero is rounded down, so that its end has passed at Cloudflare.
//
// On the local clock, the secret works at most until that time on the earliest plausible clock of
// Cloudflare's. Rotations that have to wait for the end wait until then, but at most MaxApart longer than was
// promised.
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

// SetGrace implements [rotation.Issuer]. The request does not name a version of the secret, so it cannot
// rotate.
func (c *Client) SetGrace(ctx context.Context, tokenID string, grace time.Duration) (rotation.TokenFacts, time.Time, error) {
	// The end is sent on Cloudflare's clock. If that is not known, the local clock is used: a secret must be
	// extended anyway.
	asking, cancel := context.WithTimeout(ctx, clockTimeout)
	_ = c.ReadClock(asking)
	cancel()
	// Last: a request that was admitted but not sent delays others.
	if err := c.admit(ctx, "update"); err != nil {
		return rotation.TokenFacts{}, time.Time{}, err
	}
	var ours time.Time
	facts, err := c.update(ctx, tokenID, func(params *zero_trust.AccessServiceTokenUpdateParams) {
		var theirs time.Time
		theirs, ours = c.graceEnd(grace)
		set(&params.PreviousClientSecretExpiresAt.Value, &params.PreviousClientSecretExpiresAt.Present, theirs)
	})
	if err != nil {
		return rotation.TokenFacts{}, time.Time{}, err
	}
	return facts, ours, nil
}

// zoneYear is what a refresh would give: it does not exist for the service tokens of a zone.
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
	return c.update(ctx, tokenID, func(params *zero_trust.AccessServiceTokenUpdateParams) {
		set(&params.Duration.Value, &params.Duration.Present, duration)
	})
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

// update changes what change says, which is called when the request leaves, and nothing else. The budget has admitted it.
func (c *Client) update(ctx context.Context, tokenID string, change func(*zero_trust.AccessServiceTokenUpdateParams)) (rotation.TokenFacts, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	var params zero_trust.AccessServiceTokenUpdateParams
	c.setScope(&params.AccountID.Value, &params.AccountID.Present, &params.ZoneID.Value, &params.ZoneID.Present)
	return c.callToken(ctx, "update", tokenID, func(s *zero_trust.AccessServiceTokenService, opts []option.RequestOption) error {
		change(&params)
		_, err := s.Update(ctx, tokenID, params, opts...)
		return err
	})
}
