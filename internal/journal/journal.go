// Package journal keeps on local disk what must survive the daemon: the ledger, with
// one record for each token, and the issued secrets that are not yet confirmed by every
// sink, sealed with age.
//
// Guarantees: what a method returned nil for survives a crash of the process and of the
// machine (bbolt commits with fdatasync). One process at a time: a second one on the
// same directory is refused. A secret is on disk only as age ciphertext; whoever has
// the directory but not the identity learns which tokens exist and when they were
// rotated, and no secret. Erasing removes the reference; the ciphertext's page is
// overwritten when it is reused.
package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"rotatord/internal/rotation"
)

// Format is the version of the file's layout that this code reads and writes.
const Format = 1

// fileName is the one file in the state directory, beside the identity.
const fileName = "journal.db"

// lockTimeout is how long Open waits for another process to let go of the file.
const lockTimeout = 2 * time.Second

var (
	metaBucket    = []byte("meta")
	ledgerBucket  = []byte("ledger")
	pendingBucket = []byte("pending")
	formatKey     = []byte("format")
)

// Journal is an open state directory. It implements [rotation.Ledger] and
// [rotation.Pending], and is safe for concurrent use.
type Journal struct {
	db       *bbolt.DB
	identity *age.X25519Identity
	now      func() time.Time
}

// Options say where the state is and what seals it.
type Options struct {
	// Dir is made with mode 0700 if it does not exist.
	Dir string
	// Identity is an age identity, as age-keygen prints it. Empty: the file
	// identity.age in Dir, which is made if there is nothing yet that it would have to
	// open.
	Identity func() (string, error)
	// LockTimeout is how long to wait for another process that has the directory
	// open. 0: two seconds.
	LockTimeout time.Duration
}

// Open opens the state directory, or makes it.
func Open(o Options) (*Journal, error) {
	if o.LockTimeout == 0 {
		o.LockTimeout = lockTimeout
	}
	if err := prepareDir(o.Dir); err != nil {
		return nil, err
	}
	path := filepath.Join(o.Dir, fileName)
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: o.LockTimeout, FreelistType: bbolt.FreelistMapType})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("%s is in use by another process: is a second rotatord running on this state directory?", path)
	}
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	j := &Journal{db: db, now: time.Now}
	if err := errors.Join(j.prepare(), syncDir(o.Dir)); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), db.Close())
	}
	if j.identity, err = j.loadIdentity(o); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return j, nil
}

// Close closes the directory. The Journal must not be used after it.
func (j *Journal) Close() error { return j.db.Close() }

// prepareDir makes the directory, and refuses one that strangers can look into.
func prepareDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("the state directory: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("the state directory: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o007 != 0 {
		return fmt.Errorf("the state directory %s is open to every user (mode %04o): run chmod 0700 %s", dir, mode, dir)
	}
	return nil
}

// prepare makes the buckets of a new file, and refuses the file of a newer version.
func (j *Journal) prepare() error {
	return j.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{metaBucket, ledgerBucket, pendingBucket} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		meta := tx.Bucket(metaBucket)
		stored := meta.Get(formatKey)
		if stored == nil {
			return meta.Put(formatKey, fmt.Append(nil, Format))
		}
		var format int
		if _, err := fmt.Sscan(string(stored), &format); err != nil {
			return fmt.Errorf("the format version %q cannot be read", stored)
		}
		if format != Format {
			return fmt.Errorf("the file has format version %d and this rotatord reads %d: use the version that wrote it", format, Format)
		}
		return nil
	})
}

// syncDir makes the names in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Load implements [rotation.Ledger].
func (j *Journal) Load(_ context.Context, token string) (rotation.Record, error) {
	var r rotation.Record
	err := j.db.View(func(tx *bbolt.Tx) (err error) {
		r, err = decodeRecord(token, tx.Bucket(ledgerBucket).Get([]byte(token)))
		return err
	})
	return r, err
}

// Save implements [rotation.Ledger].
func (j *Journal) Save(_ context.Context, r rotation.Record) (rotation.Record, error) {
	err := j.db.Update(func(tx *bbolt.Tx) error {
		ledger := tx.Bucket(ledgerBucket)
		stored, err := decodeRecord(r.Token, ledger.Get([]byte(r.Token)))
		if err != nil {
			return err
		}
		if stored.Revision != r.Revision {
			return rotation.ErrConflict
		}
		r.Revision++
		b, err := json.Marshal(r)
		if err != nil {
			return err
		}
		return ledger.Put([]byte(r.Token), b)
	})
	if err != nil {
		return rotation.Record{}, err
	}
	return r, nil
}

// All implements [rotation.Ledger].
func (j *Journal) All(context.Context) ([]rotation.Record, error) {
	var all []rotation.Record
	err := j.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(ledgerBucket).ForEach(func(k, v []byte) error {
			r, err := decodeRecord(string(k), v)
			all = append(all, r)
			return err
		})
	})
	return all, err
}

func decodeRecord(token string, b []byte) (r rotation.Record, err error) {
	if b == nil {
		return r, nil
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("the ledger record of %s cannot be read: %w", token, err)
	}
	if r.Format > rotation.RecordFormat {
		return r, fmt.Errorf("the ledger record of %s has format version %d and this rotatord reads up to %d: "+
			"use the version that wrote it", token, r.Format, rotation.RecordFormat)
	}
	return rotation.Migrate(r), nil
}

// ReadLedger reads the ledger without changing anything, for commands that run beside no
// daemon. It is an error if there is no ledger, or if a daemon has it open.
func ReadLedger(ctx context.Context, dir string) ([]rotation.Record, error) {
	path := filepath.Join(dir, fileName)
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("there is no ledger to read: %w", err)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: 100 * time.Millisecond})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("%s is in use by a running daemon", path)
	}
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	all, err := (&Journal{db: db}).All(ctx)
	return all, errors.Join(err, db.Close())
}
