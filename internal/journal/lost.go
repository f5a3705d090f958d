package journal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"rotatord/internal/durable"
	"rotatord/internal/ownpath"
	"rotatord/internal/smallfile"
)

// This file holds how a ledger that was lost is told from one that never was, and how an
// operator begins a new one.

// markFile says that the directory has had a ledger. It is there from the first start on, and a
// daemon that runs has it locked.
const markFile = "in-use"

const markText = `This state directory of rotatord has had a ledger, journal.db. If that is missing, it was lost, and no
daemon starts without it: see "The ledger is lost" in docs/runbook.md. Do not remove this file.
`

// usedBefore says what shows that a directory has had a ledger; empty if nothing does. An
// identity shows it only if rotatord made it, because an operator may provide one before the
// first start.
func usedBefore(dir string) string {
	for _, name := range []string{markFile, pendingDir} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return name
		}
	}
	return madeIdentity(dir)
}

// madeIdentity names the identity if rotatord made it, which it does after it has made a ledger.
func madeIdentity(dir string) string {
	text, err := smallfile.Read(context.Background(), filepath.Join(dir, identityFile), smallfile.MaxSecret)
	defer clear(text)
	if err == nil && strings.HasPrefix(string(text), identityMadeHere) {
		return identityFile
	}
	return ""
}

// checkNew refuses to begin a new ledger where there was one. state is what is wrong with the file.
func checkNew(dir, state, evidence string) error {
	path := filepath.Join(dir, fileName)
	sealed, err := listSealed(filepath.Join(dir, pendingDir))
	switch {
	case err != nil:
		return err
	case len(sealed) > 0:
		return fmt.Errorf("%s is %s, and %d sealed secrets wait in %s that it must know of: restore it from a backup. "+
			"If there is none, look at them with rotatord recover --state-dir %s, and bring them to where they belong. "+
			"Then rotatord recover --state-dir %s --new-ledger puts them aside and begins a new ledger",
			path, state, len(sealed), filepath.Join(dir, pendingDir), dir, dir)
	case evidence != "":
		return fmt.Errorf("%s is %s although %s is there, so this state directory was used before: restore it from a backup. "+
			"The ledger knows which rotations are in doubt and which graces were promised; without it the next rotations may cut consumers off. "+
			"If there is no backup, read \"The ledger is lost\" in docs/runbook.md, and begin a new one with rotatord recover --state-dir %s --new-ledger",
			path, state, filepath.Join(dir, evidence), dir)
	}
	return nil
}

// checkOwnFile refuses a file that is not one, or that others can change. What is not there
// is fs.ErrNotExist.
func checkOwnFile(path string, check func(string) error) (fs.FileInfo, error) {
	if _, err := os.Lstat(path); err != nil {
		return nil, err
	}
	if err := check(path); err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is %s and must be a regular file: move it away, and restore the file from a backup", path, ownpath.Kind(info.Mode()))
	}
	return info, nil
}

// mark makes the file that says that there is a ledger, and locks it. The lock holds off a second
// daemon also where the ledger was deleted under the first one.
func (j *Journal) mark(dir string) error {
	path := filepath.Join(dir, markFile)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		// Where there is no room for it, the directory of the sealed secrets says the same.
		if err := durable.WriteFile(path, []byte(markText), 0o600); err != nil {
			return nil
		}
	}
	if _, err := checkOwnFile(path, ownpath.Check); err != nil {
		return err
	}
	f, err := lockFile(path, lockTimeout)
	j.marked = f
	return err
}

// lockFile takes a lock that ends with the file's being closed.
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
		return nil, errInUse(filepath.Dir(path))
	}
	return nil, fmt.Errorf("locking %s: %w", path, err)
}

// Present returns an error if the ledger's file was deleted or replaced while it is open: what is
// written then is lost when the process ends.
func (j *Journal) Present() error {
	now, err := os.Stat(j.db.Path())
	if err != nil {
		return fmt.Errorf("the ledger was deleted under the running daemon: %w. No rotation begins. Its content is in the link below "+
			"/proc/%d/fd that leads to it, until this process ends: copy that to its place, then restart the daemon", err, os.Getpid())
	}
	if !os.SameFile(now, j.opened) {
		return fmt.Errorf("the ledger %s was replaced under the running daemon, which still writes to the old file. No rotation begins. "+
			"Restart the daemon, which then uses the new one", j.db.Path())
	}
	return nil
}

// Refusal returns why no daemon would start on a state directory, as far as can be told from outside;
// nil if nothing speaks against it, or a daemon runs. It changes nothing. Root may ask for a daemon of
// another user: that one is taken to be the owner of the directory.
func Refusal(dir string) error {
	if _, err := os.Lstat(dir); err != nil {
		return nil // a daemon makes it
	}
	check := ownpath.AsOwner(dir)
	err := checkDir(dir, check)
	if err == nil {
		_, err = checkLedgerFile(dir, inspectTimeout, check)
	}
	if errors.Is(err, errBusy) {
		return nil
	}
	return err
}

