package rotation

import "time"

// Reasons for a doubt, and for how it was resolved. They are stable codes.
const (
	// Why a token is in doubt.
	ReasonOutcomeUnknown   = "outcome_unknown"   // the request left and no usable answer came
	ReasonAnswerInvalid    = "answer_invalid"    // an answer came for another client, or without a secret
	ReasonUnfamiliarSecret = "unfamiliar_secret" // an answer came with a secret of neither known format
	ReasonOddAnswer        = "odd_answer"        // an answer came with a good secret, and something else in it speaks against it
	ReasonInterrupted      = "interrupted"       // the process ended between intent and seal
	ReasonSealedLost       = "sealed_lost"       // what was sealed is gone from disk, or cannot be opened

	// Why it is no longer, or still, in doubt.
	ReasonUpdatedAtUnchanged = "updated_at_unchanged" // not carried out: back to due
	ReasonOldSecretRevoked   = "old_secret_revoked"   // grace 0: the old secret is dead already
	ReasonGraceEnding        = "grace_ending"         // the old secret is about to die
	ReasonOldSecretWorks     = "old_secret_works"     // wait: rotating again would kill it
	ReasonSettling           = "settling"             // wait: the request may still be under way
	ReasonSpare              = "spare"                // pair: what was rotated is not in use, so do it again
	ReasonUnfamiliarKept     = "unfamiliar_kept"      // pair or new token: wait for an operator, what is in use works on
	ReasonMadeAndLost        = "made_and_lost"        // a service token was made, and its secret is lost
	ReasonMadeAndSealed      = "made_and_sealed"      // a service token was made, and the sealed answer is about it
	ReasonNotMade            = "not_made"             // no service token was made: back to due
	ReasonCannotLook         = "cannot_look"          // wait: it is not known whether a service token was made
	ReasonOperatorRotateNow  = "operator_rotate_now"  // an operator had it reissued
	ReasonOperatorNotRotated = "operator_not_rotated" // an operator knows that nothing was carried out
	ReasonOperatorDeliver    = "operator_deliver"     // an operator had the sealed answer delivered

	// Why a secret that was delivered is not taken as good, or no longer is.
	ReasonUnverified     = "unverified"      // it is refused where it was tried
	ReasonOperatorAccept = "operator_accept" // an operator took it as good
)

// Verdict is what to do about a token in doubt.
type Verdict struct {
	// Resolved is set if the token may be rotated now: either nothing was carried
	// out, or the old secret is of no more use to anybody.
	Resolved bool
	// Deliver is set with Resolved if the sealed answer is to be delivered instead.
	Deliver bool
	// NotCarriedOut is set with Resolved if there is nothing to make up for.
	NotCarriedOut bool
	Reason        string
	// Again is when to look again if it is not resolved.
	Again time.Time
	// Extend asks for this much time for the old secret from now, and for another verdict
	// after that. 0 asks for nothing.
	Extend time.Duration
	// CarriedOut is set if Cloudflare shows that the request was carried out.
	CarriedOut bool
}

// trigger is that of the rotation which follows; empty if it is an ordinary one.
func (v Verdict) trigger() Trigger {
	switch {
	case v.Deliver, v.NotCarriedOut:
		return ""
	case v.Reason == ReasonOperatorRotateNow:
		return TriggerManual
	default:
		return TriggerRecovery
	}
}

// Evidence is what is known of the world when a doubt is judged.
type Evidence struct {
	// Facts are the token's as read now, or nil if it could not be read.
	Facts *TokenFacts
	// Trusted says whether on this account an unchanged updated_at proves that no
	// rotation took place.
	Trusted bool
	// Made is the service token that the request in doubt was to make, nil if there is none;
	// Looked, that it was looked for.
	Made   *TokenFacts
	Looked bool
	// CannotExtend is set if extending the grace was tried now, in vain.
	CannotExtend bool
}

// The oracle is asked once a request that was under way when we lost sight of it must
// have been carried out or dropped; after that, now and again until the grace ends.
const (
	settleTime     = time.Minute
	doubtRecheck   = 10 * time.Minute
	maxGraceMargin = time.Hour
	// doubtStretch is how many times its promised grace an old secret may live while its
	// token is in doubt: time for an operator, and a bound for a secret that was to die.
	doubtStretch = 3
)

// MaxGrace is the longest grace, and bounds the life of an old secret in any case. It is the
// longest that Cloudflare's dashboard offers.
const MaxGrace = 30 * 24 * time.Hour

// graceMargin is how long before the end of the grace a token in doubt is reissued. If the
// request in doubt was carried out, reissuing cuts the old secret off at once, so the
// margin is no overlap: it is time for failing attempts, taken from an operator's.
func graceMargin(grace time.Duration) time.Duration { return min(grace/4, maxGraceMargin) }

// settleFor is how long a pair settles. A grace that is shorter than the settling time, as in
// a demonstration, does not allow it in full.
func settleFor(grace time.Duration) time.Duration {
	if grace == 0 {
		return settleTime
	}
	return min(settleTime, grace-graceMargin(grace))
}

