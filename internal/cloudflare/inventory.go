package cloudflare

import (
	"context"

	"github.com/cloudflare/cloudflare-go/v7/option"
	"github.com/cloudflare/cloudflare-go/v7/zero_trust"

	"rotatord/internal/rotation"
)

// Inspect implements [rotation.Issuer].
func (c *Client) Inspect(ctx context.Context, tokenID string) (rotation.TokenFacts, error) {
	if err := c.admit(ctx, "get"); err != nil {
		return rotation.TokenFacts{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	var params zero_trust.AccessServiceTokenGetParams
	c.setScope(&params.AccountID.Value, &params.AccountID.Present, &params.ZoneID.Value, &params.ZoneID.Present)
	return c.callToken(ctx, "get", tokenID, func(s *zero_trust.AccessServiceTokenService, opts []option.RequestOption) error {
		_, err := s.Get(ctx, tokenID, params, opts...)
		return err
	})
}
