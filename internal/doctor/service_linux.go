package doctor

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"syscall"
	"unsafe"
)

// openAs opens a file as another user would, and closes it. If that is refused, it returns the
// directory that cannot be entered, or the path itself.
//
// It changes the file-system user of one thread only. The kernel takes root's rights over files away from a
// thread whose file-system user is not root. The goroutine never unlocks the thread, so the thread ends with it.
func openAs(user ServiceUser, path string) (closed string, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if become(user) != nil {
			return // this process may not do that, so nothing is found out
		}
		f, openErr := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if openErr == nil {
			_ = f.Close()
			return
		}
		closed, err = path, openErr
		above := "/"
		for _, p := range prefixes(path) {
			if _, statErr := os.Lstat(p); errors.Is(statErr, fs.ErrPermission) {
				closed = above
				return
			}
			above = p
		}
	}()
	<-done
	return closed, err
}

// become changes the groups and the file-system user of this thread.
func become(user ServiceUser) error {
	groups := make([]uint32, 0, len(user.Groups)+1)
	for _, g := range append([]int{user.GID}, user.Groups...) {
		groups = append(groups, uint32(g))
	}
	// syscall.Setgroups would change all threads.
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0); errno != 0 {
		return errno
	}
	if err := syscall.Setfsgid(user.GID); err != nil {
		return err
	}
	return syscall.Setfsuid(user.UID)
}
