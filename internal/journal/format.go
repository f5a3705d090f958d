package journal

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"rotatord/internal/journal/boltfile"
	"rotatord/internal/ownpath"
	"rotatord/internal/rotation"
)

// This file holds the layout of journal.db, and how it is checked.

// Format is the version of the layout that this code writes. It migrates older ones when a
// directory is opened: version 2, which knew no pauses, and version 1, which had no checksums
// and kept sealed answers in a bucket.
const Format = 3

var (
	metaBucket   = []byte("meta")
	ledgerBucket = []byte("ledger") // records as JSON with their checksum, by token
	formatKey    = []byte("format")
	tallyKey     = []byte("tally")
)

// tally is what the ledger holds in all. A checksum in each value cannot show that a
// record is missing, or is one of an earlier time; the tally does.
type tally struct {
	Records int    `json:"records"`
	Sum     uint64 `json:"sum,string"` // of the hashes of all records, in any order
}

func (t *tally) count(token string, value []byte, sign int) {
	if value == nil {
		return
	}
	h := sha256.New()
	fmt.Fprintf(h, "%d:%s", len(token), token)
	_, _ = h.Write(value)
	t.Records += sign
	t.Sum += uint64(sign) * binary.BigEndian.Uint64(h.Sum(nil))
}

// checkLedgerFile proves that the ledger's file can be read, and reports whether there is
// nothing in it yet. A ledger that has gone is not a new one: it knew which rotations are in
// doubt, which graces were promised, and whose the sealed secrets are.
func checkLedgerFile(dir string, timeout time.Duration, check func(string) error) (isNew bool, err error) {
	path := filepath.Join(dir, fileName)
	info, err := checkOwnFile(path, check)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, checkNew(dir, "missing", usedBefore(dir))
	case err != nil:
		return false, fmt.Errorf("the ledger: %w", ownpath.Denied(path, err))
	}
	if err := refuseOpenToAll("", path, "0600"); err != nil {
		return false, err
	}
	if info.Size() == 0 {
		return true, checkNew(dir, "empty", usedBefore(dir))
	}
	err = withSharedLock(path, timeout, func(_ *bbolt.DB, found boltfile.Info) error {
		isNew = found.Transactions == 0
		return nil
	})
	if err != nil || !isNew {
		return false, err
	}
	// A first start that was cut short leaves such a file. What comes after the first
	// transaction shows that it is not that.
	evidence := madeIdentity(dir)
	if _, err := os.Lstat(filepath.Join(dir, markFile)); err == nil {
		evidence = markFile
	}
	return true, checkNew(dir, "new", evidence)
}

// withSharedLock checks a ledger's file while no daemon has it open, and calls do with it
// open for reading.
func withSharedLock(path string, timeout time.Duration, do func(*bbolt.DB, boltfile.Info) error) error {
	db, openErr := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: timeout})
	if errors.Is(openErr, bolterrors.ErrTimeout) {
		return errInUse(path)
	}
	if errors.Is(openErr, fs.ErrNotExist) || errors.Is(openErr, fs.ErrPermission) {
		return fmt.Errorf("opening the ledger: %w", ownpath.Denied(path, openErr))
	}
	b, err := os.ReadFile(path)
	if err != nil {
		err = fmt.Errorf("reading the ledger: %w", err)
	} else {
		var info boltfile.Info
		if info, err = boltfile.Check(b); err != nil {
			err = errDamaged(path, err)
		} else if openErr != nil {
			err = errDamaged(path, openErr)
		} else {
			err = do(db, info)
		}
	}
	if openErr == nil {
		err = errors.Join(err, db.Close())
	}
	return err
}

func errDamaged(path string, cause error) error {
	dir := filepath.Dir(path)
	return fmt.Errorf("%s is damaged: %w. Restore the state directory from a backup. If there is none, look at the sealed secrets, which are in %s, "+
		"with rotatord recover --state-dir %s; then rotatord recover --state-dir %s --new-ledger puts all aside and begins a new ledger",
		path, cause, filepath.Join(dir, pendingDir), dir, dir)
}

// makeBuckets lays out a new file.
func makeBuckets(tx *bbolt.Tx) error {
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

// bringUpToDate reads all of a file that is not new, and migrates one of an older format.
func (j *Journal) bringUpToDate() error {
	var format int
	err := j.db.View(func(tx *bbolt.Tx) (err error) {
		if format, err = formatOf(tx); err == nil {
			_, err = readLedger(tx, format)
		}
		return err
	})
	if err != nil || format == Format {
		return err
	}
	if format == 2 {
		return j.db.Update(putFormat)
	}
	return j.migrate()
}

// formatOf returns the version of the layout, and refuses one that is newer or has no
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
		return 0, errDamaged(tx.DB().Path(), errors.New("it has the format version 1 and what only a later one has"))
	}
	return format, nil
}

// readLedger returns all records, and holds them against the tally.
func readLedger(tx *bbolt.Tx, format int) ([]rotation.Record, error) {
	var all []rotation.Record
	var found tally
	err := tx.Bucket(ledgerBucket).ForEach(func(k, v []byte) error {
		r, err := decodeRecord(format, string(k), v)
		if err != nil {
			return err
		}
		found.count(string(k), v, +1)
		all = append(all, r)
		return nil
	})
	if err != nil || format == 1 {
		return all, err
	}
	if _, err := getPauses(tx); err != nil {
		return nil, err
	}
	found.countPauses(tx.Bucket(metaBucket).Get(pausesKey), +1)
	want, err := getTally(tx)
	if err == nil && want != found {
		err = errDamaged(tx.DB().Path(), errors.New("the ledger does not hold what was written last"))
	}
	return all, err
}

// putRecord puts a record's value in the place of the one that is stored, nil for none.
func putRecord(tx *bbolt.Tx, token string, stored, value []byte) error {
	t, err := getTally(tx)
	if err != nil {
		return err
	}
	t.count(token, stored, -1)
	t.count(token, value, +1)
	return errors.Join(tx.Bucket(ledgerBucket).Put([]byte(token), value), putTally(tx, t))
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

// decodeRecord reads a value of the ledger. Formats of the file end here; those of the
// record are migrated by package rotation.
func decodeRecord(format int, token string, b []byte) (r rotation.Record, err error) {
	if b == nil {
		return r, nil
	}
	if format > 1 {
		if b, err = checked(b); err != nil {
			return r, fmt.Errorf("the ledger record of %s in %s is damaged: %w: restore the state directory from a backup", token, fileName, err)
		}
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("the ledger record of %s in %s cannot be read: %w", token, fileName, err)
	}
	if r.Format > rotation.RecordFormat {
		return r, fmt.Errorf("the ledger record of %s has format version %d and this rotatord reads up to %d: "+
			"use the version that wrote it", token, r.Format, rotation.RecordFormat)
	}
	if r.Token != token {
		return r, fmt.Errorf("the ledger record of %s in %s is one of %q: restore the state directory from a backup", token, fileName, r.Token)
	}
	return rotation.Migrate(r), nil
}

// The checksum stands in front of a value as eight hex digits and a space.
const checksumSize = 9

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func withChecksum(b []byte) []byte {
	return append(fmt.Appendf(nil, "%08x ", crc32.Checksum(b, castagnoli)), b...)
}

func checked(b []byte) ([]byte, error) {
	if len(b) < checksumSize || string(b[:checksumSize]) != string(withChecksum(b[checksumSize:])[:checksumSize]) {
		return nil, errors.New("it has a wrong checksum")
	}
	return b[checksumSize:], nil
}
