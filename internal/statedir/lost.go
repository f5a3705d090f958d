package statedir

import (
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

// This file tells a ledger that was lost from one that never existed, and begins a new one when an
// operator asks for it.

// examineLedger proves that the ledger file is safe to open, and reports whether there is no ledger
// yet. A lost ledger is refused, and not taken for a new one: it knew which rotations are in doubt,
// which graces were promised, and which tokens the sealed secrets belong to.
func examineLedger(dir string, timeout time.Duration, check func(path string) error) (isNew bool, err error) {
	state, err := ledger.Examine(filepath.Join(dir, ledger.FileName), timeout, check)
	if err != nil {
		return false, err
	}
	switch state {
	case ledger.Missing:
		return true, checkNew(dir, "missing", usedBefore(dir))
	case ledger.Empty:
		return true, checkNew(dir, "empty", usedBefore(dir))
	case ledger.Blank:
		// An interrupted first start leaves such a file. Anything that a start writes after the first
		// transaction shows that this is not the case.
		evidence := createdIdentity(dir)
		if _, err := os.Lstat(filepath.Join(dir, markName)); err == nil {
			evidence = markName
		}
		return true, checkNew(dir, "new", evidence)
	default:
		return false, nil
	}
}

// usedBefore returns the name of a file which shows that the directory had a ledger; empty if there is
// none.
func usedBefore(dir string) string {
	for _, name := range []string{markName, pending.DirName} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return name
		}
	}
	return createdIdentity(dir)
}

// createdIdentity returns the name of the identity file if rotatord created it: it does that after it
// has created a ledger. An operator may provide an identity before the first start.
func createdIdentity(dir string) string {
	if pending.CreatedIdentity(IdentityFile(dir)) {
		return pending.IdentityName
	}
	return ""
}

// checkNew refuses to begin a new ledger where there was one. state says what is wrong with the file.
func checkNew(dir, state, evidence string) error {
	path, sealedDir := filepath.Join(dir, ledger.FileName), filepath.Join(dir, pending.DirName)
	sealed, err := pending.List(sealedDir)
	was := exported(dir)
	switch {
	case err != nil:
		return err
	case was != "":
		return errExported(path, was)
	case len(sealed) > 0:
		return fmt.Errorf("%s is %s, and %d sealed secrets wait in %s that it must know: restore it from a backup. "+
			"If there is none, list them with rotatord recover --state-dir %s, and deliver them by hand. "+
			"Then rotatord recover --state-dir %s --new-ledger moves them aside and begins a new ledger",
			path, state, len(sealed), sealedDir, dir, dir)
	case evidence != "":
		return fmt.Errorf("%s is %s although %s exists, so this state directory was used before: restore it from a backup. "+
			"The ledger knows which rotations are in doubt and which graces were promised; without it the next rotations may cut consumers off. "+
			"If there is no backup, read \"The ledger is lost\" in docs/runbook.md, and begin a new one with rotatord recover --state-dir %s --new-ledger",
			path, state, filepath.Join(dir, evidence), dir)
	}
	return nil
}

// Refusal returns why a daemon would not start on a state directory, as far as another process can
// tell. It returns nil if nothing speaks against it, or if a daemon runs. It changes nothing. Root may
// ask for a daemon of another user; that is assumed to be the owner of the directory.
func Refusal(dir string) error {
	if _, err := os.Lstat(dir); err != nil {
		return nil // a daemon creates it
	}
	check := ownpath.AsOwner(dir)
	err := checkDir(dir, check)
	if err == nil {
		err = checkNotShared(dir)
	}
	if err == nil {
		_, err = examineLedger(dir, ledger.InspectTimeout, check)
	}
	if errors.Is(err, ledger.ErrInUse) {
		return nil
	}
	return err
}

// SharedRefusal does the same as Refusal for the directory of a replica.
func SharedRefusal(dir string) error {
	if _, err := os.Lstat(dir); err != nil {
		return nil // a replica creates it
	}
	check := ownpath.AsOwner(dir)
	err := checkDir(dir, check)
	if err == nil {
		err = checkNoLedger(dir, check)
	}
	if errors.Is(err, ledger.ErrInUse) {
		return nil
	}
	return err
}

// Begun says what BeginAgain did.
type Begun struct {
	// Aside is the directory that the old ledger and the sealed secrets were moved to; empty if there
	// was neither.
	Aside string
	// Sealed is the number of sealed secrets that were moved.
	Sealed int
}

// BeginAgain creates an empty ledger in a directory whose ledger is lost or damaged, because an
// operator decided so. It moves what is left of the old one and the sealed secrets aside, and deletes
// nothing. It refuses while a daemon runs, and if the ledger can be read.
func BeginAgain(dir string) (Begun, error) {
	if info, err := os.Stat(dir); err != nil {
		return Begun{}, fmt.Errorf("the state directory: %w", err)
	} else if !info.IsDir() {
		return Begun{}, fmt.Errorf("%s is not a directory", dir)
	}
	path := filepath.Join(dir, ledger.FileName)
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
	if err := ledger.CreateLocal(path, lockTimeout); err != nil {
		return begun, err
	}
	return begun, giveToOwner(dir, path)
}

// lockMark keeps a daemon out until unlock is called. It is an error if a daemon runs. If there is no
// mark, or this process may not open it, lockMark does nothing.
func lockMark(dir string) (unlock func(), err error) {
	path := filepath.Join(dir, markName)
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return func() {}, nil
	}
	f, err := lockFile(path, ledger.InspectTimeout)
	if errors.Is(err, fs.ErrPermission) {
		return func() {}, nil
	}
	if err != nil {
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}

// checkBeginAgain refuses where no new ledger is needed.
func checkBeginAgain(dir, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) && usedBefore(dir) == "" {
		return fmt.Errorf("%s was never used: start the daemon, which begins a ledger by itself", dir)
	}
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return nil
	}
	err = ledger.View(path, func(s ledger.Snapshot) error { _, err := s.Records(); return err })
	switch {
	case err == nil:
		return fmt.Errorf("%s can be read, so it is not lost: start the daemon, which continues with it", path)
	case errors.Is(err, ledger.ErrInUse), errors.Is(err, fs.ErrPermission):
		return err
	}
	return nil
}

// moveAside moves the ledger and the sealed secrets to a new directory.
func moveAside(dir string) (Begun, error) {
	sealedDir := filepath.Join(dir, pending.DirName)
	sealed, err := pending.List(sealedDir)
	if err != nil && !errors.Is(err, syscall.ENOTDIR) {
		return Begun{}, err
	}
	var names []string
	if _, err := os.Lstat(filepath.Join(dir, ledger.FileName)); err == nil {
		names = append(names, ledger.FileName)
	}
	if entries, err := os.ReadDir(sealedDir); err != nil && !errors.Is(err, fs.ErrNotExist) || len(entries) > 0 {
		names = append(names, pending.DirName)
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
	return begun, errors.Join(durable.SyncDir(aside), durable.SyncDir(dir), giveToOwner(dir, aside))
}

// giveToOwner makes the owner of the state directory the owner of what root created in it: the daemon
// has to write to it.
func giveToOwner(dir, path string) error {
	uid, gid, err := ownpath.Owner(dir)
	if err != nil || os.Geteuid() != 0 || uid == 0 {
		return err
	}
	return os.Lchown(path, uid, gid)
}
