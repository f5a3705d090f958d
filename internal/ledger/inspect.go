package ledger

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"rotatord/internal/ledger/boltfile"
	"rotatord/internal/ownpath"
	"rotatord/internal/rotation"
)

// This file reads a ledger file that no daemon has open. Nothing here writes.

// InspectTimeout limits how long a command waits for a process that has the file open. It is short:
// such a process is a daemon, or another command that is about to end.
const InspectTimeout = 100 * time.Millisecond

// Snapshot is the content of a ledger file that is open for reading.
type Snapshot struct {
	tx     *bbolt.Tx
	format int
}

// View calls do with the content of a ledger file. No daemon can start until do returns. If there is
// no ledger, or nothing was ever written to it, fs.ErrNotExist is in the error. If a daemon has the
// file open, ErrInUse is.
func View(path string, do func(Snapshot) error) error {
	if info, err := os.Stat(path); err != nil {
		return fmt.Errorf("there is no ledger to read: %w", err)
	} else if !info.Mode().IsRegular() {
		return errDamaged(path, errors.New("it is "+ownpath.Kind(info.Mode())+" and must be a regular file"))
	} else if info.Size() == 0 {
		return errDamaged(path, errors.New("it is empty"))
	}
	err := withSharedLock(path, InspectTimeout, func(db *bbolt.DB, info boltfile.Info) error {
		if info.Transactions == 0 {
			return fmt.Errorf("there is no ledger to read: %s is new: %w", path, fs.ErrNotExist)
		}
		return db.View(func(tx *bbolt.Tx) error {
			format, err := formatOf(tx)
			if err != nil {
				return err
			}
			return do(Snapshot{tx, format})
		})
	})
	if errors.Is(err, ErrInUse) {
		return fmt.Errorf("%s is %w by a running daemon", path, ErrInUse)
	}
	return err
}

// Format returns the format version of the file.
func (s Snapshot) Format() int { return s.format }

// Records returns all records.
func (s Snapshot) Records() ([]rotation.Record, error) { return readRecords(s.tx, s.format) }

// Pauses returns what is paused, by token.
func (s Snapshot) Pauses() (map[string]rotation.Pause, error) { return readPauses(s.tx) }

// Sealed returns the sealed answers that are in the file. Only a file of format 1 has any.
func (s Snapshot) Sealed() ([]SealedAnswer, error) {
	if s.format != 1 {
		return nil, nil
	}
	return readSealed(s.tx)
}

// withSharedLock checks a ledger file while no daemon has it open, and calls do with it open for
// reading.
func withSharedLock(path string, timeout time.Duration, do func(*bbolt.DB, boltfile.Info) error) error {
	db, openErr := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: timeout})
	if errors.Is(openErr, bolterrors.ErrTimeout) {
		return InUse(path)
	}
	if errors.Is(openErr, fs.ErrNotExist) || errors.Is(openErr, fs.ErrPermission) {
		return fmt.Errorf("opening the ledger: %w", ownpath.Denied(path, openErr))
	}
	b, release, err := readWhole(path)
	if err != nil {
		err = fmt.Errorf("reading the ledger: %w", err)
	} else {
		defer release()
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

// readWhole returns the content of a file until release is called. The memory is not the garbage collector's: a ledger of a
// large fleet has a hundred megabytes, which would stay with the process. And a file that is mapped in place of read ends
// the process if the disk has an error, or another program truncates it.
func readWhole(path string) (b []byte, release func(), err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return nil, func() {}, err
	}
	whole, err := syscall.Mmap(-1, 0, int(info.Size()), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return nil, nil, fmt.Errorf("memory for %d bytes: %w", info.Size(), err)
	}
	release = func() { _ = syscall.Munmap(whole) }
	n, err := io.ReadFull(f, whole)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) { // it has become shorter, which the check says
		release()
		return nil, nil, err
	}
	return whole[:n], release, nil
}

func errDamaged(path string, cause error) error {
	dir := filepath.Dir(path)
	return fmt.Errorf("%s is damaged: %w. Restore the state directory from a backup. If there is none, list the sealed secrets "+
		"with rotatord recover --state-dir %s; then rotatord recover --state-dir %s --new-ledger moves everything aside and begins a new ledger",
		path, cause, dir, dir)
}
