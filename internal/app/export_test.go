package app

import (
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// LookAhead does all look-ahead checks now, instead of some minutes later.
func (a *App) LookAhead() { a.ahead.LookNow(func(status.Check) bool { return true }) }

// shownBy tells an engine of what is saved, and another observer of everything.
type shownBy struct {
	engine *engine
	next   rotation.Observer
}

func (s shownBy) Observe(e rotation.Event) {
	if reached, ok := e.(rotation.Reached); ok {
		s.engine.show(reached.Record)
	}
	s.next.Observe(e)
}

// Ahead returns the last results.
func (a *App) Ahead() []status.Check { return a.ahead.Results() }
