package main

import (
	"strings"
	"testing"
	"time"

	"rotatord/internal/admin"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

var viewTime = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// shown is what the command prints of an outcome.
func shown(t *testing.T, o admin.Outcome) string {
	t.Helper()
	var b strings.Builder
	if err := printOutcome(&b, o, viewTime); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestOutcomeTexts holds what an operator must be told, and must not.
func TestOutcomeTexts(t *testing.T) {
	graceful := status.Doubt{Reason: rotation.ReasonOutcomeUnknown, OldWorksUntil: viewTime.Add(time.Hour)}
	carriedOut, spare, none, unfamiliar, invalid, late := graceful, graceful, graceful, graceful, graceful, graceful
	carriedOut.CarriedOut, carriedOut.Extensions = true, 2
	spare.Spare, spare.OldWorksUntil = true, time.Time{}
	none.OldWorksUntil = time.Time{}
	unfamiliar.Reason, unfamiliar.AnswerSealed, unfamiliar.Deliverable, unfamiliar.CarriedOut = rotation.ReasonUnfamiliarSecret, true, true, true
	invalid.Reason, invalid.AnswerSealed, invalid.CarriedOut = rotation.ReasonAnswerInvalid, true, true
	late.OldWorksUntil = viewTime.Add(-time.Hour)

	const cutsOff, wouldHave = "CUTS OFF the old secret", "The old secret would have worked until 2026-03-01 13:00:00 UTC (in 1 h 0 min)."
	const again, served, delivered = "The token is rotated again now.", "The slot is due again and is served now.", "The sealed answer is written to the sinks now."
	for _, c := range []struct {
		name     string
		reason   string
		resolved bool
		doubt    status.Doubt
		want     []string
		not      []string
	}{
		{"stays", rotation.ReasonUnderWay, false, graceful,
			[]string{"works until 2026-03-01 13:00:00 UTC (in 1 h 0 min)", "--rotate-now", "--assume-not-rotated", cutsOff, "what comes next", "If Cloudflare shows that the rotation was carried out, rotatord extends"}, []string{"--deliver"}},
		{"stays, carried out", rotation.ReasonOldSecretWorks, false, carriedOut,
			[]string{"It extends the grace of the old secret, and rotates the token again three graces after the request.", "its grace was extended 2 time(s)", "shows that the rotation was carried out", "This " + cutsOff}, []string{"Otherwise it rotates", "--assume-not-rotated", "--deliver"}},
		{"stays, of a pair", rotation.ReasonUnderWay, false, spare,
			[]string{"not changed: consumers use the other service token", "--rotate-now"}, []string{cutsOff, "before the old secret stops"}},
		{"stays, unfamiliar", rotation.ReasonOldSecretWorks, false, unfamiliar, []string{"--deliver", "is sealed on the daemon's disk"}, []string{"--assume-not-rotated", "is not delivered"}},
		{"stays, invalid", rotation.ReasonOldSecretWorks, false, invalid, []string{"is sealed on the daemon's disk, and holds no secret that this token could use, so it is not delivered"}, []string{"--assume-not-rotated", "--deliver"}},
		{"rotate now", rotation.ReasonOperatorRotateNow, true, graceful, []string{again, wouldHave}, []string{"what you can decide", delivered}},
		{"rotate now, of a pair", rotation.ReasonOperatorRotateNow, true, spare, []string{again}, []string{"would have worked"}},
		{"rotate now, too late", rotation.ReasonOperatorRotateNow, true, late, []string{again, "stopped working at 2026-03-01 11:00:00 UTC"}, []string{"would have worked"}},
		{"rotate now, unfamiliar", rotation.ReasonOperatorRotateNow, true, unfamiliar, []string{again, wouldHave}, []string{delivered}},
		{"not rotated", rotation.ReasonOperatorNotRotated, true, graceful, []string{served, wouldHave}, []string{again}},
		{"unchanged", rotation.ReasonUpdatedAtUnchanged, true, graceful, []string{served}, []string{again, "would have worked"}},
		{"delivered", rotation.ReasonOperatorDeliver, true, unfamiliar, []string{delivered}, []string{again, "would have worked"}},
		{"no grace", rotation.ReasonOldSecretRevoked, true, none, []string{again, "revoked at once, if"}, []string{"would have worked"}},
		{"grace ends, unfamiliar", rotation.ReasonGraceEnding, true, unfamiliar, []string{delivered}, []string{again}},
	} {
		got := shown(t, admin.Outcome{Token: status.Token{Name: "ci", Next: viewTime.Add(time.Minute)}, Doubt: c.doubt, Resolved: c.resolved, Reason: c.reason,
			Delivers: c.resolved && c.doubt.Deliverable && c.reason != rotation.ReasonOperatorRotateNow})
		flat := strings.Join(strings.Fields(got), " ")
		for _, want := range c.want {
			if !strings.Contains(flat, want) {
				t.Errorf("%s: it does not say %q:\n%s", c.name, want, got)
			}
		}
		for _, not := range c.not {
			if strings.Contains(flat, not) {
				t.Errorf("%s: it says %q:\n%s", c.name, not, got)
			}
		}
		for line := range strings.Lines(got) {
			if strings.TrimRight(line, " \n")+"\n" != line && line != "\n" {
				t.Errorf("%s: white space at the end of %q", c.name, line)
			}
		}
	}
}
