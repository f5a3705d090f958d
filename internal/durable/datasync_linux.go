package durable

import (
	"os"
	"syscall"
)

// SyncData makes the content and the size of a file durable, but not its times. It is for a file that
// is overwritten in place.
func SyncData(f *os.File) error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); err != syscall.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
