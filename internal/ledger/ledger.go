// Package ledger stores one record for each token: what was done last, and how far a rotation in
// progress has come. It also stores what operators have paused.
//
// There are two kinds: [Local], a bbolt file for one daemon, and the ledger of several replicas in package
// shared. Both have the same contract, [Ledger], and pass the suite in package ledgertest.
//
// Guarantees of a local ledger, on a file system that overwrites in place (ext4, XFS; not btrfs or ZFS):
//
//   - What a method returned nil for survives a crash of the process and of the machine. Changes that come at the same
//     time share a transaction, and each returns after that is on the disk.
//   - Only one process at a time can open the file for writing.
//   - Damage on the disk is an error that says so: a truncated file, flipped bits, a page or a record
//     that is missing or has an older state. The whole file is checked when it is opened; a record is
//     checked again whenever it is read. There are two limits. If another program truncates the file
//     while the daemon runs, the daemon may crash. And if the disk confirmed the very last write but
//     lost it, the ledger silently has the whole state before that write.
//
// A local ledger is the only writer of its records. A shared one is not: it keeps a memory of what it has seen,
// which has to be refreshed, and package rotation asks it how long the hold of a replica on a token lasts.
//
// No record contains a secret. Whoever can read the file learns which tokens exist and when they were
// rotated.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"rotatord/internal/durable"
	"rotatord/internal/ledger/boltfile"
	"rotatord/internal/ownpath"
	"rotatord/internal/rotation"
)

// Ledger is the contract of every kind of ledger. Methods are safe for concurrent use.
//
// Save is check-and-set by revision, so that several writers of one ledger cannot overwrite each
// other's changes. SaveAll is all or nothing in a local ledger. A ledger in a key-value store cannot
// promise that: after an error it may have saved any of the records, and returns those of which it
// knows. A caller of SaveAll must therefore load the others again after an error.
type Ledger interface {
	rotation.OracleLedger
	rotation.Pauses
	// SavePauses replaces all pauses, for an import. If another process has changed them since LoadPauses,
	// [rotation.ErrConflict] is in the error.
	SavePauses(ctx context.Context, all map[string]rotation.Pause) error
	// Prove does what a save does, but changes nothing. It returns why a rotation could not be
	// recorded. It counts as a write: see LastWrite.
	Prove(ctx context.Context) error
	// LastWrite returns when the ledger was last written, or when that was last tried, and its error.
	// The time is zero if nothing was written since the ledger was opened.
	LastWrite() (time.Time, error)
	// Close ends the use of the ledger. Every later call fails.
	Close() error
}

var _ Ledger = (*Local)(nil)

// FileName is the name of a local ledger in a state directory.
const FileName = "journal.db"

// ErrInUse is in the error about a file that another process has open.
var ErrInUse = errors.New("in use")

// InUse returns the error about a path that another process has open.
func InUse(path string) error {
	return fmt.Errorf("%s is %w by another process: is a second rotatord running on this state directory?", path, ErrInUse)
}

// Local is a ledger in a bbolt file.
type Local struct {
	path    string
	db      *bbolt.DB
	opened  os.FileInfo // the file when it was opened
	writes  durable.LastWrite
	oracle  rotation.Oracle
	decoded atomic.Int64 // see [Local.Decoded]
	values  atomic.Int64 // see [Local.touched]
	dropped atomic.Int64 // how often pages were given back
	// changes that come at the same time are one transaction: see [Local.update].
	changes durable.Group[*change]
}

// LocalOptions say how a local ledger is opened.
type LocalOptions struct {
	// Timeout limits how long to wait for another process that has the file open.
	Timeout time.Duration
	// New says that the file does not exist or holds no ledger yet. See [Examine].
	New bool
	// SaveSealed stores the sealed answers that a file of format 1 holds. Their new place must be
	// durable when it returns nil.
	SaveSealed func([]SealedAnswer) error
}

// bboltOptions are those for writing. The list of free pages is not stored: each transaction would write all of it, 400 KB after
// 100,000 records were replaced at once. bbolt makes the list when it opens the file, which [Examine] has proven.
func bboltOptions(timeout time.Duration) *bbolt.Options {
	return &bbolt.Options{Timeout: timeout, FreelistType: bbolt.FreelistMapType, NoFreelistSync: true}
}

// OpenLocal opens the ledger in a file and checks all of it. It migrates a file that has an older
// format. Call [Examine] first: it protects bbolt from a damaged file.
func OpenLocal(path string, o LocalOptions) (*Local, error) {
	db, err := bbolt.Open(path, 0o600, bboltOptions(o.Timeout))
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, InUse(path)
	}
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	l := &Local{path: path, db: db}
	if o.New {
		if err = errors.Join(db.Update(createBuckets), durable.SyncDir(filepath.Dir(path))); err != nil {
			err = fmt.Errorf("creating %s: %w", path, err)
		}
	} else {
		err = l.migrate(o.SaveSealed)
	}
	if err == nil {
		l.opened, err = os.Stat(path)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return l, nil
}

