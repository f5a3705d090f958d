package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"rotatord/internal/rotation"
)

// pendingBucket held the sealed answers in format 1.
var pendingBucket = []byte("pending")

// envelope is a value of that bucket; its key was the rotation ID. A reservation had padding in place
// of the ciphertext.
type envelope struct {
	Format int       `json:"format"`
	At     time.Time `json:"at"`
	Age    []byte    `json:"age"`
}

// SealedAnswer is a sealed answer from a file of format 1. The key has no token name if no unfinished
// rotation in the ledger has this ID.
type SealedAnswer struct {
	Key        rotation.PendingKey
	At         time.Time // when it was sealed
	Ciphertext []byte
}

// readSealed returns the sealed answers of a file that has format 1.
func readSealed(tx *bbolt.Tx) ([]SealedAnswer, error) {
	bucket := tx.Bucket(pendingBucket)
	if bucket == nil {
		return nil, errDamaged(tx.DB().Path(), errors.New("a bucket is missing"))
	}
	records, err := readRecords(tx, 1)
	if err != nil {
		return nil, err
	}
	inProgress := Unfinished(records)
	var all []SealedAnswer
	err = bucket.ForEach(func(k, v []byte) error {
		id := string(k)
		var e envelope
		if err := json.Unmarshal(v, &e); err != nil {
			return fmt.Errorf("the pending entry of rotation %s in %s cannot be read: %w", id, FileName, err)
		}
		if e.Age == nil {
			return nil
		}
		s := SealedAnswer{Key: rotation.PendingKey{RotationID: id}, At: e.At, Ciphertext: e.Age}
		if r, known := inProgress[id]; known {
			s.Key.Token, s.Key.TokenID = r.Token, r.Work.TokenID
		}
		all = append(all, s)
		return nil
	})
	return all, err
}

// Unfinished returns the records that have a rotation in progress, by the ID of that rotation.
func Unfinished(records []rotation.Record) map[string]rotation.Record {
	all := make(map[string]rotation.Record)
	for _, r := range records {
		if r.Work != nil {
			all[r.Work.RotationID] = r
		}
	}
	return all
}

// migrate checks the content of the file, and gives it the current format.
//
// From format 1, the sealed answers become files first; then one transaction does the rest. After a
// crash in between, the next start does all of it again. Reservations are dropped: no answer can
// arrive for them any more.
func (l *Local) migrate(saveSealed func([]SealedAnswer) error) error {
	var format int
	var sealed []SealedAnswer
	err := l.db.View(func(tx *bbolt.Tx) (err error) {
		if format, err = formatOf(tx); err == nil {
			err = checkRecords(tx, format, func(token string, value []byte) error { return l.checkRecord(format, token, value) })
		}
		return err
	})
	if err != nil || format == Format {
		return err
	}
	if format == 2 {
		return l.db.Update(putFormat)
	}
	err = l.db.View(func(tx *bbolt.Tx) (err error) {
		if sealed, err = readSealed(tx); err == nil && len(sealed) > 0 {
			err = saveSealed(sealed)
		}
		return err
	})
	if err == nil {
		err = l.db.Update(migrateBuckets)
	}
	if err != nil {
		return fmt.Errorf("migrating %s to format %d: %w", l.path, Format, err)
	}
	return nil
}

// checkRecord checks a value when the file is opened. It does not decode a value that begins as this code writes it: whoever
// uses the record decodes it, and the daemon does that with each before it starts.
func (l *Local) checkRecord(format int, token string, value []byte) error {
	l.values.Add(1)
	if format == Format {
		_, ours, err := headOf(token, value)
		if err != nil || ours {
			return err
		}
	}
	l.decoded.Add(1)
	_, err := decodeRecord(format, token, value)
	return err
}

// migrateBuckets gives every record of format 1 a checksum, and removes the sealed answers.
func migrateBuckets(tx *bbolt.Tx) error {
	ledger := tx.Bucket(ledgerBucket)
	values := make(map[string][]byte)
	var t tally
	err := ledger.ForEach(func(k, v []byte) error {
		values[string(k)] = withChecksum(v)
		t.count(string(k), values[string(k)], +1)
		return nil
	})
	for token, value := range values {
		err = errors.Join(err, ledger.Put([]byte(token), value))
	}
	if deleteErr := tx.DeleteBucket(pendingBucket); !errors.Is(deleteErr, bolterrors.ErrBucketNotFound) {
		err = errors.Join(err, deleteErr)
	}
	return errors.Join(err, putTally(tx, t), putFormat(tx))
}
