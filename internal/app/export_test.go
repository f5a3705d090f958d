package app

import (
	"context"
	"math"
	"testing"
	"time"

	"rotatord/internal/status"
)

// LookAhead does all look-ahead checks now, instead of some minutes later.
func (a *App) LookAhead() { a.ahead.LookNow(func(status.Check) bool { return true }) }

// Ahead returns the last results.
func (a *App) Ahead() []status.Check { return a.ahead.Results() }

// WatchSinks looks at all sinks twice now, as the watch does within a period and a minute.
func (a *App) WatchSinks(ctx context.Context) {
	for _, item := range a.watch.items {
		if item.sink == "" {
			continue
		}
		for range 2 {
			a.watch.look(ctx, item)
			item.first = item.first.Add(-2 * confirmAfter)
		}
	}
}

// LeastAllocated returns what f allocates on average in so many runs. What the rest of the process does meanwhile is counted, too, so it is measured
// ten times at least, and on a busy machine until it is not more than enough, for 30 s at most.
func LeastAllocated(enough float64, runs int, f func()) float64 {
	least, deadline := math.Inf(1), time.Now().Add(30*time.Second)
	for i := 0; i < 10 || least > enough && time.Now().Before(deadline); i++ {
		least = min(least, testing.AllocsPerRun(runs, f))
	}
	return least
}
