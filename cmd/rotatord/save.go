package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// saveFile writes a file that everybody may read, whatever the umask is, in one step: whoever
// reads path gets what was there or the whole new content. Without overwrite, a file that is there
// is left alone and the error is [fs.ErrExist].
func saveFile(path string, overwrite bool, write func(io.Writer) error) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	err = errors.Join(write(f), f.Chmod(0o644), f.Sync(), f.Close())
	switch {
	case err != nil:
	case overwrite:
		err = os.Rename(f.Name(), path)
	default: // a link, unlike a rename, never takes the place of what is there
		if err = os.Link(f.Name(), path); err == nil {
			err = os.Remove(f.Name())
		}
	}
	if err != nil {
		return errors.Join(err, removed(f.Name()))
	}
	return syncDir(dir)
}

// removed removes a file, which may be gone.
func removed(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// makeDirs makes a directory and those above it that are missing, which everybody may enter,
// whatever the umask is. It changes none that is there.
func makeDirs(dir string) error {
	var missing []string
	for d := dir; ; d = filepath.Dir(d) {
		info, err := os.Stat(d)
		if err == nil {
			if !info.IsDir() {
				return fmt.Errorf("%s is not a directory", d)
			}
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || d == filepath.Dir(d) {
			return err
		}
		missing = append(missing, d)
	}
	for i := len(missing) - 1; i >= 0; i-- {
		if err := os.Mkdir(missing[i], 0o755); err != nil {
			return err
		}
		if err := os.Chmod(missing[i], 0o755); err != nil {
			return err
		}
	}
	return nil
}
