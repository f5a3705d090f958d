package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rotatord/internal/kvstore"
	"rotatord/internal/printable"
)

// This file keeps two processes with one name apart. The process that has written the entry has the name. Another one
// waits until that one has said that it stops, or has written nothing for as long as it takes to count as dead. A
// process that had the same state directory has ended, because this one has its lock.

// namesake is the process that has written our entry. The zero namesake is none.
type namesake struct {
	found   entry
	version int       // of the entry
	since   time.Time // when that version was first seen, on the monotonic clock
	lives   bool      // it was seen to write
}

// dead returns when it counts as dead unless it writes.
func (n *namesake) dead() time.Time {
	claim := time.Duration(n.found.Claim)
	if claim <= 0 { // it cannot be read
		claim = time.Hour
	}
	return n.since.Add(deadAfter(claim))
}

// errNamesake is in the error of a write while another process has our name.
var errNamesake = errors.New("another process has the name of this replica")

// nameErr says who has our name. r.mu must be held.
func (r *Room) nameErr() error {
	n := r.own.namesake
	if n.lives {
		return fmt.Errorf("%w: it began at %s, listens on %s, and is called %s too: give each replica a name of its own (state.shared.replica), and restart this one",
			errNamesake, n.found.Started.UTC().Format(time.RFC3339), printable.Line(n.found.Listen, maxShort), r.o.Self.Name)
	}
	return fmt.Errorf("%w, %s, and did not say that it stops: it is waited for, until %s at most",
		errNamesake, r.o.Self.Name, r.o.Now().Add(time.Until(n.dead())).UTC().Format(time.RFC3339))
}

// takeName looks who has written our entry last, and takes the name over if that is this process or a dead one.
func (r *Room) takeName(ctx context.Context) error {
	path := pathOf(r.o.Self.Name)
	stored, err := r.o.KV.Get(ctx, path)
	deleted := errors.Is(err, kvstore.ErrDeleted)
	if err != nil && !deleted {
		return err
	}
	var found entry
	readable := false
	if !deleted && stored.Version > 0 {
		readable = stored.Decode(path, &found) == nil && found.check(r.o.Self.Name) == nil
	}
	if !readable {
		found = entry{}
	}
	r.mu.Lock()
	err = r.meet(stored.Version, found, readable, deleted)
	r.mu.Unlock()
	if err == nil && deleted { // a deleted version has no number that a write could be against
		err = r.o.KV.Remove(ctx, path)
	}
	return err
}

// meet decides about what is in our entry. r.mu must be held.
func (r *Room) meet(version int, found entry, readable, deleted bool) error {
	now, n := time.Now(), &r.own.namesake
	wrote := !r.own.wroteAt.IsZero()
	switch {
	case version == 0 && !deleted,
		readable && found.Process == r.o.Self.Process,
		readable && found.Leaving,
		wrote && !readable, // no replica has written that
		readable && !wrote && r.o.Self.Home != "" && found.Home == r.o.Self.Home,
		!n.since.IsZero() && n.version == version && !now.Before(n.dead()):
		r.own.version, *n = version, namesake{}
		return nil
	case n.since.IsZero():
		*n = namesake{found: found, version: version, since: now, lives: wrote && readable}
	case n.version != version:
		*n = namesake{found: found, version: version, since: now, lives: readable}
	}
	return r.nameErr()
}
