package admission

import (
	"sync"

	"rotatord/internal/rotation"
)

// maxTotal is how many turns of all accounts may be active at once. Each turn holds its memory, its goroutines and a
// connection, and all share one address, one disk and one Vault: thousands in progress last longer than their claims, and
// not one is done earlier. It is what twenty accounts can have. Turns that operators order may exceed it by
// maxTotalUrgentMore. Where consumers may be cut off, an account has all its turns, whatever the others have.
const (
	maxTotal           = 640
	maxTotalUrgentMore = maxTotal / 8
)

// Total bounds the active turns of all accounts. An account that has none always gets one, so accounts that hang stop no other
// one. Once half of maxTotal is used, those that have more than an equal share begin none until they have less. Total is
// safe for concurrent use. The zero value has no active turns.
type Total struct {
	mu       sync.Mutex
	active   int
	accounts int // those with an active turn
}

// fits reports whether an account with that many active turns may have one more.
func (t *Total) fits(active int, u rotation.Urgency) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.room(active, u)
}

// begin counts one more active turn of an account with that many, if there is room for it.
func (t *Total) begin(active int, u rotation.Urgency) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.room(active, u) {
		return false
	}
	t.active++
	if active == 0 {
		t.accounts++
	}
	return true
}

// room is fits. t.mu must be held.
func (t *Total) room(active int, u rotation.Urgency) bool {
	if active == 0 || u >= rotation.UrgencyEmergency {
		return true
	}
	most := maxTotal + urgentMore(u, maxTotalUrgentMore)
	return t.active < most/2 || t.active < most && active < max(most/t.accounts, 1)
}

// end counts one active turn less of an account, which has that many left.
func (t *Total) end(active int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.active--
	if active == 0 {
		t.accounts--
	}
}

// Active returns how many turns of all accounts are active.
func (t *Total) Active() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.active
}
