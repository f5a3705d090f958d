package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/kvstore"
)

// This file writes the own entry, and reads those of the others.

// write writes the own entry, whatever it says of the process that wrote it before.
func (r *Room) write(ctx context.Context) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	for range 3 {
		conflict, err := r.writeOnce(ctx)
		if err != nil || !conflict {
			return err
		}
	}
	return fmt.Errorf("%s: %w again and again", pathOf(r.o.Self.Name), kvstore.ErrConflict)
}

// writeOnce returns conflict if another process has written the entry.
func (r *Room) writeOnce(ctx context.Context) (conflict bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	r.mu.Lock()
	known, first := r.own.known, r.own.twin != "" && r.own.twinFirst
	r.mu.Unlock()
	if !known || first {
		if proceed, err := r.meetNamesake(ctx); err != nil || !proceed {
			return false, err
		}
	}
	data, version := r.compose()
	sent := time.Now()
	put, err := r.o.KV.Put(ctx, pathOf(r.o.Self.Name), data, version)
	received := time.Now()
	if errors.Is(err, kvstore.ErrConflict) {
		r.mu.Lock()
		r.own.known = false
		r.mu.Unlock()
		return true, nil
	}
	if err != nil {
		return false, err
	}
	jump := r.clock.observe(sent, received, put.CreatedAt)
	r.mu.Lock()
	isNew := r.own.wroteAt.IsZero()
	r.own.version, r.own.known, r.own.wroteAt = put.Version, true, received
	r.own.offset = data.Wall.Add(received.Sub(sent) / 2).Sub(put.CreatedAt)
	r.mu.Unlock()
	if jump.Abs() >= jumpToldFrom {
		r.o.Tell(event.VaultClockJump{By: jump})
	}
	if isNew {
		_ = r.o.KV.Limit(ctx, pathOf(r.o.Self.Name), 2) // versions that nobody reads
	}
	return false, nil
}

// compose returns the entry as it is now, and the version that it replaces.
func (r *Room) compose() (entry, int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.o.Now().UTC()
	old := 0
	for old < len(r.own.changes) && now.Sub(r.own.changes[old].At) > keptFor {
		old++
	}
	r.own.changes = slices.Clone(r.own.changes[old:])
	return entry{
		Format: entryFormat, Replica: r.o.Self.Name, Process: r.o.Self.Process, Home: r.o.Self.Home, Started: r.began.UTC(), Version: r.o.Version,
		After: r.own.after,
		Claim: duration(r.o.Self.Claim), Listen: r.o.Listen, Leaving: r.own.leaving, Wall: now, Aside: text(r.aside),
		Identity: r.o.Identity, Recipients: r.o.Recipients, Seq: r.own.seq, Changes: r.own.changes,
	}, r.own.version
}

