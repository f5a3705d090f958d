package app

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// TestOwedReissueIsLoggedAsAnError: nothing was sent, but consumers depend on the old secret, or have none.
func TestOwedReissueIsLoggedAsAnError(t *testing.T) {
	now := time.Now().UTC()
	lost := rotation.Lost{RotationID: "R0", At: now.Add(-25 * time.Hour), Since: now.Add(-time.Hour), Grace: rotation.Grace(24 * time.Hour), Until: now.Add(time.Hour)}
	over, second := lost, lost
	over.Until, second.CutOff = now.Add(-time.Minute), now.Add(-2*time.Minute)
	known := rotation.Record{OldDiesBy: lost.Until, Lost: &lost}
	for name, test := range map[string]struct {
		record rotation.Record
		result rotation.Result
		want   []string
	}{
		"kept alive":                      {known, rotation.ResultSkipped, []string{"level=ERROR", "could not be made up for yet: the old secret is kept alive", "old_works_until=" + lost.Until.Format("2006-01-02T15:04")}},
		"refused by Cloudflare":           {known, rotation.ResultFailed, []string{"level=ERROR", "the old secret is kept alive"}},
		"it is over":                      {rotation.Record{OldDiesBy: over.Until, Lost: &over}, rotation.ResultSkipped, []string{"level=ERROR", "consumers have no secret that works", "since=" + over.Until.Format("2006-01-02T15:04")}},
		"lost twice":                      {rotation.Record{Lost: &second}, rotation.ResultSkipped, []string{"level=ERROR", "consumers have no secret that works"}},
		"without a grace":                 {rotation.Record{Lost: &rotation.Lost{At: now, Since: now}}, rotation.ResultSkipped, []string{"level=ERROR", "consumers have no secret that works"}},
		"a leak order":                    {rotation.Record{OldDiesBy: lost.Until, Lost: &lost, Order: &rotation.Order{Overrides: rotation.Overrides{RevokeNow: true}}}, rotation.ResultSkipped, []string{"level=ERROR", "which is not extended"}},
		"a previous one that was revoked": {rotation.Record{Lost: &lost, Last: &rotation.Done{Revoked: true}}, rotation.ResultSkipped, []string{"level=ERROR", "which is not extended"}},
		"in doubt again":                  {rotation.Record{Step: rotation.StepInDoubt, Lost: &lost, Work: &rotation.Work{}, Doubt: &rotation.Doubt{}}, rotation.ResultInDoubt, []string{"level=ERROR", "the token is in doubt", "owed_since="}},
		"nothing is lost":                 {rotation.Record{}, rotation.ResultSkipped, []string{"level=WARN", "rotation skipped: nothing was sent to Cloudflare"}},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			event.NewLog(slog.New(slog.NewTextHandler(&out, nil))).Handle(event.New(now, "ci", event.Daemon, ended(rotation.Attempted{
				Token: "ci", Result: test.result, Reason: "preflight", Err: errors.New("Vault is sealed"), Record: test.record,
			}, now)))
			for _, want := range test.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("%q is missing in %s", want, out.String())
				}
			}
		})
	}
}

// TestOwedReissueIsShown: what the ledger knows about it is in the status of the token.
func TestOwedReissueIsShown(t *testing.T) {
	now := time.Now().UTC()
	lost := &rotation.Lost{At: now, Since: now, Until: now.Add(time.Minute)}
	s := status.Token{Failures: 1}
	showDanger(&s, rotation.Record{Lost: lost}, now)
	if !s.ReissueOwed.Equal(now) || !s.CutOffAt.Equal(lost.Until) || !s.Emergency || !s.Endangered() {
		t.Errorf("%+v", s)
	}
	s = status.Token{}
	if showDanger(&s, rotation.Record{}, now); !s.ReissueOwed.IsZero() || !s.CutOffAt.IsZero() || s.Emergency {
		t.Errorf("%+v", s)
	}
}
