package app

import "rotatord/internal/status"

// LookAhead has all checks looked at now, in place of some minutes later.
func (a *App) LookAhead() { a.ahead.LookNow(func(status.Check) bool { return true }) }

// Ahead is what was found last.
func (a *App) Ahead() []status.Check { return a.ahead.Results() }
