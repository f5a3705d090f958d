package app

import (
	"errors"
	"fmt"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
)

// oracle is what must be true in a life. It is calculated from the schedule, the freezes and what was done to
// the daemon, and not with the daemon's rules.
type oracle struct {
	problems []string
	seen     map[string]int // to know what was tried

	claims  []claim // of rotations that the schedule asked for
	pending claim   // the one in progress
	served  time.Time
	paused  map[string]rotation.Pause // by token

	// Each consumed slot is in one of these books.
	consumed, rotated, missed, frozen int
	// owed is what the daemon has to report about consumed slots, and told is what it did report.
	owed, told []event.Missed

	graceEnds time.Time // of the last rotation, on the issuer's clock
	makesUp   *makesUp
}

// claim is a rotation that began, and the slots that it consumes if it succeeds.
type claim struct {
	slot    time.Time
	at      time.Time // on the wall clock
	trigger rotation.Trigger
	after   time.Time // it consumes the slots from here on
	slots
}

// slots are slots that are consumed together.
type slots struct {
	n, frozen int
	last      time.Time // that is not frozen; zero if all are
}

// makesUp is what must happen after a downtime, unless something else happens first.
type makesUp struct {
	after, last time.Time // the slots during the downtime
	from, until time.Time
	claims      int // the slots before it
	givenUp     bool
}

func (w *living) wrong(format string, args ...any) {
	w.problems = append(w.problems, fmt.Sprintf("%s: ", w.wall().Format(time.RFC3339Nano))+fmt.Sprintf(format, args...))
}

// between counts the slots in (after, until].
func (w *living) between(after, until time.Time) (s slots) {
	for slot := w.next(after); !slot.IsZero() && !slot.After(until); slot = w.next(slot) {
		s.n++
		if w.passedOver(slot) {
			s.frozen++
			continue
		}
		if !s.last.IsZero() && w.deferredTo(s.last, slot) {
			s.frozen++
		}
		s.last = slot
	}
	return s
}

func (w *living) next(t time.Time) time.Time { return w.token.Timetable.Schedule.Next(t) }

// passedOver reports whether a slot is one that a freeze skips.
func (w *living) passedOver(slot time.Time) bool {
	return w.isFrozen(slot, true) || w.isFrozen(slot.Add(w.token.Timetable.Delay(slot)), true)
}

// deferredTo reports whether a freeze defers a slot until the next has come.
func (w *living) deferredTo(slot, next time.Time) bool {
	begin := w.token.Timetable.Firing(slot).Begin
	return w.isFrozen(slot.Add(w.token.Timetable.Delay(slot)), false) && (begin.IsZero() || !begin.Before(next))
}

// isFrozen reports whether t is in a freeze, or in one that skips slots.
func (w *living) isFrozen(t time.Time, skips bool) bool {
	for _, f := range w.token.Timetable.Freezes {
		switch {
		case skips && !f.Skip:
		case f.Schedule == nil:
			if !t.Before(f.From) && t.Before(f.To) {
				return true
			}
		default:
			for from := f.Schedule.Next(t.Add(-f.Duration - time.Hour)); !from.After(t); from = f.Schedule.Next(from) {
				if t.Before(from.Add(f.Duration)) {
					return true
				}
			}
		}
	}
	return false
}

// closes returns when the window of a slot is over; zero if it has none.
func (w *living) closes(slot time.Time) time.Time {
	if w.life.Window == 0 {
		return time.Time{}
	}
	return w.token.Timetable.Firing(slot).Begin.Add(w.life.Window)
}

func (w *living) closed(slot time.Time) bool {
	closing := w.closes(slot)
	return !closing.IsZero() && w.wall().After(closing)
}

func (w *living) isPaused() bool {
	for _, p := range w.paused {
		if p.Until.IsZero() || w.wall().Before(p.Until) {
			return true
		}
	}
	return false
}

