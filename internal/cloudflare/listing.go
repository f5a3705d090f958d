package cloudflare

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/cloudflare/cloudflare-go/v7/option"
	"github.com/cloudflare/cloudflare-go/v7/zero_trust"

	"rotatord/internal/printable"
	"rotatord/internal/rotation"
)

// This file reads listings. If a listing does not have a service token, the daemon believes that it does not
// exist, and may create one with that name. So a listing that may have lost an entry is an error, and never
// an empty account. An entry that cannot be read still exists: it is counted, and the other entries are used.

const (
	// pageSize is the largest that Cloudflare's OpenAPI document allows. If a server returns fewer entries,
	// more pages are read.
	pageSize = 1000
	// maxPages limits a listing, and maxUntold one that does not say how long it is.
	maxPages, maxUntold = 1000, 100
	// listAttempts is how often a listing is started at most. It starts again if a service token was deleted
	// while it was read: the entries behind it then move up, and one of them may have moved to a page that
	// was read already.
	listAttempts = 2
)

// Listing is what Cloudflare showed of all service tokens of an account or zone.
type Listing struct {
	// Tokens are the service tokens whose entries could be read.
	Tokens []rotation.TokenFacts
	// Odd says, by ID, what is wrong with entries that have an ID but cannot be read otherwise. The service
	// token exists, and nothing else is known about it.
	Odd   map[string]string
	names map[string]string // the names of those in Odd, where they could be read
	// Nameless counts entries without an ID, which cannot be told from each other.
	Nameless int
}

// unreadable returns how many entries are not among Tokens.
func (l Listing) unreadable() int { return len(l.Odd) + l.Nameless }

// Size returns the number of all entries, including those that cannot be read.
func (l Listing) Size() int { return len(l.Tokens) + l.unreadable() }

// Unreadable says what cannot be read, for a log; empty if everything can.
func (l Listing) Unreadable() string {
	if l.unreadable() == 0 {
		return ""
	}
	for id, what := range l.Odd {
		return fmt.Sprintf("%d entries of the listing cannot be read, such as %s: %s", l.unreadable(), printable.Line(id, maxID), what)
	}
	return fmt.Sprintf("%d entries of the listing cannot be read", l.unreadable())
}

// List reads all service tokens of the account or zone, page by page. The error is nil only if the listing is
// complete, as far as that can be known. With an error there may be a part of the listing: its entries exist,
// and others may exist too.
func (c *Client) List(ctx context.Context) (Listing, error) {
	for attempt := 1; ; attempt++ {
		listing, moved, err := c.listOnce(ctx)
		if moved && attempt < listAttempts {
			continue
		}
		return listing, err
	}
}

// Find implements [rotation.Creator]. It reads the whole listing, because Cloudflare's answer to a query for
// one name does not say how many entries it should have: an answer that has lost the entry would look like
// one without it.
func (c *Client) Find(ctx context.Context, name string) ([]rotation.TokenFacts, error) {
	listing, err := c.List(ctx)
	if err != nil {
		return nil, err
	}
	var found []rotation.TokenFacts
	for _, facts := range listing.Tokens {
		if facts.Name == name {
			found = append(found, facts)
		}
	}
	if len(found) > 0 {
		return found, nil
	}
	hidden := listing.Nameless
	for id := range listing.Odd {
		if other, known := listing.names[id]; !known || other == name {
			hidden++
		}
	}
	if hidden > 0 {
		return nil, unusable("list", fmt.Sprintf("whether a service token is named %q is not known: %d entries of the listing cannot be read, and it may be one of them", name, hidden))
	}
	return nil, nil
}

// listOnce reads all pages once. moved is set if the result may be incomplete only because a service token
// was deleted meanwhile.
func (c *Client) listOnce(ctx context.Context) (listing Listing, moved bool, err error) {
	listing = Listing{Odd: map[string]string{}, names: map[string]string{}}
	seen := map[string]bool{}
	total, said, shrank := 0, false, false
	for page := 1; ; page++ {
		if page > maxPages || page > maxUntold && !said {
			return Listing{}, false, unusable("list", fmt.Sprintf("the listing has no end: %d pages were read", page-1))
		}
		if err := c.admit(ctx, "list"); err != nil {
			return Listing{}, false, err
		}
		got, err := c.listPage(ctx, page)
		if err != nil {
			return Listing{}, false, err
		}
		before := len(seen)
		for _, raw := range got.entries {
			listing.add(raw, seen)
		}
		if got.said {
			shrank = shrank || said && got.total < total
			total, said = got.total, true
		}
		have, fresh := len(seen)+listing.Nameless, len(seen) > before
		switch {
		case fresh && (!said || have < total || have > total && got.full()):
			continue // there are more, or the length is unknown
		case shrank:
			return listing, true, unusable("list", "service tokens were deleted while the listing was read: it may have missed one")
		case said && have < total:
			return listing, true, unusable("list", fmt.Sprintf("the listing is not whole: it has %d of the %d service tokens that it says there are. "+
				"If it stays so, the credential may see a part of them only", have, total))
		}
		return listing, false, nil
	}
}

