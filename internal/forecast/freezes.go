package forecast

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
)

// Freeze is a freeze with the tokens that have it.
type Freeze struct {
	scheduler.Freeze
	// Key identifies the freeze. It depends on its name and its times alone.
	Key    string
	Tokens []string
}

// Period is a time without rotations.
type Period struct {
	*Freeze
	From, To time.Time
}

// freezeKey tells freezes apart. A global freeze is in every token.
type freezeKey struct {
	name, schedule, zone string
	skip                 bool
	from, to             time.Time
	duration             time.Duration
}

// Periods returns the periods of all freezes that have a moment between from and until, sorted by freeze. The error
// is [TooManyError] if there are more than limit.
func Periods(tokens []rotation.Token, from, until time.Time, limit int) ([]Period, error) {
	var all []Period
	for _, f := range freezesOf(tokens) {
		if f.Schedule == nil {
			if f.To.After(from) && !f.From.After(until) {
				all = append(all, Period{f, f.From, f.To})
			}
			continue
		}
		for start := f.Schedule.Next(from.Add(-f.Duration)); !start.IsZero() && !start.After(until); start = f.Schedule.Next(start) {
			if len(all) >= limit {
				return nil, TooManyError{limit}
			}
			all = append(all, Period{f, start, start.Add(f.Duration)})
		}
	}
	return all, nil
}

// freezesOf returns the freezes of all tokens, sorted by name.
func freezesOf(tokens []rotation.Token) []*Freeze {
	all := map[freezeKey]*Freeze{}
	for i := range tokens {
		for _, f := range tokens[i].Timetable.Freezes {
			key := freezeKey{name: f.Name, skip: f.Skip, from: f.From.UTC(), to: f.To.UTC(), duration: f.Duration}
			if f.Schedule != nil {
				key.schedule, key.zone = f.Schedule.String(), f.Schedule.Location().String()
			}
			if all[key] == nil {
				all[key] = &Freeze{Freeze: f, Key: fmt.Sprint(key)}
			}
			all[key].Tokens = append(all[key].Tokens, tokens[i].Name)
		}
	}
	sorted := make([]*Freeze, 0, len(all))
	for _, f := range all {
		sorted = append(sorted, f)
	}
	slices.SortFunc(sorted, func(a, b *Freeze) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), slices.Compare(a.Tokens, b.Tokens), cmp.Compare(a.Key, b.Key))
	})
	return sorted
}
