package statedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rotatord/internal/durable"
	"rotatord/internal/ledger"
	"rotatord/internal/ownpath"
	"rotatord/internal/pending"
	"rotatord/internal/rotation"
)

// This file takes the ledger of a state directory out of use, when it moves elsewhere, and puts one into use
// that comes from elsewhere. The sealed secrets and the identity stay where they are.

// A ledger file that is out of use because it was exported has exportedPrefix and the time of the export as its
// name.
const (
	exportedPrefix = ledger.FileName + ".exported-"
	exportedTime   = "20060102T150405.000Z"
)

// TakeOut reads the ledger of a directory, calls save with what it holds, and then renames the ledger file, so
// that no daemon uses it any more. If save returns an error, the ledger stays in use. at is the time of the export,
// which is in the new name. It returns the new path. It is an error if a daemon has the directory open.
func TakeOut(dir string, at time.Time, save func([]rotation.Record, map[string]rotation.Pause) error) (aside string, err error) {
	if info, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("the state directory: %w", err)
	} else if !info.IsDir() {
		return "", fmt.Errorf("%s is not a directory", dir)
	}
	unlock, err := lockMark(dir)
	if err != nil {
		return "", err
	}
	defer unlock()
	path := filepath.Join(dir, ledger.FileName)
	// A daemon that waits for the lock of the file finds that it was renamed, and does not start.
	err = ledger.View(path, func(s ledger.Snapshot) error {
		if s.Format() < ledger.Format {
			return fmt.Errorf("%s is of an older version: start the daemon of this version once, which migrates it", path)
		}
		records, err := s.Records()
		if err != nil {
			return err
		}
		pauses, err := s.Pauses()
		if err != nil {
			return err
		}
		if err := save(records, pauses); err != nil {
			return err
		}
		aside = filepath.Join(dir, exportedPrefix+at.UTC().Format(exportedTime))
		if err := os.Link(path, aside); err != nil { // unlike a rename, it replaces no file
			return err
		}
		return errors.Join(os.Remove(path), durable.SyncDir(dir))
	})
	if errors.Is(err, fs.ErrNotExist) {
		if was := exported(dir); was != "" {
			err = fmt.Errorf("%w. It was exported before: the ledger file is %s now", err, was)
		}
	}
	return aside, err
}

// exported returns the path of the ledger file that was exported last; empty if none was.
func exported(dir string) string {
	all, err := filepath.Glob(filepath.Join(dir, exportedPrefix+"*"))
	if err != nil || len(all) == 0 {
		return ""
	}
	return slices.Max(all) // the names end with the time
}

// ExportedAt returns when the ledger of a directory was exported last; the zero time if it never was, or if the
// directory has a ledger that is in use.
func ExportedAt(dir string) time.Time {
	if _, err := os.Lstat(filepath.Join(dir, ledger.FileName)); err == nil {
		return time.Time{}
	}
	_, text, _ := strings.Cut(filepath.Base(exported(dir)), exportedPrefix)
	at, err := time.Parse(exportedTime, text)
	if err != nil {
		return time.Time{} // a person has renamed it
	}
	return at
}

// errExported says why there is no ledger, and how to get one.
func errExported(path, was string) error {
	return fmt.Errorf("%s was exported to another ledger, and is %s now: no daemon uses it. If the ledger is shared now, the configuration needs state.shared. "+
		"To use this state directory's own ledger again, export the other one, and import that file here with rotatord ledger import FILE", path, filepath.Base(was))
}

// BringIn puts a ledger into use in a directory. It calls write with the ledger that is there, or with an
// empty one. A new ledger gets its place only after write returned nil: until then, and after a crash, there is
// none. It is an error if a daemon has the directory open, or if a ledger there is damaged.
func BringIn(dir string, write func(*ledger.Local) error) error {
	if info, err := os.Stat(dir); err != nil {
		return fmt.Errorf("the state directory: %w: create it with mode 0700 for the user that the daemon runs as", err)
	} else if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	check := ownpath.AsOwner(dir)
	if err := checkDir(dir, check); err != nil {
		return err
	}
	unlock, err := lockMark(dir)
	if err != nil {
		return err
	}
	defer unlock()
	path := filepath.Join(dir, ledger.FileName)
	state, err := ledger.Examine(path, lockTimeout, check)
	switch {
	case err != nil:
		return err
	case state == ledger.Used:
		return withLocal(path, false, write)
	case state != ledger.Missing: // a first start that was interrupted leaves such a file
		if err := durable.Remove(path); err != nil {
			return err
		}
	}
	fresh := filepath.Join(dir, durable.Prefix+"ledger")
	if err := durable.Remove(fresh); err != nil {
		return err
	}
	if err = withLocal(fresh, true, write); err == nil {
		err = giveToOwner(dir, fresh)
	}
	if err == nil {
		err = os.Link(fresh, path) // unlike a rename, it replaces no ledger that a daemon has begun meanwhile
	}
	if errors.Is(err, fs.ErrExist) {
		err = fmt.Errorf("%s has appeared meanwhile: stop the daemon that was started, and import again", path)
	}
	err = errors.Join(err, durable.Remove(fresh))
	if err == nil {
		err = unmarkShared(dir) // also where the file had nothing, which a start does not take for a ledger of its own
	}
	return err
}

// withLocal calls do with the ledger in a file.
func withLocal(path string, isNew bool, do func(*ledger.Local) error) error {
	l, err := ledger.OpenLocal(path, ledger.LocalOptions{
		Timeout: lockTimeout, New: isNew,
		SaveSealed: func([]ledger.SealedAnswer) error {
			return fmt.Errorf("%s is of an older version: start the daemon of this version once, which migrates it", path)
		},
	})
	if err != nil {
		return err
	}
	return errors.Join(do(l), l.Close())
}

// Running reports whether a process has a directory open, as far as this process can tell.
func Running(dir string) bool {
	unlock, err := lockMark(dir)
	if err != nil {
		return errors.Is(err, ledger.ErrInUse)
	}
	unlock()
	return false
}

// Sealed returns the IDs of the rotations that have a sealed secret in a directory.
func Sealed(dir string) ([]string, error) {
	all, err := pending.List(filepath.Join(dir, pending.DirName))
	ids := make([]string, 0, len(all))
	for _, s := range all {
		ids = append(ids, s.RotationID)
	}
	return ids, err
}
