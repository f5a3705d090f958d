// Package shared keeps the ledger of several replicas in Vault, one entry for each token, and copies of sealed
// answers beside it.
//
// Guarantees:
//
//   - What a method returned nil for is in Vault's storage. With Raft, a majority of Vault's nodes has it.
//   - Every write is check-and-set against what its writer has read. A replica never overwrites what another has
//     saved, also if a standby or a performance standby of Vault has answered the read from an older state.
//   - A save whose answer is lost is read back. It counts once, and a save whose outcome is not known is an error.
//   - An entry that was deleted, is damaged, foreign, of a newer version, or older than what this process has seen
//     is an error that says what to do. It is never taken for a token without a record, and never overwritten.
//   - How long the hold of a replica lasts is counted so that the replica itself stops before another takes over:
//     see [Ledger.HoldLeft].
//
// A key-value store has no transaction over several entries: SaveAll may save some records and fail for others.
//
// No record contains a secret. A copy of a sealed answer does, as age ciphertext.
package shared

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"rotatord/internal/durable"
	"rotatord/internal/kvstore"
	"rotatord/internal/ledger"
	"rotatord/internal/rotation"
)

const (
	// atOnce is how many requests to Vault a read or a save of many records has under way.
	atOnce = 16
	// keptVersions is how many versions Vault keeps of an entry: the current one, and two for a person who has to
	// find out what happened.
	keptVersions = 3
)

// Options say which ledger is opened, and for whom.
type Options struct {
	KV kvstore.KV
	// Replica and Process are those of [rotation.Hold]: a hold with both is of this process. A command has no Process,
	// and its name in place of Replica.
	Replica, Process string
	// Clock is what is known of Vault's clock; nil: nothing.
	Clock VaultClock
	// Saved is called after each record that was saved, with its new revision, so that the other replicas can be
	// told; with rotation.AllTokens after what is paused was saved. It must not block. It may be nil.
	Saved func(token string, revision uint64)
	// Now is the own clock, with its monotonic part; nil for time.Now.
	Now func() time.Time
}

// Ledger is a ledger in Vault. It implements [ledger.Ledger] and [rotation.SharedLedger], and is safe for concurrent
// use.
//
// Load reads Vault. All is served from memory, which has what this process has read or saved last. The first call of
// All reads everything; after that, [Ledger.Refresh] and [Ledger.RefreshAll] bring in what other replicas have saved.
type Ledger struct {
	o       Options
	writes  durable.LastWrite
	closed  atomic.Bool
	reading chan struct{} // holds one value while everything is read

	mu         sync.Mutex
	complete   bool // everything was read once
	synced     time.Time
	known      map[string]version // by token: the newest that was seen
	unreadable map[string]error   // by token: why its entry cannot be used
	attempts   map[string]attempt // by token: the last save
	pauses     kvstore.Entry      // as last seen
	newest     string             // a token that has a record; empty if none is known
	oracle     rotation.Oracle
}

var (
	_ ledger.Ledger         = (*Ledger)(nil)
	_ rotation.SharedLedger = (*Ledger)(nil)
)

var errClosed = errors.New("the shared ledger is closed")

// Open returns the ledger in a store. It sends nothing.
func Open(o Options) *Ledger {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Saved == nil {
		o.Saved = func(string, uint64) {}
	}
	return &Ledger{o: o, reading: make(chan struct{}, 1), known: make(map[string]version), unreadable: make(map[string]error), attempts: make(map[string]attempt)}
}

// Close ends the use of the ledger. Every later call fails.
func (l *Ledger) Close() error {
	l.closed.Store(true)
	return nil
}

// LastWrite implements [ledger.Ledger].
func (l *Ledger) LastWrite() (time.Time, error) { return l.writes.Get() }

// Load implements [rotation.Ledger]. It sends one request.
func (l *Ledger) Load(ctx context.Context, token string) (rotation.Record, error) {
	if l.closed.Load() {
		return rotation.Record{}, errClosed
	}
	return l.loadFresh(ctx, token)
}

// Save implements [rotation.Ledger]. It sends one request, and one more for a token's first record.
func (l *Ledger) Save(ctx context.Context, r rotation.Record) (rotation.Record, error) {
	if l.closed.Load() {
		return rotation.Record{}, errClosed
	}
	path, began := pathOf(r.Token), l.o.Now()
	l.noteAttempt(r.Token, r.Revision+1, began)
	saved := r
	saved.Revision++
	e, err := l.o.KV.Put(ctx, path, l.envelope(saved), int(r.Revision))
	if errors.Is(err, kvstore.ErrConflict) { // says nothing about whether Vault can be written
		return rotation.Record{}, fmt.Errorf("%w: %w", rotation.ErrConflict, err)
	}
	if l.writes.Note(err) != nil {
		return rotation.Record{}, err
	}
	l.learn(saved, e, began)
	if e.Version == 1 {
		l.limit(ctx, path)
	}
	l.o.Saved(saved.Token, saved.Revision)
	return saved, nil
}

