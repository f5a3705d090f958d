package smallfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Denied explains why this process may not do something with a file or a directory: whose it is and as whom the
// process runs; or, if the process may not enter a directory above it, whose that directory is. need are the rights
// that it needs, as chmod writes them, such as r or wx. The text begins with a colon.
func Denied(path, need string) string {
	uid, gid := os.Geteuid(), os.Getegid()
	self := userName(uid) + ", group " + groupName(gid)
	at := path
	info, err := os.Stat(path)
	if err != nil {
		need = "x"
		at, info = closed(path)
	}
	let := ": let the user who runs rotatord in; this process runs as " + self
	if info == nil {
		return let
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok { // not on a system that rotatord supports
		return let
	}
	what := "the file"
	if info.IsDir() {
		what = "the directory " + at
	}
	whose := fmt.Sprintf(": %s belongs to %s, group %s, with mode %04o, and this process runs as %s: ",
		what, userName(int(stat.Uid)), groupName(int(stat.Gid)), info.Mode().Perm(), self)
	groups, _ := os.Getgroups() // without them, only the main group counts
	if allows(info.Mode().Perm(), stat, need, uid, gid, groups) {
		return whose + "the mode allows it, so look for SELinux, AppArmor, access control lists, or ProtectHome and the like in a systemd unit"
	}
	if int(stat.Uid) == uid {
		return fmt.Sprintf("%srun chmod u+%s %s", whose, need, at)
	}
	return fmt.Sprintf("%slet the process in, as with chgrp %s %s && chmod g+%s %s", whose, groupName(gid), at, need, at)
}

// allows reports whether the mode gives a process these rights.
func allows(mode fs.FileMode, stat *syscall.Stat_t, need string, uid, gid int, groups []int) bool {
	want := fs.FileMode(0)
	for _, right := range need {
		want |= map[rune]fs.FileMode{'r': 0o4, 'w': 0o2, 'x': 0o1}[right]
	}
	switch {
	case uid == 0:
		return true
	case int(stat.Uid) == uid:
		want <<= 6
	case int(stat.Gid) == gid || slices.Contains(groups, int(stat.Gid)):
		want <<= 3
	}
	return mode&want == want
}

// closed returns the first directory on the way to path that this process may not enter.
func closed(path string) (string, fs.FileInfo) {
	if absolute, err := filepath.Abs(path); err == nil {
		path = absolute
	}
	for below, dir := path, filepath.Dir(path); dir != below; below, dir = dir, filepath.Dir(dir) {
		if _, err := os.Stat(below); !errors.Is(err, fs.ErrPermission) {
			continue
		}
		if info, err := os.Stat(dir); err == nil {
			return dir, info
		}
	}
	return "", nil
}

// userName returns the name of a user by its number.
func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return fmt.Sprintf("%s (uid %d)", u.Username, uid)
	}
	return fmt.Sprintf("uid %d", uid)
}

func groupName(gid int) string {
	if g, err := user.LookupGroupId(strconv.Itoa(gid)); err == nil {
		return g.Name
	}
	return strconv.Itoa(gid)
}

// absent says what is missing, if that is not the file itself but something above it.
func absent(path string) string {
	if target, err := os.Readlink(path); err == nil {
		return ": it is a symbolic link to " + target + ", which is not there"
	}
	whole, err := filepath.Abs(path)
	if err != nil {
		return ""
	}
	missing := ""
	for dir := filepath.Dir(whole); dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil {
			break
		}
		missing = dir
	}
	switch {
	case missing == "":
		return ""
	case strings.HasPrefix(whole, "/run/credentials/"):
		return ": there is no directory " + missing + ", which systemd creates for a unit while that runs"
	}
	return ": there is no directory " + missing
}
