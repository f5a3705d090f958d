package sink

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
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
