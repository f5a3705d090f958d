package scheduler

import (
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// Timetable is a schedule with one token's jitter. The zero Jitter means none.
type Timetable struct {
	Schedule *Schedule
	// Jitter is the largest delay after a slot.
	Jitter time.Duration
	// Key makes the jitter differ between tokens that share a schedule.
	Key string
}

// Next returns the first slot after anchor, and when its work may begin.
func (t Timetable) Next(anchor time.Time) (slot, begin time.Time) {
	slot = t.Schedule.Next(anchor)
	return slot, slot.Add(t.Delay(slot))
}

// Delay is the jitter of a slot. It depends on the key and the slot alone, so that a
// restart and every replica arrive at the same time, and an exported next time is
// exact.
func (t Timetable) Delay(slot time.Time) time.Duration {
	if t.Jitter <= 0 {
		return 0
	}
	b := binary.BigEndian.AppendUint64([]byte(t.Key+"\x00"), uint64(slot.Unix()))
	sum := sha256.Sum256(b)
	return time.Duration(binary.BigEndian.Uint64(sum[:8]) % uint64(t.Jitter))
}

// Latest returns the last slot in (anchor, now] and how many slots there are in that
// interval. With none it returns anchor and 0.
func (t Timetable) Latest(anchor, now time.Time) (slot time.Time, n int) {
	if every := t.Schedule.every; every > 0 {
		n = max(int(now.Sub(anchor)/every), 0)
		return anchor.Add(time.Duration(n) * every), n
	}
	slot = anchor
	for next := t.Schedule.Next(slot); !next.IsZero() && !next.After(now); next = t.Schedule.Next(slot) {
		slot, n = next, n+1
	}
	return slot, n
}
