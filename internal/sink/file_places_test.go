//go:build linux

package sink_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/sink"
)

// twoFiles returns two directories with a file sink in each, of two tokens that know of each other. The
// directories are not there yet.
func twoFiles(t *testing.T, first, second string) (files *sink.Files, dirs [2]string, configs [2]config.FileSink, sinks [2]sink.Sink) {
	t.Helper()
	base := t.TempDir()
	var tokens []config.Token
	for i, name := range []string{first, second} {
		dirs[i] = filepath.Join(base, fmt.Sprint("dir", i))
		configs[i] = config.FileSink{Path: filepath.Join(dirs[i], name), Format: "env", Mode: 0o600, SinkFields: fields}
		tokens = append(tokens, config.Token{Name: fmt.Sprint("ci-", i), Sinks: []config.Sink{&configs[i]}})
	}
	files = sink.FilesOf(tokens)
	for i := range configs {
		var err error
		if sinks[i], err = sink.Open(&configs[i], sink.Deps{Files: files}); err != nil {
			t.Fatal(err)
		}
	}
	return files, dirs, configs, sinks
}

// inspect returns the errors of a preflight and of a delivery, which have to agree.
func inspect(t *testing.T, s sink.Sink, value string) error {
	t.Helper()
	_, preflight := s.Preflight(t.Context())
	_, store := s.Store(t.Context(), rotation.Delivery{Credential: credential("id", value)})
	if fmt.Sprint(preflight) != fmt.Sprint(store) {
		t.Errorf("preflight: %v; store: %v", preflight, store)
	}
	return preflight
}

// TestFilesThatAreOne: two sinks that reach one file since the configuration was loaded are refused, both of them,
// before a request leaves and also before a secret is stored. Each works again when the other is elsewhere.
func TestFilesThatAreOne(t *testing.T) {
	for name, join := range map[string]func(t *testing.T, dirs [2]string) error{
		"symbolic link": func(_ *testing.T, dirs [2]string) error { return os.Symlink(dirs[0], dirs[1]) },
		"bind mount": func(t *testing.T, dirs [2]string) error {
			t.Cleanup(func() { _ = syscall.Unmount(dirs[1], syscall.MNT_DETACH) })
			return errors.Join(os.Mkdir(dirs[1], 0o700), syscall.Mount(dirs[0], dirs[1], "", syscall.MS_BIND, ""))
		},
	} {
		t.Run(name, func(t *testing.T) {
			files, dirs, configs, sinks := twoFiles(t, "cf.env", "cf.env")
			if err := os.Mkdir(dirs[0], 0o700); err != nil {
				t.Fatal(err)
			}
			if err := inspect(t, sinks[0], "one"); err != nil { // the other has no directory yet
				t.Fatal(err)
			}
			if err := join(t, dirs); errors.Is(err, fs.ErrPermission) {
				t.Skip(err)
			} else if err != nil {
				t.Fatal(err)
			}
			for i, s := range sinks {
				err := inspect(t, s, "two")
				want := fmt.Sprintf("the same file as %s, of the tokens ci-%d and ci-%d", configs[1-i].Path, i, 1-i)
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("sink %d: %v, want %q", i, err, want)
				}
			}
			if got := content(t, configs[0].Path); !strings.Contains(got, "=one\n") {
				t.Errorf("it was overwritten: %s", got)
			}
			files.Set([]config.Token{{Name: "ci-0", Sinks: []config.Sink{&configs[0]}}}) // a reload takes the other away
			if err := inspect(t, sinks[0], "three"); err != nil {
				t.Error(err)
			}
			if err := inspect(t, sinks[1], "four"); err == nil || !strings.Contains(err.Error(), ", of the token ci-0") {
				t.Errorf("the sink of a rotation in progress: %v", err)
			}
		})
	}
}

// TestFilesOfOneToken: both sinks may be of one token.
func TestFilesOfOneToken(t *testing.T) {
	files, dirs, configs, sinks := twoFiles(t, "cf.env", "cf.env")
	files.Set([]config.Token{{Name: "ci", Sinks: []config.Sink{&configs[0], &configs[1]}}})
	if err := errors.Join(os.Mkdir(dirs[0], 0o700), os.Symlink(dirs[0], dirs[1])); err != nil {
		t.Fatal(err)
	}
	if err := inspect(t, sinks[1], "one"); err == nil || !strings.Contains(err.Error(), ", both of the token ci:") {
		t.Errorf("%v", err)
	}
}