// add adds an entry. The same entry may come again if a service token was created between two pages.
func (l *Listing) add(raw json.RawMessage, seen map[string]bool) {
	var result tokenResult
	err := json.Unmarshal(raw, &result) // goes on after a field of the wrong type, and leaves that one empty
	id := result.ID
	if strings.TrimSpace(id) == "" {
		l.Nameless++
		return
	}
	if seen[id] {
		return
	}
	seen[id] = true
	what := result.odd()
	if err != nil {
		what = describeJSON(err)
	}
	if what == "" {
		l.Tokens = append(l.Tokens, result.facts())
		return
	}
	l.Odd[id] = what
	if result.Name != nil && (err == nil || *result.Name != "") { // else it may have been of the wrong type
		l.names[id] = *result.Name
	}
}

// odd says which field of an entry is not what it should be; empty if all are good.
func (r *tokenResult) odd() string {
	if r.Name == nil {
		return "it has no name"
	}
	for _, field := range []struct {
		name string
		at   timestamp
	}{{"created_at", r.CreatedAt}, {"updated_at", r.UpdatedAt}, {"expires_at", r.ExpiresAt}, {"last_seen_at", r.LastSeenAt}} {
		if field.at.odd {
			return field.name + " is not a time"
		}
	}
	return ""
}

// listed is one page of a listing.
type listed struct {
	entries []json.RawMessage
	// total is how many entries all pages have together, if the server says so.
	total   int
	said    bool
	perPage int // 0 if the server does not say
}

// full reports whether another page may follow.
func (l listed) full() bool { return l.perPage <= 0 || len(l.entries) >= l.perPage }

func (c *Client) listPage(ctx context.Context, page int) (listed, error) {
	answer, err := c.askForPage(ctx, page, pageSize)
	if err != nil {
		return listed{}, err
	}
	return readPage(answer)
}

func (c *Client) askForPage(ctx context.Context, page, perPage int) (envelope, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	var params zero_trust.AccessServiceTokenListParams
	c.setScope(&params.AccountID.Value, &params.AccountID.Present, &params.ZoneID.Value, &params.ZoneID.Present)
	set(&params.Page.Value, &params.Page.Present, int64(page))
	set(&params.PerPage.Value, &params.PerPage.Present, int64(perPage))
	return c.roundTrip(ctx, "list", c.read, func(s *zero_trust.AccessServiceTokenService, opts []option.RequestOption) error {
		_, err := s.List(ctx, params, opts...)
		return err
	})
}

func readPage(answer envelope) (listed, error) {
	var l listed
	if err := decodeResult("list", answer, &l.entries); err != nil {
		return listed{}, err
	}
	var info map[string]json.RawMessage
	if len(answer.ResultInfo) > 0 && json.Unmarshal(answer.ResultInfo, &info) != nil {
		return listed{}, unusable("list", "result_info of the listing is not an object, and nothing else says how long the listing is")
	}
	l.perPage, _ = wholeNumber(info["per_page"])
	l.total, l.said = wholeNumber(info["total_count"])
	if l.total == 0 && len(l.entries) > 0 { // the field exists, but says nothing
		l.said = false
	}
	// The meaning of count is documented in two ways: the entries of this page, or all entries. Either way
	// there are at least so many.
	if count, ok := wholeNumber(info["count"]); ok && !l.said && count > len(l.entries) {
		l.total, l.said = count, true
	}
	return l, nil
}

// wholeNumber reads a number, with or without quotation marks. ok is false if it is not a whole number, or is
// less than 0.
func wholeNumber(raw json.RawMessage) (n int, ok bool) {
	f, err := strconv.ParseFloat(strings.Trim(string(raw), `" `), 64)
	if err != nil || f < 0 || f > math.MaxInt32 || f != math.Trunc(f) {
		return 0, false
	}
	return int(f), true
}
