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

	"rotatord/internal/ownpath"
)

const socketMode = 0o660

// Listen makes the socket. It replaces one at which nobody answers, and leaves alone one at
// which somebody does and a file of any other kind.
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
	// Two daemons that start at once must not take each other's new socket for a stale
	// one: whoever holds the directory's lock looks, replaces and binds alone.
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
	// Now what the umask took away.
	if err := os.Chmod(path, socketMode); err != nil {
		return nil, errors.Join(err, l.Close(), os.Remove(path))
	}
	made, err := os.Lstat(path)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &listener{Listener: l, path: path, made: made}, nil
}

// bind makes a socket that others could not use at any moment: the kernel gives the file the
// mode of the descriptor, less the umask. (Setting the umask would be for the whole process.)
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
	// It would remove whatever is there by then: listener does that with more care.
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	return l, nil
}

// listener removes its socket when it is closed, unless another one stands in its place.
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

// dirMode is that of a directory that is made for the socket: who may use the socket may enter.
const dirMode = 0o750

// prepareDir makes the directory of the socket if its parent is there, and refuses one in which
// others could put a socket of theirs in the place of ours.
func prepareDir(dir string) error {
	if err := os.Mkdir(dir, dirMode); err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
		// It may be there, below a directory that only its makers may write to.
		if _, statErr := os.Stat(dir); statErr != nil {
			return fmt.Errorf("the directory %s does not exist and cannot be made: %w: make it, for the daemon's user (RuntimeDirectory= under systemd)", dir, err)
		}
	}
	if err := ownpath.Check(dir); err != nil {
		return fmt.Errorf("%w; or let admin_socket name a socket in a directory below it, which rotatord makes", err)
	}
	return nil
}

// lockDir takes a lock on a directory that ends with the process, if nothing else ends it.
func lockDir(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the directory %s does not exist: make it, writable for the daemon alone (RuntimeDirectory= under systemd)", dir)
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

// clearStale removes a socket at which nobody listens any more.
func clearStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there and is not a socket: it was left alone, so move it away or choose another path", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		_ = conn.Close()
		return fmt.Errorf("another process listens at %s: is a second rotatord running?", path)
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%s is there, and whether somebody listens at it cannot be told: %w", path, err)
	}
	return os.Remove(path)
}

// peerOf asks the kernel who is at the other end.
func peerOf(c net.Conn) (peer, error) {
	for { // what limits connections wraps them
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
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil {
		return peer{}, err
	}
	if credErr != nil {
		return peer{}, fmt.Errorf("reading the peer's credentials: %w", credErr)
	}
	return peer{uid: cred.Uid, gid: cred.Gid, pid: cred.Pid}, nil
}
