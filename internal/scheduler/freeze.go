package scheduler

import "time"

// Freeze is a period in which nothing begins: once, from From until To, or again and again,
// from each slot of Schedule on for Duration. It begins with its first moment and is over
// at its end.
type Freeze struct {
	Name string // for messages
	// Skip says what happens to a slot in it: passed over, or, without Skip, deferred to
	// its end. What another freeze has deferred into it is deferred again, and not lost.
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

// maxFreezes bounds how many freezes that follow one another are looked through.
const maxFreezes = 10_000

// thaw is the first moment from t on that lies in none of the freezes, later by delay if
// that is not t itself, and the name of the freeze that ends last before it. It is zero if
// the freezes have no end.
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
