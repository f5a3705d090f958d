package app

import "rotatord/internal/status"

// LookAhead does all look-ahead checks now, instead of some minutes later.
func (a *App) LookAhead() { a.ahead.LookNow(func(status.Check) bool { return true }) }

// Ahead returns the last results.
func (a *App) Ahead() []status.Check { return a.ahead.Results() }
