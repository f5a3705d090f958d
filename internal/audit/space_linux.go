package audit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// keepSize is FALLOC_FL_KEEP_SIZE: blocks are allocated beyond the end of the file, which stays where it is.
const keepSize = 1

// allocate allocates the blocks of a file from one offset to another, so that a later write there needs no free
// space. Where the file system cannot do that, it only compares with what is free.
func allocate(f *os.File, from, to int64) error {
	for {
		err := syscall.Fallocate(int(f.Fd()), keepSize, from, to-from)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENOSYS):
			return compare(filepath.Dir(f.Name()), to-from)
		}
		return fmt.Errorf("reserving room for lines: %w", err)
	}
}

// spareWithout is how much must be free beside what is needed, where room cannot be reserved.
const spareWithout = 16 << 20

func compare(dir string, need int64) error {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil || s.Blocks == 0 {
		return nil // a file system that does not say it
	}
	if free := int64(s.Bavail) * int64(s.Bsize); free < need+spareWithout {
		return fmt.Errorf("%d KiB are free on the disk of %s, which cannot reserve room: %w", free>>10, dir, syscall.ENOSPC)
	}
	return nil
}

// plenty reports whether the disk of a directory has room for many chunks.
func plenty(dir string) bool {
	var s syscall.Statfs_t
	return syscall.Statfs(dir, &s) == nil && int64(s.Bavail)*int64(s.Bsize) > 64*chunk
}

// dataEnd returns where the bytes of a file end of which the rest is one hole: a file that was made longer without being
// written. A crash or another program can leave that, and it would have to be read as zeros.
func dataEnd(f *os.File, size int64) int64 {
	const seekData, seekHole = 3, 4
	end := size
	if hole, err := f.Seek(0, seekHole); err == nil {
		if _, err := f.Seek(hole, seekData); errors.Is(err, syscall.ENXIO) {
			end = min(hole, size)
		}
	}
	_, _ = f.Seek(0, io.SeekStart)
	return end
}

// lock takes the lock of a file that no other process may have.
func lock(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
