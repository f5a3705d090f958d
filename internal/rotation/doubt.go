package rotation

import "time"

// The reasons why a token is in doubt, and why its doubt was resolved. They are stable codes.
const (
	// Why a token is in doubt.
	ReasonOutcomeUnknown   = "outcome_unknown"   // the request left and no usable answer came
	ReasonAnswerInvalid    = "answer_invalid"    // an answer came for another client, or without a secret
	ReasonUnfamiliarSecret = "unfamiliar_secret" // an answer came with a secret of neither known format
	ReasonOddAnswer        = "odd_answer"        // an answer came with a good secret, and something else in it speaks against it
	ReasonInterrupted      = "interrupted"       // the process ended between intent and seal
	ReasonSealedLost       = "sealed_lost"       // what was sealed is gone from disk, or cannot be opened
	ReasonSealedElsewhere  = "sealed_elsewhere"  // what was sealed is on the disk of another replica that is away

	// Why it is no longer, or still, in doubt.
	ReasonUpdatedAtUnchanged = "updated_at_unchanged" // not carried out: back to due
	ReasonOldSecretRevoked   = "old_secret_revoked"   // grace 0: the old secret has ended already
	ReasonGraceEnding        = "grace_ending"         // half of the grace is left, or three graces are over
	ReasonOldSecretWorks     = "old_secret_works"     // wait: rotating again would revoke it
	ReasonUnderWay           = "settling"             // wait: the request may still be under way
	ReasonSpare              = "spare"                // pair: the spare was rotated, and it is not in use, so rotate it again
	ReasonUnfamiliarKept     = "unfamiliar_kept"      // pair or new token: wait for an operator; the secret in use still works
	ReasonCreatedAndLost     = "made_and_lost"        // a service token was created, and its secret is lost
	ReasonCreatedAndSealed   = "made_and_sealed"      // a service token was created, and the sealed answer is about it
	ReasonNotCreated         = "not_made"             // no service token was created: back to due
	ReasonCannotLook         = "cannot_look"          // wait: it is not known whether a service token was created
	ReasonAnswerReturned     = "answer_returned"      // the replica that has the answer came back, or there is a copy
	ReasonOperatorRotateNow  = "operator_rotate_now"  // an operator ordered the reissue
	ReasonOperatorNotRotated = "operator_not_rotated" // an operator knows that nothing was carried out
	ReasonOperatorDeliver    = "operator_deliver"     // an operator ordered that the sealed answer is delivered

	// Why a sealed secret is not delivered, or how that ended.
	ReasonUndelivered  = "undelivered"   // it waits for a sink
	ReasonOvertaken    = "overtaken"     // the token was rotated by others, and a sink holds their secret
	ReasonOursWorks    = "ours_works"    // where they were tried, the secret in the sinks is refused and ours is accepted
	ReasonTheirsWorks  = "theirs_works"  // where it was tried, the secret in the sinks is accepted
	ReasonLeakOrder    = "leak_order"    // an order to revoke is more important than our secret
	ReasonAfterOutside = "heals"         // outside_rotation is "rotate", so the token is rotated again
	ReasonOperatorDrop = "operator_drop" // an operator gave ours up

	// Why a delivered secret does not count as good, or why a decision about that ended.
	ReasonUnverified     = "unverified"      // it is refused where it was tried
	ReasonOperatorAccept = "operator_accept" // an operator took it as good

	// What an operator's look at the sinks of an idle token has shown, and what was decided.
	ReasonSinksDiffer         = "sinks_differ"          // a sink does not hold what was written
	ReasonSinksAsWritten      = "sinks_as_written"      // every sink holds it
	ReasonOperatorAcceptSinks = "operator_accept_sinks" // an operator took what they hold as right
)

