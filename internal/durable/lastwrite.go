package durable

import (
	"fmt"
	"sync"
	"time"
)

// LastWrite remembers how the last write to a place ended, and which have not ended, for health checks. It is safe for
// concurrent use. The zero value has seen no write.
type LastWrite struct {
	mu      sync.Mutex
	at      time.Time
	err     error
	unended Unended
}

// hangsAfter is how long a write may take until it is called one that hangs.
const hangsAfter = 30 * time.Second

// HangsError is the error about a write that does not end. It is not given up: nobody knows whether it will count.
type HangsError struct{ Began time.Time }

// Error implements error.
func (e *HangsError) Error() string {
	return fmt.Sprintf("a write has not ended for %s: look at the disk. What waits for it goes on when it ends", time.Since(e.Began).Round(time.Second))
}

// Cause says in one word what is wrong.
func (*HangsError) Cause() string { return "hangs" }

// Begin notes that a write begins. What it returns is to be called when the write has ended.
func (w *LastWrite) Begin() (end func()) {
	this := new(byte)
	w.unended.Add(this, time.Now())
	return func() { w.unended.Remove(this) }
}

// Do writes, and notes when the write begins and how it ended.
func (w *LastWrite) Do(write func() error) error {
	defer w.Begin()()
	return w.Note(write())
}

// Note records a write that ended now, and returns its error.
func (w *LastWrite) Note(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at, w.err = time.Now(), err
	return err
}

// Remove removes, and notes when that begins and how it ended. A removal that succeeds does not end a failure: it needs no
// free space.
func (w *LastWrite) Remove(remove func() error) error {
	defer w.Begin()()
	err := remove()
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil || w.err == nil {
		w.at, w.err = time.Now(), err
	}
	return err
}

// Since returns when the first of the writes that have not ended began; zero if there is none.
func (w *LastWrite) Since() time.Time { return w.unended.Oldest() }

// Get returns when the last write ended and its error. The time is zero if nothing was written. While a write hangs, it
// returns when that began, and a [HangsError].
func (w *LastWrite) Get() (time.Time, error) {
	if began := w.Since(); !began.IsZero() && time.Since(began) >= hangsAfter {
		return began, &HangsError{began}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at, w.err
}
