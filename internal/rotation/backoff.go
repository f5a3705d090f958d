package rotation

import (
	"math/rand/v2"
	"time"

	"rotatord/internal/moment"
)

// This file says how long to wait after a failure.

// The first wait after a failure, and the longest.
const (
	minBackOff = time.Second
	maxBackOff = 10 * time.Minute
)

// BackOff is how long to wait after the n-th failure in a row, counted from 1: it doubles from
// one second to ten minutes, and is spread by a quarter so that tokens which failed together do
// not come back together.
func BackOff(n int) time.Duration {
	d := minBackOff << min(max(n-1, 0), 10)
	d = min(d, maxBackOff)
	return d - time.Duration(rand.Int64N(int64(d/4)))
}

// pendingWait is how long to wait after a failure while a secret is owed or not delivered: it grows,
// and stays far below the grace that is being used up.
func pendingWait(failures int, grace time.Duration) time.Duration {
	wait := min(BackOff(failures), maxPendingWait)
	if grace > 0 {
		wait = min(wait, max(grace/8, minBackOff))
	}
	return wait
}

// nextTry is when a slot is tried again whose rotation has failed: one more time before its window is over,
// whatever the back-off says.
func (r Record) nextTry(t Token, failures int, now time.Time) time.Time {
	next := now.Add(BackOff(failures))
	closing := t.Timetable.Firing(r.Work.Slot).Close
	if closing.IsZero() || r.ignoresSchedule(t) {
		return next
	}
	left := closing.Add(-minTimeLeft).Sub(now) // spread, as the back-off is
	if last := now.Add(left - rand.N(max(left/8, 1))); left > minBackOff && last.Before(next) {
		return last.UTC()
	}
	return next
}

// nextReissue is when a reissue is tried again that has failed: consumers have only the old secret, or
// none. refused says that Cloudflare has refused it.
func (r Record) nextReissue(failures int, refused bool, now time.Time) time.Time {
	wait := EmergencyWait
	if refused {
		wait = refusedWait
	}
	return r.hasten(now.Add(pendingWait(failures, time.Duration(r.Lost.Grace))), wait, now)
}

// nextDelivery is when a secret is tried again that was not delivered: at next or, if that is zero,
// after a wait that stays far below the old secret's grace.
func (r Record) nextDelivery(failures int, next, now time.Time) time.Time {
	grace := time.Duration(r.Work.Grace)
	if next.IsZero() {
		next = now.Add(pendingWait(failures, grace))
	}
	if r.overlaps() && grace > 0 { // and in time to extend the old secret again
		extend := r.Work.GraceEndsAt.Add(-grace / 2)
		next = moment.Min(next, moment.Max(extend, now.Add(minBackOff)))
	}
	return r.hasten(next, EmergencyWait, now)
}

// firstLook is when a doubt is looked at first: at once, except where the look leads to another request
// straight away.
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

// hasten returns next, or an earlier time if consumers cannot wait that long. wait is between two tries
// of an emergency.
func (r Record) hasten(next time.Time, wait time.Duration, now time.Time) time.Time {
	if r.Emergency(now) {
		return moment.Min(next, now.Add(wait-rand.N(wait/4)))
	}
	if at := r.EmergencyAt(); !at.IsZero() {
		return moment.Min(next, at)
	}
	return next
}

// maxChoreBackOff is the longest wait after a chore that failed: it is tried again for as long as it
// takes.
const maxChoreBackOff = time.Hour

func choreBackOff(failures int) time.Duration {
	return min(BackOff(failures)<<min(max(failures-8, 0), 3), maxChoreBackOff)
}

// After the end of a service token that could not be renewed it is tried every few seconds for
// lateRenewal, and then every lateRenewalWait: all its consumers are locked out.
const (
	lateRenewal     = 10 * time.Minute
	lateRenewalWait = 30 * time.Second
)

// renewalBackOff is how long to wait after a renewal that failed, of a service token that ends in left.
// The closer the end, the shorter the waits; atEnd is the wait at the end itself.
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
