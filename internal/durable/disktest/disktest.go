//go:build linux

// Package disktest gives a test a small disk of its own. It can be filled to the last byte, made read-only,
// or cut off from its power.
//
// It mounts file systems. That needs rights which not every machine gives: root in a container often does not
// have them. Without them a test is skipped, and says so. If mkfs.ext4 is missing, the test fails if
// ROTATORD_REQUIRE_TOOLS=1 says that every tool must be there.
package disktest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"unsafe"
)

// The file systems.
const (
	Tmpfs = "tmpfs"
	Ext4  = "ext4" // in a file, with a journal
)

// Disk is a mounted file system. It is unmounted at the end of the test.
type Disk struct {
	// Dir is where the disk is mounted.
	Dir string

	t       testing.TB
	image   string
	options string
	kind    string
}

// New mounts a file system of that many KiB.
func New(t testing.TB, kind string, kib int) *Disk {
	t.Helper()
	d := &Disk{Dir: filepath.Join(t.TempDir(), "disk"), t: t, kind: kind, image: "tmpfs", options: fmt.Sprintf("size=%dk", kib)}
	if err := os.Mkdir(d.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var err error
	if kind == Ext4 {
		d.image, d.options = filepath.Join(filepath.Dir(d.Dir), "image"), "loop"
		err = errors.Join(os.WriteFile(d.image, nil, 0o600), os.Truncate(d.image, int64(kib)<<10),
			command("mkfs.ext4", "-q", "-m", "0", d.image))
		if err != nil && os.Getenv("ROTATORD_REQUIRE_TOOLS") == "1" {
			t.Fatalf("a disk for this test cannot be made (mkfs.ext4 is in e2fsprogs: run make tools): %v", err)
		}
	}
	if err = errors.Join(err, d.mount()); err != nil {
		t.Skipf("a disk for this test cannot be mounted; this machine may not give the right to: %v", err)
	}
	t.Cleanup(func() { _ = command("umount", "--lazy", d.Dir) })
	return d
}

func (d *Disk) mount() error { return command("mount", "-t", d.kind, "-o", d.options, d.image, d.Dir) }

func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %q: %w: %s", name, args, err, out)
	}
	return nil
}

func (d *Disk) filler() string { return filepath.Join(d.Dir, "filler") }

// Fill uses all free space.
func (d *Disk) Fill() {
	d.t.Helper()
	f, err := os.OpenFile(d.filler(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, size := range []int{64 << 10, 4 << 10, 1} {
		for err = nil; err == nil; {
			if _, err = f.Write(make([]byte, size)); err == nil && size > 1 {
				err = f.Sync() // the file system allocates now, and not later
			}
		}
		if !errors.Is(err, syscall.ENOSPC) {
			d.t.Fatalf("filling the disk: %v", err)
		}
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		d.t.Fatal(err)
	}
}

// Free frees what Fill used.
func (d *Disk) Free() {
	d.t.Helper()
	if err := os.Remove(d.filler()); err != nil {
		d.t.Fatal(err)
	}
}

// ReadOnly remounts the disk. No process may have it open for writing.
func (d *Disk) ReadOnly(yes bool) {
	d.t.Helper()
	mode := "remount,rw"
	if yes {
		mode = "remount,ro"
	}
	if err := command("mount", "-o", mode, d.Dir); err != nil {
		d.t.Fatal(err)
	}
}

// Break makes an ext4 disk read-only at once, whatever is open, as the kernel does when it finds a fault in
// it.
func (d *Disk) Break() {
	d.t.Helper()
	if err := command("mount", "-o", "remount,errors=remount-ro", d.Dir); err != nil {
		d.t.Fatal(err)
	}
	var stat syscall.Stat_t
	if err := syscall.Stat(d.Dir, &stat); err != nil {
		d.t.Fatal(err)
	}
	device, err := filepath.EvalSymlinks(fmt.Sprintf("/sys/dev/block/%d:%d", stat.Dev>>8, stat.Dev&0xff)) // a loop device
	if err == nil {
		err = os.WriteFile(filepath.Join("/sys/fs/ext4", filepath.Base(device), "trigger_fs_error"), []byte("a test broke it"), 0)
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// Freeze makes the disk hang: what writes to it does not return before Thaw. It is thawed at the end of the test. The
// test is skipped where that is not possible.
//
// A process with a thread that hangs there cannot end, whatever kills it. So a program of its own thaws the disk if the test
// does not.
func (d *Disk) Freeze() {
	d.t.Helper()
	const freeze = 0xc0045877 // FIFREEZE
	var disk, parent syscall.Stat_t
	err := errors.Join(syscall.Stat(d.Dir, &disk), syscall.Stat(filepath.Dir(d.Dir), &parent))
	if err != nil || disk.Dev == parent.Dev {
		d.t.Fatalf("%s is not a disk of its own, and the disk of this machine must not be frozen (%v)", d.Dir, err)
	}
	thaw := exec.Command("sh", "-c", `sleep 180; fsfreeze --unfreeze "$0"`, d.Dir)
	thaw.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := errors.Join(command("fsfreeze", "--version"), thaw.Start()); err != nil {
		d.t.Skipf("a disk that hangs is not made without a program that ends that (fsfreeze is in util-linux): %v", err)
	}
	d.t.Cleanup(func() {
		_ = syscall.Kill(-thaw.Process.Pid, syscall.SIGKILL)
		_ = thaw.Wait()
	})
	if err := d.ioctl(freeze, 0); err != nil {
		d.t.Skipf("a disk that hangs cannot be made; this machine may not give the right to: %v", err)
	}
	d.t.Cleanup(d.Thaw)
}

// Thaw ends Freeze.
func (d *Disk) Thaw() {
	const thaw = 0xc0045878 // FITHAW
	_ = d.ioctl(thaw, 0)    // it fails if the disk is not frozen
}

// CutPower makes an ext4 disk forget at once whatever was not made durable, and refuse everything until
// Restore.
func (d *Disk) CutPower() error {
	const shutdown = 0x8004587d // EXT4_IOC_SHUTDOWN
	return d.ioctl(shutdown, 2) // without flushing the log
}

// ioctl asks the file system for something.
func (d *Disk) ioctl(request uintptr, flags uint32) error {
	dir, err := os.Open(d.Dir)
	if err != nil {
		return err
	}
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, dir.Fd(), request, uintptr(unsafe.Pointer(&flags))); errno != 0 {
		err = os.NewSyscallError(fmt.Sprintf("ioctl %#x of the file system", request), errno)
	}
	return errors.Join(err, dir.Close())
}

// Restore mounts a disk whose power was cut. No process may have it open any more.
func (d *Disk) Restore() {
	d.t.Helper()
	if err := errors.Join(command("umount", d.Dir), d.mount()); err != nil {
		d.t.Fatal(err)
	}
}
