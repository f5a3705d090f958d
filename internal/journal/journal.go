// Package journal keeps on local disk what must survive the daemon: the ledger, with
// one record for each token, and the issued secrets that are not yet confirmed by every
// sink, sealed with age. The ledger is a bbolt file; each sealed secret is a file of its
// own.
//
// Guarantees, on a file system that overwrites in place (ext4, XFS; not btrfs or ZFS):
//
//   - What a method returned nil for survives a crash of the process and of the machine.
//   - A [Journal.Seal] after a [Journal.Reserve] needs no room: a disk that fills up between
//     the two cannot stop it, however many tokens are between them at once.
//   - One process at a time: a second one on the same directory is refused.
//   - A secret is on disk only as age ciphertext. Whoever has the directory but not the
//     identity learns which tokens exist and when they were rotated, and no secret.
//   - What has been damaged on disk is an error that says so, and is not taken for truth: a
//     truncated file, flipped bits, a page or a record that is missing or of an older state.
//     That is so when the directory is opened; the ledger's records are checked at every
//     read. A ledger file that is truncated under a running daemon may end it. And a disk
//     that confirmed the very last write and lost it is not found out: that is the state
//     before that write, whole.
package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"filippo.io/age"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"rotatord/internal/durable"
	"rotatord/internal/ownpath"
	"rotatord/internal/rotation"
)

// What is in the state directory, beside the identity.
const (
	fileName   = "journal.db" // the ledger
	pendingDir = "pending"    // a file for each sealed secret
)

// lockTimeout is how long Open waits for another process to let go of the file.
const lockTimeout = 2 * time.Second

// Journal is an open state directory. It implements [rotation.Ledger], [rotation.Pending] and
// [rotation.Pauses], and is safe for concurrent use.
type Journal struct {
	db         *bbolt.DB
	pending    string // the directory of the sealed secrets
	identity   *age.X25519Identity
	recipients []age.Recipient // whom secrets are sealed to, ourselves included
	now        func() time.Time

	closed atomic.Bool
	spare  spare
	opened os.FileInfo // of the ledger's file
	marked *os.File    // locked while the journal is open; nil if there was no room for it

	mu     sync.Mutex
	writes [2]written // the last of records, and the last of answers
}

// Options say where the state is and what seals it.
type Options struct {
	// Dir is made with mode 0700 if it does not exist.
	Dir string
	// Identity is an age identity, as age-keygen prints it. Empty: the file
	// identity.age in Dir, which is made if there is nothing yet that it would have to
	// open.
	Identity func() (string, error)
	// Recipients are age recipients (age1...) that every secret is sealed to beside the
	// identity. Whoever has the identity of one can open what waits to be delivered.
	Recipients []string
	// LockTimeout is how long to wait for another process that has the directory
	// open. 0: two seconds.
	LockTimeout time.Duration
}

// Open opens the state directory, or makes it. It refuses one that is damaged, or from
// which the ledger or the identity has gone while secrets wait that need them.
func Open(o Options) (*Journal, error) {
	if o.LockTimeout == 0 {
		o.LockTimeout = lockTimeout
	}
	j := &Journal{pending: filepath.Join(o.Dir, pendingDir), now: time.Now}
	if err := prepareDir(o.Dir); err != nil {
		return nil, err
	}
	path := filepath.Join(o.Dir, fileName)
	isNew, err := checkLedgerFile(o.Dir, o.LockTimeout, ownpath.Check)
	if err != nil {
		return nil, err
	}
	j.db, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: o.LockTimeout, FreelistType: bbolt.FreelistMapType})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, errInUse(path)
	}
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	j.spare.keep()
	if err := j.open(o, isNew); err != nil {
		return nil, errors.Join(err, j.Close())
	}
	return j, nil
}

func (j *Journal) open(o Options, isNew bool) (err error) {
	if isNew {
		if err := errors.Join(j.db.Update(makeBuckets), durable.SyncDir(o.Dir)); err != nil {
			return fmt.Errorf("making %s: %w", j.db.Path(), err)
		}
	}
	// After the ledger is whole: it shows from then on that there was one.
	if err := durable.Mkdir(j.pending); err != nil {
		return fmt.Errorf("the directory of the sealed secrets: %w", err)
	}
	if !isNew {
		if err := j.bringUpToDate(); err != nil {
			return err
		}
	}
	if err := j.mark(o.Dir); err != nil {
		return err
	}
	if j.opened, err = os.Stat(j.db.Path()); err != nil {
		return err
	}
	if j.identity, err = loadIdentity(o, j.pending); err != nil {
		return err
	}
	if j.recipients, err = parseRecipients(j.identity, o.Recipients); err != nil {
		return err
	}
	if err = j.sweep(); err != nil {
		return err
	}
	return j.checkIdentity()
}

// Close closes the directory. After it every method fails, with one exception: an answer
// that arrives late, in a process that could not wait for it, is still sealed if it has its
// reservation. That harms no other process which has the directory open by then.
func (j *Journal) Close() error {
	j.closed.Store(true)
	var err error
	if j.marked != nil { // first: who waits for the ledger looks at this next
		err = j.marked.Close()
		j.marked = nil
	}
	return errors.Join(err, j.db.Close(), j.spare.drop())
}

