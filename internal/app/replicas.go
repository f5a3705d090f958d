package app

import "rotatord/internal/status"

// Replicas returns the replicas that share the ledger; nil if this daemon is alone. It answers from memory.
func (a *App) Replicas() *status.Replicas { return nil }
