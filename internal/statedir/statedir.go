// Package statedir opens the state directory: the ledger, the sealed secrets, and the lock that keeps a
// second daemon out. The directory of a replica has no ledger: several share one elsewhere. It also inspects and repairs a state directory that no daemon has open.
//
// Guarantees, beside those of packages ledger and pending:
//
//   - One daemon at a time: a second one on the same directory is refused, even if the ledger file was
//     deleted under the first one.
//   - A lost ledger is not taken for a first start. A directory that was used before, but has no ledger,
//     is refused until an operator decides.
//   - A directory belongs to one daemon with its own ledger, or to a replica. Neither starts on a directory of the
//     other kind until an operator has moved the ledger.
//   - Other users of the machine can neither read nor change the directory, or it is refused.
package statedir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"rotatord/internal/durable"
	"rotatord/internal/ledger"
	"rotatord/internal/ownpath"
	"rotatord/internal/pending"
)

// lockTimeout limits how long Open waits for another process that has the directory open.
const lockTimeout = 2 * time.Second

// Dir is an open state directory.
type Dir struct {
	Ledger  *ledger.Local // nil in the directory of a replica
	Pending *pending.Store
	// Home identifies the directory of a replica; empty without one. It stays the same, and no other directory has it.
	Home string

	path string
	lock *os.File // the mark, locked; nil if the disk had no space for it
}

// Options say where the state is and what seals it.
type Options struct {
	// Dir is created with mode 0700 if it does not exist.
	Dir string
	// Identity returns an age identity, as age-keygen prints it. nil: the file identity.age in Dir,
	// which is created if there is nothing yet that it would have to open.
	Identity func() (string, error)
	// Recipients are further age recipients (age1...) that every secret is sealed to. Whoever has the
	// identity of one of them can open the secrets that wait to be delivered.
	Recipients []string
	// LockTimeout limits how long to wait for another process that has the directory open. 0: two
	// seconds.
	LockTimeout time.Duration
}

// Open opens the state directory, or creates it. It refuses a damaged one, and one that has lost its
// ledger or its identity while sealed secrets need them.
func Open(o Options) (*Dir, error) {
	if o.LockTimeout == 0 {
		o.LockTimeout = lockTimeout
	}
	if err := prepareDir(o.Dir); err != nil {
		return nil, err
	}
	if err := checkNotShared(o.Dir); err != nil {
		return nil, err
	}
	isNew, err := examineLedger(o.Dir, o.LockTimeout, ownpath.Check)
	if err != nil {
		return nil, err
	}
	d := &Dir{path: o.Dir}
	if err := d.open(o, isNew); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *Dir) open(o Options, isNew bool) (err error) {
	sealedDir := filepath.Join(o.Dir, pending.DirName)
	makeSealedDir := func() error {
		if err := durable.Mkdir(sealedDir); err != nil {
			return fmt.Errorf("the directory of the sealed secrets: %w", err)
		}
		return nil
	}
	d.Ledger, err = ledger.OpenLocal(filepath.Join(o.Dir, ledger.FileName), ledger.LocalOptions{
		Timeout: o.LockTimeout, New: isNew,
		SaveSealed: func(all []ledger.SealedAnswer) error {
			return errors.Join(makeSealedDir(), writeSealed(sealedDir, all))
		},
	})
	if err != nil {
		return err
	}
	// The directory of sealed secrets shows that there was a ledger. So the ledger comes first.
	if err := makeSealedDir(); err != nil {
		return err
	}
	if d.lock, err = lockDir(o.Dir); err != nil {
		return err
	}
	records, err := d.Ledger.Unfinished(context.Background())
	if err != nil {
		return err
	}
	unfinished := ledger.Unfinished(records)
	d.Pending, err = pending.Open(pending.Options{
		Dir: sealedDir, Identity: o.Identity, IdentityFile: IdentityFile(o.Dir), Recipients: o.Recipients, Usable: d.Ledger.Present,
		Unfinished: func(rotationID string) bool { _, ok := unfinished[rotationID]; return ok },
	})
	return errors.Join(err, unmarkShared(o.Dir), durable.CleanDir(o.Dir))
}

// writeSealed turns the sealed answers of a ledger of format 1 into files.
func writeSealed(dir string, all []ledger.SealedAnswer) error {
	for _, s := range all {
		if err := pending.NewFile(s.Key, s.At, s.Ciphertext).Write(dir); err != nil {
			return err
		}
	}
	return nil
}

// secretIDName is the file of the secret ID that came out of a wrapping token.
const secretIDName = "vault-secret-id.age"