func (l *Ledger) envelope(r rotation.Record) envelope {
	return envelope{Format: Format, By: strings.TrimSuffix(l.o.Replica+"/"+l.o.Process, "/"), Record: r}
}

// limit has Vault keep few versions of a new entry. If that fails, Vault keeps as many as the mount says, which
// costs space and nothing else.
func (l *Ledger) limit(ctx context.Context, path string) { _ = l.o.KV.Limit(ctx, path, keptVersions) }

// SaveAll implements [rotation.Ledger]. It saves some records at a time, and begins no further one after an error. Those
// that it has saved by then are returned beside the error.
func (l *Ledger) SaveAll(ctx context.Context, all []rotation.Record) ([]rotation.Record, error) {
	if len(all) == 0 {
		return nil, nil
	}
	saved := make([]rotation.Record, len(all))
	err := forEach(len(all), func(i int) (err error) {
		if saved[i], err = l.Save(ctx, all[i]); err != nil {
			err = fmt.Errorf("%s: %w", all[i].Token, err)
		}
		return err
	})
	return saved, err
}

// All implements [rotation.Ledger]. It returns what this process has seen last, after it has read everything once.
// For a token whose entry cannot be used it returns the last record that could be read, or none: see
// [Ledger.Unreadable].
func (l *Ledger) All(ctx context.Context) ([]rotation.Record, error) {
	if l.closed.Load() {
		return nil, errClosed
	}
	if err := l.readOnce(ctx); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]rotation.Record, 0, len(l.known))
	for _, v := range l.known {
		all = append(all, v.record)
	}
	return all, nil
}

// OracleTrusted implements [rotation.OracleLedger]. Like All it is served from memory.
func (l *Ledger) OracleTrusted(ctx context.Context, account string) (bool, error) {
	return l.oracle.Trusted(ctx, account, l)
}

// Unreadable returns the tokens whose entries were there and could not be used when they were read last, and why. Load
// of such a token fails, and so does Save. An export must not go on without them.
func (l *Ledger) Unreadable() map[string]error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.unreadable)
}

// Synced returns when everything was read last; zero if it never was.
func (l *Ledger) Synced() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.synced
}

// proof is an entry that is never written. No token has such a name.
const proof = ".proof"

// Prove implements [ledger.Ledger]. It sends a write that cannot match any version, so that Vault refuses it only after
// it has found that it would be allowed.
func (l *Ledger) Prove(ctx context.Context) error {
	if l.closed.Load() {
		return errClosed
	}
	// What would be written is what is there, if there is a record already: an update and a first write need different
	// rights.
	path, data := dirTokens+"/"+proof, any(struct{}{})
	l.mu.Lock()
	if v, there := l.known[l.newest]; there {
		path, data = pathOf(l.newest), l.envelope(v.record)
	}
	l.mu.Unlock()
	_, err := l.o.KV.Put(ctx, path, data, kvstore.Never)
	switch {
	case errors.Is(err, kvstore.ErrConflict):
		err = nil
	case err == nil:
		err = fmt.Errorf("the server has accepted a write to %s whose check-and-set cannot match: the store ignores check-and-set, so replicas would overwrite each other's records", path)
	}
	if l.writes.Note(err) != nil {
		return fmt.Errorf("the shared ledger cannot be written: %w", err)
	}
	return l.proveItStays(ctx)
}

// proveItStays returns an error if Vault deletes by itself what is written: then the records of tokens that are not
// rotated for so long would be gone.
func (l *Ledger) proveItStays(ctx context.Context) error {
	kv, ok := l.o.KV.(interface {
		DeletesAfter(ctx context.Context) (after time.Duration, known bool)
	})
	if !ok {
		return nil
	}
	if after, known := kv.DeletesAfter(ctx); known && after > 0 {
		return fmt.Errorf("the shared ledger would be deleted: the KV mount of %s has delete_version_after %s. "+
			"Switch it off (vault write MOUNT/config delete_version_after=0s), or name another mount in state.shared.vault", l.o.KV.At(""), after)
	}
	return nil
}

// forEach calls do for 0 to n-1, some at a time, and none after an error. It returns the first error.
func forEach(n int, do func(i int) error) error {
	var next atomic.Int64
	var mu sync.Mutex
	var first error
	failed := func(err error) bool {
		mu.Lock()
		defer mu.Unlock()
		if first == nil {
			first = err
		}
		return first != nil
	}
	var all sync.WaitGroup
	for range min(n, atOnce) {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && !failed(nil); i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					failed(err)
				}
			}
		})
	}
	all.Wait()
	return first
}
