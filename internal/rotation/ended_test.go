package rotation

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"rotatord/internal/event"
)

// TestOwedReissueIsLoggedAsAnError: nothing was sent, but consumers depend on the old secret, or have none.
func TestOwedReissueIsLoggedAsAnError(t *testing.T) {
	now := time.Now().UTC()
	lost := Lost{RotationID: "R0", At: now.Add(-25 * time.Hour), Since: now.Add(-time.Hour), Grace: Grace(24 * time.Hour), Until: now.Add(time.Hour)}
	over, second := lost, lost
	over.Until, second.CutOff = now.Add(-time.Minute), now.Add(-2*time.Minute)
	known := Record{OldDiesBy: lost.Until, Lost: &lost}
	for name, test := range map[string]struct {
		record Record
		result event.Result
		want   []string
	}{
		"grace extended":                  {known, event.ResultSkipped, []string{"level=ERROR", "could not be made up for yet: the grace of the old secret is extended", "old_works_until=" + lost.Until.Format("2006-01-02T15:04")}},
		"refused by Cloudflare":           {known, event.ResultFailed, []string{"level=ERROR", "the grace of the old secret is extended"}},
		"it is over":                      {Record{OldDiesBy: over.Until, Lost: &over}, event.ResultSkipped, []string{"level=ERROR", "consumers have no secret that works", "since=" + over.Until.Format("2006-01-02T15:04")}},
		"lost twice":                      {Record{Lost: &second}, event.ResultSkipped, []string{"level=ERROR", "consumers have no secret that works"}},
		"without a grace":                 {Record{Lost: &Lost{At: now, Since: now}}, event.ResultSkipped, []string{"level=ERROR", "consumers have no secret that works"}},
		"a leak order":                    {Record{OldDiesBy: lost.Until, Lost: &lost, Order: &Order{Overrides: Overrides{RevokeNow: true}}}, event.ResultSkipped, []string{"level=ERROR", "which is not extended"}},
		"a previous one that was revoked": {Record{Lost: &lost, Last: &Done{Revoked: true}}, event.ResultSkipped, []string{"level=ERROR", "which is not extended"}},
		"in doubt again":                  {Record{Step: StepInDoubt, Lost: &lost, Work: &Work{}, Doubt: &Doubt{}}, event.ResultInDoubt, []string{"level=ERROR", "the token is in doubt", "owed_since="}},
		"nothing is lost":                 {Record{}, event.ResultSkipped, []string{"level=WARN", "rotation skipped: nothing was sent to Cloudflare"}},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			d := test.record.ended(&Work{}, test.result, now)
			d.Reason, d.Err = "preflight", errors.New("Vault is sealed")
			event.NewLog(slog.New(slog.NewTextHandler(&out, nil))).Handle(event.New(now, "ci", event.Daemon, d))
			for _, want := range test.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("%q is missing in %s", want, out.String())
				}
			}
		})
	}
}
