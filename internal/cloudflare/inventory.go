package cloudflare

import (
	"context"

	"github.com/cloudflare/cloudflare-go/v7/option"
	"github.com/cloudflare/cloudflare-go/v7/zero_trust"

	"rotatord/internal/rotation"
)

// pageSize of listings is the largest that Cloudflare's OpenAPI document allows. A server that
// gives fewer is asked for more pages.
const pageSize = 1000

// Inspect implements [rotation.Issuer].
func (c *Client) Inspect(ctx context.Context, tokenID string) (rotation.TokenFacts, error) {
	if err := c.admit(ctx, "get"); err != nil {
		return rotation.TokenFacts{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	var params zero_trust.AccessServiceTokenGetParams
	c.own(&params.AccountID.Value, &params.AccountID.Present, &params.ZoneID.Value, &params.ZoneID.Present)
	var result tokenResult
	err := c.call(ctx, "get", c.read, &result, func(s *zero_trust.AccessServiceTokenService, opts []option.RequestOption) error {
		_, err := s.Get(ctx, tokenID, params, opts...)
		return err
	})
	return result.facts(), err
}

// List reads all service tokens of the account or zone, page by page.
func (c *Client) List(ctx context.Context) ([]rotation.TokenFacts, error) { return c.list(ctx, "") }

// Find implements [rotation.Maker].
func (c *Client) Find(ctx context.Context, name string) ([]rotation.TokenFacts, error) {
	listed, err := c.list(ctx, name)
	if err != nil {
		return nil, err
	}
	var found []rotation.TokenFacts
	for _, facts := range listed {
		if facts.Name == name { // whatever Cloudflare makes of the query
			found = append(found, facts)
		}
	}
	return found, nil
}

// list reads all pages of a listing, of one name unless that is empty.
func (c *Client) list(ctx context.Context, name string) ([]rotation.TokenFacts, error) {
	var all []rotation.TokenFacts
	seen := map[string]bool{}
	for page := 1; ; page++ {
		if err := c.admit(ctx, "list"); err != nil {
			return nil, err
		}
		var results []tokenResult
		info, err := c.listPage(ctx, page, name, &results)
		if err != nil {
			return nil, err
		}
		before := len(seen)
		for _, r := range results {
			if !seen[r.ID] { // one may come again when another was removed between two pages
				seen[r.ID] = true
				all = append(all, r.facts())
			}
		}
		switch {
		case len(seen) == before, // an end that was not announced, or the same page for ever
			info.TotalCount > 0 && len(all) >= info.TotalCount,
			// The total does not take the name into account: a page that is not full must do.
			name != "" && info.PerPage > 0 && len(results) < info.PerPage:
			return all, nil
		}
	}
}

func (c *Client) listPage(ctx context.Context, page int, name string, results *[]tokenResult) (resultInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	var params zero_trust.AccessServiceTokenListParams
	c.own(&params.AccountID.Value, &params.AccountID.Present, &params.ZoneID.Value, &params.ZoneID.Present)
	set(&params.Page.Value, &params.Page.Present, int64(page))
	set(&params.PerPage.Value, &params.PerPage.Present, pageSize)
	if name != "" {
		set(&params.Name.Value, &params.Name.Present, name)
	}
	answer, err := c.exchange(ctx, "list", c.read, func(s *zero_trust.AccessServiceTokenService, opts []option.RequestOption) error {
		_, err := s.List(ctx, params, opts...)
		return err
	})
	if err != nil {
		return resultInfo{}, err
	}
	return answer.ResultInfo, decodeResult("list", answer, results)
}
