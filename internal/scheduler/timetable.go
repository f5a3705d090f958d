package scheduler

import (
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// Timetable is a schedule with everything that decides when one token's slots are served. All fields except
// Schedule may be zero.
type Timetable struct {
	Schedule *Schedule
	// Jitter is the largest delay after a slot.
	Jitter time.Duration
	// Window is how long a slot may be served, counted from its opening. After that it is missed. 0: until
	// the next slot comes.
	Window time.Duration
	// SkipMissed means that missed slots are given up. Without it, one rotation makes up for all of them.
	SkipMissed bool
	// Freezes are the times in which no rotation starts.
	Freezes []Freeze
	// Key makes the jitter of tokens with the same schedule different.
	Key string
}

// Firing is when a slot is served.
type Firing struct {
	// Slot is the time in the schedule; zero if there is no slot in the next years.
	Slot time.Time
	// Begin is when the rotation may start: after the jitter, and after a freeze.
	Begin time.Time
	// Close is when the slot is missed; zero if it has no window.
	Close time.Time
	// Freeze names the freeze that deferred it; empty if none did.
	Freeze string
	// FirstSkipped is the first slot before it that a freeze skips; zero if there is none.
	FirstSkipped time.Time
}

// Next returns the first slot after anchor that is served, without those that a freeze skips.
func (t *Timetable) Next(anchor time.Time) Firing {
	slot := t.Schedule.Next(anchor)
	var over time.Time
	for range maxFreezes {
		if slot.IsZero() {
			break
		}
		name, end := t.skips(slot)
		if name == "" {
			f := t.Firing(slot)
			f.FirstSkipped = over
			if f.Begin.IsZero() { // frozen for good
				f.Slot = time.Time{}
			}
			return f
		}
		if over.IsZero() {
			over = slot
		}
		slot = t.from(slot, end)
	}
	return Firing{FirstSkipped: over}
}

// Firing returns when a slot is served. No freeze may skip the slot.
func (t *Timetable) Firing(slot time.Time) Firing {
	f := Firing{Slot: slot}
	f.Begin, f.Freeze = thaw(t.Freezes, slot.Add(t.Delay(slot)), func() time.Duration { return t.thawDelay(slot) })
	if t.Window > 0 && !f.Begin.IsZero() {
		f.Close = f.Begin.Add(t.Window)
	}
	return f
}

// skips returns the freeze that skips a slot, because the slot or the moment after its jitter is in it, and when
// that freeze ends. The name is empty if no freeze does.
func (t *Timetable) skips(slot time.Time) (name string, end time.Time) {
	for i := range t.Freezes {
		f := &t.Freezes[i]
		if !f.Skip {
			continue
		}
		if _, to, ok := f.PeriodAt(slot); ok {
			return f.Name, to
		}
		if _, to, ok := f.PeriodAt(slot.Add(t.Delay(slot))); ok {
			return f.Name, to
		}
	}
	return "", time.Time{}
}

// from returns the first slot after slot that is not before end.
func (t *Timetable) from(slot, end time.Time) time.Time {
	if every := t.Schedule.every; every > 0 {
		slots := max((end.Sub(slot)+every-1)/every, 1)
		return slot.Add(slots * every)
	}
	if next := end.Add(-1); next.After(slot) {
		slot = next
	}
	return t.Schedule.Next(slot)
}

// Thaw returns the first moment from at on that is in no freeze, for a slot that is late, and the freeze that ends
// then. The name is empty if that moment is at itself, and the time is zero if it never comes. Tokens that wait for
// the end of the same freeze do not all start at its end: they are spread as [Timetable.CatchUp] spreads them.
func (t *Timetable) Thaw(slot, at time.Time) (time.Time, string) {
	return thaw(t.Freezes, at, func() time.Duration { return t.thawDelay(slot) })
}

// FrozenUntil returns the end of the freeze that lasts at a moment, and its name. If other freezes
// follow at once, it returns the end of the last. The name is empty if there is no freeze at that
// moment, and the end is zero if the freezes have no end.
func (t *Timetable) FrozenUntil(at time.Time) (end time.Time, name string) {
	return thaw(t.Freezes, at, func() time.Duration { return 0 })
}

func (t *Timetable) thawDelay(slot time.Time) time.Duration {
	return t.offset("thaw ", slot, t.spread(slot))
}

// Delay returns the jitter of a slot. It depends only on the key and the slot, so after a restart and on every
// replica it is the same, and an exported next time is exact.
func (t *Timetable) Delay(slot time.Time) time.Duration { return t.offset("", slot, t.Jitter) }

// offset returns a duration in [0, limit) that depends only on the key, the purpose and the slot.
func (t *Timetable) offset(purpose string, slot time.Time, limit time.Duration) time.Duration {
	if limit <= 0 {
		return 0
	}
	b := binary.BigEndian.AppendUint64([]byte(purpose+t.Key+"\x00"), uint64(slot.Unix()))
	sum := sha256.Sum256(b)
	return time.Duration(binary.BigEndian.Uint64(sum[:8]) % uint64(limit))
}

// catchUpSpread is the time over which rotations for missed slots are spread, unless the jitter is longer.
const catchUpSpread = 10 * time.Minute

// CatchUp returns when to serve a slot that is found to be late at now, not because it was
// tried without success but because no daemon ran: a restart after a long time, a clock that was
// put forward. Where all tokens are late at once, they must not all begin at once.
//
// It is spread over the jitter, over ten minutes if that is more, but over no more than a
// quarter of the time between the slot and the next, nor beyond closing.
func (t *Timetable) CatchUp(f Firing, now time.Time) time.Time {
	limit := t.spread(f.Slot)
	if left := f.Close.Sub(now); left >= 0 {
		limit = min(limit, left)
	}
	return now.Add(t.offset("catch-up ", f.Slot, limit))
}

// spread returns the time over which tokens are spread that would start together at another time than that of this
// slot.
func (t *Timetable) spread(slot time.Time) time.Duration {
	limit := max(t.Jitter, catchUpSpread)
	if next := t.Schedule.Next(slot); !next.IsZero() {
		limit = min(limit, next.Sub(slot)/4)
	}
	return limit
}

// Passed says what became of the slots between an anchor and now.
type Passed struct {
	// LastDue is the last slot that is due; zero if none is. A rotation that starts now serves this
	// slot and all due slots before it.
	LastDue Firing
	// DueCount is the number of slots that are due.
	DueCount int
	// DeferredCount is the number of slots before LastDue that a freeze took away: it skipped
	// them, or deferred them until the next slot came.
	DeferredCount int
	// LastMissed is the last slot whose window is over; zero if there is none. MissedCount is the
	// number of due slots up to it.
	LastMissed  time.Time
	MissedCount int
	// LastSkipped is the last slot after LastDue that a freeze skipped; zero if there is none.
	// SkippedCount is the number of these.
	LastSkipped  time.Time
	SkippedCount int
}

// LastDueOpen reports whether LastDue can still be served, now or when it opens.
func (p Passed) LastDueOpen() bool { return !p.LastMissed.Equal(p.LastDue.Slot) }

// Passed returns what became of the slots in (anchor, now].
func (t *Timetable) Passed(anchor, now time.Time) Passed {
	var p Passed
	anchor = t.passFar(anchor, now, &p)
	missed, misses := p.LastMissed, p.MissedCount // before LastDue
	for slot := t.Schedule.Next(anchor); !slot.IsZero() && !slot.After(now); slot = t.Schedule.Next(slot) {
		if name, _ := t.skips(slot); name != "" {
			p.LastSkipped = slot
			p.SkippedCount++
			continue
		}
		if p.LastDue.Freeze != "" && !p.LastDue.Begin.Before(slot) { // it had not begun when this one came
			p.DeferredCount++
			p.DueCount--
			if !p.LastDueOpen() {
				p.LastMissed, p.MissedCount = missed, misses
			}
		}
		p.LastDue, p.DeferredCount, p.LastSkipped, p.SkippedCount = t.Firing(slot), p.DeferredCount+p.SkippedCount, time.Time{}, 0
		p.DueCount++
		if closing := p.LastDue.Close; !closing.IsZero() && now.After(closing) {
			missed, misses = p.LastMissed, p.MissedCount
			p.LastMissed, p.MissedCount = slot, p.DueCount
		}
	}
	return p
}

// passFar counts the slots of @every that passed long ago, and returns the last of them. There can be millions.
func (t *Timetable) passFar(anchor, now time.Time, p *Passed) time.Time {
	every := t.Schedule.every
	if every == 0 || len(t.Freezes) > 0 {
		return anchor
	}
	near := int((t.Window+t.Jitter)/every) + 2 // their window may still be open
	far := int(now.Sub(anchor)/every) - near
	if far <= 0 {
		return anchor
	}
	anchor = anchor.Add(time.Duration(far) * every)
	p.DueCount, p.LastDue = far, t.Firing(anchor)
	if t.Window > 0 {
		p.LastMissed, p.MissedCount = anchor, far
	}
	return anchor
}
