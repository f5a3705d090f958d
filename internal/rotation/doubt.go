package rotation

import "time"

// Reasons for a doubt, and for how it was resolved. They are stable codes.
const (
	// Why a token is in doubt.
	ReasonOutcomeUnknown   = "outcome_unknown"   // the request left and no usable answer came
	ReasonAnswerInvalid    = "answer_invalid"    // an answer came for another client, or without a secret
	ReasonUnfamiliarSecret = "unfamiliar_secret" // an answer came with a secret of neither known format
	ReasonInterrupted      = "interrupted"       // the process ended between intent and seal

	// Why it is no longer, or still, in doubt.
	ReasonUpdatedAtUnchanged = "updated_at_unchanged" // not carried out: back to due
	ReasonOldSecretRevoked   = "old_secret_revoked"   // grace 0: the old secret is dead already
	ReasonGraceEnding        = "grace_ending"         // the old secret is about to die
	ReasonOldSecretWorks     = "old_secret_works"     // wait: rotating again would kill it
	ReasonSettling           = "settling"             // wait: the request may still be under way
)

// Verdict is what to do about a token in doubt.
type Verdict struct {
	// Resolved is set if the token may be rotated now: either nothing was carried
	// out, or the old secret is of no more use to anybody.
	Resolved bool
	// Deliver is set with Resolved if the sealed answer is to be delivered instead.
	Deliver bool
	Reason  string
	// Again is when to look again if it is not resolved.
	Again time.Time
}

// The oracle is asked once a request that was under way when we lost sight of it must
// have been carried out or dropped; after that, now and again until the grace ends.
const (
	settleTime     = time.Minute
	doubtRecheck   = 10 * time.Minute
	maxGraceMargin = time.Hour
)

// graceMargin is how long before the end of the grace a token in doubt is reissued. If the
// request in doubt was carried out, reissuing cuts the old secret off at once, so the
// margin is no overlap: it is time for failing attempts, taken from an operator's.
func graceMargin(grace time.Duration) time.Duration { return min(grace/4, maxGraceMargin) }

// Judge decides about a token in doubt. facts are the token's as read now, or nil if it
// could not be read. trusted says whether on this account an unchanged updated_at
// proves that no rotation took place.
//
// The rule behind it: never rotate again while the old secret may still be the one that
// works. Rotating would make a lost secret the "previous" one and cut the old one off.
//
// A secret of an unfamiliar format is delivered in the place of a rotation: should
// Cloudflare introduce a third format, rotating would bring another one of it.
func Judge(r Record, facts *TokenFacts, trusted bool, now time.Time) Verdict {
	grace := time.Duration(r.Work.Grace)
	deliver := r.Doubt.Sealed && r.Doubt.Reason == ReasonUnfamiliarSecret
	if grace == 0 {
		// Either nothing was carried out, and rotating is what was wanted, or the old
		// secret died with the request, and only rotating brings a working one.
		return Verdict{Resolved: true, Deliver: deliver, Reason: ReasonOldSecretRevoked}
	}
	reissueAt := r.Doubt.OldWorksUntil.Add(-graceMargin(grace))
	if !now.Before(reissueAt) {
		return Verdict{Resolved: true, Deliver: deliver, Reason: ReasonGraceEnding}
	}
	if settled := r.Doubt.Since.Add(settleTime); now.Before(settled) {
		return Verdict{Reason: ReasonSettling, Again: earlier(settled, reissueAt)}
	}
	// Where an answer came, even an invalid one, something was issued.
	if trusted && facts != nil && !r.Doubt.answered() && unchanged(r.Work.Before, *facts) {
		return Verdict{Resolved: true, Reason: ReasonUpdatedAtUnchanged}
	}
	return Verdict{Reason: ReasonOldSecretWorks, Again: earlier(now.Add(doubtRecheck), reissueAt)}
}

func (d *Doubt) answered() bool {
	return d.Reason == ReasonAnswerInvalid || d.Reason == ReasonUnfamiliarSecret
}

func unchanged(before, after TokenFacts) bool {
	return !before.UpdatedAt.IsZero() && before.UpdatedAt.Equal(after.UpdatedAt)
}

// oracleTrusted reports whether the confirmed rotations of one account have shown that
// updated_at moves with each.
func oracleTrusted(records []Record, account string) bool {
	moved := 0
	for _, r := range records {
		if r.Account != account {
			continue
		}
		if r.Still > 0 {
			return false
		}
		moved += r.Moved
	}
	return moved > 0
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
