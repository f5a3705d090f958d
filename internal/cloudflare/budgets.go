package cloudflare

import (
	"context"
	"math"
	"sync"
	"time"

	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

// This file says which clients share a budget, and what a client asks its own.

// Budgets are the budgets of all credentials that the clients of one process use. The zero
// value is not usable; call [NewBudgets].
type Budgets struct {
	mu   sync.Mutex
	all  map[budgetKey]*budget
	used map[*Client]budgetKey // what each used last
}

// budgetKey says what is counted together at Cloudflare.
type budgetKey struct {
	baseURL    string
	credential secret.Digest
}

// NewBudgets returns an empty set.
func NewBudgets() *Budgets {
	return &Budgets{all: make(map[budgetKey]*budget), used: make(map[*Client]budgetKey)}
}

// of returns the budget of what a client uses now.
func (s *Budgets) of(c *Client, key budgetKey) *budget {
	s.mu.Lock()
	defer s.mu.Unlock()
	if was, known := s.used[c]; known && was == key {
		return s.all[key]
	}
	s.leave(c)
	b := s.all[key]
	if b == nil {
		b = newBudget(c.account.RequestsPer5m)
		s.all[key] = b
	}
	if !c.closed.Load() { // else it only ends what it has in hand
		s.used[c] = key
		b.join(c, c.account.RequestsPer5m)
	}
	b.countEarlier(c.earlier)
	c.earlier = nil
	return b
}

// leave takes a client out of the budget that it used, which lives on for as long as what
// was spent of it counts. s.mu must be held.
func (s *Budgets) leave(c *Client) {
	if b := s.all[s.used[c]]; b != nil {
		b.leave(c)
	}
	delete(s.used, c)
	for key, b := range s.all {
		if b.idle() {
			delete(s.all, key)
		}
	}
}

// budget returns the one of the credential as it is now.
func (c *Client) budget(ctx context.Context) (*budget, error) {
	login, err := c.readLogin(ctx)
	if err != nil {
		return nil, err
	}
	return c.budgetOf(login), nil
}

func (c *Client) budgetOf(l login) *budget {
	return c.budgets.of(c, budgetKey{c.account.BaseURL, l.digest()})
}

// CountEarlier counts requests of the account that an earlier process has sent at these times,
// as the ledger knows them. Without that they look like another user's of the credential. Call
// it before the client is used.
func (c *Client) CountEarlier(at []time.Time) {
	c.budgets.mu.Lock()
	defer c.budgets.mu.Unlock()
	c.earlier = append(c.earlier, at...)
}

// Close takes the client out of the budget that it shares. What it has in hand may go on.
func (c *Client) Close() {
	c.closed.Store(true)
	c.budgets.mu.Lock()
	defer c.budgets.mu.Unlock()
	c.budgets.leave(c)
}

// Room says how many requests of that urgency can be expected to be admitted within d, and if
// none, for how long at least none will be. The scheduler asks, so it reads no file.
func (c *Client) Room(d time.Duration, u rotation.Urgency) (requests int, wait time.Duration) {
	c.last.mu.Lock()
	login, known := c.last.login, c.last.known
	c.last.mu.Unlock()
	if !known {
		return math.MaxInt, 0 // whoever sends a request reads it, or is told why it cannot be read
	}
	return c.budgetOf(login).room(d, u)
}

// HeldUp says in words what holds up requests of that urgency now, and until when if that is
// known; "" if nothing does. It goes by the credential that was used last, and reads no file.
func (c *Client) HeldUp(u rotation.Urgency) (why string, until time.Time) {
	c.budgets.mu.Lock()
	b := c.budgets.all[c.budgets.used[c]]
	c.budgets.mu.Unlock()
	if b == nil {
		return "", time.Time{}
	}
	return b.heldUp(u)
}
