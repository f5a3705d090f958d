package ownpath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// RegularFile returns the facts of a file whose path leads to a regular file that only we can change.
// check is [Check] or the result of [AsOwner]. If the path does not exist, the error is fs.ErrNotExist.
func RegularFile(path string, check func(path string) error) (fs.FileInfo, error) {
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
		return nil, fmt.Errorf("%s is %s and must be a regular file: move it away, and restore the file from a backup", path, Kind(info.Mode()))
	}
	return info, nil
}

// Private returns an error if every user of the machine can read, write or enter a path. The error
// names the mode that the path should have. A path that does not exist is private.
func Private(path string, want fs.FileMode) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o007 != 0 {
		return fmt.Errorf("%s is open to every user (mode %04o): run chmod %04o %s", path, mode, want, path)
	}
	return nil
}
