//go:build !linux

package audit

import "os"

// allocate does nothing: room cannot be reserved on this system.
func allocate(*os.File, int64, int64) error { return nil }

// dataEnd returns the size: where a hole begins is not asked on this system.
func dataEnd(_ *os.File, size int64) int64 { return size }

// lock does nothing: the lock of the state directory keeps a second daemon away.
func lock(*os.File) error { return nil }

// plenty returns true: nothing is allocated.
func plenty(string) bool { return true }
