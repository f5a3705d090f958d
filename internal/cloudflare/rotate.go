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
	issued, err := c.issue(ctx, "rotate", func(s *zero_trust.AccessServiceTokenService, opts []option.RequestOption) error {
		_, err := s.Rotate(ctx, req.TokenID, params, opts...)
		return err
	})
	if err == nil {
		issued.GraceEndsAt = graceEndsAt
	}
	return issued, err
}

// issue makes the one request that is answered with a client secret.
func (c *Client) issue(ctx context.Context, operation string, do sdkCall) (rotation.Issued, error) {
	var result tokenResult
	err := c.call(ctx, operation, c.rotate, &result, do)
	if err != nil && result.ClientSecret.IsZero() {
		return rotation.Issued{}, err
	}
	// An answer that holds a secret is an answer, whatever else of it cannot be read.
	return rotation.Issued{
		Credential: rotation.Credential{ClientID: result.ClientID, ClientSecret: result.ClientSecret.Value},
		Facts:      result.facts(),
	}, nil
}

// graceEnd is when a grace that begins now ends: as it is told to Cloudflare, on its clock,
// and on ours. It is rounded up to the second, since the SDK sends no fractions: a promised
// grace is never cut short. No grace at all is rounded down, so that the end has passed
// there.
func (c *Client) graceEnd(grace time.Duration) (theirs, ours time.Time) {
	low, high := c.clock.bounds()
	if grace <= 0 {
		theirs = time.Now().Add(low).UTC().Truncate(time.Second)
	} else {
		theirs = time.Now().Add(high + grace + time.Second - 1).UTC().Truncate(time.Second)
	}
	return theirs, theirs.Add(-low)
}

// SetGrace implements [rotation.Issuer]. The request names no version of the secret, so
// it cannot rotate.
func (c *Client) SetGrace(ctx context.Context, tokenID string, grace time.Duration) (rotation.TokenFacts, time.Time, error) {
	if !c.clock.known() { // the end is told on Cloudflare's clock
		if _, err := c.Inspect(ctx, tokenID); err != nil {
			return rotation.TokenFacts{}, time.Time{}, err
		}
	}
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
	var result tokenResult
	err := c.call(ctx, "refresh", c.read, &result, func(s *zero_trust.AccessServiceTokenService, opts []option.RequestOption) error {
		_, err := s.Refresh(ctx, tokenID, params, opts...)
		return err
	})
	return result.facts(), err
}

// update changes what params say, and nothing else. It was admitted.
func (c *Client) update(ctx context.Context, tokenID string, params zero_trust.AccessServiceTokenUpdateParams) (rotation.TokenFacts, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	c.own(&params.AccountID.Value, &params.AccountID.Present, &params.ZoneID.Value, &params.ZoneID.Present)
	var result tokenResult
	err := c.call(ctx, "update", c.read, &result, func(s *zero_trust.AccessServiceTokenService, opts []option.RequestOption) error {
		_, err := s.Update(ctx, tokenID, params, opts...)
		return err
	})
	return result.facts(), err
}
