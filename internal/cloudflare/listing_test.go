package cloudflare_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"rotatord/internal/cloudflare"
	"rotatord/internal/config"
	"rotatord/internal/rotation"
)

// page is one page of a listing, as it is answered.
type page struct {
	entries []string // JSON
	total   any
	perPage any
}

// named returns entries with these names.
func named(names ...string) (all []string) {
	for _, n := range names {
		all = append(all, fmt.Sprintf(`{"id":"id-%s","client_id":"%s.access","name":%q}`, n, n, n))
	}
	return all
}

// TestListingsThatChange reads listings of several pages, request by request. A listing that may have lost an
// entry is started again once; after that it is an error.
func TestListingsThatChange(t *testing.T) {
	for name, test := range map[string]struct {
		answers  []page // the last one repeats
		names    string // what is listed; empty: an error
		requests int64
	}{
		"two pages":                  {[]page{{named("a", "b"), 3, 2}, {named("c"), 3, 2}}, "a b c", 2},
		"one comes again":            {[]page{{named("a", "b"), 4, 2}, {named("b", "c"), 4, 2}, {named("d"), 4, 2}}, "a b c d", 3},
		"one was created meanwhile":  {[]page{{named("a", "b"), 3, 2}, {named("c", "d"), 4, 2}}, "a b c d", 2},
		"one was deleted meanwhile":  {[]page{{named("a", "b"), 4, 2}, {named("d"), 3, 2}, {named("b", "c"), 3, 2}, {named("d"), 3, 2}}, "b c d", 4},
		"deleted in every attempt":   {[]page{{named("a", "b"), 4, 2}, {named("d"), 3, 2}, {named("b", "c"), 3, 2}, {named(), 2, 2}}, "", 4},
		"the same page forever":      {[]page{{named("a", "b"), 4, 2}}, "", 4},
		"the same, and no total":     {[]page{{named("a", "b"), nil, nil}}, "a b", 2},
		"an end too early":           {[]page{{named("a", "b"), 4, 2}, {named(), 4, 2}, {named("a", "b"), 4, 2}, {named(), 4, 2}}, "", 4},
		"an end too early, once":     {[]page{{named("a", "b"), 4, 2}, {named(), 4, 2}, {named("a", "b"), 4, 2}, {named("c", "d"), 4, 2}}, "a b c d", 4},
		"one twice on a page":        {[]page{{append(named("a"), named("a")...), 2, 2}}, "", 4},
		"an empty account":           {[]page{{named(), 0, 2}}, "-", 1},
		"nothing, and nothing said":  {[]page{{named(), nil, nil}}, "-", 1},
		"nothing, and some are said": {[]page{{named(), 1, 2}}, "", 2},
	} {
		t.Run(name, func(t *testing.T) {
			n := 0
			url, requests := serve(t, func(w http.ResponseWriter, r *http.Request) {
				p := test.answers[min(n, len(test.answers)-1)]
				n++
				info, _ := json.Marshal(map[string]any{"total_count": p.total, "per_page": p.perPage})
				answer(200, "application/json", `{"success":true,"errors":[],"messages":[],"result":[`+strings.Join(p.entries, ",")+`],"result_info":`+string(info)+`}`)(w, r)
			})
			listing, err := client(t, url, cloudflare.Options{}).List(t.Context())
			var names []string
			for _, f := range listing.Tokens {
				names = append(names, f.Name)
			}
			if got := strings.Join(names, " "); err == nil && test.names != got && !(test.names == "-" && got == "") || (err == nil) != (test.names != "") || requests.Load() != test.requests {
				t.Errorf("%q in %d requests: %v", got, requests.Load(), err)
			}
		})
	}
}

// TestEndlessListing: the client gives up on a server that always has another page.
func TestEndlessListing(t *testing.T) {
	if testing.Short() {
		t.Skip("a hundred requests")
	}
	n := 0
	url, requests := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n++
		answer(200, "application/json", `{"success":true,"errors":[],"messages":[],"result":[`+named(fmt.Sprint(n))[0]+`]}`)(w, r)
	})
	c := cloudflare.New(config.Account{Name: "prod", AccountID: accountID, APIToken: secretFile(t, apiToken), BaseURL: url, RequestsPer5m: 100_000}, cloudflare.Options{})
	if _, err := c.List(t.Context()); err == nil || requests.Load() > 100 {
		t.Errorf("after %d requests: %v", requests.Load(), err)
	}
}

