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
	ReasonOldSecretWorks     = "old_secret_works"     // wait: rotating again would revoke it
	ReasonUnderWay           = "settling"             // wait: the request may still be under way
	ReasonSpare              = "spare"                // pair: what was rotated is not in use, so do it again
	ReasonUnfamiliarKept     = "unfamiliar_kept"      // pair or new token: wait for an operator, what is in use works on
	ReasonCreatedAndLost     = "made_and_lost"        // a service token was created, and its secret is lost
	ReasonCreatedAndSealed   = "made_and_sealed"      // a service token was created, and the sealed answer is about it
	ReasonNotCreated         = "not_made"             // no service token was created: back to due
	ReasonCannotLook         = "cannot_look"          // wait: it is not known whether a service token was created
	ReasonOperatorRotateNow  = "operator_rotate_now"  // an operator ordered the reissue
	ReasonOperatorNotRotated = "operator_not_rotated" // an operator knows that nothing was carried out
	ReasonOperatorDeliver    = "operator_deliver"     // an operator ordered that the sealed answer is delivered

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
	// out, or the old secret is of no more use to any consumer.
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

// trigger returns the trigger of the rotation that follows; empty if it is an ordinary one.
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

// Evidence is what is known of the world when a doubt is decided.
type Evidence struct {
	// Facts are the token's as read now, or nil if it could not be read.
	Facts *TokenFacts
	// Trusted says whether on this account an unchanged updated_at proves that no
	// rotation took place.
	Trusted bool
	// Created is the service token that the request in doubt has created, nil if there is none.
	// Looked is set if it was looked for.
	Created *TokenFacts
	Looked  bool
	// Unread is set if Cloudflare could not be asked.
	Unread bool
	// CannotExtend is set if extending the grace was tried now and failed.
	CannotExtend bool
}

// A doubt is looked at at once, again after underWayTime, when a request that was under way must have
// been carried out or dropped, and then every doubtRecheck until the grace ends.
const (
	underWayTime = time.Minute
	doubtRecheck = 10 * time.Minute
	// unreadPatience is how long a reissue in doubt waits for an answer of Cloudflare before it is
	// taken as carried out.
	unreadPatience = 5 * time.Minute
	// doubtStretch is how many graces an operator has to decide about a doubt whose request was
	// carried out. After them the secret is reissued.
	doubtStretch = 3
)

// MaxGrace is the longest grace, and the longest time for which an old secret is extended in total. It
// is the longest that Cloudflare's dashboard offers.
const MaxGrace = 30 * 24 * time.Hour

// reissueMargin is how long before the end of the grace a token in doubt is reissued. It is time for a
// sink, a session or a daemon to come back while the old secret still works. If the request in
// doubt was carried out, reissuing cuts the old secret off at once, so the margin is not an overlap.
func reissueMargin(grace time.Duration) time.Duration { return grace / 2 }

// underWayFor is how long a request can still be under way. With a very short grace, as in the demo, it
// is less than underWayTime.
func underWayFor(grace time.Duration) time.Duration {
	if grace == 0 {
		return underWayTime
	}
	return min(underWayTime, grace-reissueMargin(grace))
}

// recheckWait is the wait until the next look after one that did not show all it could have shown.
func recheckWait(grace time.Duration) time.Duration {
	return min(doubtRecheck/2, max(grace/64, time.Second))
}

// Judge decides about a token in doubt, by the rules of the strategy of its rotation. None of them
// rotates again while the old secret may still be the one that works.
//
// A secret of an unfamiliar format is delivered and not rotated again: should Cloudflare introduce
// another format, rotating would bring another secret of it.
func Judge(r Record, e Evidence, now time.Time) Verdict {
	return r.Work.strategy().judge(r, e, now)
}

// unmoved reports whether the world shows that the request in doubt was not carried out.
func (e Evidence) unmoved(r Record) bool {
	return e.Trusted && e.Facts != nil && unchanged(r.Work.Before, *e.Facts)
}

// movedWith reports whether updated_at moved together with the rotate request.
func movedWith(w *Work, now TokenFacts) bool {
	return !w.Before.UpdatedAt.IsZero() && now.UpdatedAt.After(w.Before.UpdatedAt) && now.UpdatedAt.Sub(w.IntentAt).Abs() < movedWithin
}

// deliverable reports whether the sealed answer may be delivered although it did not pass
// validation: it is for the right client, and its secret only looks unfamiliar, or something around
// it is not as documented. Rotating again would most likely bring another such answer.
func (d *Doubt) deliverable() bool {
	return d.Sealed && (d.Reason == ReasonUnfamiliarSecret || d.Reason == ReasonOddAnswer)
}

// MayDeliver reports whether an operator may order that the sealed answer is delivered. One that could
// not be opened may be readable by now, because the identity file was put back.
func (d *Doubt) MayDeliver() bool {
	return d.deliverable() || d.Sealed && d.Reason == ReasonSealedLost
}

// Answered reports whether an answer came, so that a new secret was certainly issued.
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
