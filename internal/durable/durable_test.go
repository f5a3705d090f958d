package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"rotatord/internal/durable"
)

// names returns the names in a directory.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func wantFile(t *testing.T, path, content string, mode fs.FileMode) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != content {
		t.Errorf("the file has %q (%v), want %q", got, err, content)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != mode {
		t.Errorf("the file is %v (%v), want mode %v", info, err, mode)
	}
}

func TestWriteFileReplacesWithItsMode(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077)) // a mode does not depend on it
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	if err := durable.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantFile(t, path, "old", 0o600)
	if err := durable.WriteFile(path, []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	wantFile(t, path, "new", 0o644)
	if got := names(t, dir); !slices.Equal(got, []string{"x"}) {
		t.Errorf("the directory has %q", got)
	}
}

func TestFailedWriteChangesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	if err := durable.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	cause := errors.New("no such owner")
	err := durable.WriteFile(path, []byte("new"), 0o644, func(f *os.File) error {
		if info, err := f.Stat(); err != nil || info.Mode() != 0o600 {
			t.Errorf("before it has its owner the file is %v (%v)", info, err)
		}
		return cause
	})
	if !errors.Is(err, cause) {
		t.Errorf("the error is %v", err)
	}
	wantFile(t, path, "old", 0o600)
	if got := names(t, dir); !slices.Equal(got, []string{"x"}) {
		t.Errorf("the directory has %q", got)
	}
}

func TestCreateFileNeverReplaces(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	if err := durable.CreateFile(path, []byte("first"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := durable.CreateFile(path, []byte("second"), 0o644); !errors.Is(err, fs.ErrExist) {
		t.Errorf("the error is %v, want fs.ErrExist", err)
	}
	wantFile(t, path, "first", 0o640)
	if got := names(t, dir); !slices.Equal(got, []string{"x"}) {
		t.Errorf("the directory has %q", got)
	}
}

func TestCleanRemovesOnlyTemporaryFilesOfItsPath(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"x", ".new-x-1234", ".new-x-y-1234", ".new-x-1234z", "x-1234"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := durable.Clean(filepath.Join(dir, "x")); err != nil {
		t.Fatal(err)
	}
	if got, want := names(t, dir), []string{".new-x-1234z", ".new-x-y-1234", "x", "x-1234"}; !slices.Equal(got, want) {
		t.Errorf("the directory has %q, want %q", got, want)
	}
	if err := durable.CleanDir(dir); err != nil {
		t.Fatal(err)
	}
	if got, want := names(t, dir), []string{"x", "x-1234"}; !slices.Equal(got, want) {
		t.Errorf("the directory has %q, want %q", got, want)
	}
	if err := durable.CleanDir(filepath.Join(dir, "missing")); err != nil {
		t.Errorf("a directory that does not exist: %v", err)
	}
}

// TestCleanFindsWhatAWriterLeaves interrupts a writer where a crash would.
func TestCleanFindsWhatAWriterLeaves(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	saved := filepath.Join(t.TempDir(), "saved")
	err := durable.WriteFile(path, []byte("new"), 0o600, func(f *os.File) error {
		if err := os.Link(f.Name(), saved); err != nil {
			return err
		}
		return os.WriteFile(saved+".name", []byte(filepath.Base(f.Name())), 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	name, err := os.ReadFile(saved + ".name")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Link(saved, filepath.Join(dir, string(name))); err != nil {
		t.Fatal(err)
	}
	if err := durable.Clean(path); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"x"}) {
		t.Errorf("the directory has %q", got)
	}
}

func TestRemoveAndMkdir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	for range 2 { // again: nothing to do
		if err := durable.Mkdir(dir); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode() != fs.ModeDir|0o700 {
		t.Errorf("the directory is %v (%v)", info, err)
	}
	path := filepath.Join(dir, "x")
	if err := durable.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := durable.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if got := names(t, dir); len(got) != 0 {
		t.Errorf("the directory has %q", got)
	}
}

// TestCleanLeavesDirectories: a directory with the name of a temporary file is not ours.
func TestCleanLeavesDirectories(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, durable.Prefix+"x-777"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := durable.Clean(filepath.Join(dir, "x")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, durable.Prefix+"x-777")); err != nil {
		t.Error("the directory is gone:", err)
	}
}
