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
	ReasonGraceEnding        = "grace_ending"         // half of the grace is left, or three graces are over
	ReasonOldSecretWorks     = "old_secret_works"     // wait: rotating again would kill it
	ReasonUnderWay           = "settling"             // wait: the request may still be under way
	ReasonSpare              = "spare"                // pair: what was rotated is not in use, so do it again
	ReasonUnfamiliarKept     = "unfamiliar_kept"      // pair or new token: wait for an operator, what is in use works on
	ReasonCreatedAndLost     = "made_and_lost"        // a service token was made, and its secret is lost
	ReasonCreatedAndSealed   = "made_and_sealed"      // a service token was made, and the sealed answer is about it
	ReasonNotCreated         = "not_made"             // no service token was made: back to due
	ReasonCannotLook         = "cannot_look"          // wait: it is not known whether a service token was made
	ReasonOperatorRotateNow  = "operator_rotate_now"  // an operator had it reissued
	ReasonOperatorNotRotated = "operator_not_rotated" // an operator knows that nothing was carried out
	ReasonOperatorDeliver    = "operator_deliver"     // an operator had the sealed answer delivered

	// Why a sealed secret is not delivered, or how that ended.
	ReasonUndelivered  = "undelivered"   // it waits for a sink
	ReasonOvertaken    = "overtaken"     // the token was rotated by others, and a sink holds their secret
	ReasonOursWorks    = "ours_works"    // the one in the sinks is refused where it was tried, and ours is accepted
	ReasonTheirsWorks  = "theirs_works"  // the one in the sinks is accepted where it was tried
	ReasonLeakOrder    = "leak_order"    // an order to revoke overrides it
	ReasonAfterOutside = "heals"         // outside_rotation has the token rotated again
	ReasonOperatorDrop = "operator_drop" // an operator gave ours up

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
	case v.Reason == ReasonOperatorRotateNow, v.Reason == ReasonLeakOrder:
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
	// Created is the service token that the request in doubt was to make, nil if there is none;
	// Looked, that it was looked for.
	Created *TokenFacts
	Looked  bool
	// Unread is set if Cloudflare could not be asked.
	Unread bool
	// CannotExtend is set if extending the grace was tried now, in vain.
	CannotExtend bool
}

// The oracle is asked at once, once more when a request that was under way when we lost sight of it
// must have been carried out or dropped, and then now and again until the grace ends.
const (
	settleTime   = time.Minute
	doubtRecheck = 10 * time.Minute
	// unreadPatience is for how long a lost reissue waits for Cloudflare to be readable before it
	// is taken as carried out.
	unreadPatience = 5 * time.Minute
	// doubtStretch is how many graces an operator has to decide about a doubt whose request was
	// carried out. After them the secret is reissued.
	doubtStretch = 3
)

// MaxGrace is the longest grace, and bounds the life of an old secret in any case. It is the
// longest that Cloudflare's dashboard offers.
const MaxGrace = 30 * 24 * time.Hour

// reissueMargin is how long before the end of the grace a token in doubt is reissued: time for a
// sink, a session or a daemon to come back, in which the old secret works on. If the request in
// doubt was carried out, reissuing cuts the old secret off at once, so the margin is no overlap.
func reissueMargin(grace time.Duration) time.Duration { return grace / 2 }

// settleFor is how long a request can still be under way. A grace that is shorter than that, as in
// a demonstration, does not allow it in full.
func settleFor(grace time.Duration) time.Duration {
	if grace == 0 {
		return settleTime
	}
	return min(settleTime, grace-reissueMargin(grace))
}

// lookSoon is the wait until the next look where the last one has not told what it could have.
func lookSoon(grace time.Duration) time.Duration {
	return min(doubtRecheck/2, max(grace/64, time.Second))
}

// Judge decides about a token in doubt.
//
// The rule behind it: never rotate again while the old secret may still be the one that
// works. Rotating would make a lost secret the "previous" one and cut the old one off.
// Of a pair the one that is rotated is not in use, so the rule does not hold it up.
//
// A secret of an unfamiliar format is delivered in the place of a rotation: should
// Cloudflare introduce a third format, rotating would bring another one of it.
func Judge(r Record, e Evidence, now time.Time) Verdict {
	switch {
	case r.Work.CreateName != "":
		return judgeMade(r, e, now)
	case r.Work.Spare:
		return judgeSpare(r, now)
	case r.Work.Grace == 0:
		// Either nothing was carried out, and rotating is what was wanted, or the old
		// secret died with the request, and only rotating brings a working one.
		return Verdict{Resolved: true, Deliver: r.Doubt.deliverable(), Reason: ReasonOldSecretRevoked}
	}
	carriedOut := r.Doubt.CarriedOut || r.Doubt.Answered() || e.Facts != nil && movedWith(r.Work, *e.Facts)
	if !r.OldDiesBy.IsZero() {
		return judgeLostReissue(r, e, carriedOut, now)
	}
	return judgeGrace(r, e, carriedOut, now)
}