// TestForeignEntries: nothing is concluded from an entry that cannot be read, and the others are used.
func TestForeignEntries(t *testing.T) {
	ours := named("ours")[0]
	for entry, hidden := range map[string]bool{ // whether it may be the one that is looked for
		`null`: true, `7`: true, `"x"`: true, `[]`: true, `{}`: true, `{"id":null,"name":"x"}`: true, `{"id":7,"name":"x"}`: true, `{"id":" ","name":"x"}`: true,
		`{"id":"1"}`: true, `{"id":"1","name":null}`: true, `{"id":"1","name":7}`: true,
		`{"id":"1","name":"x","client_id":7}`: false, `{"id":"1","name":"x","enabled":"yes"}`: false, `{"id":"1","name":"x","expires_at":"soon"}`: false,
		`{"id":"1","name":"x","last_seen_at":{}}`: false, `{"id":"1","name":"new","last_seen_at":7}`: true,
	} {
		url, _ := serve(t, answer(200, "application/json", `{"success":true,"errors":[],"messages":[],"result":[`+entry+`,`+ours+`],"result_info":{"total_count":2}}`))
		c := client(t, url, cloudflare.Options{})
		listing, err := c.List(t.Context())
		if err != nil || len(listing.Tokens) != 1 || listing.Tokens[0].Name != "ours" || listing.Unreadable() == "" {
			t.Errorf("%s: %+v: %v", entry, listing, err)
		}
		if _, err := c.Find(t.Context(), "new"); (err != nil) != hidden {
			t.Errorf("%s: whether there is one of that name: %v", entry, err)
		}
		if found, err := c.Find(t.Context(), "ours"); err != nil || len(found) != 1 {
			t.Errorf("%s: the one that can be read is not found: %v", entry, err)
		}
	}
	// An absent, null or empty field is not a fault, and neither is a time that never was.
	for _, fields := range []string{``, `,"expires_at":null,"last_seen_at":""`, `,"expires_at":"0001-01-01T00:00:00Z"`, `,"expires_at":"9999-12-31T23:59:59Z"`, `,"more":[]`} {
		url, _ := serve(t, answer(200, "application/json", `{"success":true,"errors":[],"messages":[],"result":[{"id":"1","name":"x"`+fields+`}]}`))
		if listing, err := client(t, url, cloudflare.Options{}).List(t.Context()); err != nil || listing.Unreadable() != "" {
			t.Errorf("%s: %+v, %v", fields, listing, err)
		}
	}
}

// TestOddTimes: a time in the past cannot be in the year 9999, where it would hide every later one. A time
// that the ledger cannot store is dropped.
func TestOddTimes(t *testing.T) {
	for at, want := range map[string][2]bool{ // whether updated_at and expires_at are used
		"2026-11-23T04:00:00.12345Z": {true, true}, "9999-12-31T23:59:59Z": {false, true}, "9999-12-31T23:59:59-01:00": {false, false},
		"0001-01-01T00:00:00Z": {false, false}, "0001-01-01T00:00:00+01:00": {false, false}, "-0001-01-01T00:00:00Z": {false, false},
		"1764302400": {false, false}, "yesterday": {false, false},
	} {
		url, _ := serve(t, answer(200, "application/json", `{"success":true,"errors":[],"messages":[],"result":{"id":"`+tokenID+`","updated_at":"`+at+`","expires_at":"`+at+`"}}`))
		facts, err := client(t, url, cloudflare.Options{}).Inspect(t.Context(), tokenID)
		if err != nil || facts.UpdatedAt.IsZero() == want[0] || facts.ExpiresAt.IsZero() == want[1] {
			t.Errorf("%s: %+v, %v", at, facts, err)
		}
		if _, err := json.Marshal(rotation.Record{Facts: facts}); err != nil {
			t.Errorf("%s: the ledger cannot keep it: %v", at, err)
		}
	}
}
