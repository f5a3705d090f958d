// Package forecast says what will happen: when each token is rotated next, which slots freezes skip, and
// what an operator should know about that.
//
// Guarantee: a forecast has no opinion of its own on when tokens rotate. It asks package rotation when a token is
// due, and takes the same transitions as the daemon, for a rotation that starts then and succeeds at once.
// TestForecastIsWhatHappens compares forecasts with rotations of the real code. A forecast reads no clock,
// no file and no network: it is a function of its arguments.
package forecast

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"rotatord/internal/rotation"
)

// Range says which rotations a forecast has.
type Range struct {
	Now         time.Time
	From, Until time.Time // zero: no bound
	Count       int       // of each token; 0: no bound
	// Limit is the largest number of entries of all tokens together, unless that is less than two for
	// each token.
	Limit int
}

// Past reports whether the range starts now or earlier. The ledger does not help there: it knows the last
// rotation only.
func (r Range) Past() bool { return !r.From.IsZero() && !r.From.After(r.Now) }

// State is what the state directory says about the tokens, by name.
type State struct {
	Records map[string]rotation.Record
	Pauses  map[string]rotation.Pause
}

// Status says what happens to a slot.
type Status string

// The values of Status.
const (
	Planned Status = "planned" // a rotation serves it
	Skipped Status = "skipped" // a freeze skips it
	Missed  Status = "missed"  // its window is over before a rotation can start, and no rotation makes up for it
	Held    Status = "held"    // no time is known
)

// Where the slots of an entry are counted from.
const (
	FromLedger = "ledger"
	FromNow    = "now"  // the token or its schedule is new
	FromRange  = "from" // Range.From
)

// Entry is a rotation, or a slot without one. Times are zero if there is none.
type Entry struct {
	Token  *rotation.Token
	Status Status
	// Slot is the first slot that the rotation serves, LastSlot the last, and Slots their number. If the
	// status is Missed, these slots are given up.
	Slot, LastSlot time.Time
	Slots          int
	Starts         time.Time // in UTC, including the jitter and whatever else delays it
	Closes         time.Time // when the slot is missed
	GraceEnds      time.Time // when the previous secret stops working; Starts if at once
	Reason         rotation.DueReason
	Freeze         string // the freeze that skips the slot, or that it waits for
	CountedFrom    string
	Warnings       []Warning
}

// at returns the time by which an entry is sorted; zero if it comes last.
func (e *Entry) at() time.Time {
	switch {
	case !e.Starts.IsZero():
		return e.Starts
	case e.Status == Held:
		return time.Time{}
	}
	return e.Slot
}

// Forecast has the earliest entry first, and those without a time last.
type Forecast []Entry

func (f Forecast) sort() {
	slices.SortFunc(f, func(a, b Entry) int {
		s, t := a.at(), b.at()
		if s.IsZero() != t.IsZero() {
			return t.Compare(s)
		}
		return cmp.Or(s.Compare(t), cmp.Compare(a.Token.Name, b.Token.Name), a.Slot.Compare(b.Slot))
	})
}

// TooManyError says that a forecast would have more entries than its limit.
type TooManyError struct{ Limit int }

func (e TooManyError) Error() string {
	return fmt.Sprintf("the forecast would have more than %d entries", e.Limit)
}

// Of returns the forecast for tokens. It does not change state. The error is [TooManyError], or that of ctx.
func Of(ctx context.Context, tokens []rotation.Token, state State, r Range) (Forecast, error) {
	f := &forecaster{Range: r, state: state}
	f.Limit = max(r.Limit, 2*len(tokens))
	for i := range tokens {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := f.add(&tokens[i]); err != nil {
			return nil, err
		}
	}
	f.all.sort()
	return f.all, nil
}

// forecaster makes one forecast.
type forecaster struct {
	Range
	state State
	all   Forecast
}

// add adds what will happen to a token.
func (f *forecaster) add(t *rotation.Token) error {
	o := outlook{forecaster: f, token: t}
	if conflict := o.begin(); conflict != nil { // the daemon would not start
		e := o.entry(Held, rotation.Due{Reason: rotation.DueUnfinished})
		e.warn(WarnLedger, "conflict with the ledger", "%v", conflict)
		return o.append(e)
	}
	for f.Count == 0 || o.listed < f.Count {
		if more, err := o.step(); err != nil || !more {
			return err
		}
	}
	return nil
}
