// Package logqueue has a writer for the daemon's log that a stalled reader does not block.
//
// The log of a daemon goes to standard error, which is often a pipe. If the program at the other end stops reading, a
// write to a full pipe never returns, and whatever logs a line stops there: a rotation, a reload, the stop. So a
// [Writer] hands its lines to a goroutine, waits only for a short time, and drops lines when too many wait.
//
// It is a room of its own because it is below everything that logs: the events' subscriber, the servers' error logs,
// the messages of the command itself. The queue of package event protects the publishers of events only.
package logqueue

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"rotatord/internal/patience"
)

// Defaults of [Options].
const (
	defaultPatience = time.Second
	defaultBytes    = 1 << 20
)

// Options are the limits of a [Writer]. A value of zero stands for the default.
type Options struct {
	Patience time.Duration // how long a write waits until it is carried out; default one second
	Bytes    int           // how much waits at most; default 1 MiB
}

// Writer writes lines to another writer, in their order, and delays its caller no longer than the patience, once:
// after that, writes only add to the queue until the reader keeps up again. What does not fit into the queue is dropped, and a line
// at its place says how many are missing. It is safe for concurrent use. Each write becomes one write below.
type Writer struct {
	next    io.Writer
	options Options

	mu      sync.Mutex
	reader  patience.Reader
	missing func(w io.Writer, lines int)
	waiting []*line
	bytes   int           // of all that wait, and of the one that is being written
	dropped int           // since the last line that was accepted
	idle    chan struct{} // closed when the goroutine ends; nil while there is none
}

// line is one write that waits.
type line struct {
	text    []byte
	dropped int           // lines that were dropped right before it
	done    chan struct{} // closed when it is written
}

// New returns a Writer to next.
func New(next io.Writer, o Options) *Writer {
	if o.Patience <= 0 {
		o.Patience = defaultPatience
	}
	if o.Bytes <= 0 {
		o.Bytes = defaultBytes
	}
	return &Writer{next: next, options: o, reader: patience.Reader{Patience: o.Patience}, missing: func(w io.Writer, lines int) {
		fmt.Fprintf(w, "lines are missing here, since nothing read them for too long or they could not be written: %d\n", lines)
	}}
}

// TellMissing sets what writes the line that says how many lines are missing: the log has a format of its own.
func (w *Writer) TellMissing(missing func(w io.Writer, lines int)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.missing = missing
}

// Write implements io.Writer. It waits until the line is written or the patience is over, and always succeeds.
func (w *Writer) Write(p []byte) (int, error) {
	one, wait := w.add(p)
	if !wait {
		return len(p), nil
	}
	timer := time.NewTimer(w.options.Patience)
	defer timer.Stop()
	select {
	case <-one.done:
	case <-timer.C:
		w.mu.Lock()
		if w.idle != nil {
			w.reader.Late()
		}
		w.mu.Unlock()
	}
	return len(p), nil
}

// add adds a line to the queue if it fits, and reports whether to wait for it.
func (w *Writer) add(p []byte) (one *line, wait bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.bytes > 0 && w.bytes+len(p) > w.options.Bytes { // one line always fits, however long it is
		w.dropped++
		return nil, false
	}
	one = &line{slices.Clone(p), w.dropped, make(chan struct{})}
	w.waiting, w.dropped, w.bytes = append(w.waiting, one), 0, w.bytes+len(p)
	if w.idle == nil {
		w.idle = make(chan struct{})
		go w.drain()
	}
	return one, !w.reader.IsBehind()
}

// drain writes what waits until nothing does.
func (w *Writer) drain() {
	lost := 0
	for {
		one := w.take(lost > 0)
		if one == nil {
			return
		}
		lost = w.put(one)
		w.finish(one, lost)
	}
}

// take returns the next line, and nil if the goroutine ends. If lines were dropped after the last one, it
// returns an empty line that tells so, except right after a write that failed: then the next line tells it.
func (w *Writer) take(failed bool) *line {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case len(w.waiting) > 0:
		w.reader.Next(len(w.waiting))
		one := w.waiting[0]
		w.waiting = w.waiting[1:]
		return one
	case w.dropped > 0 && !failed:
		one := &line{dropped: w.dropped, done: make(chan struct{})}
		w.dropped = 0
		return one
	}
	w.reader.Next(0)
	close(w.idle)
	w.idle = nil
	return nil
}

// put writes a line, and before it how many lines are missing. It returns how many are missing after that.
func (w *Writer) put(one *line) (lost int) {
	if one.dropped > 0 {
		w.mu.Lock()
		missing := w.missing
		w.mu.Unlock()
		var text bytes.Buffer
		missing(&text, one.dropped)
		if _, err := w.next.Write(text.Bytes()); err != nil {
			lost = one.dropped
		}
	}
	if len(one.text) > 0 {
		if _, err := w.next.Write(one.text); err != nil {
			lost++
		}
	}
	return lost
}

// finish ends the wait for a line, and keeps the number of lost lines for the next one.
func (w *Writer) finish(one *line, lost int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bytes -= len(one.text)
	if len(w.waiting) > 0 {
		w.waiting[0].dropped += lost
	} else {
		w.dropped += lost
	}
	close(one.done)
}

// Flush waits until nothing waits any more, or until that time is over. It reports whether all was written.
func (w *Writer) Flush(within time.Duration) bool {
	w.mu.Lock()
	idle := w.idle
	w.mu.Unlock()
	if idle == nil {
		return true
	}
	end := time.NewTimer(within)
	defer end.Stop()
	select {
	case <-idle:
		return true
	case <-end.C:
		return false
	}
}
