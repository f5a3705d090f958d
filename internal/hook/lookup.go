package hook

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"
)

// This file finds programs, and says why one cannot be run. The kernel says "no such file or directory" about a script
// whose interpreter is missing, and "permission denied" for five reasons.

// SearchPath is where programs without a slash are searched. Programs get it as PATH.
const SearchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// User is a user who runs programs.
type User struct {
	UID, GID int
	Groups   []int // further groups
}

// LookUp returns the path of a program. The error says why as cannot run it, as far as that can be found out without a
// run; nil is this process. For another user the modes of the files decide: access-control lists are not read.
func LookUp(program string, as *User) (path string, err error) {
	if strings.HasPrefix(program, "/") {
		return program, runnable(program, as)
	}
	for _, dir := range filepath.SplitList(SearchPath) {
		path := filepath.Join(dir, program)
		switch err := runnable(path, as); {
		case err == nil:
			return path, nil
		case !errors.Is(err, os.ErrNotExist):
			return "", err
		}
	}
	return "", fmt.Errorf("there is no program %s in %s: install it, or write its absolute path", program, SearchPath)
}

// runnable returns why a program cannot be run. os.ErrNotExist is in the error only if path itself does not exist.
func runnable(path string, as *User) error {
	if err := executable(path, as); err != nil {
		return err
	}
	for _, needed := range needs(path) {
		if needed.fault != "" {
			return fmt.Errorf("%s cannot be run: %s", path, needed.fault)
		}
		if err := executable(needed.path, as); err != nil { // it is not path that is missing
			return fmt.Errorf("%s cannot be run: %s %s: %s", path, needed.as, needed.path, err.Error())
		}
	}
	return nil
}

// executable returns why a file cannot be executed.
func executable(path string, as *User) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return fmt.Errorf("the program cannot be found: %w", err)
	case info.IsDir():
		return fmt.Errorf("%s is a directory and not a program", path)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a file that can be run (%s)", path, info.Mode().Type())
	case info.Mode()&0o111 == 0:
		return fmt.Errorf("%s is not executable (mode %s): chmod +x %[1]s", path, info.Mode().Perm())
	case onNoexec(path):
		return fmt.Errorf("%s is on a file system that is mounted with noexec: put it elsewhere, such as into /usr/local/bin", path)
	case as == nil && syscall.Access(path, 1) != nil: // X_OK
		return fmt.Errorf("uid %d may not run %s, which has mode %s", os.Getuid(), path, info.Mode().Perm())
	case as == nil:
		return nil
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("the program cannot be found: %w", err)
	}
	for _, at := range []string{path, real} {
		for dir := filepath.Dir(at); ; dir = filepath.Dir(dir) {
			if info, err := os.Stat(dir); err == nil && !as.may(info) {
				return fmt.Errorf("uid %d may not enter %s, which has mode %s", as.UID, dir, info.Mode().Perm())
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	if !as.may(info) {
		return fmt.Errorf("uid %d may not run %s, which has mode %s", as.UID, path, info.Mode().Perm())
	}
	return nil
}

// may reports whether the mode of a file lets the user run it, or enter it if it is a directory.
func (u *User) may(info os.FileInfo) bool {
	owner, ok := info.Sys().(*syscall.Stat_t)
	mode := info.Mode().Perm()
	switch {
	case !ok:
		return true
	case u.UID == 0:
		return info.IsDir() || mode&0o111 != 0
	case int(owner.Uid) == u.UID:
		return mode&0o100 != 0
	case int(owner.Gid) == u.GID || slices.Contains(u.Groups, int(owner.Gid)):
		return mode&0o010 != 0
	}
	return mode&0o001 != 0
}

// noexec is ST_NOEXEC of statfs(2).
const noexec = 0x8

func onNoexec(path string) bool {
	var fs syscall.Statfs_t
	return syscall.Statfs(path, &fs) == nil && fs.Flags&noexec != 0
}

// need is what else must be there to run a program, or why it can never be run.
type need struct {
	path, as string
	fault    string
}

// firstLine is how much of a script the kernel reads to find its interpreter.
const firstLine = 256

// needs returns what a program needs beside itself. A file that cannot be read may still be run, and says nothing.
func needs(path string) []need {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	start, err := io.ReadAll(io.LimitReader(f, firstLine))
	switch {
	case err != nil:
		return nil
	case len(start) == 0:
		return []need{{fault: "the file is empty"}}
	case bytes.HasPrefix(start, []byte("#!")):
		return interpreter(start)
	case bytes.HasPrefix(start, []byte(elf.ELFMAG)):
		return loader(f)
	case isText(start):
		return []need{{fault: "it is a text without a first line such as #!/bin/sh, and no shell is started for it"}}
	}
	return nil // the kernel may know more formats
}

// isText reports whether the start of a file is text. It may end in the middle of a character.
func isText(start []byte) bool {
	for range min(utf8.UTFMax-1, len(start)) {
		if utf8.Valid(start) {
			break
		}
		start = start[:len(start)-1]
	}
	return utf8.Valid(start) && !bytes.ContainsRune(start, 0)
}

// interpreter returns what the first line of a script names. With env that is also the program that env searches.
func interpreter(start []byte) []need {
	line, _, whole := strings.Cut(string(start[len("#!"):]), "\n")
	if whole && strings.HasSuffix(line, "\r") {
		return []need{{fault: `its first line ends with a carriage return, as Windows writes it: convert it with sed -i 's/\r$//'`}}
	}
	words := strings.Fields(line)
	switch {
	case len(words) == 0:
		return []need{{fault: "its first line #! names no interpreter"}}
	case !strings.HasPrefix(words[0], "/"):
		return []need{{fault: fmt.Sprintf("its first line names the interpreter %s, which is not an absolute path", words[0])}}
	}
	all := []need{{path: words[0], as: "its interpreter"}}
	if filepath.Base(words[0]) != "env" {
		return all
	}
	if words = words[1:]; len(words) > 1 && words[0] == "-S" {
		words = words[1:]
	}
	// Options, a PATH of its own, quotes and variables are for env to understand: only a plain name is looked up.
	if len(words) == 0 || strings.HasPrefix(words[0], "-") || strings.ContainsAny(words[0], `=/"'$\`) {
		return all
	}
	for _, dir := range filepath.SplitList(SearchPath) {
		if _, err := os.Stat(filepath.Join(dir, words[0])); err == nil {
			return append(all, need{path: filepath.Join(dir, words[0]), as: "its interpreter"})
		}
	}
	return []need{{fault: fmt.Sprintf("its interpreter %s is not in %s", words[0], SearchPath)}}
}

// loader returns what loads a program with shared libraries. An image without the C library has none.
func loader(f *os.File) []need {
	e, err := elf.NewFile(f)
	if err != nil {
		return []need{{fault: "the file is damaged"}}
	}
	for _, p := range e.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		name, err := io.ReadAll(io.LimitReader(p.Open(), firstLine))
		if path := string(bytes.TrimRight(name, "\x00")); err == nil && strings.HasPrefix(path, "/") {
			return []need{{path: path, as: "it was built for a C library that is not on this machine; its loader"}}
		}
	}
	return nil
}
