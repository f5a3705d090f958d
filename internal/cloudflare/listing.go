package cloudflare

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/cloudflare/cloudflare-go/v7/option"
	"github.com/cloudflare/cloudflare-go/v7/zero_trust"

	"rotatord/internal/printable"
	"rotatord/internal/rotation"
)

// This file reads listings. What a listing does not have is believed to be absent: a service
// token of that name is then created. So a listing that may have lost an entry is an error, and
// never an empty account. An entry that cannot be read is there all the same; it is counted, and
// the others are used.

const (
	// pageSize of listings is the largest that Cloudflare's OpenAPI document allows. A server that
	// gives fewer is asked for more pages.
	pageSize = 1000
	// maxPages bounds a listing, and maxUntold one that does not say how long it is.
	maxPages, maxUntold = 1000, 100
	// listAttempts is how often a listing is begun at most. It is begun again when a service token
	// was deleted while it was read: those behind it then move up, and one of them may have moved
	// to a page that was read already.
	listAttempts = 2
)

// Listing is what Cloudflare showed of all service tokens of an account or zone.
type Listing struct {
	// Tokens are those whose entries could be read.
	Tokens []rotation.TokenFacts
	// Odd are the entries that have an ID and cannot be read otherwise: what is wrong, by ID. The
	// service token is there, and nothing else is known of it.
	Odd   map[string]string
	names map[string]string // of those in Odd, where they could be read
	// Nameless counts entries that cannot even be told from each other.
	Nameless int
}

// unreadable is how many entries are not among Tokens.
func (l Listing) unreadable() int { return len(l.Odd) + l.Nameless }

// Size counts all entries, also those that cannot be read.
func (l Listing) Size() int { return len(l.Tokens) + l.unreadable() }

// Unreadable says what cannot be read, for a log; it is empty if everything can.
func (l Listing) Unreadable() string {
	if l.unreadable() == 0 {
		return ""
	}
	for id, what := range l.Odd {
		return fmt.Sprintf("%d entries of the listing cannot be read, such as %s: %s", l.unreadable(), printable.Line(id, maxID), what)
	}
	return fmt.Sprintf("%d entries of the listing cannot be read", l.unreadable())
}

// List reads all service tokens of the account or zone, page by page. The error is nil only if the
// listing is whole, as far as can be told. Beside an error there may be a part of it: what that has
// is there, and what it does not have may be there too.
func (c *Client) List(ctx context.Context) (Listing, error) {
	for attempt := 1; ; attempt++ {
		listing, moved, err := c.listOnce(ctx)
		if moved && attempt < listAttempts {
			continue
		}
		return listing, err
	}
}

// Find implements [rotation.Creator]. It reads the whole listing, since Cloudflare's answer to a query
// for one name does not say how many it should have: that a name is not there could not be told
// from an answer that has lost it.
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

// listOnce reads all pages once. moved is set if what was read may be incomplete only because a
// service token was deleted meanwhile.
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
			listing.take(raw, seen)
		}
		if got.said {
			shrank = shrank || said && got.total < total
			total, said = got.total, true
		}
		have, fresh := len(seen)+listing.Nameless, len(seen) > before
		switch {
		case fresh && (!said || have < total || have > total && got.full()):
			continue // there are more, or nobody says how many
		case shrank:
			return listing, true, unusable("list", "service tokens were deleted while the listing was read: it may have missed one")
		case said && have < total:
			return listing, true, unusable("list", fmt.Sprintf("the listing is not whole: it has %d of the %d service tokens that it says there are. "+
				"If it stays so, the credential may see a part of them only", have, total))
		}
		return listing, false, nil
	}
}

// take adds an entry. One may come again when another was created between two pages.
func (l *Listing) take(raw json.RawMessage, seen map[string]bool) {
	var fields map[string]json.RawMessage
	var id string
	if json.Unmarshal(raw, &fields) != nil || json.Unmarshal(fields["id"], &id) != nil || strings.TrimSpace(id) == "" {
		l.Nameless++
		return
	}
	if seen[id] {
		return
	}
	seen[id] = true
	var result tokenResult
	what := oddField(fields)
	if err := json.Unmarshal(raw, &result); err != nil {
		what = describeJSON(err)
	}
	if what == "" {
		l.Tokens = append(l.Tokens, result.facts())
		return
	}
	l.Odd[id] = what
	if name, ok := fields["name"]; ok && len(name) > 0 && name[0] == '"' {
		l.names[id] = result.Name
	}
}

// oddField says which field of an entry is there, and not what it should be; empty if none is.
func oddField(fields map[string]json.RawMessage) string {
	if name := fields["name"]; len(name) == 0 || name[0] != '"' {
		return "it has no name"
	}
	for _, field := range []string{"created_at", "updated_at", "expires_at", "last_seen_at"} {
		raw := bytes.TrimSpace(fields[field])
		if len(raw) == 0 || string(raw) == "null" || string(raw) == `""` {
			continue
		}
		var t timestamp
		var text string
		if _ = t.UnmarshalJSON(raw); t.IsZero() {
			if json.Unmarshal(raw, &text) == nil {
				if at, err := time.Parse(time.RFC3339, text); err == nil && at.IsZero() {
					continue // how some servers write never
				}
			}
			return field + " is not a time"
		}
	}
	return ""
}

// listed is one page of a listing.
type listed struct {
	entries []json.RawMessage
	// total is how many entries all pages have together, if that is said.
	total   int
	said    bool
	perPage int // 0 if that is not said
}

// full reports whether the page may have another one behind it.
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
	c.own(&params.AccountID.Value, &params.AccountID.Present, &params.ZoneID.Value, &params.ZoneID.Present)
	set(&params.Page.Value, &params.Page.Present, int64(page))
	set(&params.PerPage.Value, &params.PerPage.Present, int64(perPage))
	return c.exchange(ctx, "list", c.read, func(s *zero_trust.AccessServiceTokenService, opts []option.RequestOption) error {
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
	if l.total == 0 && len(l.entries) > 0 { // it is there, and says nothing
		l.said = false
	}
	// What count means is documented in two ways: of this page, or of all. Either way there are at
	// least so many.
	if count, ok := wholeNumber(info["count"]); ok && !l.said && count > len(l.entries) {
		l.total, l.said = count, true
	}
	return l, nil
}

// wholeNumber reads a number, also one that stands as text. ok is false for what is none, or is
// less than 0.
func wholeNumber(raw json.RawMessage) (n int, ok bool) {
	f, err := strconv.ParseFloat(strings.Trim(string(raw), `" `), 64)
	if err != nil || f < 0 || f > math.MaxInt32 || f != math.Trunc(f) {
		return 0, false
	}
	return int(f), true
}