// Judge decides about a token in doubt.
//
// The rule behind it: never rotate again while the old secret may still be the one that
// works. Rotating would make a lost secret the "previous" one and cut the old one off.
// Of a pair the one that is rotated is not in use, so the rule does not hold it up.
//
// The old secret is given more time only where Cloudflare shows that the request was
// carried out. If it was not, "the previous secret" is an older one, which was promised
// to be dead by now and must not be revived.
//
// While an earlier request's secret is lost and not made up for, the old secret is never
// given more time, since what Cloudflare keeps as "previous" may be the lost one: it is
// reissued as soon as that can do no more harm.
//
// A secret of an unfamiliar format is delivered in the place of a rotation: should
// Cloudflare introduce a third format, rotating would bring another one of it.
func Judge(r Record, e Evidence, now time.Time) Verdict {
	d, grace := r.Doubt, time.Duration(r.Work.Grace)
	switch {
	case r.Work.Makes != "":
		return judgeMade(r, e, now)
	case r.Work.Spare && d.deliverable():
		return Verdict{Reason: ReasonUnfamiliarKept, Again: now.Add(doubtRecheck)}
	case r.Work.Spare && now.Before(d.Since.Add(settleFor(grace))):
		// Nobody is kept waiting, and a request that is still under way could undo what
		// would be delivered now.
		return Verdict{Reason: ReasonSettling, Again: d.Since.Add(settleFor(grace))}
	case r.Work.Spare:
		return Verdict{Resolved: true, Reason: ReasonSpare}
	case grace == 0:
		// Either nothing was carried out, and rotating is what was wanted, or the old
		// secret died with the request, and only rotating brings a working one.
		return Verdict{Resolved: true, Deliver: d.deliverable(), Reason: ReasonOldSecretRevoked}
	}
	end := d.OldWorksUntil
	reissueAt, halfway := end.Add(-graceMargin(grace)), end.Add(-grace/2)
	carriedOut := d.CarriedOut || d.Answered() || e.Facts != nil && movedWith(r.Work, *e.Facts)
	last := r.Work.IntentAt.Add(max(grace, min(doubtStretch*grace, MaxGrace)))
	dying := !r.OldDiesBy.IsZero()
	stretchable := !dying && !e.CannotExtend && end.Before(last)
	switch settled := d.Since.Add(settleFor(grace)); {
	case dying && carriedOut:
		// The second answer in a row is lost: what consumers use was the previous secret, and
		// died with the request. Only another rotation brings them one that works.
		return Verdict{Resolved: true, Deliver: d.deliverable(), CarriedOut: true, Reason: ReasonOldSecretRevoked}
	case dying && now.Before(settled):
		return Verdict{Reason: ReasonSettling, Again: settled}
	}
	if carriedOut && stretchable && !now.Before(halfway) && now.Before(end) {
		return Verdict{Extend: min(grace, last.Sub(now)), CarriedOut: true, Reason: ReasonOldSecretWorks, Again: now}
	}
	if !now.Before(reissueAt) {
		return Verdict{Resolved: true, Deliver: d.deliverable(), CarriedOut: carriedOut, Reason: ReasonGraceEnding}
	}
	wait := Verdict{CarriedOut: carriedOut, Reason: ReasonOldSecretWorks, Again: earlier(now.Add(doubtRecheck), reissueAt)}
	if e.CannotExtend {
		wait.Again = earlier(now.Add(settleTime), reissueAt)
	} else if stretchable && now.Before(halfway) {
		wait.Again = earlier(wait.Again, halfway)
	}
	if settled := d.Since.Add(settleTime); !carriedOut && now.Before(settled) {
		wait.Reason, wait.Again = ReasonSettling, earlier(wait.Again, settled)
		return wait
	}
	// Where an answer came, even an invalid one, something was issued.
	if e.Trusted && !carriedOut && e.Facts != nil && unchanged(r.Work.Before, *e.Facts) {
		return Verdict{Resolved: true, NotCarriedOut: true, Reason: ReasonUpdatedAtUnchanged}
	}
	return wait
}

// movedWith reports whether updated_at moved together with the rotate request.
func movedWith(w *Work, now TokenFacts) bool {
	return !w.Before.UpdatedAt.IsZero() && now.UpdatedAt.After(w.Before.UpdatedAt) && now.UpdatedAt.Sub(w.IntentAt).Abs() < movedWithin
}

// deliverable reports whether the sealed answer may be delivered although it did not pass:
// it is for the right client, and its secret merely looks unfamiliar, or something around it is
// not as documented. Rotating again would most likely bring another such answer.
func (d *Doubt) deliverable() bool {
	return d.Sealed && (d.Reason == ReasonUnfamiliarSecret || d.Reason == ReasonOddAnswer)
}

// MayDeliver reports whether an operator may have the sealed answer delivered. One that could
// not be opened may be readable by now: an identity was put back.
func (d *Doubt) MayDeliver() bool {
	return d.deliverable() || d.Sealed && d.Reason == ReasonSealedLost
}

// Answered reports whether an answer came, so that something was issued for certain.
func (d *Doubt) Answered() bool {
	return d.Reason == ReasonAnswerInvalid || d.Reason == ReasonUnfamiliarSecret || d.Reason == ReasonOddAnswer || d.Reason == ReasonSealedLost
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
