package shared

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/kvstore"
	"rotatord/internal/moment"
	"rotatord/internal/rotation"
)

// version is one version of a token's entry, as this process has seen it.
type version struct {
	record rotation.Record
	sighting
	began time.Time        // by the own clock: before this process wrote it; zero if another did, or if that is not known
	runs  map[run]sighting // the runs of hooks that are in progress in it: the first version that was seen with each
}

// sighting is when a version was written and seen.
type sighting struct {
	created time.Time // by Vault's clock
	seen    time.Time // by the own clock: when it was first seen, after the answer that showed it
}

// run identifies a run of a hook of one token.
type run struct {
	hook, process string
	began         int64
}

func runOf(h rotation.OwedHook) run { return run{h.Name, h.Runner.Process, h.Began.UnixNano()} }

// runsIn returns the runs of hooks that are in progress in a record, with the sightings that are known from the versions
// before it.
func runsIn(r rotation.Record, known map[run]sighting, now sighting) map[run]sighting {
	var all map[run]sighting
	for _, h := range r.OwedHooks() {
		if h.Runner == nil {
			continue
		}
		if all == nil {
			all = make(map[run]sighting)
		}
		all[runOf(h)] = now
		if first, there := known[runOf(h)]; there {
			all[runOf(h)] = first
		}
	}
	return all
}

// attempt is a save whose outcome may not be known.
type attempt struct {
	revision uint64    // that it writes
	began    time.Time // the first try
}

// noteAttempt notes a save before it is sent.
func (l *Ledger) noteAttempt(token string, revision uint64, began time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a, there := l.attempts[token]; there && a.revision == revision {
		return // whichever of them was carried out, it was not sent before the first
	}
	l.attempts[token] = attempt{revision, began}
}

// learn puts a version into the memory, unless a newer one is there. began is when this process began to write it;
// zero if it was read.
func (l *Ledger) learn(r rotation.Record, e kvstore.Entry, began time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.unreadable, r.Token)
	a, tried := l.attempts[r.Token]
	if tried && a.revision <= r.Revision {
		delete(l.attempts, r.Token)
	}
	v, there := l.known[r.Token]
	if there && !newer(v, e) {
		return
	}
	if there && v.record.Revision > r.Revision { // it was removed, and began again
		l.oracle.Forget(r.Token)
	}
	l.oracle.Note(r)
	if tried && a.revision == r.Revision && l.isOurs(r.Hold) {
		began = a.began
	}
	now := sighting{created: e.CreatedAt, seen: l.o.Now()}
	l.known[r.Token] = version{record: r, sighting: now, began: began, runs: runsIn(r, l.known[r.Token].runs, now)}
	l.newest = r.Token
}

// newer reports whether an entry is newer than a version of it. A lower number is, if the entry was removed and began
// again with version 1.
func newer(v version, e kvstore.Entry) bool {
	return uint64(e.Version) > v.record.Revision || !e.CreatedAt.Equal(v.created) && e.CreatedAt.After(v.created)
}

// firstBehindPause and lastBehindPause are the pauses of untilFresh.
const firstBehindPause, lastBehindPause = 50 * time.Millisecond, 800 * time.Millisecond

// untilFresh reads again, for one or two seconds, what is older than this process has seen. A performance standby of Vault
// Enterprise may show, for a moment, an older state than the one that this process has written.
func untilFresh(ctx context.Context, read func() error) error {
	for wait := firstBehindPause; ; wait *= 2 {
		err := read()
		if !errors.Is(err, errOlder) || wait > lastBehindPause || moment.Sleep(ctx, wait) != nil {
			return err
		}
	}
}

// loadFresh is load for one token alone.
func (l *Ledger) loadFresh(ctx context.Context, token string) (r rotation.Record, err error) {
	err = untilFresh(ctx, func() (err error) { r, err = l.load(ctx, token); return err })
	return r, err
}

// load reads the entry of a token.
func (l *Ledger) load(ctx context.Context, token string) (rotation.Record, error) {
	path := pathOf(token)
	e, err := l.o.KV.Get(ctx, path)
	if err != nil && !errors.Is(err, kvstore.ErrDeleted) {
		return rotation.Record{}, err
	}
	r := rotation.Record{}
	if err == nil {
		err = l.checkNotOlder(token, e)
	}
	if err == nil && e.Version > 0 {
		r, err = decodeRecord(l.o.KV.At(path), token, e)
	}
	if err != nil {
		err = &unreadableError{err}
		l.mu.Lock()
		l.unreadable[token] = err
		l.mu.Unlock()
		return rotation.Record{}, err
	}
	if e.Version == 0 {
		l.mu.Lock()
		delete(l.unreadable, token)
		l.mu.Unlock()
		return rotation.Record{}, nil
	}
	l.learn(r, e, time.Time{})
	return r, nil
}

// unreadableError is about the entry of one token. It says nothing about others.
type unreadableError struct{ cause error }

func (e *unreadableError) Error() string { return e.cause.Error() }
func (e *unreadableError) Unwrap() error { return e.cause }

