package ledger

import (
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"rotatord/internal/rotation"
)

// This file writes the ledger. A transaction waits twice for the disk, whether it changes one record or many. So changes
// that come while a transaction is being written are the next one together (group commit). A change returns after its
// transaction is on the disk, as if it were alone: nothing that a record protects begins earlier.

// change is one change of the ledger, and how it ended.
type change struct {
	// prepare checks the change and returns what writes it. It changes nothing itself, so its error is that of
	// this change alone.
	prepare func(*bbolt.Tx) (write func() error, err error)
	err     error
}

// errNothing rolls a transaction back in which nothing was written.
var errNothing = errors.New("nothing to write")

// update carries out a change, together with others that come at the same time, and notes how the write ended. A conflict
// is not noted: it says nothing about the disk.
func (l *Local) update(prepare func(*bbolt.Tx) (write func() error, err error)) error {
	defer l.writes.Begin()()
	one := &change{prepare: prepare}
	if err := l.changes.Do(one, l.commit); err != nil {
		return err // it is not known whether it was written
	}
	return one.err
}

// commit carries out changes in one transaction. A change that is refused is left out. If one cannot be put into the
// transaction, that is rolled back, and each is tried alone. An error of the disk is that of all: as for a change that is
// alone, it is not known whether the transaction counts.
func (l *Local) commit(all []*change) {
	unput := false
	err := l.db.Update(func(tx *bbolt.Tx) error {
		written := false
		for _, one := range all {
			var write func() error
			if write, one.err = one.prepare(tx); one.err != nil {
				continue
			}
			if err := write(); err != nil {
				unput = true
				return err
			}
			written = true
		}
		if !written {
			return errNothing
		}
		return nil
	})
	switch {
	case err == nil:
		_ = l.writes.Note(nil)
	case errors.Is(err, errNothing):
		for _, one := range all {
			if !errors.Is(one.err, rotation.ErrConflict) {
				_ = l.writes.Note(one.err)
			}
		}
	case unput && len(all) > 1:
		for _, one := range all {
			l.commit([]*change{one})
		}
	default:
		_ = l.writes.Note(err)
		for _, one := range all {
			if one.err == nil {
				one.err = err
			}
		}
	}
}

// prepareSave checks that each stored record has the revision of the one that replaces it, and returns the records with
// their new revisions, and what writes them.
func prepareSave(tx *bbolt.Tx, all []rotation.Record) (saved []rotation.Record, write func() error, err error) {
	type value struct {
		token         string
		stored, value []byte
	}
	values, seen := make([]value, len(all)), make(map[string]bool, len(all))
	saved = make([]rotation.Record, len(all))
	refused := func(token string, err error) error {
		if len(all) > 1 {
			err = fmt.Errorf("%s: %w", token, err)
		}
		return err
	}
	for i, r := range all {
		stored := tx.Bucket(ledgerBucket).Get([]byte(r.Token))
		revision, err := revisionOf(r.Token, stored)
		if err == nil && (revision != r.Revision || seen[r.Token]) {
			err = rotation.ErrConflict
		}
		if err != nil {
			return nil, nil, refused(r.Token, err)
		}
		seen[r.Token] = true
		r.Revision++
		b, err := encodeRecord(r)
		if err != nil {
			return nil, nil, refused(r.Token, err)
		}
		saved[i], values[i] = r, value{r.Token, stored, b}
	}
	return saved, func() error {
		t, err := getTally(tx)
		if err != nil {
			return err
		}
		bucket := tx.Bucket(ledgerBucket)
		for _, v := range values {
			// stored is counted first: it may not be read after a put.
			t.count(v.token, v.stored, -1)
			t.count(v.token, v.value, +1)
		}
		for _, v := range values {
			if err := bucket.Put([]byte(v.token), v.value); err != nil {
				return err
			}
		}
		return putTally(tx, t)
	}, nil
}
