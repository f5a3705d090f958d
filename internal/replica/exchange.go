package replica

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/event"
	"rotatord/internal/kvstore"
	"rotatord/internal/printable"
)

// This file writes the own entry, and reads those of the others.

// write writes the own entry. errNamesake is in the error if another process has the name.
func (r *Room) write(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTime(r.o.Self.Claim))
	defer cancel()
	select {
	case r.writing <- struct{}{}:
		defer func() { <-r.writing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	err := r.writeOnce(ctx)
	if errors.Is(err, kvstore.ErrConflict) { // another process has written it, or a person has removed it
		err = r.writeOnce(ctx)
	}
	return err
}

func (r *Room) writeOnce(ctx context.Context) error {
	r.mu.Lock()
	known := r.own.known
	r.mu.Unlock()
	if !known {
		if err := r.takeName(ctx); err != nil {
			return err
		}
	}
	data, version := r.compose()
	sent := time.Now()
	put, err := r.o.KV.Put(ctx, pathOf(r.o.Self.Name), data, version)
	received := time.Now()
	if err != nil {
		r.mu.Lock()
		r.own.known = false // it may still be written
		r.mu.Unlock()
		return err
	}
	jump := r.clock.observe(sent, received, put.CreatedAt)
	r.mu.Lock()
	first := r.own.wroteAt.IsZero()
	r.own.version, r.own.known, r.own.wroteAt, r.own.wroteAs = put.Version, true, received, r.o.Now().Round(0)
	r.own.offset = bounded(data.Wall.Add(received.Sub(sent) / 2).Sub(put.CreatedAt))
	if jump.Abs() >= jumpToldFrom {
		r.jumpedAt = received
	}
	r.mu.Unlock()
	if jump.Abs() >= jumpToldFrom {
		r.o.Tell(event.VaultClockJump{By: jump})
	}
	if first {
		if err := r.o.KV.Limit(ctx, pathOf(r.o.Self.Name), keptVersions); err != nil {
			r.o.Log.Warn("the versions of this replica's entry cannot be limited; Vault keeps as many as its mount says", "replica", r.o.Self.Name, "error", err)
		}
	}
	return nil
}

// compose returns the entry as it is now, and the version that it replaces.
func (r *Room) compose() (entry, int) {
	throttled := make(map[string]duration)
	for account, left := range r.o.Throttled() {
		if left > 0 && len(throttled) < maxAccounts {
			throttled[account] = duration(left.Round(time.Millisecond))
		}
	}
	joined := r.o.Joined()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.own.notices.forget(time.Now())
	aside := r.aside
	if aside == nil && !joined {
		aside = errJoining
	}
	return entry{
		Format: entryFormat, Replica: r.o.Self.Name, Process: r.o.Self.Process, Home: r.o.Self.Home, Started: r.began.UTC(), Version: r.o.Version,
		Claim: duration(r.o.Self.Claim), Listen: r.o.Listen, Leaving: r.own.leaving, Wall: r.o.Now().UTC(), Aside: text(aside),
		Throttled: throttled, Identity: r.o.Identity, Recipients: r.o.Recipients,
		Seq: r.own.notices.seq, Since: r.own.notices.since, Changes: slices.Clone(r.own.notices.kept),
	}, r.own.version
}

// list looks for replicas that are not known yet, and forgets those that are long dead. Sometimes it asks whether the
// ledger may be used.
func (r *Room) list(ctx context.Context) (ok bool) {
	ctx, cancel := context.WithTimeout(ctx, requestTime(r.o.Self.Claim))
	defer cancel()
	names, err := r.o.KV.List(ctx, dir)
	if err != nil {
		return false
	}
	r.mu.Lock()
	ask := r.usable != nil || r.usableAt.IsZero() || time.Since(r.usableAt) >= usableEvery || r.cutOff() != nil
	r.mu.Unlock()
	if ask {
		usable := r.o.Usable(ctx)
		r.mu.Lock()
		r.usable, r.usableAt = usable, time.Now()
		r.mu.Unlock()
	}
	for _, name := range r.note(names) {
		if r.o.KV.Remove(ctx, pathOf(name)) == nil {
			r.mu.Lock()
			delete(r.others, name)
			r.mu.Unlock()
		}
	}
	return true
}

// note takes over which entries there are, and returns those of replicas that are long dead.
func (r *Room) note(names []string) (dead []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	odd := ""
	for _, name := range names {
		switch {
		case name == r.o.Self.Name || r.others[name] != nil:
		case !config.ValidName(name):
			odd = fmt.Sprintf("an entry below %s has the name %q, which no replica can have", dir, printable.Line(name, maxShort))
		case len(r.others) >= maxReplicas:
			odd = fmt.Sprintf("there are more than %d entries below %s: remove those of replicas that do not exist (vault kv metadata delete)", maxReplicas, dir)
		default:
			r.others[name] = &other{}
		}
	}
	if odd != r.oddList && odd != "" {
		r.o.Log.Warn(odd)
	}
	r.oddList = odd
	vault := r.clock.estimate()
	for name, o := range r.others {
		switch {
		case o.living:
		case !slices.Contains(names, name):
			delete(r.others, name)
		case o.version > 0 && !vault.IsZero() && (vault.Sub(o.created) > forgetDead || o.entry.Leaving && vault.Sub(o.created) > forgetLeft):
			dead = append(dead, name)
		}
	}
	return dead
}

// read reads the entries of the others, and passes on what they have changed. Those that write nothing, or nothing that
// a replica writes, are read only if all is set. It returns false if one of them could not be read.
func (r *Room) read(ctx context.Context, all bool) (ok bool) {
	ctx, cancel := context.WithTimeout(ctx, requestTime(r.o.Self.Claim))
	defer cancel()
	began := time.Now()
	r.mu.Lock()
	others := maps.Clone(r.others)
	maps.DeleteFunc(others, func(_ string, o *other) bool { return !all && (o.silent() || o.version == 0 && !o.readAt.IsZero()) })
	r.mu.Unlock()
	var requests sync.WaitGroup
	places := make(chan struct{}, atOnce)
	failed := make(chan struct{}, 1)
	for name := range others {
		requests.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			if r.readOne(ctx, name) != nil {
				signal(failed)
			}
		})
	}
	requests.Wait()
	if ok = len(failed) == 0; ok {
		r.mu.Lock()
		r.heardAt = began
		r.mu.Unlock()
	}
	return ok
}

