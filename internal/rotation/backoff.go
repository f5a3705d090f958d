package rotation

import (
	"math/rand/v2"
	"time"

	"rotatord/internal/moment"
)

// This file has the rules for how long to wait after a failure.

// The first wait after a failure, and the longest.
const (
	minBackOff = time.Second
	maxBackOff = 10 * time.Minute
)

// BackOff returns how long to wait after the n-th failure in a row, counted from 1. The wait doubles from
// one second to ten minutes. A random part of up to a quarter is subtracted, so that tokens which failed
// together do not all try again together.
func BackOff(n int) time.Duration {
	d := minBackOff << min(max(n-1, 0), 10)
	d = min(d, maxBackOff)
	return d - time.Duration(rand.Int64N(int64(d/4)))
}

// pendingWait returns how long to wait after a failure while a secret is owed or not delivered. The wait
// grows, but stays far below the grace, because the grace is running out.
func pendingWait(failures int, grace time.Duration) time.Duration {
	wait := min(BackOff(failures), maxPendingWait)
	if grace > 0 {
		wait = min(wait, max(grace/8, minBackOff))
	}
	return wait
}

// nextTry returns when to try a failed slot again: by the back-off, but at least one more time before its
// window ends.
func (r Record) nextTry(t Token, failures int, now time.Time) time.Time {
	next := now.Add(BackOff(failures))
	closing := t.Timetable.Firing(r.Work.Slot).Close
	if closing.IsZero() || r.ignoresSchedule(t) {
		return next
	}
	left := closing.Add(-minTimeLeft).Sub(now) // a random part is subtracted below, as in BackOff
	if last := now.Add(left - rand.N(max(left/8, 1))); left > minBackOff && last.Before(next) {
		return last.UTC()
	}
	return next
}

// nextReissue returns when to try a failed reissue again. Until it succeeds consumers have only the old
// secret, or none. refused says that Cloudflare has refused the reissue.
func (r Record) nextReissue(failures int, refused bool, now time.Time) time.Time {
	wait := EmergencyWait
	if refused {
		wait = refusedWait
	}
	return r.hasten(now.Add(pendingWait(failures, time.Duration(r.Lost.Grace))), wait, now)
}

// nextDelivery returns when to try again to deliver a secret: at next or, if next is zero, after a wait
// that is far below the old secret's grace.
func (r Record) nextDelivery(failures int, next, now time.Time) time.Time {
	grace := time.Duration(r.Work.Grace)
	if next.IsZero() {
		next = now.Add(pendingWait(failures, grace))
	}
	if r.overlaps() && grace > 0 { // and in time to extend the old secret again
		extend := surelyUntil(grace, r.Work.GraceEndsAt, r.Work.IntentAt).Add(-grace / 2)
		next = moment.Min(next, moment.Max(extend, now.Add(minBackOff)))
	}
	return r.hasten(next, EmergencyWait, now)
}

// firstLook returns when to look at a doubt for the first time: at once, or after a back-off if the look
// can lead straight to another request.
func (r Record) firstLook(failures int, now time.Time) time.Time {
	work, at := r.Work, now
	if work.Grace == 0 || r.Lost != nil || work.LeavesCurrentInUse() {
		at = now.Add(min(BackOff(failures), maxPendingWait))
	}
	if !work.LeavesCurrentInUse() && r.Lost != nil { // consumers may be cut off by now
		at = r.hasten(at, EmergencyWait, now)
	}
	return at
}

// hasten returns next, or an earlier time if consumers cannot wait that long. wait is the wait between two
// tries of an emergency.
func (r Record) hasten(next time.Time, wait time.Duration, now time.Time) time.Time {
	if r.Emergency(now) {
		return moment.Min(next, now.Add(wait-rand.N(wait/4)))
	}
	if at := r.EmergencyAt(); !at.IsZero() {
		return moment.Min(next, at)
	}
	return next
}

// maxChoreBackOff is the longest wait after a chore that failed. A chore is tried again until it succeeds.
const maxChoreBackOff = time.Hour

func choreBackOff(failures int) time.Duration {
	return min(BackOff(failures)<<min(max(failures-8, 0), 3), maxChoreBackOff)
}

// A service token that could not be renewed may end. Then its renewal is tried every few seconds for
// lateRenewal, and after that every lateRenewalWait, because all its consumers are locked out.
const (
	lateRenewal     = 10 * time.Minute
	lateRenewalWait = 30 * time.Second
)

// renewalBackOff returns how long to wait after a failed renewal. left is the time until the service token
// ends; the less is left, the shorter the wait. atEnd is the wait at the end itself.
func renewalBackOff(failures int, left, atEnd time.Duration) time.Duration {
	wait := choreBackOff(failures)
	switch {
	case left < -lateRenewal:
		return min(wait, lateRenewalWait)
	case left <= EmergencyAhead:
		return min(wait, atEnd)
	}
	return min(wait, max(left/8, atEnd))
}