// checkNotOlder refuses an entry that is older than what this process has seen.
func (l *Ledger) checkNotOlder(token string, e kvstore.Entry) error {
	l.mu.Lock()
	v, there := l.known[token]
	l.mu.Unlock()
	if !there {
		return nil
	}
	return notOlder("the record of "+token, l.o.KV.At(pathOf(token)), int(v.record.Revision), v.created, e)
}

// errOlder is in the error about an entry of which a later version was seen.
var errOlder = errors.New("an older state than this replica has seen")

// notOlder refuses an entry of which a later version was seen.
func notOlder(what, at string, seen int, created time.Time, e kvstore.Entry) error {
	switch {
	case e.Version == 0:
		return fmt.Errorf("%s in Vault (%s) is gone: %w, which is version %d. The entry was removed with its metadata, or Vault was restored from a snapshot. "+
			"Restore it; if it was removed on purpose, restart every replica", what, at, errOlder, seen)
	case e.Version < seen && !e.CreatedAt.After(created), e.Version == seen && e.CreatedAt.Before(created):
		return fmt.Errorf("%s in Vault (%s) has version %d of %s: %w, which is version %d of %s. Either a node of Vault that is behind has answered, and then this ends by itself. "+
			"Or Vault was restored from a snapshot, and what was rotated since then is not in it: pause all tokens, compare with Cloudflare, and restart every replica, which then takes what Vault has",
			what, at, e.Version, e.CreatedAt.Format(time.RFC3339), errOlder, seen, created.Format(time.RFC3339))
	}
	return nil
}

// readOnce reads everything, if that was not done yet.
func (l *Ledger) readOnce(ctx context.Context) error {
	select {
	case l.reading <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("reading the shared ledger: %w", context.Cause(ctx))
	}
	defer func() { <-l.reading }()
	l.mu.Lock()
	complete := l.complete
	l.mu.Unlock()
	if complete {
		return nil
	}
	_, err := l.readAll(ctx)
	return err
}

// Refresh reads the records of some tokens, and returns those that there are. The error names each that could not
// be read; the others are returned as well.
func (l *Ledger) Refresh(ctx context.Context, tokens []string) ([]rotation.Record, error) {
	if l.closed.Load() {
		return nil, errClosed
	}
	records, unreadable, err := l.read(ctx, tokens)
	return records, errors.Join(append(unreadable, err)...)
}

// RefreshAll reads every record, and returns them. The error names each that could not be read; the others are still
// returned.
func (l *Ledger) RefreshAll(ctx context.Context) ([]rotation.Record, error) {
	if l.closed.Load() {
		return nil, errClosed
	}
	select {
	case l.reading <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("reading the shared ledger: %w", context.Cause(ctx))
	}
	defer func() { <-l.reading }()
	records, err := l.readAll(ctx)
	if err != nil {
		return records, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var unreadable []error
	for _, err := range l.unreadable {
		unreadable = append(unreadable, err)
	}
	return records, errors.Join(unreadable...)
}

// readAll reads every record. Records that cannot be used are no error here.
func (l *Ledger) readAll(ctx context.Context) ([]rotation.Record, error) {
	began := l.o.Now()
	names, err := l.o.KV.List(ctx, dirTokens)
	if err != nil {
		return nil, err
	}
	listed := make(map[string]bool, len(names))
	var tokens []string
	foreign := make(map[string]error)
	for _, name := range names {
		token := tokenAt(name)
		switch {
		case name == proof:
		case !config.ValidName(token):
			foreign[name] = &unreadableError{fmt.Errorf("%s in Vault is not the name of a token: another program writes below the prefix of the shared ledger (state.shared.vault.prefix)", l.o.KV.At(dirTokens+"/"+name))}
		case !listed[token]:
			listed[token] = true
			tokens = append(tokens, token)
		}
	}
	l.mu.Lock()
	for token := range l.known { // an entry that is gone is an error, and a list may be older than a record
		if !listed[token] {
			tokens = append(tokens, token)
		}
	}
	for token := range l.unreadable {
		if _, known := l.known[token]; !known && !listed[token] {
			delete(l.unreadable, token)
		}
	}
	maps.Copy(l.unreadable, foreign)
	l.mu.Unlock()
	records, _, err := l.read(ctx, tokens)
	if err != nil {
		return records, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.complete, l.synced = true, began
	return records, nil
}

// read reads the records of some tokens. unreadable is about single entries; err ends the reading of all.
func (l *Ledger) read(ctx context.Context, tokens []string) (records []rotation.Record, unreadable []error, err error) {
	all, faults := make([]rotation.Record, len(tokens)), make([]error, len(tokens))
	err = forEach(len(tokens), func(i int) error {
		r, err := l.load(ctx, tokens[i])
		if _, single := errors.AsType[*unreadableError](err); single {
			faults[i] = err
			return nil
		}
		all[i] = r
		return err
	})
	for i := range tokens {
		if all[i].Revision > 0 {
			records = append(records, all[i])
		}
		if faults[i] != nil {
			unreadable = append(unreadable, faults[i])
		}
	}
	return records, unreadable, err
}
