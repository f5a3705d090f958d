package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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
	if got, want := out.String(), "no rotation orders are pending for prod\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestStatusBeginsWithTrouble: whoever looks at all tokens sees first what to act on, the worst at the top.
func TestStatusBeginsWithTrouble(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	o := admin.Overview{Tokens: []status.Token{
		{Name: "fine", State: "idle", LastSuccess: now},
		{Name: "a", State: "idle", Outside: now.Add(-time.Minute)},
		{Name: "b", State: "idle", Gone: true},
		{Name: "c", State: "stored", Verification: &status.Verification{Refused: true}},
		{Name: "d", State: "stored", Verification: &status.Verification{}},
		{Name: "e", State: "idle", Order: &status.Order{}, Next: now.Add(time.Hour)},
		{Name: "f", State: "idle", Known: true, Order: &status.Order{}},
		{Name: "g", State: "idle", ReissueOwed: now, CutOffAt: now.Add(time.Hour), Failures: 1},
		{Name: "h", State: "idle", ReissueOwed: now, CutOffAt: now.Add(-time.Hour), Emergency: true, Failures: 1},
		{Name: "i", State: "intent", CutOffAt: now, Emergency: true}, // for a moment, as in every rotation
		{Name: "j", State: "idle", Failures: 2},
		{Name: "k", State: "idle", Known: true, Enabled: true, Expiry: now.Add(10 * 24 * time.Hour)},
	}, Checks: []status.Check{
		{Name: status.CheckVault, Stops: true, Since: now.Add(-3 * time.Minute), Reason: "sealed", Detail: "Vault is sealed"},
		{Name: status.CheckCloudflare, Subject: "prod", Stops: true, Reason: "refused", Detail: "refused"},
		{Name: status.CheckDiskSpace, OK: true},
	}}
	o.Tokens[5].Account = "other"
	want := `CRITICAL  h: clients have no secret that works, or will have none within two minutes (until 2026-03-01 11:00:00 UTC, 1 h 0 min ago)
          to do: rotatord tries every few seconds: rotatord status h says what it lacks
          see: rotatord docs runbook#rotatordconsumerscutoff
CRITICAL  b: Cloudflare has no such service token any more: its clients are locked out
          to do: in its entry of the configuration write create: {name: b} in place of id, or the id of another service token, and reload
          see: rotatord docs runbook#rotatordtokengone
CRITICAL  f: disabled at Cloudflare: its clients are locked out, whatever secret they have
          to do: find out who disabled it, and enable it in Cloudflare's dashboard: Zero Trust, Access, Service auth
          see: rotatord docs runbook#rotatordtokendisabled
CRITICAL  a: rotated by others: the secret in its sinks is dead, or will be when the grace that they gave it ends (since 2026-03-01 11:59:00 UTC, 1 min 0 s ago)
          to do: rotatord rotate a gives the sinks a secret that works
          see: rotatord docs runbook#rotatordtokenrotatedoutside
CRITICAL  c: its new secret is in every sink, and is refused where it is tried
          to do: rotatord resolve c says what can be decided
          see: rotatord docs runbook#rotatordverifyfailing
CRITICAL  g, h: their secrets were lost, and the rotations that replace them have not succeeded yet (since 2026-03-01 12:00:00 UTC, now, until 2026-03-01 11:00:00 UTC, 1 h 0 min ago)
          to do: rotatord status NAME says why, and how long clients have a secret that works
          see: rotatord docs runbook#rotatordreissuedelayed
CRITICAL  Vault is sealed (since 2026-03-01 11:57:00 UTC, 3 min 0 s ago)
          to do: no rotation begins until Vault can be used: unseal it, or mend the way to it or the login
          type: vault operator unseal
                Once for each key that is needed, until it says Sealed false. Rotations go on by themselves.
          see: rotatord docs runbook#check-vault
WARNING   j: its rotations fail; its present secret works on
          to do: rotatord status j has the last error; the next attempt comes by itself
          see: rotatord docs runbook#rotatordrotationfailing
WARNING   k: the service token expires within 14 days, and rotating its secret does not renew it (until 2026-03-11 12:00:00 UTC, in 10 d)
          to do: set renew_before, or renew it in Cloudflare's dashboard
          see: rotatord docs runbook#rotatordtokenexpiressoon
WARNING   Cloudflare account prod: refused
          to do: no rotation of the account begins until Cloudflare takes its credential: rotatord doctor says what is wrong with it
          In Cloudflare's dashboard create an API token for this account with the permission Access: Service Tokens Write, or give the one in use that permission.
          type: rotatord doctor
                Say whether Cloudflare takes it.
          see: rotatord docs runbook#check-cloudflare

TOKEN   STATE             NEXT           LAST SUCCESS   GRACE ENDS   FAILURES   REASON
fine    idle              –              now            –            0          
a       rotated_outside   –              –              –            0          
b       gone              –              –              –            0          
c       stored, refused   –              –              –            0          
`
	var out strings.Builder
	if err := write(&out, overviewText(o, true, now)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, out.String()[:min(len(want), out.Len())]); diff != "" {
		t.Errorf("(-want +got):\n%s\n%s", diff, out.String())
	}
	if !strings.Contains(out.String(), "\n2 pending rotation order(s): ") {
		t.Error(out.String())
	}
	out.Reset()
	if err := write(&out, overviewText(admin.Overview{Tokens: o.Tokens[:1]}, true, now)); err != nil || strings.Count(out.String(), "\n") != 2 {
		t.Error(err, out.String())
	}
}

// TestStatusShowsDanger: until when consumers have a secret that works, or since when they have none.
func TestStatusShowsDanger(t *testing.T) {
	now := time.Now()
	for want, token := range map[string]status.Token{
		"consumers        have a secret that works until":             {ReissueOwed: now, CutOffAt: now.Add(time.Hour)},
		"CUT OFF          consumers have had no working secret since": {CutOffAt: now.Add(-time.Minute), Emergency: true, Failures: 1},
		"reissue owed     since":                                      {ReissueOwed: now, CutOffAt: now.Add(time.Hour)},
	} {
		var out strings.Builder
		if err := write(&out, tokenText(token, admin.Overview{}, now)); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%v, %q is missing in\n%s", err, want, out.String())
		}
	}
	var out strings.Builder
	if err := write(&out, tokenText(status.Token{CutOffAt: now, Emergency: true}, admin.Overview{}, now)); err != nil || strings.Contains(out.String(), "CUT OFF") {
		t.Errorf("%v: the moment that every rotation takes must not raise an alarm:\n%s", err, out.String())
	}
}
