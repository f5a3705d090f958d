package app

import (
	"time"

	"rotatord/internal/rotation"
)

// countEarlier tells the accounts' request budgets what an earlier process of this daemon has
// sent in the last minutes, as far as the ledger knows. Else a restart would take it for the
// requests of another user of the credential, and leave room for more of them.
func (a *App) countEarlier(records []rotation.Record) {
	now, clock := a.now(), time.Now() // the budget counts on the monotonic clock
	earlier := make(map[string][]time.Time)
	for _, r := range records {
		for _, at := range r.RequestTimes() {
			earlier[r.Account] = append(earlier[r.Account], clock.Add(-now.Sub(at)))
		}
	}
	for name, account := range a.accounts {
		account.client.CountEarlier(earlier[name])
	}
}
