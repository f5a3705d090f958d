// Package moment compares times, and waits. The standard library has min and max only for ordered types, and code
// that compares times by hand easily disagrees about the zero time.
package moment

import (
	"context"
	"time"
)

// Sleep waits for d. It returns ctx's error if ctx ends before that. If d is not positive, it does not wait.
func Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// Min returns the earliest of some times. The zero time is the earliest of all.
func Min(first time.Time, others ...time.Time) time.Time {
	for _, t := range others {
		if t.Before(first) {
			first = t
		}
	}
	return first
}

// MinNonZero returns the earliest of some times, of which the zero time means never. It is zero if all
// are.
func MinNonZero(all ...time.Time) time.Time {
	var earliest time.Time
	for _, t := range all {
		if !t.IsZero() && (earliest.IsZero() || t.Before(earliest)) {
			earliest = t
		}
	}
	return earliest
}

// Max returns the latest of some times. The zero time is later than none.
func Max(first time.Time, others ...time.Time) time.Time {
	for _, t := range others {
		if t.After(first) {
			first = t
		}
	}
	return first
}