// counted returns where counting begins. After a clock was far ahead, the anchor may be earlier than a slot
// that was served in what looked like the future. When that slot comes, it and the slots before it count as
// served.
func (w *living) counted(r rotation.Record) time.Time {
	if r.Last != nil && r.Last.Slot.After(r.Anchor) && !r.Last.Slot.After(w.wall()) {
		return r.Last.Slot
	}
	return r.Anchor
}

// saved checks each record that is saved.
func (w *living) saved(before, after rotation.Record) {
	before.Anchor = w.counted(before)
	success := after.Last != nil && (before.Last == nil || before.Last.RotationID != after.Last.RotationID)
	switch {
	case before.Revision == 0:
	case after.Anchor.Before(before.Anchor):
		w.seen["healed"]++
		if before.Anchor.Sub(w.wall()) <= 24*time.Hour {
			w.wrong("slots that were consumed until %s are no longer, and may come again", before.Anchor)
		}
		w.served = time.Time{}
	case success:
		w.success(before, after)
	case after.Anchor.After(before.Anchor):
		w.consumedUnserved(before, after)
	}
	if after.Step == rotation.StepClaimed && before.Step != rotation.StepClaimed {
		w.claimed(after)
	}
}

// claimed is a rotation that begins.
func (w *living) claimed(r rotation.Record) {
	now, work := w.wall(), r.Work
	c := claim{slot: work.Slot, at: now, trigger: work.Trigger, after: w.counted(r)}
	c.slots = w.between(c.after, now)
	w.seen["claimed "+string(work.Trigger)]++
	if w.pending = c; work.Trigger == rotation.TriggerManual {
		return
	}
	has := c.last // it consumes the slots up to this one, but not those that a freeze has skipped since
	c.slots = w.between(c.after, has)
	w.pending, w.claims = c, append(w.claims, c)
	switch first := w.next(c.after); {
	case has.IsZero():
		w.wrong("%s begins although no slot has come", work.Trigger)
	case !c.slot.Equal(has):
		w.wrong("%s serves %s, and the last slot that has come is %s", work.Trigger, c.slot, has)
	case !w.served.IsZero() && !c.slot.After(w.served):
		w.wrong("%s serves %s, after %s was served", work.Trigger, c.slot, w.served)
	default:
		for w.passedOver(first) {
			first = w.next(first)
		}
		if begin := first.Add(w.token.Timetable.Delay(first)); now.Before(begin) {
			w.wrong("%s begins before the slot %s and its jitter, which are at %s", work.Trigger, first, begin)
		}
	}
	switch {
	case w.isFrozen(now, false):
		w.wrong("%s begins in a freeze", work.Trigger)
	case w.isPaused():
		w.wrong("%s begins while paused", work.Trigger)
	case r.Last != nil && now.Before(r.Last.GraceEndsAt):
		w.wrong("%s begins in the grace, which ends at %s", work.Trigger, r.Last.GraceEndsAt)
	case w.life.Skip && w.closed(c.slot):
		w.wrong("%s serves %s after its window, which was over at %s", work.Trigger, c.slot, w.closes(c.slot))
	}
}

// rotated is the request of the rotation in progress.
func (w *living) requested() {
	if w.pending.trigger == rotation.TriggerManual || !w.life.Guard {
		return
	}
	if w.skewed() {
		w.wrong("%s rotates with a clock that is %s from the issuer's", w.pending.trigger, w.wrongBy())
	}
	if left := time.Until(w.graceEnds); left > 2*maxApart {
		w.wrong("%s cuts off a secret that was promised %s more", w.pending.trigger, left)
	}
}

