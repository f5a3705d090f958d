package durable

import (
	"sync"
	"time"
)

// LastWrite remembers how the last write to a place ended, for health checks. It is safe for
// concurrent use. The zero value has seen no write.
type LastWrite struct {
	mu  sync.Mutex
	at  time.Time
	err error
}

// Note records a write that ended now, and returns its error.
func (w *LastWrite) Note(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at, w.err = time.Now(), err
	return err
}

// NoteRemoval records a removal that ended now, and returns its error. A removal that succeeds does not
// end a failure: it needs no free space.
func (w *LastWrite) NoteRemoval(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil || w.err == nil {
		w.at, w.err = time.Now(), err
	}
	return err
}

// Get returns when the last write ended and its error. The time is zero if nothing was written.
func (w *LastWrite) Get() (time.Time, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at, w.err
}