// CreateLocal creates an empty ledger file at a path where no file is. After a crash the file is either
// whole or missing.
func CreateLocal(path string, timeout time.Duration) error {
	fresh := filepath.Join(filepath.Dir(path), durable.Prefix+"ledger")
	if err := durable.Remove(fresh); err != nil {
		return err
	}
	db, err := bbolt.Open(fresh, 0o600, bboltOptions(timeout))
	if err == nil {
		err = errors.Join(db.Update(createBuckets), db.Close())
	}
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		return fmt.Errorf("creating %s: %w", path, err)
	}
	return durable.SyncDir(filepath.Dir(path))
}

// State says what a ledger file contains.
type State int

// The states of a ledger file.
const (
	Missing State = iota // there is no file
	Empty                // a file without content
	Blank                // a bbolt file to which nothing was written
	Used                 // a ledger
)

// Examine proves that a ledger file is safe to open, while no daemon has it open. check says whether
// other users can change the file: see [ownpath.Check].
func Examine(path string, timeout time.Duration, check func(path string) error) (State, error) {
	info, err := ownpath.RegularFile(path, check)
	if errors.Is(err, fs.ErrNotExist) {
		return Missing, nil
	}
	if err != nil {
		return Used, fmt.Errorf("the ledger: %w", ownpath.Denied(path, err))
	}
	if err := ownpath.Private(path, 0o600); err != nil {
		return Used, err
	}
	if info.Size() == 0 {
		return Empty, nil
	}
	state := Used
	err = withSharedLock(path, timeout, func(_ *bbolt.DB, found boltfile.Info) error {
		if found.Transactions == 0 {
			state = Blank
		}
		return nil
	})
	return state, err
}

// Close closes the file. Every later call fails.
func (l *Local) Close() error { return l.db.Close() }

// LastWrite implements [Ledger].
func (l *Local) LastWrite() (time.Time, error) { return l.writes.Get() }

// Present returns an error if the ledger file was deleted or replaced while it is open. What is then
// written is lost when the process ends.
func (l *Local) Present() error {
	now, err := os.Stat(l.path)
	if err != nil {
		return fmt.Errorf("the ledger was deleted under the running daemon: %w. No rotation begins. Its content is in the link below "+
			"/proc/%d/fd that leads to it, until this process ends: as root, copy that to its place, then restart the daemon", err, os.Getpid())
	}
	if !os.SameFile(now, l.opened) {
		return fmt.Errorf("the ledger %s was replaced under the running daemon, which still writes to the old file. No rotation begins. "+
			"Restart the daemon, which then uses the new one", l.path)
	}
	return nil
}

// Prove implements [Ledger].
func (l *Local) Prove(context.Context) error {
	if err := l.Present(); err != nil {
		return err
	}
	if err := l.writes.Do(func() error { return l.db.Update(putFormat) }); err != nil {
		return fmt.Errorf("the ledger cannot be written: %w", err)
	}
	return nil
}

// Load implements [rotation.Ledger].
func (l *Local) Load(_ context.Context, token string) (rotation.Record, error) {
	var r rotation.Record
	err := l.db.View(func(tx *bbolt.Tx) (err error) {
		r, err = l.decode(token, tx.Bucket(ledgerBucket).Get([]byte(token)))
		return err
	})
	l.touched(1)
	return r, err
}

// Save implements [rotation.Ledger].
func (l *Local) Save(ctx context.Context, r rotation.Record) (rotation.Record, error) {
	saved, err := l.SaveAll(ctx, []rotation.Record{r})
	if err != nil {
		return rotation.Record{}, err
	}
	return saved[0], nil
}

// SaveAll implements [rotation.Ledger]. It saves all records or none.
func (l *Local) SaveAll(_ context.Context, all []rotation.Record) ([]rotation.Record, error) {
	if len(all) == 0 {
		return nil, nil
	}
	var saved []rotation.Record
	err := l.update(func(tx *bbolt.Tx) (write func() error, err error) {
		saved, write, err = prepareSave(tx, all)
		return write, err
	})
	if err != nil {
		l.unsure(err, all...)
		return nil, err
	}
	l.touched(len(all))
	for _, r := range saved {
		l.oracle.Note(r)
	}
	return saved, nil
}

// OracleTrusted implements [rotation.OracleLedger].
func (l *Local) OracleTrusted(ctx context.Context, account string) (bool, error) {
	return l.oracle.Trusted(ctx, account, l)
}

// unsure notes that a save has failed. After a conflict nothing was saved; after an error of the disk it may be.
func (l *Local) unsure(err error, all ...rotation.Record) {
	if !errors.Is(err, rotation.ErrConflict) {
		l.oracle.Unsure(all...)
	}
}

// All implements [rotation.Ledger].
func (l *Local) All(context.Context) ([]rotation.Record, error) {
	var all []rotation.Record
	err := l.db.View(func(tx *bbolt.Tx) (err error) {
		all, err = readRecords(tx, Format)
		return err
	})
	l.decoded.Add(int64(len(all)))
	l.touched(len(all))
	return all, err
}
