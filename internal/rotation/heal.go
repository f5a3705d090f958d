package rotation

import (
	"slices"
	"time"
)

// This file removes times from a record that only a wrong clock can have written.

// How far a time in a record can be ahead of a correct clock. A time that is further ahead was written
// while the clock was ahead. It would delay the token, and nothing would show why.
const (
	maxAnchorAhead    = 24 * time.Hour
	maxNotBeforeAhead = 2 * time.Hour
	maxDeliveryAhead  = maxBackOff + 2*time.Minute // a secret that waits for its sinks is looked at more often
	// maxGraceLonger is by how much the previous secret may work longer than was promised: if an issuer's
	// clock is behind ours, by at most 15 minutes, the end is counted on the later of the two clocks.
	maxGraceLonger = 15*time.Minute + ownChange
)

// healing collects the times that are removed from a record.
type healing struct {
	now  time.Time
	what []string // in words
}

// set replaces a time that only a wrong clock can have written.
func (h *healing) set(what string, field *time.Time, to time.Time) {
	h.what = append(h.what, what+" "+field.UTC().Format(time.RFC3339))
	*field = to.UTC()
}

// isAhead reports whether t is further ahead of now than it can be.
func (h *healing) isAhead(t time.Time, most time.Duration) bool { return t.Sub(h.now) > most }

// healed returns r without times that only a clock which was ahead can have put there, and says in words
// what it has changed. An anchor that is up to a day ahead stays, and the token waits: its slots were
// consumed, and no slot is served twice.
func (r Record) healed(t Token, now time.Time) (Record, []string) {
	h := &healing{now: now}
	if h.isAhead(r.Anchor, maxAnchorAhead) {
		h.set("slots were consumed until", &r.Anchor, now.Truncate(time.Second))
	}
	delivering := r.Step == StepSealed || r.Step == StepStored
	if h.isAhead(r.NotBefore, maxNotBeforeAhead) || delivering && h.isAhead(r.NotBefore, maxDeliveryAhead) {
		h.set("nothing was to begin before", &r.NotBefore, time.Time{})
	}
	r = r.progressHealed(h)
	if h.isAhead(r.CatchUpAt, max(t.Timetable.Jitter, lateTolerance+spreadTolerance)) {
		h.set("missed slots were to be made up for at", &r.CatchUpAt, time.Time{})
	}
	if r.Order != nil && h.isAhead(r.Order.Since, lateTolerance) {
		r.Order = new(*r.Order)
		h.set("it was ordered at", &r.Order.Since, now)
	}
	if h.isAhead(r.Renewal.NotBefore, maxNotBeforeAhead) {
		h.set("it was not to be renewed before", &r.Renewal.NotBefore, time.Time{})
	}
	r = r.replacedHealed(t, h).lastHealed(t, h).hooksHealed(h)
	return r, h.what
}

// hooksHealed heals the waits of hooks.
func (r Record) hooksHealed(h *healing) Record {
	for _, owed := range r.OwedHooks() {
		wait, run := h.isAhead(owed.NotBefore, maxNotBeforeAhead), h.isAhead(owed.Began, lateTolerance)
		if !wait && !run {
			continue
		}
		r = r.withHook(owed.Name, func(o *OwedHook) {
			if wait {
				h.set("a hook was not to run before", &o.NotBefore, time.Time{})
			}
			if run {
				h.set("a hook was begun at", &o.Began, h.now)
			}
		})
	}
	return r
}

// progressHealed heals the rotation in progress: a wait that is measured from a future time would not end
// until the clock reaches that time again, and the old secret would end before that.
func (r Record) progressHealed(h *healing) Record {
	w := r.Work
	if w == nil {
		return r
	}
	if h.isAhead(w.Verification.Since, lateTolerance) {
		r.Work = new(*r.Work)
		h.set("its secret was first refused at", &r.Work.Verification.Since, h.now)
	}
	if latest := h.now.Add(time.Duration(max(w.Grace, w.ExtendedBy))); w.GraceEndsAt.Sub(latest) > maxGraceLonger {
		r.Work = new(*r.Work)
		h.set("the old secret was to work until", &r.Work.GraceEndsAt, latest)
	}
	if d := r.Doubt; d != nil && h.isAhead(d.Since, lateTolerance) {
		r.Doubt = new(*d)
		h.set("it was in doubt since", &r.Doubt.Since, h.now)
	}
	return r
}

// replacedHealed heals the service tokens that are to be deleted.
func (r Record) replacedHealed(t Token, h *healing) Record {
	if len(r.Replaced) == 0 {
		return r
	}
	r.Replaced = slices.Clone(r.Replaced)
	for i := range r.Replaced {
		old := &r.Replaced[i]
		if h.isAhead(old.NotBefore, maxChoreBackOff) {
			h.set("what was replaced was not to be deleted before", &old.NotBefore, time.Time{})
		}
		if h.isAhead(old.At, MaxGrace+maxAnchorAhead) {
			h.set("what was replaced was to be deleted at", &old.At, h.now.Add(t.Grace))
		}
	}
	return r
}

// lastHealed heals the last rotation.
func (r Record) lastHealed(t Token, h *healing) Record {
	last := r.Last
	if last == nil {
		return r
	}
	if last.Slot.After(r.Anchor) && !last.Slot.After(h.now) {
		// The slot was served by a clock that was ahead, and its time has come: the slots up to it are
		// consumed.
		r.Anchor = last.Slot
	}
	if h.isAhead(last.GraceEndsAt, MaxGrace+maxAnchorAhead) {
		r.Last = new(*last)
		h.set("the grace was to end at", &r.Last.GraceEndsAt, h.now.Add(t.Grace))
	}
	return r
}
