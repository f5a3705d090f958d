package journal

import (
	"os"
	"syscall"
)

// datasync makes the content of a file durable. Its size is made durable too, its times
// need not be.
func datasync(f *os.File) error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); err != syscall.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
