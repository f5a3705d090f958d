package admin

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// umask sets the process's umask until the end of the test, which must not be parallel.
func umask(t *testing.T, mask int) {
	t.Helper()
	before := syscall.Umask(mask)
	t.Cleanup(func() { syscall.Umask(before) })
}

func mode(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode()
}

func mustListen(t *testing.T, path string) net.Listener {
	t.Helper()
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// stale leaves a socket behind as a process that died does.
func stale(t *testing.T, path string) {
	t.Helper()
	l, err := bind(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestMode wants the mode 0660 whatever the umask, and never a more open one: that of the
// file at the moment that it comes to be is what bind leaves.
func TestMode(t *testing.T) {
	for _, c := range []struct {
		umask int
		bound fs.FileMode
	}{{0, 0o660}, {0o022, 0o640}, {0o077, 0o600}, {0o777, 0}} {
		t.Run(fmt.Sprintf("umask %04o", c.umask), func(t *testing.T) {
			dir := t.TempDir()
			umask(t, c.umask)
			first, err := bind(filepath.Join(dir, "first.sock"))
			if err != nil {
				t.Fatal(err)
			}
			defer first.Close()
			if got := mode(t, filepath.Join(dir, "first.sock")); got != fs.ModeSocket|c.bound {
				t.Errorf("it comes to be with mode %s", got)
			}
			mustListen(t, filepath.Join(dir, "admin.sock"))
			if got := mode(t, filepath.Join(dir, "admin.sock")); got != fs.ModeSocket|0o660 {
				t.Errorf("its mode is %s", got)
			}
		})
	}
}

func TestStaleIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	stale(t, path)
	mustListen(t, path)
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

func TestLiveIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	first := mustListen(t, path)
	before, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if l, err := Listen(path); err == nil {
		_ = l.Close()
		t.Fatal("a second daemon took the socket")
	} else if want := "admin_socket: another process listens at " + path + ": is a second rotatord running?"; err.Error() != want {
		t.Errorf("the error is %q, want %q", err, want)
	}
	if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("the first one's socket was touched: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	mustListen(t, path)
}

// TestForeignIsLeft puts everything else that a path can name where the socket should be.
func TestForeignIsLeft(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"file":      func(path string) error { return os.WriteFile(path, []byte("precious"), 0o600) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"fifo":      func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"link to a stale socket": func(path string) error {
			stale(t, path+".old")
			return os.Symlink(path+".old", path)
		},
		"link to nothing": func(path string) error { return os.Symlink("nosuch", path) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "admin.sock")
			if err := put(path); err != nil {
				t.Fatal(err)
			}
			before, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			if l, err := Listen(path); err == nil {
				_ = l.Close()
				t.Fatal("it was replaced")
			} else if !strings.Contains(err.Error(), path+" exists and is not a socket: ") {
				t.Errorf("the error is %q", err)
			}
			if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) || after.Size() != before.Size() {
				t.Errorf("it was touched: %v", err)
			}
		})
	}
}

func TestDirectoryMustExist(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nosuch", "run")
	if _, err := Listen(filepath.Join(dir, "admin.sock")); err == nil || !strings.HasPrefix(err.Error(), "admin_socket: the directory "+dir+" does not exist: create it") {
		t.Errorf("the error is %v", err)
	}
}

// TestDirectoryIsMade: the directory of the socket is made where its parent is, for those who may
// use the socket.
func TestDirectoryIsMade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	l, err := Listen(filepath.Join(dir, "admin.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm()&^0o750 != 0 {
		t.Errorf("%v, %v", info, err)
	}
}

// TestDirectoryOfOthers: where another user could put a socket in the place of ours, there is none.
func TestDirectoryOfOthers(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		mode uint32
		want string // empty: it is fine
	}{{0o700, ""}, {0o750, ""}, {0o755, ""}, {0o1777, ""}, {0o777, "every user (mode 0777)"}, {0o2777, "every user"}, {0o702, "every user"}} {
		if err := syscall.Chmod(dir, test.mode); err != nil {
			t.Fatal(err)
		}
		for _, dir := range []string{dir, link} {
			l, err := Listen(filepath.Join(dir, "admin.sock"))
			if err == nil {
				_ = l.Close()
			}
			if (err == nil) != (test.want == "") || err != nil && (!strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), dir)) {
				t.Errorf("%s with mode %o: %v, want %q", dir, test.mode, err, test.want)
			}
		}
	}
	if os.Geteuid() != 0 {
		return // only root can give files to other users
	}
	if err := errors.Join(syscall.Chmod(dir, 0o700), os.Lchown(link, 1001, 1001)); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(filepath.Join(link, "admin.sock")); err == nil || !strings.Contains(err.Error(), "symbolic link that belongs to uid 1001") {
		t.Errorf("behind a link of another user: %v", err)
	}
}

// TestOneOfManyGetsIt starts daemons at one moment, at a stale socket: a slow one must not
// take the new socket of a fast one for the stale one.
func TestOneOfManyGetsIt(t *testing.T) {
	for range 20 {
		path := filepath.Join(t.TempDir(), "admin.sock")
		stale(t, path)
		var all sync.WaitGroup
		var mu sync.Mutex
		var won []net.Listener
		for range 8 {
			all.Go(func() {
				l, err := Listen(path)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won = append(won, l)
				} else if !strings.Contains(err.Error(), "another process listens at") {
					t.Errorf("the error is %v", err)
				}
			})
		}
		all.Wait()
		if len(won) != 1 {
			t.Fatalf("%d daemons have the socket", len(won))
		}
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatalf("the winner cannot be reached: %v", err)
		}
		_ = c.Close()
		_ = won[0].Close()
	}
}

func TestCloseRemovesItsOwnOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	first := mustListen(t, path)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it left its socket behind: %v", err)
	}
	if err := first.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed again: %v", err)
	}

	second := mustListen(t, path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	mustListen(t, path) // of another process
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("closing the one removed the other: %v", err)
	} else {
		_ = c.Close()
	}

	third := mustListen(t, path+"3")
	if err := errors.Join(os.Remove(path+"3"), third.Close()); err != nil {
		t.Errorf("closing one whose file is gone: %v", err)
	}
}