// Verdict is what to do about a token in doubt.
type Verdict struct {
	// Resolved is set if the token may be rotated now: either nothing was carried out, or the old secret
	// does not help any consumer any more.
	Resolved bool
	// Deliver is set together with Resolved if the sealed answer is delivered instead of rotating.
	Deliver bool
	// NotCarriedOut is set together with Resolved if no secret was lost, so that no reissue is owed.
	NotCarriedOut bool
	Reason        string
	// Again is when to look again if the doubt is not resolved.
	Again time.Time
	// Extend asks to extend the old secret to this long from now, and to decide again after that. 0 asks
	// for nothing.
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

// Evidence is what is known about the outside world when a doubt is decided.
type Evidence struct {
	// Facts are the facts of the service token as read now; nil if they could not be read.
	Facts *TokenFacts
	// Trusted says whether on this account an unchanged updated_at proves that no
	// rotation took place.
	Trusted bool
	// Created is the service token that the request in doubt has created; nil if there is none. Looked is
	// set if the service token was searched for.
	Created *TokenFacts
	Looked  bool
	// Unread is set if Cloudflare could not be asked.
	Unread bool
	// CannotExtend is set if extending the grace was tried just now and failed.
	CannotExtend bool
}

// The daemon looks at a doubt at once. It looks again after underWayTime: by then a request that was under
// way must have been carried out or dropped. After that it looks every doubtRecheck until the grace ends.
const (
	underWayTime = time.Minute
	doubtRecheck = 10 * time.Minute
	// unreadPatience is how long a reissue in doubt waits for an answer from Cloudflare. After that the
	// reissue counts as carried out.
	unreadPatience = 5 * time.Minute
	// doubtStretch is how many graces an operator has to decide about a doubt whose request was carried
	// out. After that the secret is reissued.
	doubtStretch = 3
)

// MaxGrace is the longest grace, and the longest time for which an old secret is extended in total. It
// is the longest that Cloudflare's dashboard offers.
const MaxGrace = 30 * 24 * time.Hour

// reissueMargin is how long before the end of the grace a token in doubt is reissued. In that time a sink,
// a session or a daemon can come back while the old secret still works. It is not an overlap of two
// secrets: if the request in doubt was carried out, the reissue cuts the old secret off at once.
func reissueMargin(grace time.Duration) time.Duration { return grace / 2 }

// underWayFor returns how long a request can still be under way. With a very short grace, as in the demo,
// that is less than underWayTime.
func underWayFor(grace time.Duration) time.Duration {
	if grace == 0 {
		return underWayTime
	}
	return min(underWayTime, grace-reissueMargin(grace))
}

// recheckWait returns the wait after a look that could not read everything, until the next look.
func recheckWait(grace time.Duration) time.Duration {
	return min(doubtRecheck/2, max(grace/64, time.Second))
}

// Judge decides about a token in doubt, by the rules of the strategy of its rotation. None of them
// rotates again while the old secret may still be the one that works.
//
// A secret of an unfamiliar format is delivered and not rotated again: if Cloudflare has introduced
// another format, the next secret would have that format too.
func Judge(r Record, e Evidence, now time.Time) Verdict {
	return r.Work.strategy().judge(r, e, now)
}

// unmoved reports whether an unchanged updated_at proves that the request in doubt was not carried out.
func (e Evidence) unmoved(r Record) bool {
	return e.Trusted && e.Facts != nil && unchanged(r.Work.Before, *e.Facts)
}

// movedWith reports whether updated_at moved together with the rotate request.
func movedWith(w *Work, now TokenFacts) bool {
	return !w.Before.UpdatedAt.IsZero() && now.UpdatedAt.After(w.Before.UpdatedAt) && now.UpdatedAt.Sub(w.IntentAt).Abs() < movedWithin
}

// deliverable reports whether the sealed answer may be delivered although it did not pass validation. Such
// an answer is for the right client; only the format of its secret is unfamiliar, or something around the
// secret is not as documented. Another rotation would most likely bring another such answer.
func (d *Doubt) deliverable() bool {
	return d.Sealed && (d.Reason == ReasonUnfamiliarSecret || d.Reason == ReasonOddAnswer)
}

// MayDeliver reports whether an operator may order that the sealed answer is delivered. That includes an
// answer that could not be opened: it may be readable by now, because a person has put the identity file
// back.
func (d *Doubt) MayDeliver() bool {
	return d.deliverable() || d.Sealed && d.Reason == ReasonSealedLost
}

// notDeliverable returns why the answer of a token's rotate request cannot be delivered.
func (d *Doubt) notDeliverable(token string) string {
	switch {
	case !d.Sealed:
		return "there is no sealed answer for " + token + " to deliver"
	case d.Reason == ReasonAnswerInvalid && d.Detail != "":
		return "the sealed answer holds no secret that " + token + " could use (" + d.Detail + "), so it is not delivered"
	}
	return "the sealed answer for " + token + " cannot be delivered (" + d.Reason + ")"
}

// Answered reports whether an answer came, so that a new secret was certainly issued.
func (d *Doubt) Answered() bool {
	return d.Reason == ReasonAnswerInvalid || d.Reason == ReasonUnfamiliarSecret || d.Reason == ReasonOddAnswer || d.Reason == ReasonSealedLost ||
		d.Reason == ReasonSealedElsewhere
}

func unchanged(before, after TokenFacts) bool {
	return !before.UpdatedAt.IsZero() && before.UpdatedAt.Equal(after.UpdatedAt)
}

// oracleTrusted reports whether the confirmed rotations of one account have shown that updated_at moves
// with each rotation.
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
