package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"

	"go.etcd.io/bbolt"

	"rotatord/internal/rotation"
)

// This file defines the layout of the ledger file and checks it.

// Format is the version of the layout that this code writes. Older versions are migrated when a ledger
// is opened: version 2 had no pauses; version 1 had no checksums, and had the sealed answers in a bucket.
const Format = 3

var (
	metaBucket   = []byte("meta")
	ledgerBucket = []byte("ledger") // records as JSON with their checksum, by token
	formatKey    = []byte("format")
	tallyKey     = []byte("tally")
)

// tally is a checksum over the whole ledger. The checksum of a value cannot show that a record is
// missing or has an older state; the tally can.
type tally struct {
	Records int    `json:"records"`
	Sum     uint64 `json:"sum,string"` // of the hashes of all records, in any order
}

// count adds a value to the tally (sign +1) or takes it out (sign -1). A nil value counts nothing.
func (t *tally) count(token string, value []byte, sign int) {
	if value == nil {
		return
	}
	var space [256]byte // that of most names; a value is not copied
	name := append(strconv.AppendInt(space[:0], int64(len(token)), 10), ':')
	hash := sha256.New()
	hash.Write(append(name, token...))
	hash.Write(value)
	t.Records += sign
	t.Sum += uint64(sign) * binary.BigEndian.Uint64(hash.Sum(space[:0]))
}

// createBuckets lays out a new file.
func createBuckets(tx *bbolt.Tx) error {
	for _, name := range [][]byte{metaBucket, ledgerBucket} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	return errors.Join(putTally(tx, tally{}), putFormat(tx))
}

func putFormat(tx *bbolt.Tx) error {
	return tx.Bucket(metaBucket).Put(formatKey, fmt.Append(nil, Format))
}

// formatOf returns the version of the layout. It refuses a newer version, and a file without our
// buckets.
func formatOf(tx *bbolt.Tx) (int, error) {
	meta := tx.Bucket(metaBucket)
	if meta == nil || tx.Bucket(ledgerBucket) == nil {
		return 0, errDamaged(tx.DB().Path(), errors.New("a bucket is missing"))
	}
	stored := meta.Get(formatKey)
	format, err := strconv.Atoi(string(stored))
	switch {
	case err != nil || format < 1:
		return 0, errDamaged(tx.DB().Path(), fmt.Errorf("the format version %q cannot be read", stored))
	case format > Format:
		return 0, fmt.Errorf("%s has format version %d and this rotatord reads %d: use the version that wrote it", tx.DB().Path(), format, Format)
	case format == 1 && meta.Get(tallyKey) != nil:
		return 0, errDamaged(tx.DB().Path(), errors.New("it has format version 1 but also content that only a later version writes"))
	}
	return format, nil
}

// readRecords returns all records, after it has compared the ledger with its tally.
func readRecords(tx *bbolt.Tx, format int) (all []rotation.Record, err error) {
	err = checkRecords(tx, format, func(token string, value []byte) error {
		r, err := decodeRecord(format, token, value)
		all = append(all, r)
		return err
	})
	return all, err
}

// checkRecords calls do with each value, and compares the ledger with its tally.
func checkRecords(tx *bbolt.Tx, format int, do func(token string, value []byte) error) error {
	var found tally
	err := tx.Bucket(ledgerBucket).ForEach(func(k, v []byte) error {
		if err := do(string(k), v); err != nil {
			return err
		}
		found.count(string(k), v, +1)
		return nil
	})
	if err != nil || format == 1 {
		return err
	}
	if _, err := readPauses(tx); err != nil {
		return err
	}
	found.countPauses(tx.Bucket(metaBucket).Get(pausesKey), +1)
	want, err := getTally(tx)
	if err == nil && want != found {
		err = errDamaged(tx.DB().Path(), errors.New("the ledger does not contain what was written last"))
	}
	return err
}

func getTally(tx *bbolt.Tx) (t tally, err error) {
	b, err := checked(tx.Bucket(metaBucket).Get(tallyKey))
	if err == nil {
		err = json.Unmarshal(b, &t)
	}
	if err != nil {
		err = errDamaged(tx.DB().Path(), fmt.Errorf("the tally of the ledger: %w", err))
	}
	return t, err
}

func putTally(tx *bbolt.Tx, t tally) error {
	b, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return tx.Bucket(metaBucket).Put(tallyKey, withChecksum(b))
}

func encodeRecord(r rotation.Record) ([]byte, error) {
	b, err := json.Marshal(r)
	return withChecksum(b), err
}

// decodeRecord returns the record in a value of the ledger bucket, and a zero record for nil. Package
// rotation migrates records of an older format.
func decodeRecord(format int, token string, b []byte) (r rotation.Record, err error) {
	if b == nil {
		return r, nil
	}
	if format > 1 {
		if b, err = checkedValue(token, b); err != nil {
			return r, err
		}
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("the ledger record of %s in %s cannot be read: %w", token, FileName, err)
	}
	if r.Format > rotation.RecordFormat {
		return r, fmt.Errorf("the ledger record of %s has format version %d and this rotatord reads up to %d: "+
			"use the version that wrote it", token, r.Format, rotation.RecordFormat)
	}
	if r.Token != token {
		return r, fmt.Errorf("the ledger record of %s in %s has the name %q: restore the state directory from a backup", token, FileName, r.Token)
	}
	return rotation.Migrate(r), nil
}

// A value begins with its checksum: eight hex digits and a space.
const checksumSize = 9

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func withChecksum(b []byte) []byte {
	return append(appendChecksum(make([]byte, 0, checksumSize+len(b)), b), b...)
}

// appendChecksum appends the checksum of a value to text.
func appendChecksum(text, b []byte) []byte {
	var sum [4]byte
	binary.BigEndian.PutUint32(sum[:], crc32.Checksum(b, castagnoli))
	return append(hex.AppendEncode(text, sum[:]), ' ')
}

// checked returns a value without its checksum, or an error if the checksum is wrong.
func checked(b []byte) ([]byte, error) {
	if len(b) >= checksumSize {
		var want [checksumSize]byte
		if string(appendChecksum(want[:0], b[checksumSize:])) == string(b[:checksumSize]) {
			return b[checksumSize:], nil
		}
	}
	return nil, errors.New("it has a wrong checksum")
}
