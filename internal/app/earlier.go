package app

import (
	"time"

	"rotatord/internal/rotation"
)

// earlierRequests are the requests that an earlier process of this daemon sent, as far as the ledger knows.
type earlierRequests struct {
	now, clock time.Time // the same moment; the budget counts on the monotonic clock
	byAccount  map[string][]time.Time
}

func (a *App) earlierRequests() *earlierRequests {
	return &earlierRequests{now: a.now(), clock: time.Now(), byAccount: make(map[string][]time.Time)}
}

// add adds those of a record.
func (e *earlierRequests) add(r rotation.Record) {
	for _, at := range r.RequestTimes() {
		e.byAccount[r.Account] = append(e.byAccount[r.Account], e.clock.Add(-e.now.Sub(at)))
	}
}

// countEarlier tells the accounts' request budgets of these requests. Otherwise a budget would take those of the last minutes
// for another user's, and would leave capacity for more of them.
func (a *App) countEarlier(e *earlierRequests) {
	if a.sharing != nil { // most of those requests were sent by other replicas, which go on
		return
	}
	for name, account := range a.accounts {
		account.client.CountEarlier(e.byAccount[name])
	}
}