var errClosed = errors.New("the journal is closed")

// LastWrite returns when the journal last wrote to the disk, or tried to, and the error if
// that failed. The time is zero if nothing was written since it was opened.
//
// Records and sealed answers are looked at by themselves: a full disk often has room for the
// one and not for the other, and the failure counts.
func (j *Journal) LastWrite() (time.Time, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var last written
	for _, w := range j.writes {
		if last.err == nil && (w.err != nil || w.at.After(last.at)) {
			last = w
		}
	}
	return last.at, last.err
}

// written is how a write went.
type written struct {
	at  time.Time
	err error
}

// What is written.
const (
	writeRecord = iota
	writeAnswer
	eraseAnswer
)

// wrote notes how a write went. That a record was changed by somebody else says nothing
// about the disk; nor does erasing say that there is room.
func (j *Journal) wrote(what int, err error) error {
	if errors.Is(err, rotation.ErrConflict) {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	slot := &j.writes[min(what, writeAnswer)]
	if what != eraseAnswer || err != nil || slot.err == nil {
		*slot = written{j.now(), err}
	}
	return err
}

// errBusy is in the error about a directory that another process has open.
var errBusy = errors.New("in use")

func errInUse(path string) error {
	return fmt.Errorf("%s is %w by another process: is a second rotatord running on this state directory?", path, errBusy)
}

// prepareDir makes the directory, and refuses it as checkDir does.
func prepareDir(dir string) error {
	err := os.MkdirAll(filepath.Dir(dir), 0o700)
	if err == nil {
		err = durable.Mkdir(dir)
	}
	if err != nil {
		return fmt.Errorf("the state directory: %w", err)
	}
	return checkDir(dir, ownpath.Check)
}

// checkDir refuses a directory that others can look into or change. check says who the others are.
func checkDir(dir string, check func(string) error) error {
	pending := filepath.Join(dir, pendingDir)
	for _, path := range []string{dir, pending} {
		if err := check(path); err != nil {
			return fmt.Errorf("the state directory: %w", err)
		}
		if info, err := os.Stat(path); err == nil && !info.IsDir() {
			return fmt.Errorf("the state directory: %s is %s and must be a directory: move it away", path, ownpath.Kind(info.Mode()))
		}
	}
	if err := refuseOpenToAll("the state directory ", dir, "0700"); err != nil {
		return err
	}
	return refuseOpenToAll("", pending, "0700")
}

// refuseOpenToAll refuses what every user may look into or change. What is not there is
// none of it.
func refuseOpenToAll(what, path, want string) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the state directory: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o007 != 0 {
		return fmt.Errorf("%s%s is open to every user (mode %04o): run chmod %s %s", what, path, mode, want, path)
	}
	return nil
}

// Load implements [rotation.Ledger].
func (j *Journal) Load(_ context.Context, token string) (rotation.Record, error) {
	var r rotation.Record
	err := j.db.View(func(tx *bbolt.Tx) (err error) {
		r, err = decodeRecord(Format, token, tx.Bucket(ledgerBucket).Get([]byte(token)))
		return err
	})
	return r, err
}

// Save implements [rotation.Ledger].
func (j *Journal) Save(_ context.Context, r rotation.Record) (rotation.Record, error) {
	err := j.wrote(writeRecord, j.db.Update(func(tx *bbolt.Tx) (err error) {
		r, err = saveRecord(tx, r)
		return err
	}))
	if err != nil {
		return rotation.Record{}, err
	}
	return r, nil
}

// SaveAll implements [rotation.Ledger].
func (j *Journal) SaveAll(_ context.Context, all []rotation.Record) ([]rotation.Record, error) {
	if len(all) == 0 {
		return nil, nil
	}
	saved := make([]rotation.Record, len(all))
	err := j.wrote(writeRecord, j.db.Update(func(tx *bbolt.Tx) (err error) {
		for i, r := range all {
			if saved[i], err = saveRecord(tx, r); err != nil {
				return fmt.Errorf("%s: %w", r.Token, err)
			}
		}
		return nil
	}))
	if err != nil {
		return nil, err
	}
	return saved, nil
}

// saveRecord puts a record in the place of the one whose revision it has, and returns it with
// its new one.
func saveRecord(tx *bbolt.Tx, r rotation.Record) (rotation.Record, error) {
	stored := tx.Bucket(ledgerBucket).Get([]byte(r.Token))
	before, err := decodeRecord(Format, r.Token, stored)
	if err != nil {
		return r, err
	}
	if before.Revision != r.Revision {
		return r, rotation.ErrConflict
	}
	r.Revision++
	value, err := encodeRecord(r)
	if err != nil {
		return r, err
	}
	return r, putRecord(tx, r.Token, stored, value)
}

// All implements [rotation.Ledger].
func (j *Journal) All(context.Context) ([]rotation.Record, error) {
	var all []rotation.Record
	err := j.db.View(func(tx *bbolt.Tx) (err error) {
		all, err = readLedger(tx, Format)
		return err
	})
	return all, err
}