// TestFilesOfTwoNames: where a file system does not distinguish upper and lower case, two names in one directory
// reach one file that has one name. A mount of the file on another name is the same to the sink.
func TestFilesOfTwoNames(t *testing.T) {
	_, dirs, configs, sinks := twoFiles(t, "cf.env", "CF.env")
	if err := errors.Join(os.Mkdir(dirs[0], 0o700), os.Symlink(dirs[0], dirs[1])); err != nil {
		t.Fatal(err)
	}
	write(t, configs[0].Path, "OTHER=x\n")
	write(t, configs[1].Path, "OTHER=x\n")
	if err := syscall.Mount(configs[0].Path, configs[1].Path, "", syscall.MS_BIND, ""); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(configs[1].Path, syscall.MNT_DETACH) })
	if err := inspect(t, sinks[0], "one"); err == nil || !strings.Contains(err.Error(), "the same file as "+configs[1].Path) {
		t.Errorf("%v", err)
	}
}

// TestFilesThatAreTwo: what only looks like one file is not refused. A hard link is a second name of a file until one
// of the two is written, which then has a file of its own.
func TestFilesThatAreTwo(t *testing.T) {
	for name, join := range map[string]func(dirs [2]string) error{
		"other directories": func(dirs [2]string) error { return os.Mkdir(dirs[1], 0o700) },
		"hard link": func(dirs [2]string) error {
			return errors.Join(os.Mkdir(dirs[1], 0o700), os.Link(filepath.Join(dirs[0], "a.env"), filepath.Join(dirs[1], "b.env")))
		},
		"hard link in one directory": func(dirs [2]string) error {
			return errors.Join(os.Symlink(dirs[0], dirs[1]), os.Link(filepath.Join(dirs[0], "a.env"), filepath.Join(dirs[0], "b.env")))
		},
		"other names in one directory": func(dirs [2]string) error { return os.Symlink(dirs[0], dirs[1]) },
	} {
		t.Run(name, func(t *testing.T) {
			_, dirs, configs, sinks := twoFiles(t, "a.env", "b.env")
			if err := os.Mkdir(dirs[0], 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, configs[0].Path, "OTHER=x\n")
			if err := join(dirs); err != nil {
				t.Fatal(err)
			}
			for i, s := range sinks {
				if err := inspect(t, s, fmt.Sprint("secret", i)); err != nil {
					t.Errorf("sink %d: %v", i, err)
				}
			}
			for i, c := range configs {
				if got := content(t, c.Path); !strings.Contains(got, fmt.Sprintf("=secret%d\n", i)) {
					t.Errorf("file %d: %s", i, got)
				}
			}
		})
	}
}

// TestFilesThatHang: another sink whose directory does not answer stops this one for a second and not more.
func TestFilesThatHang(t *testing.T) {
	files, dirs, configs, sinks := twoFiles(t, "cf.env", "cf.env")
	if err := os.Mkdir(dirs[0], 0o700); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		never, cancel := context.WithCancel(context.Background())
		files.Stat(func(path string) (fs.FileInfo, error) {
			if path == filepath.Dir(configs[1].Path) {
				<-never.Done()
			}
			return os.Stat(path)
		})
		if _, err := sinks[0].Preflight(t.Context()); err != nil {
			t.Error(err)
		}
		cancel()
	})
}

// TestFilesOfManyTokens: how many directories a sink looks at depends on how many files have the name of its own, and
// not on how many there are. A directory of several files is looked at once.
func TestFilesOfManyTokens(t *testing.T) {
	looked := func(n int, path func(i int) string) (stats int) {
		dir := t.TempDir()
		var tokens []config.Token
		for i := range n {
			tokens = append(tokens, config.Token{Name: fmt.Sprint("t", i), Sinks: []config.Sink{
				&config.FileSink{Path: filepath.Join(dir, path(i)), Format: "env", Mode: 0o600, SinkFields: fields}}})
		}
		files := sink.FilesOf(tokens)
		var mu sync.Mutex
		files.Stat(func(path string) (fs.FileInfo, error) {
			mu.Lock()
			defer mu.Unlock()
			stats++
			return os.Stat(path)
		})
		s, err := sink.Open(tokens[0].Sinks[0], sink.Deps{Files: files})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(tokens[0].Sinks[0].Place()), 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Preflight(t.Context()); err != nil {
			t.Fatal(err)
		}
		return stats
	}
	for _, test := range []struct {
		name string
		path func(i int) string
		want func(n int) int
	}{
		{"names of their own", func(i int) string { return fmt.Sprintf("d%d/%d.env", i, i) }, func(int) int { return 0 }},
		{"one directory", func(i int) string { return fmt.Sprintf("d/%d.env", i) }, func(int) int { return 0 }},
		{"one name", func(i int) string { return fmt.Sprintf("d%d/cf.env", i) }, func(n int) int { return n - 1 }},
		{"other letters", func(i int) string { return fmt.Sprintf("d%d/%s.env", i, []string{"é", "É"}[i%2]) }, func(n int) int { return n - 1 }},
	} {
		for _, n := range []int{100, 400} {
			if got := looked(n, test.path); got != test.want(n) {
				t.Errorf("%s: one of %d sinks looks at %d directories, want %d", test.name, n, got, test.want(n))
			}
		}
	}
}
