package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/config"
)

// TestLint checks what depends on the date.
func TestLint(t *testing.T) {
	const now = "2026-11-24T12:00:00Z"
	for _, test := range []struct {
		name                     string
		freezes, schedule, field string
		want                     []string
	}{
		{"nothing", "x: {from: 2026-12-20, to: 2027-01-04}", "0 4 * * 1", "", nil},
		{"over", "x: {from: 2026-11-20, to: 2026-11-24 13:00, time_zone: Europe/Berlin}", "0 4 * * 1", "",
			[]string{"1:14: freezes.x: is over since 2026-11-24 13:00:00+01:00: remove it"}},
		{"not over for a second more", "x: {from: 2026-11-20, to: 2026-11-24 12:00:01}", "0 12 * * *", "grace: 1h", nil},
		{"over, and no token's", "x: {from: 2026-11-20, to: 2026-11-24}", "0 4 * * 1", "except_freezes: [x]",
			[]string{"1:14: freezes.x: is over since 2026-11-24 00:00:00Z: remove it"}},
		{"between slots", "x: {from: 2026-12-01, to: 2026-12-07 04:00}", "0 4 * * 1", "",
			[]string{"1:14: freezes.x: the freeze x (from 2026-12-01 00:00:00Z to 2026-12-07 04:00:00Z) covers no slot of any token that it applies to " +
				"before 2028-11-24 12:00:00Z: move it, or remove it"}},
		{"up to a slot", "x: {from: 2026-12-01, to: 2026-12-07 04:00:01}", "0 4 * * 1", "", nil},
		{"after a slot", "x: {from: 2026-12-07 04:00:01, to: 2026-12-12}", "0 4 * * 1", "",
			[]string{"1:14: freezes.x: the freeze x (from 2026-12-07 04:00:01Z to 2026-12-12 00:00:00Z) covers no slot of any token that it applies to " +
				"before 2028-11-24 12:00:00Z: move it, or remove it"}},
		{"after a slot that has jitter", "x: {from: 2026-12-07 04:00:01, to: 2026-12-12}", "0 4 * * 1", "jitter: 2s", nil},
		{"in another century", "x: {from: 2126-12-20, to: 2127-01-04}", "0 4 * * 1", "",
			[]string{"1:14: freezes.x: the freeze x (from 2126-12-20 00:00:00Z to 2127-01-04 00:00:00Z) covers no slot of any token that it applies to " +
				"before 2028-11-24 12:00:00Z: move it, or remove it"}},
		{"weekends and weekdays", "x: {schedule: 0 18 * * 5, duration: 48h}", "0 4 * * 1", "",
			[]string{"1:14: freezes.x: the freeze x (48h from each 0 18 * * 5, UTC) covers no slot of any token that it applies to " +
				"before 2028-11-24 12:00:00Z: move it, or remove it"}},
		{"weekends and the first of a month", "x: {schedule: 0 18 * * 5, duration: 48h}", "0 4 1 * *", "", nil},
		{"weekends and Christmas, which was one in 2022", "x: {schedule: 0 0 * * 0, duration: 24h}", "0 4 25 12 *", "",
			[]string{"1:14: freezes.x: the freeze x (24h from each 0 0 * * 0, UTC) covers no slot of any token that it applies to " +
				"before 2028-11-24 12:00:00Z: move it, or remove it"}},
		{"@every", "x: {from: 2026-12-01, to: 2026-12-02}", "@every 720h", "", nil},
		{"of one token", "x: {from: 2026-12-20, to: 2027-01-04}", "0 4 * * 1", "freezes: {y: {from: 2026-11-01, to: 2026-11-02}}",
			[]string{"15:18: tokens.ci.freezes.y: is over since 2026-11-02 00:00:00Z: remove it"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			text := "freezes: {" + test.freezes + "}\n" + replaced(t, `"@weekly"`, `"`+test.schedule+"\"\n    "+test.field)
			cfg := parse(t, text)
			if diff := cmp.Diff(test.want, lines(cfg.Lint(at(t, now)))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestLintOfAnyToken checks that a freeze is of use if one of many tokens has a slot in it.
func TestLintOfAnyToken(t *testing.T) {
	text := "freezes: {x: {schedule: 0 0 * * 6, duration: 24h}}\n" + replaced(t, "@weekly", "0 4 * * 1") + `  other:
    account: prod
    id: 3f2b8a52-1d0e-4c3c-9a54-7d0c0f6f2b11
    schedule: "0 23 * * 6"
    freezes: {y: {schedule: 0 0 * * 0, duration: 1h}}
    sinks: [{vault: {mount: secret, path: access/other}}]
`
	got := lines(parse(t, text).Lint(at(t, "2026-11-24T12:00:00Z")))
	if len(got) != 1 || !strings.HasPrefix(got[0], "21:18: tokens.other.freezes.y: the freeze y (1h from each 0 0 * * 0, UTC) covers no slot") {
		t.Errorf("%q", got)
	}
}

// TestLintWithoutFile checks that Lint works for a configuration that was not read from a file, and returns nothing.
func TestLintWithoutFile(t *testing.T) {
	if got := new(config.Config).Lint(time.Now()); len(got) != 0 {
		t.Errorf("%q", lines(got))
	}
}

func TestExpiryFault(t *testing.T) {
	const (
		id      = "f174e90a-fafe-4643-bbbc-4a0ed4fc8415"
		late    = "10:3: tokens.ci: the next rotation begins at 2026-11-30T04:00:00Z, and the service token itself ends at 2026-11-30T04:00:00Z already: "
		over    = "10:3: tokens.ci: the service token itself has ended at 2026-11-24T12:00:00Z, and a rotation renews its secret alone: "
		byHand  = "renew it in the Cloudflare dashboard, or by API (POST .../access/service_tokens/" + id + "/refresh)"
		ofZone  = "renew it in the Cloudflare dashboard, or by API (PUT .../access/service_tokens/" + id + ", with a duration)"
		inTime  = ", and set renew_before, which does so in time"
		remains = ", or rotate more often"
	)
	// Each is as long as minimal up to the entry of the token.
	renewed := replaced(t, `"@weekly"`, "\"@weekly\"\n    renew_before: 1h")
	zone := replaced(t, "account_id:", "zone_id:", `"@weekly"`, "\"@weekly\"\n    strategy: replace")
	now := at(t, "2026-11-24T12:00:00Z")
	for _, test := range []struct{ name, text, next, expires, want string }{
		{"in time", minimal, "2026-11-30T04:00:00Z", "2026-11-30T04:00:01Z", ""},
		{"unknown, or for ever", minimal, "2026-11-30T04:00:00Z", "", ""},
		{"no rotation at all", minimal, "", "2026-11-30T04:00:00Z", ""},
		{"too late", minimal, "2026-11-30T04:00:00Z", "2026-11-29T23:00:00-05:00", late + "set renew_before, or " + byHand + remains},
		{"over already", minimal, "2026-11-30T04:00:00Z", "2026-11-24T12:00:00Z", over + byHand + inTime},
		{"over already, and no rotation", minimal, "", "2026-11-24T12:00:00Z", over + byHand + inTime},
		{"renewed before that", renewed, "2026-11-30T04:00:00Z", "2026-11-24T12:00:01Z", ""},
		{"over although it was to be renewed", renewed, "2026-11-30T04:00:00Z", "2026-11-24T12:00:00Z", over + byHand},
		{"of a zone, too late", zone, "2026-11-30T04:00:00Z", "2026-11-30T04:00:00Z", late + "set renew_before, or " + ofZone + remains},
		{"of a zone, over already", zone, "", "2026-11-24T12:00:00Z", over + ofZone + inTime},
	} {
		var next, expires time.Time
		if test.next != "" {
			next = at(t, test.next)
		}
		if test.expires != "" {
			expires = at(t, test.expires)
		}
		fault, found := parse(t, test.text).ExpiryFault("ci", id, now, next, expires)
		got := ""
		if found {
			got = lines([]config.Fault{fault})[0]
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
	// A token that the configuration does not know is still reported.
	if _, found := new(config.Config).ExpiryFault("ci", id, now, now, now); !found {
		t.Error("a token of no file is not reported")
	}
}
