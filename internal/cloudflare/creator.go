package cloudflare

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/cloudflare/cloudflare-go/v7/option"
	"github.com/cloudflare/cloudflare-go/v7/zero_trust"

	"rotatord/internal/printable"
	"rotatord/internal/rotation"
)

// Create implements [rotation.Creator]. Ready has admitted the request. An answer that was cut off right
// after the secret may lack the ID of the new service token.
func (c *Client) Create(ctx context.Context, req rotation.CreateRequest) (rotation.Issued, error) {
	var params zero_trust.AccessServiceTokenNewParams
	c.setScope(&params.AccountID.Value, &params.AccountID.Present, &params.ZoneID.Value, &params.ZoneID.Present)
	set(&params.Name.Value, &params.Name.Present, req.Name)
	if req.Duration != "" {
		set(&params.Duration.Value, &params.Duration.Present, req.Duration)
	}
	return c.issue(ctx, "create", wanted{name: req.Name}, func(s *zero_trust.AccessServiceTokenService, opts []option.RequestOption) error {
		_, err := s.New(ctx, params, opts...)
		return err
	})
}

// Delete implements [rotation.Creator].
func (c *Client) Delete(ctx context.Context, tokenID string) error {
	if err := c.admit(ctx, "delete"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	var params zero_trust.AccessServiceTokenDeleteParams
	c.setScope(&params.AccountID.Value, &params.AccountID.Present, &params.ZoneID.Value, &params.ZoneID.Present)
	answer, err := c.roundTrip(ctx, "delete", c.read, func(s *zero_trust.AccessServiceTokenService, opts []option.RequestOption) error {
		_, err := s.Delete(ctx, tokenID, params, opts...)
		return err
	})
	if errors.Is(err, rotation.ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	// Cloudflare names what it deleted. If it does not, success is enough; if it names something else, that
	// is an error.
	var result tokenResult
	if err := json.Unmarshal(answer.Result, &result); err == nil && result.ID != "" && !strings.EqualFold(result.ID, tokenID) {
		return unusable("delete", fmt.Sprintf("the answer is about the service token %q, and %s was to be deleted", printable.Line(result.ID, maxID), tokenID))
	}
	return nil
}
