package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"rotatord/internal/rotation"
)

// pendingBucket held the sealed answers in format 1.
var pendingBucket = []byte("pending")

// envelope1 is what stood in that bucket under a rotation ID. A reservation had padding in
// the place of ciphertext.
type envelope1 struct {
	Format int       `json:"format"`
	At     time.Time `json:"at"`
	Age    []byte    `json:"age"`
}

// sealed1 is a sealed answer of format 1. Whose it is stands in the ledger, if anywhere.
type sealed1 struct {
	key        rotation.PendingKey
	at         time.Time
	ciphertext []byte
}

func readSealed1(tx *bbolt.Tx) ([]sealed1, error) {
	bucket := tx.Bucket(pendingBucket)
	if bucket == nil {
		return nil, errDamaged(tx.DB().Path(), errors.New("a bucket is missing"))
	}
	records, err := readLedger(tx, 1)
	if err != nil {
		return nil, err
	}
	inHand := unfinished(records)
	var all []sealed1
	err = bucket.ForEach(func(k, v []byte) error {
		id := string(k)
		var e envelope1
		if err := json.Unmarshal(v, &e); err != nil {
			return fmt.Errorf("the pending entry of rotation %s in %s cannot be read: %w", id, fileName, err)
		}
		if e.Age == nil {
			return nil
		}
		if !validID.MatchString(id) {
			return fmt.Errorf("%q in %s is no rotation ID", id, fileName)
		}
		s := sealed1{key: rotation.PendingKey{RotationID: id}, at: e.At, ciphertext: e.Age}
		if r, known := inHand[id]; known {
			s.key.Token, s.key.TokenID = r.Token, r.Work.TokenID
		}
		all = append(all, s)
		return nil
	})
	return all, err
}

// migrate turns format 1 into this one. First the sealed answers become files, then one
// transaction does the rest; a crash in between leaves format 1, and files that are
// written again. Reservations are not carried over: no answer can come for them any more.
func (j *Journal) migrate() error {
	var sealed []sealed1
	err := j.db.View(func(tx *bbolt.Tx) (err error) { sealed, err = readSealed1(tx); return err })
	for _, s := range sealed {
		if err == nil {
			err = writeSealed(filepath.Join(j.pending, s.key.RotationID), s.key, s.at, s.ciphertext)
		}
	}
	if err == nil {
		err = j.db.Update(migrateLedger)
	}
	if err != nil {
		return fmt.Errorf("migrating %s to format %d: %w", j.db.Path(), Format, err)
	}
	return nil
}

func migrateLedger(tx *bbolt.Tx) error {
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
