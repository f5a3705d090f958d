package deploy

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// installed are the files below a directory with their modes.
func installed(t *testing.T, dir string) map[string]fs.FileMode {
	t.Helper()
	all := map[string]fs.FileMode{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		all[strings.TrimPrefix(path, dir)] = info.Mode()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestMakeInstall: what the guides say that it does, under any umask, and undone by make uninstall.
func TestMakeInstall(t *testing.T) {
	binary := builtBinary(t)
	for name, c := range map[string]struct{ args, bin, unit, share string }{
		"default":     {"", "/usr/local/bin/rotatord", "/etc/systemd/system/rotatord.service", "/usr/local/share"},
		"a package's": {"PREFIX=/usr UNITDIR=/usr/lib/systemd/system", "/usr/bin/rotatord", "/usr/lib/systemd/system/rotatord.service", "/usr/share"},
	} {
		t.Run(name, func(t *testing.T) {
			dest := filepath.Join(t.TempDir(), "dest") // made by make
			arguments := append([]string{"-C", root, "DESTDIR=" + dest, "BINARY=" + binary}, strings.Fields(c.args)...)
			if out, err := run(t, "bash", append([]string{"-c", `umask 077; exec make "$@"`, "make", "install"}, arguments...)...); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			got := installed(t, dest)
			for path, want := range map[string]fs.FileMode{
				c.bin: 0o755, c.unit: 0o644, "/etc/rotatord": 0o755 | fs.ModeDir, "/etc/rotatord/credentials": 0o700 | fs.ModeDir,
				filepath.Dir(c.bin): 0o755 | fs.ModeDir, c.share + "/bash-completion/completions/rotatord": 0o644,
				c.share + "/zsh/site-functions/_rotatord": 0o644, c.share + "/fish/vendor_completions.d/rotatord.fish": 0o644,
			} {
				if mode, there := got[path]; !there || mode != want {
					t.Errorf("%s: %v, want %v", path, mode, want)
				}
			}
			for path, mode := range got {
				if mode.IsDir() && path != "/etc/rotatord/credentials" && mode.Perm() != 0o755 {
					t.Errorf("%s: %v: users could not enter it", path, mode)
				}
			}
			unit, err := os.ReadFile(filepath.Join(dest, c.unit))
			if err != nil {
				t.Fatal(err)
			}
			if want := strings.ReplaceAll(readFile(t, "deploy/systemd/rotatord.service"), "/usr/local/bin/rotatord", c.bin); string(unit) != want {
				t.Errorf("the unit is not the shipped one with %s:\n%s", c.bin, unit)
			}
			// A directory that is there keeps its mode, and what the user wrote stays.
			config := filepath.Join(dest, "etc/rotatord/config.yaml")
			if err := os.WriteFile(config, []byte("mine"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(filepath.Dir(config), 0o750); err != nil {
				t.Fatal(err)
			}
			for _, target := range []string{"install", "uninstall"} {
				if out, err := run(t, "make", append([]string{target}, arguments...)...); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
			}
			for path, mode := range installed(t, dest) {
				if mode.IsRegular() && path != "/etc/rotatord/config.yaml" {
					t.Errorf("uninstall leaves %s", path)
				}
			}
			if info, err := os.Stat(filepath.Dir(config)); err != nil || info.Mode().Perm() != 0o750 {
				t.Errorf("the mode of %s was changed: %v, %v", filepath.Dir(config), info.Mode(), err)
			}
		})
	}
}

// TestMakeInstallNeedsABuild: it builds nothing, so that root needs no Go.
func TestMakeInstallNeedsABuild(t *testing.T) {
	out, err := run(t, "make", "-C", root, "install", "DESTDIR="+t.TempDir(), "BINARY=/nonexistent/rotatord")
	if err == nil || !strings.Contains(out, "run make build first") {
		t.Errorf("%v\n%s", err, out)
	}
}
