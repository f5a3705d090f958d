package main

import (
	"strings"
	"testing"
	"time"

	"rotatord/internal/admin"
	"rotatord/internal/status"
)

// TestProgressLine: whoever waits for orders is told what holds them up.
func TestProgressLine(t *testing.T) {
	now := time.Date(2026, 12, 20, 20, 0, 10, 0, time.UTC)
	left := admin.Left{Token: "ci", State: "idle", Next: now.Add(time.Second), Reason: "ordered"}
	frozen, failing := left, left
	frozen.Next, frozen.Reason = time.Date(2027, 1, 4, 5, 0, 0, 0, time.UTC), "freeze"
	failing.LastError = "Vault is sealed"
	for want, l := range map[string]admin.Left{
		"20:00:10  1 of 2 rotated, about 10 s to go":                                              left,
		"20:00:10  1 of 2 rotated, about 10 s to go; ci: Vault is sealed":                         failing,
		"20:00:10  1 of 2 rotated, about 10 s to go; ci waits until 2027-01-04T05:00:00Z: freeze": frozen,
	} {
		if got := progressLine(admin.Progress{Left: []admin.Left{l}}, 2, now.Add(-10*time.Second), now); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestProgressIsWatched: a look at orders that are carried out does not say that there are no tokens.
func TestProgressIsWatched(t *testing.T) {
	var out strings.Builder
	if err := printProgress(&out, admin.Progress{Account: "prod", Tokens: 3}, 0, true, time.Now()); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "no order is left of prod\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestStatusHasAlarms: whoever looks at all tokens sees what somebody has to act on.
func TestStatusHasAlarms(t *testing.T) {
	now := time.Now()
	o := admin.Overview{Tokens: []status.Token{
		{Name: "fine"},
		{Name: "a", Outside: now},
		{Name: "b", Gone: true},
		{Name: "c", Verification: &status.Verification{Refused: true}},
		{Name: "d", Verification: &status.Verification{}},
		{Name: "e", Order: &status.Order{}},
		{Name: "f", Order: &status.Order{}},
		{Name: "g", ReissueOwed: now, CutOffAt: now.Add(time.Hour), Failures: 1},
		{Name: "h", ReissueOwed: now, CutOffAt: now.Add(-time.Hour), Emergency: true, Failures: 1},
		{Name: "i", CutOffAt: now, Emergency: true}, // for a moment, as in every rotation
	}}
	var out strings.Builder
	if err := printTokens(&out, o, now); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\n1 rotated by somebody else: ", "\n1 gone at Cloudflare: ", "\n1 with a new secret that is refused ", "\n2 ordered to be rotated, and not done yet: ",
		"\n2 with a lost secret that is not made up for yet: ", "\n1 whose consumers have no secret that works, "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "in doubt") {
		t.Error(out.String())
	}
	out.Reset()
	if err := printTokens(&out, admin.Overview{Tokens: o.Tokens[:1]}, now); err != nil || strings.Count(out.String(), "\n") != 2 {
		t.Error(err, out.String())
	}
}

// TestStatusShowsDanger: until when consumers have a secret that works, or since when they have none.
func TestStatusShowsDanger(t *testing.T) {
	now := time.Now()
	for want, token := range map[string]status.Token{
		"consumers        have a secret that works until":            {ReissueOwed: now, CutOffAt: now.Add(time.Hour)},
		"CUT OFF          consumers have no secret that works since": {CutOffAt: now.Add(-time.Minute), Emergency: true, Failures: 1},
		"reissue owed     since":                                     {ReissueOwed: now, CutOffAt: now.Add(time.Hour)},
	} {
		var out strings.Builder
		if err := printToken(&out, token, admin.Overview{}, now); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%v, %q is missing in\n%s", err, want, out.String())
		}
	}
	var out strings.Builder
	if err := printToken(&out, status.Token{CutOffAt: now, Emergency: true}, admin.Overview{}, now); err != nil || strings.Contains(out.String(), "CUT OFF") {
		t.Errorf("%v: the moment that every rotation takes is no alarm:\n%s", err, out.String())
	}
}
