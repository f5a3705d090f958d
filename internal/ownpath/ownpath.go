// Package ownpath checks that other users cannot change files and directories of the daemon.
//
// The threat is another user of the machine. A user who can write to the state directory can remove the ledger. A
// user who can write to the directory of the admin socket can put another socket there, and operators would talk to
// that.
package ownpath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"syscall"
)

// What is looked at. Tests replace it.
type process struct {
	uid, gid int
	groups   []int
}

func current() process {
	groups, _ := os.Getgroups() // on an error only the process's own group counts
	return process{os.Geteuid(), os.Getegid(), groups}
}

// Check returns an error if a user other than the daemon's own and root can change the file or directory at a path:
// because it, or a symbolic link at the end of the path, belongs to another user, or because its mode allows
// others to write. A path that does not exist is not an error.
//
// A group may write in two cases: it is the group of the process; or the owner is root and the process is in the
// group, which is how Kubernetes gives a volume to a pod.
//
// Others may write to a sticky directory, because they still cannot replace our files in it.
func Check(path string) error { return check(path, current()) }

// AsOwner does Check for a process of the user that owns the path. The result differs from Check only for root, who
// checks the files of a service.
func AsOwner(path string) func(path string) error {
	p := current()
	if uid, gid, err := Owner(path); err == nil && p.uid == 0 && uid != 0 {
		p = process{uid: uid, gid: gid}
	}
	return func(path string) error { return check(path, p) }
}

func check(path string, p process) error {
	link, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if link.Mode().Type() == fs.ModeSymlink {
		if owner, _ := OwnerOf(link); owner != 0 && owner != p.uid {
			return fmt.Errorf("%s is a symbolic link that belongs to uid %d, who can change where it leads: make root or uid %d its owner (chown -h)", path, owner, p.uid)
		}
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is a symbolic link that leads nowhere: is a volume not mounted?", path)
	}
	if err != nil {
		return err
	}
	owner, group := OwnerOf(info)
	mode := info.Mode()
	sticky := mode&fs.ModeSticky != 0 && mode.IsDir()
	switch perm := mode.Perm(); {
	case owner != 0 && owner != p.uid:
		return fmt.Errorf("%s belongs to uid %d, who can change it, while this process runs as uid %d: run chown %d %s, or run rotatord as its owner",
			path, owner, p.uid, p.uid, path)
	case perm&0o002 != 0 && !sticky:
		return fmt.Errorf("%s can be changed by every user (mode %04o): run chmod o-w %s", path, perm, path)
	case perm&0o020 != 0 && !sticky && group != p.gid && (owner != 0 || !slices.Contains(p.groups, group)):
		return fmt.Errorf("%s can be changed by the group %d (mode %04o), which is not the group of this process: run chmod g-w %s", path, group, perm, path)
	}
	return nil
}

// Owner returns the user and the group that own a path.
func Owner(path string) (uid, gid int, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, 0, err
	}
	uid, gid = OwnerOf(info)
	return uid, gid, nil
}

// OwnerOf returns the user and the group of a file.
func OwnerOf(info fs.FileInfo) (uid, gid int) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok { // on no system that rotatord supports
		return os.Geteuid(), os.Getegid()
	}
	return int(stat.Uid), int(stat.Gid)
}

// Kind returns what a file is, for messages: a regular file, a directory and so on.
func Kind(mode fs.FileMode) string {
	switch mode.Type() {
	case 0:
		return "a regular file"
	case fs.ModeDir:
		return "a directory"
	case fs.ModeNamedPipe:
		return "a named pipe (FIFO)"
	case fs.ModeSocket:
		return "a socket"
	case fs.ModeSymlink:
		return "a symbolic link"
	}
	return "a device"
}

// Denied returns an error that says who owns a file, if err says permission denied, and otherwise err.
func Denied(path string, err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	whose := ""
	if uid, _, statErr := Owner(path); statErr == nil {
		whose = " It belongs to uid " + strconv.Itoa(uid) + "."
	}
	return fmt.Errorf("%w: this process runs as uid %d.%s Run rotatord as its owner, or give the file to that user (chown)", err, os.Geteuid(), whose)
}
