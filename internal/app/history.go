package app

import (
	"context"

	"rotatord/internal/status"
)

// History implements [httpapi.Source] and [admin.Daemon]: lines of the record of events.
func (a *App) History(context.Context, status.HistoryQuery) (status.History, error) {
	return status.History{Entries: []status.HistoryEntry{}}, nil
}