// meetNamesake looks who has written our entry last, and returns false if that process has the name and we stand
// aside.
func (r *Room) meetNamesake(ctx context.Context) (proceed bool, err error) {
	path := pathOf(r.o.Self.Name)
	stored, err := r.o.KV.Get(ctx, path)
	if err != nil {
		return false, err
	}
	var found entry
	if stored.Version > 0 {
		if err = stored.Decode(path, &found); err == nil {
			err = found.check(r.o.Self.Name)
		}
		if err != nil {
			return false, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now, before := time.Now(), r.own.version
	r.own.version = stored.Version
	foreign := stored.Version > 0 && found.Process != r.o.Self.Process
	dead := deadAfter(time.Duration(found.Claim))
	switch {
	case !foreign:
		r.own.twin, r.own.twinFirst = "", false
		return true, nil
	case r.own.wroteAt.IsZero() && r.own.twin == "" && found.Leaving: // a process before this one, which has told all that it did
		r.own.after, r.own.seq = found.Process, r.own.seq+found.Seq
		r.own.changes = append(found.Changes, r.own.changes...)
		return true, nil
	case r.own.wroteAt.IsZero() && r.own.twin == "" && r.o.Self.Home != "" && found.Home == r.o.Self.Home: // one that has died
		return true, nil
	case r.own.wroteAt.IsZero() && r.own.twin == "":
		// Perhaps it has ended. If it has not, it finds our entry and writes its own again.
		r.own.waitUntil = now.Add(dead)
		return true, nil
	case found.Leaving:
		r.own.twin, r.own.twinFirst = "", false
		return true, nil
	}
	if r.own.twin != found.Process || stored.Version != before {
		r.own.twin, r.own.twinAt = found.Process, now
	}
	r.own.twinFirst = found.Started.Before(r.began) || found.Started.Equal(r.began) && found.Process < r.o.Self.Process
	if r.own.twinFirst && now.Sub(r.own.twinAt) >= dead { // it has ended
		r.own.twin, r.own.twinFirst = "", false
	}
	return !r.own.twinFirst, nil
}

// tellUnheard tells that the own entry cannot be written, or can be written again. It returns err.
func (r *Room) tellUnheard(err error) error {
	r.mu.Lock()
	changed := r.unheard != (err != nil)
	r.unheard = err != nil
	r.mu.Unlock()
	if changed {
		r.o.Tell(event.LedgerAway{Err: err})
	}
	return err
}

// list looks for replicas that are not known yet, asks whether the ledger may be used, and forgets replicas that are
// long dead.
func (r *Room) list(ctx context.Context) (ok bool) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	names, err := r.o.KV.List(ctx, dir)
	if err != nil {
		return false
	}
	usable := r.o.Usable(ctx)
	r.mu.Lock()
	r.usable = usable
	for _, name := range names {
		if name != r.o.Self.Name && r.others[name] == nil {
			r.others[name] = &other{}
		}
	}
	var old []string
	for name, o := range r.others {
		if !slices.Contains(names, name) {
			delete(r.others, name)
		} else if vault := r.clock.estimate(); o.version > 0 && !o.living && !vault.IsZero() && vault.Sub(o.created) > forgetAfter {
			old = append(old, name)
		}
	}
	r.mu.Unlock()
	for _, name := range old {
		if r.o.KV.Remove(ctx, pathOf(name)) == nil {
			r.mu.Lock()
			delete(r.others, name)
			r.mu.Unlock()
		}
	}
	return true
}

// read reads the entries of all known replicas, and passes on what they have changed.
func (r *Room) read(ctx context.Context) (ok bool) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	r.mu.Lock()
	names := make([]string, 0, len(r.others))
	for name := range r.others {
		names = append(names, name)
	}
	r.mu.Unlock()
	var all sync.WaitGroup
	places := make(chan struct{}, atOnce)
	ok = true
	var mu sync.Mutex
	for _, name := range names {
		all.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			if err := r.readOne(ctx, name); err != nil {
				mu.Lock()
				ok = false
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return ok
}

// readOne reads the entry of one replica. An entry that cannot be understood is logged, and causes no error.
func (r *Room) readOne(ctx context.Context, name string) error {
	asked := time.Now()
	stored, err := r.o.KV.Get(ctx, pathOf(name))
	if err != nil && !errors.Is(err, kvstore.ErrDeleted) {
		return err
	}
	var found entry
	if err == nil && stored.Version > 0 {
		if err = stored.Decode(pathOf(name), &found); err == nil {
			err = found.check(name)
		}
	}
	r.mu.Lock()
	told := r.odd[name] == text(err)
	r.odd[name] = text(err)
	o := r.others[name]
	var changed []string
	if o != nil && err == nil && stored.Version > 0 && stored.Version != o.version {
		changed = r.take(o, found, stored, asked)
	}
	r.mu.Unlock()
	if err != nil && !told {
		r.o.Log.Warn("the entry of another replica cannot be read", "replica", name, "error", err)
	}
	if len(changed) > 0 {
		r.o.Changed(changed)
	}
	return nil
}

// take takes over a new version of an entry, and returns what has changed. r.mu must be held.
func (r *Room) take(o *other, found entry, stored kvstore.Entry, asked time.Time) (changed []string) {
	first := o.version == 0
	switch {
	case first && !r.looked: // the ledger is read after this
	case first:
		changed = found.since(0)
	case found.Process == o.entry.Process || found.After == o.entry.Process && o.entry.Leaving:
		changed = found.since(o.seq)
	default: // the process before it may have saved what it could not tell any more
		changed = []string{Everything}
	}
	o.seenAt = asked
	if first { // it may have been written long ago
		if vault := r.clock.estimate(); !vault.IsZero() {
			o.seenAt = asked.Add(-max(0, vault.Sub(stored.CreatedAt)))
		}
	}
	o.entry, o.version, o.created, o.seq = found, stored.Version, stored.CreatedAt, found.Seq
	o.entry.Changes = nil
	return changed
}
