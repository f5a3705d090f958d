package admission

import (
	"sync"
	"time"

	"rotatord/internal/secret"
)

// Budgets are the budgets of all credentials that one process uses. Use [NewBudgets].
type Budgets struct {
	mu      sync.Mutex
	all     map[Key]*Budget
	sharers int
}

// Key says what Cloudflare counts together.
type Key struct {
	BaseURL    string
	Credential secret.Digest
}

// NewBudgets returns an empty set.
func NewBudgets() *Budgets { return &Budgets{all: make(map[Key]*Budget)} }

// User is an account that uses budgets: at any time that of its present credential. It is safe for
// concurrent use.
type User struct {
	budgets *Budgets
	limit   int

	// Guarded by budgets.mu.
	key     Key
	budget  *Budget     // that of key, while the user is in it; nil before the first use
	closed  bool        // it only ends what is under way
	earlier []time.Time // requests of an earlier process that no budget counts yet
}

// Share says how many processes with the same limits use the credentials, this one included. Each takes an equal part
// of a limit, and at least one request. 0 and 1 are the same.
func (s *Budgets) Share(sharers int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sharers = sharers
	for _, b := range s.all {
		b.share(sharers)
	}
}

// Join returns a user whose account allows so many requests in five minutes.
func (s *Budgets) Join(limit int) *User { return &User{budgets: s, limit: limit} }

// Budget returns the budget of the credential that the user uses now.
func (u *User) Budget(key Key) *Budget {
	u.budgets.mu.Lock()
	defer u.budgets.mu.Unlock()
	if u.budget != nil && u.key == key {
		return u.budget
	}
	u.leave()
	b := u.budgets.all[key]
	if b == nil {
		b = NewBudget(u.limit)
		b.share(u.budgets.sharers)
		u.budgets.all[key] = b
	}
	if !u.closed {
		u.key, u.budget = key, b
		b.join(u, u.limit)
	}
	b.countEarlier(u.earlier)
	u.earlier = nil
	return b
}

// leave takes the user out of its budget. A budget without users lives for as long as its requests
// count. budgets.mu must be held.
func (u *User) leave() {
	if u.budget != nil {
		u.budget.leave(u)
		u.budget = nil
	}
	for key, b := range u.budgets.all {
		if b.idle() {
			delete(u.budgets.all, key)
		}
	}
}

// Current returns the budget that the user used last; nil if there is none.
func (u *User) Current() *Budget {
	u.budgets.mu.Lock()
	defer u.budgets.mu.Unlock()
	return u.budget
}

// CountEarlier counts requests that an earlier process sent at these times, as the ledger knows them.
// Otherwise they would look like requests of another user of the credential. Call it before the first
// use.
func (u *User) CountEarlier(at []time.Time) {
	u.budgets.mu.Lock()
	defer u.budgets.mu.Unlock()
	u.earlier = append(u.earlier, at...)
}

// Close takes the user out of its budget. Requests that are under way may finish.
func (u *User) Close() {
	u.budgets.mu.Lock()
	defer u.budgets.mu.Unlock()
	u.closed = true
	u.leave()
}
