package sink

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

const (
	oTmpfile     = 0x400000 | syscall.O_DIRECTORY // O_TMPFILE
	atEffective  = 0x200                          // AT_EACCESS
	writeAndFind = 0x2 | 0x1                      // W_OK and X_OK
)

// writable returns why this process may not create files in a directory.
func writable(dir string) error {
	return syscall.Faccessat(-100, dir, writeAndFind, atEffective)
}

// unnamedFile creates a file without a name. It returns nil if the file system has no such files.
func unnamedFile(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, oTmpfile|os.O_WRONLY, 0o600)
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.EINVAL) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// isFixed reports whether a file is immutable or append-only (chattr).
func isFixed(path string) bool {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer file.Close()
	const getFlags, immutable, appendOnly = 0x80086601, 0x10, 0x20 // FS_IOC_GETFLAGS, FS_IMMUTABLE_FL, FS_APPEND_FL
	var flags uint64                                               // the kernel writes 32 bits on some file systems and 64 on others
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, file.Fd(), getFlags, uintptr(unsafe.Pointer(&flags)))
	return errno == 0 && flags&(immutable|appendOnly) != 0
}

// isMountPoint reports whether a path is mounted by itself, as a container runtime does with single files.
func isMountPoint(path string) bool {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false // the write finds out
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 4 && unescaped(fields[4]) == path {
			return true
		}
	}
	return false
}

// unescaped undoes how mountinfo writes white space and backslashes: as \ and three octal digits.
func unescaped(text string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(text, `\`)
		b.WriteString(before)
		if !found {
			return b.String()
		}
		if code, err := strconv.ParseUint(after[:min(3, len(after))], 8, 8); err == nil && len(after) >= 3 {
			b.WriteByte(byte(code))
			after = after[3:]
		} else {
			b.WriteByte('\\')
		}
		text = after
	}
}