// Begun is what BeginAgain has done.
type Begun struct {
	// Aside is the directory that the old ledger and the sealed secrets were moved to; empty if
	// there was neither.
	Aside string
	// Sealed counts the sealed secrets among them.
	Sealed int
}

// BeginAgain makes a new, empty ledger in a directory whose ledger is lost or damaged, for an operator
// who has decided so. What is left of the old one, and the sealed secrets, are moved aside and
// not deleted. It refuses while a daemon runs, and where the ledger can be read.
func BeginAgain(dir string) (Begun, error) {
	if info, err := os.Stat(dir); err != nil {
		return Begun{}, fmt.Errorf("the state directory: %w", err)
	} else if !info.IsDir() {
		return Begun{}, fmt.Errorf("%s is not a directory", dir)
	}
	path := filepath.Join(dir, fileName)
	if err := checkBeginAgain(dir, path); err != nil {
		return Begun{}, err
	}
	unlock, err := lockMark(dir)
	if err != nil {
		return Begun{}, err
	}
	defer unlock()
	begun, err := moveAside(dir)
	if err != nil {
		return begun, fmt.Errorf("moving the old ledger aside: %w", err)
	}
	if err := makeLedger(path); err != nil {
		return begun, err
	}
	return begun, likeItsDirectory(dir, path)
}

// lockMark holds off a daemon while unlock is not called, and is an error if one runs. Without a mark,
// or one that can be opened, it does nothing.
func lockMark(dir string) (unlock func(), err error) {
	path := filepath.Join(dir, markFile)
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return func() {}, nil
	}
	f, err := lockFile(path, inspectTimeout)
	if errors.Is(err, fs.ErrPermission) {
		return func() {}, nil
	}
	if err != nil {
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}

// checkBeginAgain refuses where there is no need for a new ledger.
func checkBeginAgain(dir, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) && usedBefore(dir) == "" {
		return fmt.Errorf("%s was never used: start the daemon, which begins a ledger by itself", dir)
	}
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return nil
	}
	err = readOnly(dir, func(tx *bbolt.Tx, format int) error { _, err := readLedger(tx, format); return err })
	switch {
	case err == nil:
		return fmt.Errorf("%s can be read, so it is not lost: start the daemon, which goes on with it", path)
	case errors.Is(err, errBusy), errors.Is(err, fs.ErrPermission):
		return err
	}
	return nil
}

// moveAside moves the ledger and the sealed secrets to a directory of their own.
func moveAside(dir string) (Begun, error) {
	ledger, pending := filepath.Join(dir, fileName), filepath.Join(dir, pendingDir)
	sealed, err := listSealed(pending)
	if err != nil && !errors.Is(err, syscall.ENOTDIR) {
		return Begun{}, err
	}
	var names []string
	if _, err := os.Lstat(ledger); err == nil {
		names = append(names, fileName)
	}
	if entries, err := os.ReadDir(pending); err != nil && !errors.Is(err, fs.ErrNotExist) || len(entries) > 0 {
		names = append(names, pendingDir)
	}
	if len(names) == 0 {
		return Begun{}, nil
	}
	aside := filepath.Join(dir, "lost-"+time.Now().UTC().Format("20060102T150405.000Z"))
	if err := durable.Mkdir(aside); err != nil {
		return Begun{}, err
	}
	begun := Begun{Aside: aside, Sealed: len(sealed)}
	for _, name := range names {
		if err := os.Rename(filepath.Join(dir, name), filepath.Join(aside, name)); err != nil {
			return begun, err
		}
	}
	return begun, errors.Join(durable.SyncDir(aside), durable.SyncDir(dir), likeItsDirectory(dir, aside))
}

// makeLedger makes an empty ledger that is whole, or none.
func makeLedger(path string) error {
	fresh := filepath.Join(filepath.Dir(path), durable.Prefix+"ledger")
	if err := durable.Remove(fresh); err != nil {
		return err
	}
	db, err := bbolt.Open(fresh, 0o600, &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType})
	if err == nil {
		err = errors.Join(db.Update(makeBuckets), db.Close())
	}
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		return fmt.Errorf("making %s: %w", path, err)
	}
	return durable.SyncDir(filepath.Dir(path))
}

// likeItsDirectory gives what root has made to whom the state directory belongs: the daemon has
// to write to it.
func likeItsDirectory(dir, path string) error {
	uid, gid, err := ownpath.Owner(dir)
	if err != nil || os.Geteuid() != 0 || uid == 0 {
		return err
	}
	return os.Lchown(path, uid, gid)
}