// success is a rotation that is done.
func (w *living) success(before, after rotation.Record) {
	c := w.pending
	if !c.slot.Equal(after.Last.Slot) {
		w.wrong("%s is served, and %s was claimed", after.Last.Slot, c.slot)
	}
	want := c.slot
	if want.Before(before.Anchor) {
		want = before.Anchor
	}
	absurd := want.Sub(w.wall()) > 24*time.Hour // the clock was set back by more than a day since the claim
	if absurd {
		w.seen["healed when done"]++
		if want = w.wall().Truncate(time.Second); want.Before(before.Anchor) {
			want = before.Anchor
		}
	}
	if !after.Anchor.Equal(want) {
		w.wrong("the anchor is %s after %s was served; it was %s", after.Anchor, c.slot, before.Anchor)
	}
	missed := event.Missed{Count: c.n - c.frozen, Frozen: c.frozen}
	w.consumed += c.n
	if !c.last.IsZero() {
		w.rotated++
		if missed.Count--; w.closedAt(c.last, c.at) { // missed, and made up for
			missed.Count++
			w.rotated--
			w.seen["made up for after the window"]++
		}
	}
	switch {
	case absurd:
		w.served = time.Time{}
	case c.trigger != rotation.TriggerManual:
		w.served = c.slot
	}
	w.owe(missed)
}

func (w *living) closedAt(slot, at time.Time) bool {
	closing := w.closes(slot)
	return !closing.IsZero() && at.After(closing)
}

// consumedUnserved is a step of the anchor over slots that are not made up for.
func (w *living) consumedUnserved(before, after rotation.Record) {
	s := w.between(before.Anchor, after.Anchor)
	w.consumed += s.n
	switch {
	case s.last.IsZero() && s.n > 0:
		w.seen["passed over"]++
		w.owe(event.Missed{Frozen: s.n})
	case !s.last.Equal(after.Anchor):
		w.wrong("the anchor went from %s to %s, where no slot is", before.Anchor, after.Anchor)
	case !w.life.Skip || !w.closed(s.last):
		w.wrong("%s was given up, and its window ends at %s", s.last, w.closes(s.last))
	default:
		w.seen["given up"]++
		w.owe(event.Missed{Count: s.n - s.frozen, Frozen: s.frozen, GivenUp: true})
	}
}

func (w *living) owe(missed event.Missed) {
	if missed.Count+missed.Frozen > 0 {
		w.owed = append(w.owed, missed)
	}
}

// Publish implements [rotation.Events].
func (w *living) Publish(e event.Event) {
	switch e := e.Detail.(type) {
	case event.Missed:
		w.told = append(w.told, e)
		w.missed, w.frozen = w.missed+e.Count, w.frozen+e.Frozen
	case event.RotationEnded:
		w.seen[string(e.Result)+"/"+e.Reason]++
	}
}

// compare compares what was reported with what was owed.
func (w *living) enrollReloaded() {
	for i := range max(len(w.owed), len(w.told)) {
		if i >= len(w.owed) || i >= len(w.told) || w.owed[i] != w.told[i] {
			w.wrong("consumed slots are told as %+v, and were %+v", w.told[i:min(i+1, len(w.told))], w.owed[i:min(i+1, len(w.owed))])
			break
		}
	}
	w.owed, w.told = nil, nil
}

// expectMakingUp notes what must follow a downtime that ends now, if nothing else prevents it.
func (w *living) expectMakingUp() {
	before, now, after := w.record, w.wall(), w.counted(w.record)
	s := w.between(after, now)
	_, troubleUntil := w.troubled()
	undisturbed := len(w.life.Freezes) == 0 && w.life.Slow == 0 && !w.isPaused() && !time.Now().Before(troubleUntil) &&
		before.Step == rotation.StepIdle && before.Failures == 0 && before.NotBefore.IsZero() && before.CatchUpAt.IsZero() && !(w.life.Guard && w.skewed()) &&
		(before.Last == nil || !now.Before(before.Last.GraceEndsAt)) && !before.Anchor.After(now)
	if !undisturbed || s.n == 0 || w.next(s.last).Sub(s.last) <= w.life.Jitter {
		return
	}
	w.makesUp = &makesUp{after: after, last: s.last, from: now, until: now.Add(max(10*time.Minute, w.life.Jitter)), claims: len(w.claims)}
	w.makesUp.givenUp = w.life.Skip && w.closed(s.last)
}

