//go:build linux

package sink_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"rotatord/internal/config"
	"rotatord/internal/durable/disktest"
	"rotatord/internal/rotation"
	"rotatord/internal/sink"
)

// onDisk returns a sink on a small disk, whose file has a secret.
func onDisk(t *testing.T) (*disktest.Disk, config.FileSink, *sink.File) {
	t.Helper()
	d := disktest.New(t, disktest.Tmpfs, 64)
	if err := os.Chmod(d.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	c := config.FileSink{Path: filepath.Join(d.Dir, "cf.env"), Format: "env", Mode: 0o600, SinkFields: fields}
	f := sink.NewFile(c)
	if _, err := f.Store(t.Context(), rotation.Delivery{Credential: credential("id", "first")}); err != nil {
		t.Fatal(err)
	}
	return d, c, f
}

// refuses wants an error of preflight and store, and the file as it was.
func refuses(t *testing.T, c config.FileSink, f *sink.File, says string) {
	t.Helper()
	before := content(t, c.Path)
	_, preflight := f.Preflight(t.Context())
	_, store := f.Store(t.Context(), rotation.Delivery{Credential: credential("id", "second")})
	for _, err := range []error{preflight, store} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
	if content(t, c.Path) != before {
		t.Error("the file is another one")
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(c.Path), ".new-*")); len(left) != 0 {
		t.Errorf("%q is left", left)
	}
}

func TestFileOnAFullDisk(t *testing.T) {
	d, c, f := onDisk(t)
	d.Fill()
	refuses(t, c, f, "make space on the disk")
}

func TestFileOnAReadOnlyDisk(t *testing.T) {
	d, c, f := onDisk(t)
	d.ReadOnly(true)
	refuses(t, c, f, "ReadWritePaths="+d.Dir)
}

// TestFileThatIsMounted: a container runtime mounts a single file by itself, and nothing can take its place.
func TestFileThatIsMounted(t *testing.T) {
	_, c, f := onDisk(t)
	outside := filepath.Join(t.TempDir(), "outside")
	write(t, outside, content(t, c.Path))
	if err := syscall.Mount(outside, c.Path, "", syscall.MS_BIND, ""); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(c.Path, syscall.MNT_DETACH) })
	refuses(t, c, f, "mount its directory")
	if got, err := os.ReadFile(outside); err != nil || strings.Contains(string(got), "second") {
		t.Errorf("%q, %v", got, err)
	}
}

// TestFileThatIsImmutable: nothing can take the place of a file after chattr +i.
func TestFileThatIsImmutable(t *testing.T) {
	c, f := fileIn(t, "env")
	if _, err := f.Store(t.Context(), rotation.Delivery{Credential: credential("id", "first")}); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("chattr", "+i", c.Path).CombinedOutput(); err != nil {
		t.Skipf("%v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("chattr", "-i", c.Path).Run() })
	before := content(t, c.Path)
	if _, err := f.Preflight(t.Context()); err == nil || !strings.Contains(err.Error(), "chattr -ia") {
		t.Errorf("Preflight: %v", err)
	}
	if _, err := f.Store(t.Context(), rotation.Delivery{Credential: credential("id", "second")}); err == nil || content(t, c.Path) != before {
		t.Errorf("Store: %v", err)
	}
}

// TestFileInAStickyDirectory: there only the owner may replace a file.
func TestFileInAStickyDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files to other users")
	}
	c, _ := fileIn(t, "env")
	dir := filepath.Dir(c.Path)
	write(t, c.Path, "A=b\n")
	if err := errors.Join(os.Chown(c.Path, 64001, 64001), os.Chmod(dir, 0o755|os.ModeSticky)); err != nil {
		t.Fatal(err)
	}
	if _, err := sink.NewFile(c).Preflight(t.Context()); err != nil {
		t.Errorf("root may replace it: %v", err)
	}
}
