package admission

import (
	"sync"
	"time"

	"rotatord/internal/moment"
	"rotatord/internal/secret"
)

// Budgets are the budgets of all credentials that one process uses. Use [NewBudgets].
type Budgets struct {
	mu        sync.Mutex
	all       map[Key]*Budget
	addresses map[string]*address // by server
	began     time.Time           // about when this process began
	sharers   sharers
	timer     *time.Timer // when a part of a limit grows
}

// Key says what Cloudflare counts together.
type Key struct {
	BaseURL    string
	Credential secret.Digest
}

// NewBudgets returns an empty set.
func NewBudgets() *Budgets {
	return &Budgets{all: make(map[Key]*Budget), addresses: make(map[string]*address), began: time.Now()}
}

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
	blocked time.Time   // until when another process was refused; zero once a budget knows it
}

// Share says how many processes with the same limits use the credentials, this one included. Each takes an equal part
// of a limit, and at least one request. 0 and 1 are the same. A part becomes smaller at once. It grows five minutes later,
// because the requests of a process that has ended count until then.
func (s *Budgets) Share(among int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sharers.set(among, time.Now())
	s.divide()
}

// divide gives each budget the part of its limit that is right now, and does so again when that grows. s.mu must be held.
func (s *Budgets) divide() {
	most, next := s.sharers.most(time.Now())
	for _, b := range s.all {
		b.share(most)
	}
	if next > 0 {
		s.later(next)
	}
}

func (s *Budgets) later(d time.Duration) {
	if s.timer != nil {
		s.timer.Reset(d)
		return
	}
	s.timer = time.AfterFunc(d, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.divide()
	})
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
		b.address = u.budgets.address(key.BaseURL)
		most, _ := u.budgets.sharers.most(time.Now())
		b.share(most)
		u.budgets.all[key] = b
	}
	if !u.closed {
		u.key, u.budget = key, b
		b.join(u, u.limit)
	}
	b.countEarlier(u.earlier)
	b.block(u.blocked)
	u.earlier, u.blocked = nil, time.Time{}
	return b
}

// address returns what counts the requests to the server of a base URL. s.mu must be held.
func (s *Budgets) address(baseURL string) *address {
	server := addressOf(baseURL)
	if s.addresses[server] == nil {
		s.addresses[server] = newAddress(s.began)
	}
	return s.addresses[server]
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

// Refused returns for how long Cloudflare has asked this process to send nothing with the present credential, by a
// 429; 0 if it has not. What [User.Block] was told is not in it, so that processes which tell each other end.
func (u *User) Refused() time.Duration {
	if b := u.Current(); b != nil {
		return b.refused()
	}
	return 0
}

// Block sends nothing with the present credential for a time, because Cloudflare has answered another process that
// uses it with a 429. It never shortens a wait.
func (u *User) Block(d time.Duration) {
	u.budgets.mu.Lock()
	defer u.budgets.mu.Unlock()
	until := time.Now().Add(min(d, Window))
	if u.budget != nil {
		u.budget.block(until)
	} else {
		u.blocked = moment.Max(u.blocked, until)
	}
}

// Close takes the user out of its budget. Requests that are under way may finish.
func (u *User) Close() {
	u.budgets.mu.Lock()
	defer u.budgets.mu.Unlock()
	u.closed = true
	u.leave()
}
