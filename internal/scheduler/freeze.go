package scheduler

import "time"

// Freeze is a time in which no rotation starts: once, from From until To, or repeatedly, for Duration from each slot
// of Schedule on. It includes its first moment, but not its end.
type Freeze struct {
	Name string // for messages
	// Skip means that a slot in the freeze is skipped. Without it, the slot is deferred to the end. A slot
	// that another freeze has deferred into this one is always deferred again, never skipped.
	Skip bool

	From, To time.Time

	Schedule *Schedule // nil: once
	Duration time.Duration
}

// PeriodAt returns the period of f that contains t, and false if none does. The periods of one
// freeze must not overlap: Duration is shorter than the smallest gap of Schedule.
func (f Freeze) PeriodAt(t time.Time) (from, to time.Time, ok bool) {
	if f.Schedule == nil {
		return f.From, f.To, !t.Before(f.From) && t.Before(f.To)
	}
	from = f.Schedule.Next(t.Add(-f.Duration))
	if from.IsZero() || from.After(t) {
		return time.Time{}, time.Time{}, false
	}
	return from, from.Add(f.Duration), true
}

// maxFreezes is the largest number of freezes in a row that are checked.
const maxFreezes = 10_000

// thaw returns the first moment from t on that is in none of the freezes, and the name of the freeze that ends last
// before it. If that is not t itself, delay is added. The moment is zero if the freezes have no end.
func thaw(freezes []Freeze, t time.Time, delay func() time.Duration) (at time.Time, name string) {
	at = t
	for range maxFreezes {
		thawed := true
		for i := range freezes {
			if _, to, ok := freezes[i].PeriodAt(at); ok {
				at, name, thawed = to.Add(delay()), freezes[i].Name, false
			}
		}
		if thawed {
			return at, name
		}
	}
	return time.Time{}, name
}
