package sink

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

	"rotatord/internal/config"
	"rotatord/internal/ownpath"
	"rotatord/internal/smallfile"
)

// This file decides who may read a file, and who could put another one in its place.

// unchanged, as a user or a group, leaves the present one.
const unchanged = -1

// fileAccess is to whom a file is given.
type fileAccess struct {
	mode     fs.FileMode
	uid, gid int
	owner    int // the uid of the configured owner; unchanged if none is configured
}

// accessOf looks up the configured owner and group.
func accessOf(c config.FileSink) (fileAccess, error) {
	a := fileAccess{mode: c.Mode, uid: unchanged, gid: unchanged}
	var err error
	if c.Owner != "" {
		if a.uid, err = lookUp(c.Owner, func(name string) (string, error) {
			u, err := user.Lookup(name)
			if err != nil {
				return "", err
			}
			return u.Uid, nil
		}); err != nil {
			return a, fmt.Errorf("owner: this machine has no user %q: create it, or correct the name", c.Owner)
		}
	}
	if c.GroupName != "" {
		if a.gid, err = lookUp(c.GroupName, func(name string) (string, error) {
			g, err := user.LookupGroup(name)
			if err != nil {
				return "", err
			}
			return g.Gid, nil
		}); err != nil {
			return a, fmt.Errorf("group: this machine has no group %q: create it, or correct the name", c.GroupName)
		}
	}
	a.owner = a.uid
	return a, nil
}

// lookUp returns the number of a user or a group that is given by name or number.
func lookUp(text string, find func(name string) (string, error)) (int, error) {
	if id, err := strconv.Atoi(text); err == nil {
		return id, nil
	}
	id, err := find(text)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(id)
}

// orThatOf adds the owner and the group of the file that is there, where none is configured.
func (a fileAccess) orThatOf(info fs.FileInfo) fileAccess {
	if info == nil {
		return a
	}
	uid, gid := ownerOf(info)
	if a.uid == unchanged {
		a.uid = uid
	}
	if a.gid == unchanged {
		a.gid = gid
	}
	return a
}

// isOf reports whether a file has this mode, owner and group.
func (a fileAccess) isOf(info fs.FileInfo) bool {
	uid, gid := ownerOf(info)
	return info.Mode() == a.mode && (a.uid == unchanged || a.uid == uid) && (a.gid == unchanged || a.gid == gid)
}

// give gives a new file to its owner and group. Its mode still lets only its owner read it.
func (a fileAccess) give(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if uid, gid := ownerOf(info); (a.uid == unchanged || a.uid == uid) && (a.gid == unchanged || a.gid == gid) {
		return nil
	}
	if err := f.Chown(a.uid, a.gid); err != nil {
		return fmt.Errorf("the file cannot be given to uid %d and gid %d: %w: this process runs as uid %d; run it as root, put its user into that group, or remove the file if they need not stay", a.uid, a.gid, errors.Unwrap(err), os.Geteuid())
	}
	return nil
}

func ownerOf(info fs.FileInfo) (uid, gid int) {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(stat.Uid), int(stat.Gid)
	}
	return unchanged, unchanged
}

// checkDir refuses a directory in which another user could put a file of their own in the place of ours, or
// that another user could lead elsewhere. Only the directory itself may belong to the configured owner of the
// file, who gets the secret anyway. It returns what the directory is.
func checkDir(dir string, a fileAccess) (fs.FileInfo, error) {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("the directory %s does not exist: create it", dir)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("the daemon may not look into %s: %w%s", dir, syscall.EACCES, smallfile.Denied(dir, "x"))
	case err != nil:
		return nil, err
	case !info.IsDir():
		return nil, fmt.Errorf("%s is not a directory", dir)
	}
	for above := dir; above != filepath.Dir(above); {
		above = filepath.Dir(above)
		if err := ownpath.Check(above); err != nil {
			return nil, err
		}
	}
	uid, gid := ownerOf(info)
	groups, _ := os.Getgroups() // without them only its own group counts
	trusted := gid == os.Getegid() || uid == 0 && slices.Contains(groups, gid)
	switch mode := info.Mode().Perm(); {
	case mode&0o002 != 0:
		return nil, fmt.Errorf("every user can write to the directory %s (mode %04o), and so put another file there: run chmod o-w %s, or name another directory", dir, mode, dir)
	case mode&0o020 != 0 && !trusted:
		return nil, fmt.Errorf("the group %d can write to the directory %s (mode %04o), and so put another file there: run chmod g-w %s, or name another directory", gid, dir, mode, dir)
	case uid == a.owner && a.owner != unchanged:
		return info, ownLink(dir)
	}
	return info, ownpath.Check(dir)
}

// ownLink refuses a symbolic link that belongs to another user than root and the daemon's.
func ownLink(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if uid, _ := ownerOf(info); info.Mode().Type() == fs.ModeSymlink && uid != 0 && uid != os.Geteuid() {
		return fmt.Errorf("%s is a symbolic link that belongs to uid %d, who can let it lead elsewhere: name the directory itself", path, uid)
	}
	return nil
}

// prove shows that a file could be written here now: it writes one without a name.
func (f *File) prove(now fileState, a fileAccess) error {
	if isMountPoint(f.config.Path) {
		return errMountPoint
	}
	dir := filepath.Dir(f.config.Path)
	if now.info != nil {
		if err := replaceable(f.config.Path, dir, now.info); err != nil {
			return err
		}
	}
	// The two calls ask for the rights of this process, and for a file system that is not read-only.
	if err := writable(dir); errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("the daemon may not write to %s: %w%s", dir, err, smallfile.Denied(dir, "wx"))
	} else if err != nil {
		return fmt.Errorf("the daemon may not write to %s: %w", dir, err)
	}
	file, err := unnamedFile(dir)
	if file == nil {
		return err // a file system without unnamed files: the rights are all that can be asked for
	}
	defer file.Close()
	if _, err := file.Write(make([]byte, len(now.content)+4096)); err != nil {
		return err
	}
	return a.give(file)
}

// replaceable returns why another file may not take the place of one that is there, although this process may
// create files beside it.
func replaceable(path, dir string, info fs.FileInfo) error {
	if isFixed(path) {
		return fmt.Errorf("it is immutable or append-only, so that no other file can take its place: run chattr -ia %s", path)
	}
	above, err := os.Stat(dir)
	if err != nil {
		return err
	}
	self := os.Geteuid()
	ofFile, _ := ownerOf(info)
	ofDir, _ := ownerOf(above)
	if above.Mode()&fs.ModeSticky != 0 && self != 0 && ofFile != self && ofDir != self {
		return fmt.Errorf("it belongs to uid %d in a sticky directory, where only its owner may replace it: remove the file, or run chmod -t %s", ofFile, dir)
	}
	return nil
}

// errMountPoint is the error about a file that is mounted by itself.
var errMountPoint = errors.New("it is mounted by itself, so that no other file can take its place: mount its directory")

// unprintable says what keeps a text from being written on one line.
func unprintable(text string) string {
	switch {
	case text == "":
		return "is empty"
	case strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 }):
		return "has a line break or another control character"
	case strings.ToValidUTF8(text, "") != text:
		return "is not valid UTF-8"
	}
	return ""
}