// SecretID returns where the secret ID is kept with which the daemon logs in to Vault, if it was delivered wrapped.
func (d *Dir) SecretID() pending.Box { return d.Pending.Box(filepath.Join(d.path, secretIDName)) }

// Close closes the directory. Every later call to its parts fails, except that an answer which arrives
// late is still sealed: see [pending.Store.Close].
func (d *Dir) Close() error {
	var err error
	if d.Pending != nil {
		err = d.Pending.Close()
	}
	if d.lock != nil { // before the ledger: a process that waits for the ledger checks the lock next
		err = errors.Join(err, d.lock.Close())
		d.lock = nil
	}
	if d.Ledger != nil {
		err = errors.Join(err, d.Ledger.Close())
	}
	return err
}

// LastWrite returns when the directory was last written, or when that was last tried, and the error.
// The time is zero if nothing was written since the directory was opened.
//
// The ledger and the sealed secrets are tracked separately, and a failure of either counts: a full disk
// often has space for one and not for the other.
func (d *Dir) LastWrite() (time.Time, error) {
	if d.Ledger == nil {
		return d.Pending.LastWrite()
	}
	ledgerAt, ledgerErr := d.Ledger.LastWrite()
	sealedAt, sealedErr := d.Pending.LastWrite()
	switch {
	case ledgerErr != nil && (sealedErr == nil || ledgerAt.After(sealedAt)):
		return ledgerAt, ledgerErr
	case sealedErr != nil:
		return sealedAt, sealedErr
	case ledgerAt.After(sealedAt):
		return ledgerAt, nil
	}
	return sealedAt, nil
}

// Present returns an error if the ledger, or the lock of a replica, was deleted or replaced while it is open.
func (d *Dir) Present() error {
	if d.Ledger == nil {
		return d.present()
	}
	return d.Ledger.Present()
}

// Prove writes what a rotation writes before its request leaves: a transaction of the ledger, and the
// space for an answer. Nothing of it stays. It returns why a rotation could not begin, and counts as a
// write: see [Dir.LastWrite].
func (d *Dir) Prove(ctx context.Context) error {
	if d.Ledger != nil {
		if err := d.Ledger.Prove(ctx); err != nil {
			return err
		}
	}
	return d.Pending.Prove(ctx)
}

// prepareDir creates the directory, and refuses it as checkDir does.
func prepareDir(dir string) error {
	err := os.MkdirAll(filepath.Dir(dir), 0o700)
	if err == nil {
		err = durable.Mkdir(dir)
	}
	if err != nil {
		return fmt.Errorf("the state directory: %w", err)
	}
	return checkDir(dir, ownpath.Check)
}

// checkDir refuses a directory that other users can read or change. check is [ownpath.Check] or the
// result of [ownpath.AsOwner].
func checkDir(dir string, check func(string) error) error {
	for _, path := range []string{dir, filepath.Join(dir, pending.DirName)} {
		err := check(path)
		if info, statErr := os.Stat(path); err == nil && statErr == nil && !info.IsDir() {
			err = fmt.Errorf("%s is %s and must be a directory: move it away", path, ownpath.Kind(info.Mode()))
		}
		if err == nil {
			err = ownpath.Private(path, 0o700)
		}
		if err != nil {
			return fmt.Errorf("the state directory: %w", err)
		}
	}
	return nil
}

// markName is a file that says that the directory had a ledger. It exists from the first start on, and
// a running daemon has it locked.
const markName = "in-use"

const markText = `This state directory of rotatord has had a ledger, journal.db. If that is missing, it was lost, and no
daemon starts without it: see "The ledger is lost" in docs/runbook.md. Do not remove this file.
`

// lockDir creates the mark and locks it. The lock keeps out a second daemon even if the ledger file was
// deleted under the first one. It returns nil if the disk has no space for the mark: the directory of
// the sealed secrets says the same as the mark.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, markName)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if err := durable.WriteFile(path, []byte(markText), 0o600); err != nil {
			return nil, nil
		}
	}
	if _, err := ownpath.RegularFile(path, ownpath.Check); err != nil {
		return nil, err
	}
	return lockFile(path, lockTimeout)
}

// lockFile locks a file. Closing the returned file releases the lock.
func lockFile(path string, wait time.Duration) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(wait); ; time.Sleep(10 * time.Millisecond) {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) || time.Now().After(end) {
			break
		}
	}
	_ = f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, ledger.InUse(filepath.Dir(path))
	}
	return nil, fmt.Errorf("locking %s: %w", path, err)
}
