package smallfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// asAnother is set in the process that TestDenied starts as another user.
const asAnother = "ROTATORD_TEST_READ"

// TestDenied reads files as a user who is unknown to the system. The error must name the owner of the file,
// its mode, and the user of the process.
func TestDenied(t *testing.T) {
	if path := os.Getenv(asAnother); path != "" {
		_, err := Read(t.Context(), path, 1024)
		if !errors.Is(err, fs.ErrPermission) {
			t.Fatalf("not denied: %v", err)
		}
		fmt.Println(err)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	dir, err := os.MkdirTemp("", "denied") // not below t.TempDir, which other users may not enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	at := func(name string) string { return filepath.Join(dir, name) }
	test := at("test")
	program, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(test, program, 0o755), os.Chmod(dir, 0o755), os.WriteFile(at("token"), nil, 0o600), os.WriteFile(at("group"), nil, 0o040),
		os.MkdirAll(at("closed/below"), 0o700), os.WriteFile(at("closed/below/token"), nil, 0o644), os.Chown(at("group"), 0, 61185), os.Chmod(at("group"), 0o040)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		at("token"): ": permission denied: the file belongs to root (uid 0), group root, with mode 0600, and this process runs as uid 61184, group 61184: " +
			"let the process in, as with chgrp 61184 " + at("token") + " && chmod g+r " + at("token"),
		at("group"): ": permission denied: the file belongs to root (uid 0), group 61185, with mode 0040, and this process runs as uid 61184, group 61184: " +
			"let the process in, as with chgrp 61184 " + at("group") + " && chmod g+r " + at("group"),
		at("closed/below/token"): ": permission denied: the directory " + at("closed") + " belongs to root (uid 0), group root, with mode 0700, " +
			"and this process runs as uid 61184, group 61184: let the process in, as with chgrp 61184 " + at("closed") + " && chmod g+x " + at("closed"),
	} {
		cmd := exec.CommandContext(t.Context(), test, "-test.run", "^TestDenied$")
		cmd.Env, cmd.Dir = append(os.Environ(), asAnother+"="+path), dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 61184, Gid: 61184, Groups: []uint32{}}}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "reading "+path+want+"\n") {
			t.Errorf("%s: %v\n got %s\nwant %s", path, err, out, want)
		}
	}
}

// TestAllows checks which users a mode lets through.
func TestAllows(t *testing.T) {
	for _, test := range []struct {
		mode     fs.FileMode
		uid, gid uint32
		bit      string
		want     bool
	}{
		{0o400, 7, 1, "r", true}, {0o044, 7, 1, "r", false}, {0o040, 1, 8, "r", true}, {0o404, 1, 8, "r", false}, {0o040, 1, 9, "r", true},
		{0o004, 1, 1, "r", true}, {0o440, 1, 1, "r", false}, {0o711, 1, 1, "x", true}, {0o710, 1, 1, "x", false}, {0o744, 1, 1, "x", false}, {0o100, 7, 1, "x", true},
	} {
		if got := allows(test.mode, &syscall.Stat_t{Uid: test.uid, Gid: test.gid}, test.bit, 7, 8, []int{9}); got != test.want {
			t.Errorf("%+v: %t", test, got)
		}
	}
	if !allows(0, &syscall.Stat_t{Uid: 1, Gid: 1}, "r", 0, 0, nil) {
		t.Error("root may not")
	}
}

// TestAbsent checks what is said about a missing file: a link that leads nowhere, a missing directory.
func TestAbsent(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink("nowhere", link); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		link:                           ": it is a symbolic link to nowhere, which is not there: put the file there, or correct the path",
		filepath.Join(dir, "x"):        ": no such file or directory: put the file there, or correct the path",
		filepath.Join(dir, "a/b/c"):    ": there is no directory " + filepath.Join(dir, "a") + ": put the file there, or correct the path",
		"/run/credentials/none.test/x": "which systemd creates for a unit while that runs: put the file there, or correct the path",
	} {
		if _, err := Read(t.Context(), path, 1024); err == nil || !strings.HasSuffix(err.Error(), want) || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
}
