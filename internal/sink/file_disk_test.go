//go:build linux

package sink_test

import (
	"errors"
	"fmt"
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

// asAnother is set in the process that TestFileDenied starts as another user.
const asAnother = "ROTATORD_TEST_SINK"

// TestFileDenied asks for a preflight as a user who may not read the file, write beside it or enter its directory. The
// error must name the owner, the mode, the user of the process and what to type.
func TestFileDenied(t *testing.T) {
	if path := os.Getenv(asAnother); path != "" {
		c := config.FileSink{Path: path, Format: "env", Mode: 0o600, SinkFields: fields}
		_, err := sink.NewFile(c).Preflight(t.Context())
		fmt.Println("ERROR", err)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	dir, err := os.MkdirTemp("/var/tmp", "denied") // not below t.TempDir, which other users may not enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	at := func(name string) string { return filepath.Join(dir, name) }
	program, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(at("test"), program, 0o755), os.Chmod(dir, 0o755), os.Mkdir(at("closed"), 0o700), os.Mkdir(at("closed/below"), 0o755),
		os.WriteFile(at("cf.env"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	const self = "and this process runs as uid 61184, group 61184: let the process in, as with chgrp 61184 "
	root := func(what, mode string) string {
		return "permission denied: " + what + " belongs to root (uid 0), group root, with mode " + mode + ", " + self
	}
	for path, want := range map[string]string{
		at("cf.env"):              "the daemon may not read it: " + root("the file", "0600") + at("cf.env") + " && chmod g+r " + at("cf.env"),
		at("new.env"):             "the daemon may not write to " + dir + ": " + root("the directory "+dir, "0755") + dir + " && chmod g+wx " + dir,
		at("closed/below/cf.env"): "the daemon may not look into " + at("closed/below") + ": " + root("the directory "+at("closed"), "0700") + at("closed") + " && chmod g+x " + at("closed"),
	} {
		cmd := exec.CommandContext(t.Context(), at("test"), "-test.run", "^TestFileDenied$")
		cmd.Env, cmd.Dir = append(os.Environ(), asAnother+"="+path), dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 61184, Gid: 61184, Groups: []uint32{}}}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "ERROR "+want+"\n") {
			t.Errorf("%s: %v\n got %s\nwant %s", path, err, out, want)
		}
	}
}
