package durable

import (
	"sync"
	"time"
)

// Unended remembers what has begun and has not ended, by any key that tells one from another. It is safe for concurrent use.
// The zero value has nothing.
type Unended struct {
	mu    sync.Mutex
	began map[any]time.Time
}

// Add notes when something began.
func (u *Unended) Add(key any, began time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.began == nil {
		u.began = make(map[any]time.Time)
	}
	u.began[key] = began
}

// Remove notes that it has ended.
func (u *Unended) Remove(key any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.began, key)
}

// Oldest returns when the first of them began; zero if there is none.
func (u *Unended) Oldest() (first time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, began := range u.began {
		if first.IsZero() || began.Before(first) {
			first = began
		}
	}
	return first
}
