package scheduler

import (
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// Timetable is a schedule with all that decides when one token's slots are served. Its
// fields but Schedule may be zero.
type Timetable struct {
	Schedule *Schedule
	// Jitter is the largest delay after a slot.
	Jitter time.Duration
	// Window is how long after its beginning a slot may be served. After that it is
	// missed. 0: until the next one comes.
	Window time.Duration
	// SkipMissed says what becomes of missed slots: nothing, or, without it, one rotation
	// that makes up for all of them.
	SkipMissed bool
	// Freezes are when nothing begins.
	Freezes []Freeze
	// Key makes the jitter differ between tokens that share a schedule.
	Key string
}

// Firing is when a slot is served.
type Firing struct {
	// Slot is as the schedule has it; zero if there is no slot in years.
	Slot time.Time
	// Begin is when its work may begin: after the jitter, and after a freeze.
	Begin time.Time
	// Close is when it is missed; zero if it has no window.
	Close time.Time
	// Freeze names the freeze that deferred it; empty if none did.
	Freeze string
	// Over is the first slot before it that a freeze passes over; zero if there is none.
	Over time.Time
}

// Next returns the first slot after anchor that is to be served. Slots that a freeze passes
// over are not.
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
			f.Over = over
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
	return Firing{Over: over}
}

// Firing is when a slot is served that no freeze passes over.
func (t *Timetable) Firing(slot time.Time) Firing {
	f := Firing{Slot: slot}
	f.Begin, f.Freeze = thaw(t.Freezes, slot.Add(t.Delay(slot)), func() time.Duration { return t.thawDelay(slot) })
	if t.Window > 0 && !f.Begin.IsZero() {
		f.Close = f.Begin.Add(t.Window)
	}
	return f
}

// skips returns the freeze that passes over a slot, because the slot or the moment after
// its jitter lies in it, and when that freeze ends; no name if none does.
func (t *Timetable) skips(slot time.Time) (name string, end time.Time) {
	for i := range t.Freezes {
		f := &t.Freezes[i]
		if !f.Skip {
			continue
		}
		if _, to, ok := f.Around(slot); ok {
			return f.Name, to
		}
		if _, to, ok := f.Around(slot.Add(t.Delay(slot))); ok {
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

// Thaw returns the first moment from at on that lies in no freeze, for work on a slot that
// is late, and the freeze that ends then; no name if that is at itself. The zero time means
// never. As when missed slots are made up for, tokens which wait for the end of one freeze
// do not all begin at its end: they are spread as [Timetable.CatchUp] spreads them.
func (t *Timetable) Thaw(slot, at time.Time) (time.Time, string) {
	return thaw(t.Freezes, at, func() time.Duration { return t.thawDelay(slot) })
}

// Frozen returns the freeze that lasts at at, and when that and those which follow it at once
// are over; no name if none lasts, and the zero time if that is never.
func (t *Timetable) Frozen(at time.Time) (end time.Time, name string) {
	return thaw(t.Freezes, at, func() time.Duration { return 0 })
}

func (t *Timetable) thawDelay(slot time.Time) time.Duration {
	return t.offset("thaw ", slot, t.spread(slot))
}

// Delay is the jitter of a slot. It depends on the key and the slot alone, so that a
// restart and every replica arrive at the same time, and an exported next time is
// exact.
func (t *Timetable) Delay(slot time.Time) time.Duration { return t.offset("", slot, t.Jitter) }

// offset is a number in [0, limit) that depends on key, purpose and slot alone.
func (t *Timetable) offset(purpose string, slot time.Time, limit time.Duration) time.Duration {
	if limit <= 0 {
		return 0
	}
	b := binary.BigEndian.AppendUint64([]byte(purpose+t.Key+"\x00"), uint64(slot.Unix()))
	sum := sha256.Sum256(b)
	return time.Duration(binary.BigEndian.Uint64(sum[:8]) % uint64(limit))
}

// catchUpSpread is over how long the rotations that make up for missed slots are spread,
// unless the jitter is longer.
const catchUpSpread = 10 * time.Minute

// CatchUp returns when to serve a slot that is found to be late at now, not because it was
// tried in vain but because nobody was there: a restart after a long time, a clock that was
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

// spread is over how long tokens are spread that would begin together at another time than
// that of this slot.
func (t *Timetable) spread(slot time.Time) time.Duration {
	limit := max(t.Jitter, catchUpSpread)
	if next := t.Schedule.Next(slot); !next.IsZero() {
		limit = min(limit, next.Sub(slot)/4)
	}
	return limit
}

// Passed is what became of the slots after an anchor.
type Passed struct {
	// Last is the last slot that is due; zero if none is. What is served now serves it,
	// and those before it.
	Last Firing
	// Due counts the slots that are due.
	Due int
	// Frozen counts those before Last that a freeze took away: passed over, or deferred
	// until the next one came.
	Frozen int
	// Missed is the last slot that was missed: its window is over. Zero if none was.
	// Misses counts those up to it.
	Missed time.Time
	Misses int
	// Over is the last slot that a freeze passed over since Last; zero if none. Overs counts
	// those.
	Over  time.Time
	Overs int
}

// Open reports whether Last may still be served, or has yet to begin.
func (p Passed) Open() bool { return !p.Missed.Equal(p.Last.Slot) }

// Passed looks at the slots in (anchor, now].
func (t *Timetable) Passed(anchor, now time.Time) Passed {
	var p Passed
	anchor = t.passFar(anchor, now, &p)
	missed, misses := p.Missed, p.Misses // before Last
	for slot := t.Schedule.Next(anchor); !slot.IsZero() && !slot.After(now); slot = t.Schedule.Next(slot) {
		if name, _ := t.skips(slot); name != "" {
			p.Over = slot
			p.Overs++
			continue
		}
		if p.Last.Freeze != "" && !p.Last.Begin.Before(slot) { // it had not begun when this one came
			p.Frozen++
			p.Due--
			if !p.Open() {
				p.Missed, p.Misses = missed, misses
			}
		}
		p.Last, p.Frozen, p.Over, p.Overs = t.Firing(slot), p.Frozen+p.Overs, time.Time{}, 0
		p.Due++
		if closing := p.Last.Close; !closing.IsZero() && now.After(closing) {
			missed, misses = p.Missed, p.Misses
			p.Missed, p.Misses = slot, p.Due
		}
	}
	return p
}

// passFar counts the slots of @every that are long over, of which there may be millions,
// and returns the last of them.
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
	p.Due, p.Last = far, t.Firing(anchor)
	if t.Window > 0 {
		p.Missed, p.Misses = anchor, far
	}
	return anchor
}
