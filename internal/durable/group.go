package durable

import (
	"cmp"
	"errors"
	"io/fs"
	"path/filepath"
	"runtime"
	"sync"
)

// Group lets callers that come at the same time share one run of something that is slow and serves many as well as one: a
// transaction, or a sync. Nothing sleeps until others come: who finds no run in progress runs at once, and who comes during
// a run is in the next one. A run lets the goroutines that are ready go first, so a busy process has fewer and larger runs; one that is
// not busy loses nothing. The zero Group is ready to use.
type Group[T any] struct {
	mu      sync.Mutex
	running bool
	waiting []*member[T]
}

type member[T any] struct {
	item T
	turn chan turn
}

// turn is what a caller that waits is told.
type turn int

const (
	yours    turn = iota // run for all that wait
	done                 // another has run for this one
	panicked             // another has begun to run for this one, and not ended
)

// ErrPanicked says that a run which other callers shared has ended in a panic of the program. It is not known what it did.
var ErrPanicked = errors.New("a fault of the program has ended the write that was shared with others")

// Do returns after a call of run that had item among its items, and that began after the call of Do. At most one run is in
// progress. A run that has to tell the callers apart writes into the items, so these are pointers then. If run panics, so
// does Do for the caller that runs; for the others [ErrPanicked] is the error.
func (g *Group[T]) Do(item T, run func(items []T)) error {
	me := &member[T]{item, make(chan turn, 1)}
	g.mu.Lock()
	g.waiting = append(g.waiting, me)
	lead := !g.running
	g.running = true
	g.mu.Unlock()
	if !lead {
		switch <-me.turn {
		case done:
			return nil
		case panicked:
			return ErrPanicked
		}
	}
	for range 2 { // once is often too short: another thread takes this goroutine at once, and what the ready ones wake is not ready yet
		runtime.Gosched()
	}
	g.mu.Lock()
	all := g.waiting // me is among them
	g.waiting = nil
	g.mu.Unlock()
	ended := panicked
	defer func() { g.end(me, all, ended) }()
	items := make([]T, len(all))
	for i, m := range all {
		items[i] = m.item
	}
	run(items)
	ended = done
	return nil
}

// end tells the others of a run that it is over, and gives the next run to one that waits for it.
func (g *Group[T]) end(me *member[T], all []*member[T], how turn) {
	for _, m := range all {
		if m != me {
			m.turn <- how
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) > 0 {
		g.waiting[0].turn <- yours
	} else {
		g.running = false
	}
}

// Waiting returns how many callers wait for the next run, for tests.
func (g *Group[T]) Waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.waiting)
}

// Dir writes and removes files in one directory as [WriteFile] and [Remove] do. Callers that come at the same time share
// the syncs of the directory. Use [NewDir]. It is safe for concurrent use.
type Dir struct {
	path  string
	sync  func(dir string) error
	syncs Group[*dirSync]
}

type dirSync struct{ err error }

// NewDir returns a Dir for a directory, which need not exist yet.
func NewDir(path string) *Dir { return &Dir{path: path, sync: SyncDir} }

// WriteFile does what [WriteFile] does for the file of that name.
func (d *Dir) WriteFile(name string, content []byte, mode fs.FileMode) error {
	if err := place(filepath.Join(d.path, name), content, mode, rename, nil); err != nil {
		return err
	}
	return d.syncNames()
}

// Remove does what [Remove] does for the file of that name.
func (d *Dir) Remove(name string) error {
	if err := removeIfExists(filepath.Join(d.path, name)); err != nil {
		return err
	}
	return d.syncNames()
}

// syncNames makes durable what was renamed and removed before the call.
func (d *Dir) syncNames() error {
	var mine dirSync
	err := d.syncs.Do(&mine, func(all []*dirSync) {
		err := d.sync(d.path)
		for _, one := range all {
			one.err = err
		}
	})
	return cmp.Or(err, mine.err)
}