// checkMakingUp is called when something else happens.
func (w *living) checkMakingUp() {
	m := w.makesUp
	w.makesUp = nil
	if m == nil || w.wall().Before(m.until) {
		return
	}
	w.seen[fmt.Sprintf("made up for after a downtime: %t", !m.givenUp)]++
	n := 0
	for _, c := range w.claims[m.claims:] {
		if !c.after.Before(m.last) {
			continue
		}
		if n++; c.at.After(m.until) || !w.life.Skip && !c.after.Equal(m.after) {
			w.wrong("the slots from %s to %s are made up for at %s, by a rotation that consumes those after %s", m.after, m.last, c.at, c.after)
		}
	}
	if w.record.Anchor.Before(m.last) {
		w.wrong("after a downtime slots are consumed until %s, want %s", w.record.Anchor, m.last)
	}
	if want := map[bool]int{true: 0, false: 1}[m.givenUp]; n != want {
		w.wrong("%d rotations make up for the slots from %s to %s, want %d", n, m.after, m.last, want)
	}
}

// end checks what must be true at the end, when there was time for everything.
func (w *living) end(first time.Time) {
	w.enrollReloaded()
	if w.consumed != w.rotated+w.missed+w.frozen {
		w.wrong("%d slots were consumed: %d rotations, %d missed, %d frozen", w.consumed, w.rotated, w.missed, w.frozen)
	}
	now, r := w.wall(), w.record
	if r.Step != rotation.StepIdle {
		w.wrong("the rotation in progress is not finished: %s, %s", r.Step, r.LastError)
	}
	if ahead := r.Anchor.Sub(now); ahead > 24*time.Hour {
		w.wrong("slots are consumed until %s, by a clock that was ahead", r.Anchor)
	}
	if left := w.between(w.counted(r), now); left.n > 0 && left.last.IsZero() {
		w.wrong("%d slots that a freeze has passed over since %s are not consumed", left.n, r.Anchor)
	}
	slot := w.next(w.counted(r))
	for !slot.IsZero() && w.passedOver(slot) && !slot.After(now) {
		slot = w.next(slot)
	}
	begin, slack := w.token.Timetable.Firing(slot).Begin, time.Minute
	thawed := false // a freeze may have ended so recently that not all tokens that wait for it have begun
	for t := now.Add(-max(10*time.Minute, w.life.Jitter) - slack); !t.After(now); t = t.Add(slack) {
		thawed = thawed || w.isFrozen(t, false)
	}
	switch {
	case slot.IsZero() || begin.IsZero() || begin.Add(slack).After(now): // it is still to come
	case r.Last != nil && r.Last.GraceEndsAt.Add(slack).After(now):
	case thawed || w.isFrozen(now, false):
	default:
		w.wrong("the slot %s is not served, and could be since %s: %+v", slot, begin, errors.New(r.LastError))
	}
	if w.life.calm() {
		w.checkCalm(first, now)
	}
}

// checkCalm: in a life in which nothing happens, each slot is served at its time, to the tick.
func (w *living) checkCalm(first, now time.Time) {
	taken := w.life.Jitter + w.life.Grace + 3*w.life.Slow
	var want []claim
	for slot := w.next(first); ; slot = w.next(slot) {
		at := slot.Add(w.token.Timetable.Delay(slot))
		if at.After(now) {
			break
		}
		if w.next(slot).Sub(slot) <= taken {
			return
		}
		want = append(want, claim{slot: slot, at: at})
	}
	w.seen["calm slots"] += len(want)
	for i, c := range want {
		if i >= len(w.claims) || !w.claims[i].slot.Equal(c.slot) || !w.claims[i].at.Equal(c.at) || w.claims[i].trigger != rotation.TriggerSchedule {
			w.wrong("in a calm life, claim %d of %d is %+v; want slot %s at %s", i, len(w.claims), w.claims[min(i, len(w.claims)-1):], c.slot, c.at)
			return
		}
	}
	if len(w.claims) != len(want) {
		w.wrong("%d rotations in a calm life with %d slots", len(w.claims), len(want))
	}
}
