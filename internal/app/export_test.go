package app

import (
	"context"

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
