package shared

import (
	"time"

	"rotatord/internal/rotation"
)

// MaxHold is the longest time for which a hold of another process is respected, whatever its record says. It is the
// longest claim that the configuration allows.
const MaxHold = time.Hour

// VaultClock is what a replica knows of Vault's clock.
type VaultClock interface {
	// VaultNow returns the latest reading, and false if there is none.
	VaultNow() (ClockReading, bool)
}

// ClockReading is one reading of Vault's clock.
type ClockReading struct {
	// Now is a time that Vault's clock has passed by now.
	Now time.Time
	// Since is the time on Vault's clock since which it was read again and again without a jump.
	Since time.Time
	// At is when it was read last, by the own clock.
	At time.Time
}

// HoldLeft implements [rotation.SharedLedger].
//
// The end of a hold is the created_time of its version plus [rotation.Hold].For, by Vault's clock. The process that
// holds counts from before its write, on its monotonic clock and on its wall clock, and takes the shorter time that
// is left: the monotonic clock stands still while the machine is suspended, and the wall clock can be set back. Every
// other process counts from when it first saw the version, or uses Vault's clock if it has read that without a jump
// since before the version was written, and again after it has seen the version.
func (l *Ledger) HoldLeft(r rotation.Record) time.Duration {
	if r.Hold == nil {
		return 0
	}
	now := l.o.Now()
	l.mu.Lock()
	v, there := l.known[r.Token]
	a, tried := l.attempts[r.Token]
	l.mu.Unlock()
	there = there && v.record.Revision == r.Revision
	held := time.Duration(r.Hold.For)
	if l.isOurs(r.Hold) {
		began := v.began
		if !there && tried && a.revision == r.Revision {
			began, there = a.began, true
		}
		if !there || began.IsZero() { // another has saved since, or it is not known when we did
			return 0
		}
		return held - passed(began, now)
	}
	held = min(held, MaxHold)
	if !there { // an older record than the one that was seen last: load it again
		return held
	}
	return l.left(v.sighting, held, now)
}

// left returns how much is left of a time that has begun at the latest with a version that another process wrote.
func (l *Ledger) left(s sighting, held time.Duration, now time.Time) time.Duration {
	left := held - now.Sub(s.seen)
	if l.o.Clock != nil {
		c, ok := l.o.Clock.VaultNow()
		if ok && !c.Since.After(s.created) && c.At.After(s.seen) {
			left = min(left, s.created.Add(held).Sub(c.Now))
		}
	}
	return left
}

// RunLeft implements [rotation.SharedLedger]. It counts as HoldLeft does, from the first version that this process has
// seen with the run: later versions have it too, because other work on the token goes on meanwhile.
func (l *Ledger) RunLeft(token string, h rotation.OwedHook) time.Duration {
	if h.Runner == nil {
		return 0
	}
	now := l.o.Now()
	l.mu.Lock()
	seen, there := l.known[token].runs[runOf(h)]
	l.mu.Unlock()
	held := min(time.Duration(h.Runner.For), MaxHold)
	if !there { // an older record than the one that was seen last: load it again
		return held
	}
	return l.left(seen, held, now)
}

func (l *Ledger) isOurs(h *rotation.Hold) bool {
	return h != nil && h.Replica == l.o.Replica && h.Process == l.o.Process
}

// passed returns the longer of the times that the monotonic clock and the wall clock show between two moments.
func passed(from, to time.Time) time.Duration {
	return max(to.Sub(from), to.Round(0).Sub(from.Round(0)))
}
