package app

import (
	"time"

	"rotatord/internal/rotation"
)

// countEarlier tells the accounts' request budgets what an earlier process of this daemon sent in the last
// minutes, as far as the ledger knows. Otherwise a budget would take those requests for another user's, and
// would leave capacity for more of them.
func (a *App) countEarlier(records []rotation.Record) {
	if a.sharing != nil { // most of those requests were sent by other replicas, which go on
		return
	}
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