// judgeSpare judges the doubt about the one of a pair that nobody uses.
func judgeSpare(r Record, now time.Time) Verdict {
	settled := r.Doubt.Since.Add(settleFor(time.Duration(r.Work.Grace)))
	switch {
	case r.Doubt.deliverable():
		return Verdict{Reason: ReasonUnfamiliarKept, Again: now.Add(doubtRecheck)}
	case now.Before(settled):
		// Nobody is kept waiting, and a request that is still under way could undo what
		// would be delivered now.
		return Verdict{Reason: ReasonUnderWay, Again: settled}
	}
	return Verdict{Resolved: true, Reason: ReasonSpare}
}

// judgeLostReissue judges the doubt about a rotation that was to make up for a lost secret. If it
// was carried out, what consumers use was the previous secret, and died with the request: only
// another rotation brings them one that works. So it is never waited for longer than it takes to know.
func judgeLostReissue(r Record, e Evidence, carriedOut bool, now time.Time) Verdict {
	d, grace := r.Doubt, time.Duration(r.Work.Grace)
	// A reissue starts with half of a grace left, so waiting for half of it would outlast the old secret.
	settled := d.Since.Add(min(settleTime, grace/4))
	switch {
	case carriedOut:
		return Verdict{Resolved: true, Deliver: d.deliverable(), CarriedOut: true, Reason: ReasonOldSecretRevoked}
	case now.Before(settled):
		return Verdict{Reason: ReasonUnderWay, Again: earlier(settled, now.Add(lookSoon(grace)))}
	case e.unmoved(r):
		return Verdict{Resolved: true, NotCarriedOut: true, Reason: ReasonUpdatedAtUnchanged}
	case e.Unread && now.Before(earlier(settled.Add(unreadPatience), d.OldWorksUntil)):
		return Verdict{Reason: ReasonOldSecretWorks, Again: now.Add(lookSoon(grace))}
	}
	return Verdict{Resolved: true, Reason: ReasonGraceEnding}
}

// judgeGrace judges the doubt about a token whose old secret works on for a while.
//
// The old secret is given more time as soon as Cloudflare shows that the request was carried out,
// and not before: if it was not, "the previous secret" is an older one, which was promised to be
// dead by now and must not be revived.
func judgeGrace(r Record, e Evidence, carriedOut bool, now time.Time) Verdict {
	d, grace := r.Doubt, time.Duration(r.Work.Grace)
	settled, reissueAt := d.Since.Add(settleFor(grace)), d.OldWorksUntil.Add(-reissueMargin(grace))
	decided := carriedOut && !now.Before(r.Work.IntentAt.Add(doubtStretch*grace)) // by time, in the place of an operator
	if carriedOut && !e.CannotExtend && !(decided && now.Before(reissueAt)) {
		if by := extendBy(grace, d.OldWorksUntil, r.Work.IntentAt, d.Extensions > 0, now); by > 0 {
			return Verdict{Extend: by, CarriedOut: true, Reason: ReasonOldSecretWorks, Again: now}
		}
	}
	if carriedOut {
		reissueAt = earlier(reissueAt, r.Work.IntentAt.Add(doubtStretch*grace))
	}
	wait := Verdict{CarriedOut: carriedOut, Reason: ReasonOldSecretWorks, Again: now.Add(doubtRecheck)}
	switch reached := !now.Before(reissueAt); {
	case !carriedOut && now.Before(settled): // a request that is still under way could undo a reissue
		return Verdict{Reason: ReasonUnderWay, Again: earlier(settled, now.Add(lookSoon(grace)))}
	case !carriedOut && e.unmoved(r): // where an answer came, even an invalid one, something was issued
		return Verdict{Resolved: true, NotCarriedOut: true, Reason: ReasonUpdatedAtUnchanged}
	case reached && e.Unread && !carriedOut && now.Before(d.OldWorksUntil):
		// While Cloudflare cannot be asked it cannot be rotated either. Once it can, it says whether
		// the old secret may be extended instead.
		wait.Again = earlier(now.Add(lookSoon(grace)), d.OldWorksUntil)
		return wait
	case reached:
		return Verdict{Resolved: true, Deliver: d.deliverable(), CarriedOut: carriedOut, Reason: ReasonGraceEnding}
	}
	if carriedOut { // look again when it is time to extend
		wait.Again = earlier(wait.Again, d.OldWorksUntil.Add(-grace*3/4))
	}
	if e.Unread || e.CannotExtend || !wait.Again.After(now) {
		wait.Again = now.Add(lookSoon(grace))
	}
	wait.Again = earlier(wait.Again, reissueAt)
	return wait
}

// unmoved reports whether the world shows that the request in doubt was not carried out.
func (e Evidence) unmoved(r Record) bool {
	return e.Trusted && e.Facts != nil && unchanged(r.Work.Before, *e.Facts)
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
		if r.StillCount > 0 {
			return false
		}
		moved += r.MovedCount
	}
	return moved > 0
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
