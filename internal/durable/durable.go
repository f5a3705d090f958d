// Package durable writes whole files so that a crash cannot damage them. Every file that rotatord
// writes, other than a bbolt database or one that is overwritten in place, is written by this package.
//
// Guarantees:
//
//   - A reader of a path, and a process that starts after a crash, finds the old content or the whole
//     new content, never a part.
//   - When a function returns nil, its effect survives a crash of the machine: the content and the
//     name are on the disk.
//   - Callers that come at the same time may share a sync ([Dir]). It begins after all of them have come.
//   - Until the file has its mode and owner, only the user of this process can read it.
//
// A crash can leave a temporary file beside the path. It may hold a secret: call [Clean] or [CleanDir]
// when the process starts.
package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Prefix begins the names of temporary files. A temporary file for NAME is called Prefix + NAME + "-"
// and digits.
const Prefix = ".new-"

// WriteFile replaces the file at path, or creates it. The file gets exactly this mode, whatever the
// umask is. Each prepare step is called with the open temporary file before the file gets its mode and
// its name, for example to change its owner. After an error the path usually has its old content;
// it has the new content if only the last step failed, which makes the name durable.
func WriteFile(path string, content []byte, mode fs.FileMode, prepare ...func(*os.File) error) error {
	return write(path, content, mode, rename, prepare)
}

func rename(from, to string) error { return os.Rename(from, to) }

// CreateFile does the same as [WriteFile], but never replaces a file: if the path exists, the error is
// [fs.ErrExist].
func CreateFile(path string, content []byte, mode fs.FileMode, prepare ...func(*os.File) error) error {
	// Unlike a rename, a link fails if the path exists.
	return write(path, content, mode, func(from, to string) error {
		if err := os.Link(from, to); err != nil {
			return err
		}
		return os.Remove(from)
	}, prepare)
}

// WriteFileIf does the same as [WriteFile], and calls check right before the file takes the place of the old
// one. If check returns an error, nothing changes, and that is the error.
func WriteFileIf(path string, content []byte, mode fs.FileMode, check func() error, prepare ...func(*os.File) error) error {
	return write(path, content, mode, func(from, to string) error {
		if err := check(); err != nil {
			return err
		}
		return os.Rename(from, to)
	}, prepare)
}

func write(path string, content []byte, mode fs.FileMode, move func(from, to string) error, prepare []func(*os.File) error) error {
	if err := place(path, content, mode, move, prepare); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// place does what [WriteFile] does, but the name is not durable yet.
func place(path string, content []byte, mode fs.FileMode, move func(from, to string) error, prepare []func(*os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), Prefix+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	err = errors.Join(fill(f, content, mode, prepare), f.Close())
	if err == nil {
		err = move(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, removeIfExists(f.Name()))
	}
	return nil
}

// fill makes the content, the mode and the owner of a new file durable.
func fill(f *os.File, content []byte, mode fs.FileMode, prepare []func(*os.File) error) error {
	if _, err := f.Write(content); err != nil {
		return err
	}
	for _, step := range prepare {
		if err := step(f); err != nil {
			return err
		}
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Mode() != mode { // not every file system can change a mode
		if err := f.Chmod(mode); err != nil {
			return err
		}
	}
	return f.Sync()
}

// Mkdir creates a directory with mode 0700 below one that exists. It does nothing if the path exists.
func Mkdir(dir string) error {
	if err := os.Mkdir(dir, 0o700); errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return err
	}
	return SyncDir(filepath.Dir(dir))
}

// Remove removes a file. If the file does not exist, it still makes that durable: an earlier removal
// may have been cut short.
func Remove(path string) error {
	if err := removeIfExists(path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes the names of the files in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Clean removes the temporary files that interrupted writers of path left. No other process may be
// writing the path.
func Clean(path string) error {
	return clean(filepath.Dir(path), func(name string) bool {
		rest, ok := strings.CutPrefix(name, Prefix+filepath.Base(path)+"-")
		return ok && strings.Trim(rest, "0123456789") == ""
	})
}

// CleanDir removes all temporary files in a directory. It is for a directory in which only this process
// writes.
func CleanDir(dir string) error {
	return clean(dir, func(name string) bool { return strings.HasPrefix(name, Prefix) })
}

func clean(dir string, isTemporary func(name string) bool) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	removed := false
	for _, e := range entries {
		if e.Type().IsRegular() && isTemporary(e.Name()) {
			err = errors.Join(err, removeIfExists(filepath.Join(dir, e.Name())))
			removed = true
		}
	}
	if removed {
		err = errors.Join(err, SyncDir(dir))
	}
	return err
}

func removeIfExists(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
