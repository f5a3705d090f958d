package journal

import (
	"context"
	"encoding/json"
	"fmt"

	"go.etcd.io/bbolt"

	"rotatord/internal/rotation"
)

// pausesKey has, in the bucket meta, what operators have paused: JSON with its checksum, by
// token. It counts in the tally, so that its loss is noticed as that of a record is.
var pausesKey = []byte("pauses")

// LoadPauses implements [rotation.Pauses].
func (j *Journal) LoadPauses(context.Context) (all map[string]rotation.Pause, err error) {
	err = j.db.View(func(tx *bbolt.Tx) error { all, err = getPauses(tx); return err })
	return all, err
}

// SavePauses implements [rotation.Pauses].
func (j *Journal) SavePauses(_ context.Context, all map[string]rotation.Pause) error {
	return j.wrote(writeRecord, j.db.Update(func(tx *bbolt.Tx) error {
		b, err := json.Marshal(all)
		if err != nil {
			return err
		}
		t, err := getTally(tx)
		if err != nil {
			return err
		}
		meta, value := tx.Bucket(metaBucket), withChecksum(b)
		t.countPauses(meta.Get(pausesKey), -1)
		t.countPauses(value, +1)
		if err := meta.Put(pausesKey, value); err != nil {
			return err
		}
		return putTally(tx, t)
	}))
}

// ReadPauses reads what is paused without changing anything, as ReadLedger does the ledger.
func ReadPauses(ctx context.Context, dir string) (all map[string]rotation.Pause, err error) {
	err = readOnly(dir, func(tx *bbolt.Tx, _ int) error { all, err = getPauses(tx); return err })
	if err == nil {
		err = ctx.Err()
	}
	return all, err
}

func getPauses(tx *bbolt.Tx) (map[string]rotation.Pause, error) {
	all := make(map[string]rotation.Pause)
	stored := tx.Bucket(metaBucket).Get(pausesKey)
	if stored == nil {
		return all, nil
	}
	b, err := checked(stored)
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil {
		return nil, errDamaged(tx.DB().Path(), fmt.Errorf("what is paused: %w", err))
	}
	return all, nil
}

// countPauses counts the pauses like a record, which no token's name can be that of.
func (t *tally) countPauses(value []byte, sign int) { t.count("", value, sign) }
