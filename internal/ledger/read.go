package ledger

import (
	"bytes"
	"context"
	"fmt"

	"go.etcd.io/bbolt"

	"rotatord/internal/rotation"
)

// This file reads many records without having all of them in memory: a ledger of 100,000 tokens is a hundred megabytes
// once it is decoded. See [rotation.FleetLedger].

var _ rotation.FleetLedger = (*Local)(nil)

// LoadAll implements [rotation.FleetLedger].
func (l *Local) LoadAll(_ context.Context, tokens []string) ([]rotation.Record, error) {
	all := make([]rotation.Record, len(tokens))
	err := l.db.View(func(tx *bbolt.Tx) (err error) {
		bucket := tx.Bucket(ledgerBucket)
		for i, token := range tokens {
			if all[i], err = l.decode(token, bucket.Get([]byte(token))); err != nil {
				return err
			}
		}
		return nil
	})
	l.touched(len(tokens))
	return all, err
}

// Unfinished implements [rotation.FleetLedger]. Every value is compared with its checksum, and only those are decoded that
// can have a step.
func (l *Local) Unfinished(context.Context) (all []rotation.Record, err error) {
	err = l.each(func(_, value []byte) bool { return bytes.Contains(value, stepField) }, func(r rotation.Record) {
		if r.Step != rotation.StepIdle {
			all = append(all, r)
		}
	})
	return all, err
}

// stepField is in the JSON of each record with a rotation in progress. In the text of a string there is a backslash before
// each quotation mark.
var stepField = []byte(`"step":`)

// Each implements [rotation.FleetLedger].
func (l *Local) Each(_ context.Context, wanted func(token string) bool, do func(rotation.Record)) error {
	return l.each(func(token, _ []byte) bool { return wanted(string(token)) }, do)
}

// each calls do with the records that are wanted, after it has compared every value with its checksum.
func (l *Local) each(wanted func(token, value []byte) bool, do func(rotation.Record)) error {
	n := 0
	defer func() { l.touched(n) }()
	return l.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(ledgerBucket).ForEach(func(k, v []byte) error {
			n++
			if !wanted(k, v) {
				if _, err := checked(v); err != nil {
					return damagedRecord(string(k), err)
				}
				return nil
			}
			r, err := l.decode(string(k), v)
			if err == nil {
				do(r)
			}
			return err
		})
	})
}

// decode decodes a record in the present format, and counts that.
func (l *Local) decode(token string, value []byte) (rotation.Record, error) {
	l.decoded.Add(1)
	return decodeRecord(Format, token, value)
}

// Decoded returns how many records were decoded since the file was opened. To decode them is most of what a start costs.
func (l *Local) Decoded() int64 { return l.decoded.Load() }

// checkedValue returns a value without its checksum, which it compares.
func checkedValue(token string, value []byte) ([]byte, error) {
	b, err := checked(value)
	if err != nil {
		err = damagedRecord(token, err)
	}
	return b, err
}

func damagedRecord(token string, err error) error {
	return fmt.Errorf("the ledger record of %s in %s is damaged: %w: restore the state directory from a backup", token, FileName, err)
}

// revisionOf returns the revision of the record in a value, after it has compared the value with its checksum; 0 for nil. It
// reads the value only up to the revision if that is where this code writes it.
func revisionOf(token string, value []byte) (uint64, error) {
	if value == nil {
		return 0, nil
	}
	revision, ours, err := headOf(token, value)
	if err != nil || ours {
		return revision, err
	}
	r, err := decodeRecord(Format, token, value)
	return r.Revision, err
}

// headOf compares a value with its checksum, and returns the revision of its record if the value begins as this code writes
// it: with the present format, a revision, and the token.
func headOf(token string, value []byte) (revision uint64, ours bool, err error) {
	b, err := checkedValue(token, value)
	if err != nil {
		return 0, false, err
	}
	var format uint64
	rest, ok := number(b, `{"format":`, &format)
	if !ok || format != rotation.RecordFormat {
		return 0, false, nil
	}
	if rest, ok = number(rest, `,"revision":`, &revision); !ok {
		return 0, false, nil
	}
	if rest, ok = bytes.CutPrefix(rest, []byte(`,"token":"`)); ok {
		rest, ok = bytes.CutPrefix(rest, []byte(token))
	}
	return revision, ok && bytes.HasPrefix(rest, []byte(`"`)), nil
}

// number reads a whole number after a prefix, and returns what follows it.
func number(b []byte, prefix string, n *uint64) (rest []byte, ok bool) {
	b, ok = bytes.CutPrefix(b, []byte(prefix))
	digits := 0
	for ; digits < len(b) && digits < 19 && b[digits] >= '0' && b[digits] <= '9'; digits++ {
		*n = *n*10 + uint64(b[digits]-'0')
	}
	return b[digits:], ok && digits > 0
}
