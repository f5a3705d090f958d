package durable

import (
	"io/fs"
	"path/filepath"
	"sync"
)

// Group lets callers that come at the same time share one run of something that is slow and serves many as well as one: a
// transaction, or a sync. Nothing waits for others to come: who finds no run in progress runs at once, and who comes during
// a run is in the next one. The zero Group is ready to use.
type Group[T any] struct {
	mu      sync.Mutex
	running bool
	waiting []*member[T]
}

type member[T any] struct {
	item T
	turn chan bool // true: run for all that wait; false: another has run for this one
}

// Do returns after a call of run that had item among its items, and that began after the call of Do. At most one run is in
// progress. A run that has to tell the callers apart writes into the items, so these are pointers then.
func (g *Group[T]) Do(item T, run func(items []T)) {
	me := &member[T]{item, make(chan bool, 1)}
	g.mu.Lock()
	g.waiting = append(g.waiting, me)
	lead := !g.running
	g.running = true
	g.mu.Unlock()
	if !lead && !<-me.turn {
		return
	}
	g.mu.Lock()
	all := g.waiting // me is among them
	g.waiting = nil
	g.mu.Unlock()
	defer g.end(me, all) // also if run panics
	items := make([]T, len(all))
	for i, m := range all {
		items[i] = m.item
	}
	run(items)
}

// end tells the others of a run that it is over, and gives the next run to one that waits for it.
func (g *Group[T]) end(me *member[T], all []*member[T]) {
	for _, m := range all {
		if m != me {
			m.turn <- false
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) > 0 {
		g.waiting[0].turn <- true
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
	d.syncs.Do(&mine, func(all []*dirSync) {
		err := d.sync(d.path)
		for _, one := range all {
			one.err = err
		}
	})
	return mine.err
}
