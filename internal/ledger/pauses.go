package ledger

import (
	"context"
	"encoding/json"
	"fmt"

	"go.etcd.io/bbolt"

	"rotatord/internal/rotation"
)

// pausesKey, in the meta bucket, holds what operators have paused: JSON by token, with its checksum.
// The tally includes it, so its loss is noticed like the loss of a record.
var pausesKey = []byte("pauses")

// LoadPauses implements [rotation.Pauses].
func (l *Local) LoadPauses(context.Context) (all map[string]rotation.Pause, err error) {
	err = l.db.View(func(tx *bbolt.Tx) error { all, err = readPauses(tx); return err })
	return all, err
}

// SetPause implements [rotation.Pauses].
func (l *Local) SetPause(_ context.Context, token string, p *rotation.Pause) (all map[string]rotation.Pause, err error) {
	err = l.update(func(tx *bbolt.Tx) (func() error, error) {
		before, err := readPauses(tx)
		if err != nil {
			return nil, err
		}
		all = rotation.WithPause(before, token, p)
		return func() error { return putPauses(tx, all) }, nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// SavePauses implements [Ledger].
func (l *Local) SavePauses(_ context.Context, all map[string]rotation.Pause) error {
	return l.update(func(tx *bbolt.Tx) (func() error, error) {
		return func() error { return putPauses(tx, all) }, nil
	})
}

func putPauses(tx *bbolt.Tx, all map[string]rotation.Pause) error {
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
}

func readPauses(tx *bbolt.Tx) (map[string]rotation.Pause, error) {
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
		return nil, errDamaged(tx.DB().Path(), fmt.Errorf("the pauses: %w", err))
	}
	return all, nil
}

// countPauses counts the pauses like a record. No token has the empty name.
func (t *tally) countPauses(value []byte, sign int) { t.count("", value, sign) }
