package sink

import (
	"sync"
	"time"
)

// keptFor is how long a value is kept: the longest time from the preflight to the first write.
const keptFor = 3 * time.Minute

// kept has what Preflight has read, for the Store that may follow. It has the secrets of others too, so it is only in
// memory, only for as long as a rotation needs it, and good for one write. The zero value is empty. It is safe for
// concurrent use.
type kept[T any] struct {
	mu    sync.Mutex
	value *T // nil after take, and when it is too old
	drop  *time.Timer
}

// keep keeps a value in place of the one before.
func (k *kept[T]) keep(value T) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forget()
	k.value = &value
	own := k.value
	k.drop = time.AfterFunc(keptFor, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.value == own {
			k.value = nil
		}
	})
}

// take returns the value, and no longer has it. It returns false if there is none.
func (k *kept[T]) take() (value T, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.value == nil {
		return value, false
	}
	value = *k.value
	k.forget()
	return value, true
}

// forget empties it. The caller holds mu.
func (k *kept[T]) forget() {
	if k.drop != nil {
		k.drop.Stop()
	}
	k.value, k.drop = nil, nil
}
