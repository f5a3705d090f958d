package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
	"unsafe"

	"rotatord/internal/ownpath"
)

const socketMode = 0o660

// Listen creates the socket. It replaces a socket at which no process answers. It does not touch a socket
// at which a process answers, nor a file of another kind.
func Listen(path string) (net.Listener, error) {
	l, err := listen(path)
	if err != nil {
		return nil, fmt.Errorf("admin_socket: %w", err)
	}
	return l, nil
}

func listen(path string) (net.Listener, error) {
	if err := prepareDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	// Two daemons that start at the same time must not take each other's new socket for a stale one: only the
	// one that has the directory's lock checks, replaces and binds.
	unlock, err := lockDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := clearStale(path); err != nil {
		return nil, err
	}
	l, err := bind(path)
	if err != nil {
		return nil, err
	}
	// The umask may have removed bits.
	if err := os.Chmod(path, socketMode); err != nil {
		return nil, errors.Join(err, l.Close(), os.Remove(path))
	}
	made, err := os.Lstat(path)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &listener{Listener: l, path: path, made: made}, nil
}

// bind creates a socket that other users cannot use at any moment: the kernel gives the file the mode of the
// descriptor, without the bits of the umask. (Setting the umask would change it for the whole process.)
func bind(path string) (net.Listener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var chmodErr error
		err := c.Control(func(fd uintptr) { chmodErr = syscall.Fchmod(int(fd), socketMode) })
		return errors.Join(err, chmodErr)
	}}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	// It would remove any file at the path. listener checks which one it is.
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	return l, nil
}

// listener removes its socket when it is closed, unless another one is there.
type listener struct {
	net.Listener
	path string
	made fs.FileInfo
}

// Close implements net.Listener.
func (l *listener) Close() error {
	if err := l.Listener.Close(); err != nil {
		return err
	}
	if now, err := os.Lstat(l.path); err != nil || !os.SameFile(now, l.made) {
		return nil
	}
	return os.Remove(l.path)
}

// dirMode is the mode of a directory that is created for the socket: those who may use the socket may enter.
const dirMode = 0o750

// prepareDir creates the directory of the socket if its parent exists. It refuses a directory in which other
// users could replace the socket.
func prepareDir(dir string) error {
	if err := os.Mkdir(dir, dirMode); err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
		// It may exist, in a directory that this process may not write to.
		if _, statErr := os.Stat(dir); statErr != nil {
			return fmt.Errorf("the directory %s does not exist and cannot be created: %w: create it for the daemon's user (RuntimeDirectory= under systemd)", dir, err)
		}
	}
	if err := ownpath.Check(dir); err != nil {
		return fmt.Errorf("%w; or set admin_socket to a path in a subdirectory, which rotatord creates", err)
	}
	return nil
}

// lockDir locks a directory. The lock ends with the process at the latest.
func lockDir(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the directory %s does not exist: create it, writable only for the daemon (RuntimeDirectory= under systemd)", dir)
	} else if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(d.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", dir, err), d.Close())
	}
	return func() { _ = d.Close() }, nil
}

// clearStale removes a socket at which no process listens.
func clearStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s exists and is not a socket: move it away or choose another path", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		_ = conn.Close()
		return fmt.Errorf("another process listens at %s: is a second rotatord running?", path)
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%s exists, and it is not known whether a process listens at it: %w", path, err)
	}
	return os.Remove(path)
}

// peerOf returns the process at the other end, which the kernel reports.
func peerOf(c net.Conn) (peer, error) {
	for { // the connection limit wraps connections
		wrapped, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		c = wrapped.NetConn()
	}
	unix, ok := c.(*net.UnixConn)
	if !ok {
		return peer{}, fmt.Errorf("a %T has no peer credentials", c)
	}
	raw, err := unix.SyscallConn()
	if err != nil {
		return peer{}, err
	}
	var cred *syscall.Ucred
	var credErr error
	var groups []uint32
	if err := raw.Control(func(fd uintptr) {
		groups = groupsOf(fd)
		cred, credErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil {
		return peer{}, err
	}
	if credErr != nil {
		return peer{}, fmt.Errorf("reading the peer's credentials: %w", credErr)
	}
	return peer{uid: cred.Uid, gid: cred.Gid, pid: cred.Pid, groups: groups}, nil
}

// maxGroups is how many further groups of a peer count. The kernel allows more, and no system has them.
const maxGroups = 1024

// groupsOf returns the further groups of the process at the other end of a socket, as they were when it connected. It
// returns nil if this kernel does not say them.
func groupsOf(fd uintptr) []uint32 {
	const soPeerGroups = 59
	groups := make([]uint32, maxGroups)
	size := uint32(len(groups) * 4)
	_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, syscall.SOL_SOCKET, soPeerGroups,
		uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return nil
	}
	return groups[:min(int(size/4), len(groups))]
}