// readOne reads the entry of one replica. An entry that cannot be understood is logged; it is not an error.
func (r *Room) readOne(ctx context.Context, name string) error {
	asked := time.Now()
	stored, err := r.o.KV.Get(ctx, pathOf(name))
	if err != nil && !errors.Is(err, kvstore.ErrDeleted) {
		r.logUnread(ctx, name, err)
		return err
	}
	var found entry
	if err == nil && stored.Version > 0 {
		if err = stored.Decode(pathOf(name), &found); err == nil {
			err = found.check(name)
		}
	}
	odd := err
	if odd == nil && found.isNewer() {
		odd = fmt.Errorf("%s has format %d, of a newer version of rotatord: update this replica. Until then it learns late what that one does", pathOf(name), found.Format)
	}
	r.mu.Lock()
	o := r.others[name]
	if o == nil {
		r.mu.Unlock()
		return nil
	}
	isNews := o.odd != text(odd)
	o.odd = text(odd)
	o.quiet += min(asked.Sub(o.readAt), 2*look(r.o.Self.Claim))
	o.readAt = asked
	var changed []string
	isNew := err == nil && stored.Version > 0 && stored.Version != o.version && !o.isOlder(found, stored)
	if isNew {
		changed = r.take(o, found, stored, asked)
	}
	r.mu.Unlock()
	if odd != nil && isNews {
		r.o.Log.Warn("the entry of another replica cannot be read", "replica", name, "error", odd)
	}
	if isNew {
		for account, left := range found.Throttled {
			r.o.Throttle(account, time.Duration(left))
		}
	}
	if len(changed) > 0 {
		r.o.Changed(changed)
	}
	return nil
}

// logUnread logs once why the entry of a replica cannot be read, if that is not because of the store: that is told elsewhere.
func (r *Room) logUnread(ctx context.Context, name string, err error) {
	r.mu.Lock()
	o := r.others[name]
	isNews := o != nil && o.odd != unread && !r.unheard && ctx.Err() == nil
	if isNews {
		o.odd = unread
	}
	r.mu.Unlock()
	if isNews {
		r.o.Log.Warn("the entry of another replica cannot be read, so what it does is learned late", "replica", name, "error", err)
	}
}

// unread is what other.odd says of an entry that could not be read.
const unread = "unread"

// isOlder reports whether an entry is an older one of the same process, as a standby of Vault may return it.
func (o *other) isOlder(found entry, stored kvstore.Entry) bool {
	return stored.Version < o.version && found.Process == o.entry.Process && found.Seq <= o.entry.Seq && !found.Wall.After(o.entry.Wall) && !stored.CreatedAt.After(o.created)
}

// take takes over a new version of an entry, and returns what has changed. r.mu must be held.
func (r *Room) take(o *other, found entry, stored kvstore.Entry, asked time.Time) (changed []string) {
	switch {
	case found.isNewer():
		if asked.Sub(o.sweptAt) >= newerEvery {
			o.sweptAt, changed = asked, []string{Everything}
		}
	case !r.looked: // the ledger is read after this
	case o.version == 0:
		changed = found.after(0)
	case found.Process != o.entry.Process || o.entry.isNewer(): // what it did last under the other one was perhaps not told
		changed = []string{Everything}
	default:
		changed = found.after(o.entry.Seq)
	}
	if o.version == 0 {
		r.foundAt = asked
	}
	o.seenAt, o.quiet = asked, 0
	if vault := r.clock.estimate(); o.version == 0 && !vault.IsZero() { // it may have been written long ago
		o.quiet = max(0, vault.Sub(stored.CreatedAt))
		o.seenAt = asked.Add(-o.quiet)
	}
	o.entry, o.version, o.created = found, stored.Version, stored.CreatedAt
	o.entry.Changes = nil
	return changed
}

// tellUnheard tells that the own entry cannot be written, or can be written again. It returns err.
func (r *Room) tellUnheard(err error) error {
	unheard := err != nil && !errors.Is(err, errNamesake) && !errors.Is(err, context.Canceled)
	r.mu.Lock()
	changed := r.unheard != unheard
	r.unheard = unheard
	r.mu.Unlock()
	if changed {
		told := err
		if !unheard {
			told = nil
		}
		r.o.Tell(event.LedgerAway{Err: told})
	}
	return err
}
