package smallfile

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func write(t *testing.T, path string, content []byte) string {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestRefused: a path that is not a regular file of a plausible size is named in the error, at once, and not
// opened. The same is true behind a symbolic link.
func TestRefused(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := syscall.Mkfifo(at("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", at("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	write(t, at("large"), make([]byte, 1025))
	if err := os.Mkdir(at("directory"), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		at("fifo"): "a named pipe", at("socket"): "a socket", at("large"): "more than 1 KiB", at("directory"): "a directory",
		"/dev/zero": "a device", "/dev/tty": "a device", at("none"): "no such file", at("large") + "/below": "not a directory",
	} {
		link := at("link-to-" + filepath.Base(path))
		if err := os.Symlink(path, link); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{path, link} {
			began := time.Now()
			_, err := Read(t.Context(), path, 1024)
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) || errors.Is(err, ErrHangs) {
				t.Errorf("%s: %v, want %q", path, err, want)
			}
			if took := time.Since(began); took > Wait/2 {
				t.Errorf("%s: it took %s", path, took)
			}
		}
	}
	if _, err := Read(t.Context(), at("none"), 1024); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the cause is lost: %v", err)
	}
}

// TestKubernetesMount reads through the links that kubelet creates, before and after it swaps them.
func TestKubernetesMount(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	for i, version := range []string{"..2026_1", "..2026_2"} {
		if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, version, "token"), []byte(version))
		next := filepath.Join(dir, "..data_tmp")
		if err := errors.Join(os.Symlink(version, next), os.Rename(next, filepath.Join(dir, "..data"))); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if err := os.Symlink("..data/token", path); err != nil {
				t.Fatal(err)
			}
		}
		if b, err := Read(t.Context(), path, MaxSecret); err != nil || string(b) != version {
			t.Errorf("%q, %v", b, err)
		}
	}
}

// TestSizes reads a file of exactly the largest size, and an empty one.
func TestSizes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, size := range []int{0, 1, 1023, 1024} {
		write(t, path, bytes.Repeat([]byte("x"), size))
		if b, err := Read(t.Context(), path, 1024); err != nil || len(b) != size {
			t.Errorf("%d bytes: %d, %v", size, len(b), err)
		}
	}
}

// TestReplacedWhileRead: the result is never a mixture of two contents, even if a file is overwritten in
// place.
func TestReplacedWhileRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	one, other := bytes.Repeat([]byte("1"), 4000), bytes.Repeat([]byte("2"), 3000)
	write(t, path, one)
	var stop atomic.Bool
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		for i := 0; !stop.Load(); i++ {
			content := one
			if i%2 == 0 {
				content = other
			}
			_ = os.WriteFile(path, content, 0o600)
			time.Sleep(5 * time.Millisecond)
		}
	}()
	for range 50 {
		b, err := Read(t.Context(), path, MaxSecret)
		if err == nil && len(b) > 0 && (!bytes.Equal(b, one) && !bytes.Equal(b, other)) {
			t.Fatalf("%d bytes of a mixture", len(b))
		}
	}
	stop.Store(true)
	<-wrote
}

// TestHangs simulates a mount that does not answer: the read ends in time, the next one at once, and only one
// goroutine remains. It reads again when the mount answers.
func TestHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const path = "/hung/mount/token"
		answer := make(chan struct{})
		var calls atomic.Int32
		hang := func() ([]byte, error) { calls.Add(1); <-answer; return []byte("late"), nil }

		began := time.Now()
		_, err := read(t.Context(), path, hang)
		if !errors.Is(err, ErrHangs) || !strings.Contains(err.Error(), path) || time.Since(began) != Wait {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		before := runtime.NumGoroutine()
		for range 100 {
			began = time.Now()
			if _, err := read(t.Context(), path, hang); !errors.Is(err, ErrHangs) || !strings.Contains(err.Error(), path) || time.Since(began) != 0 {
				t.Fatalf("after %s: %v", time.Since(began), err)
			}
		}
		if calls.Load() != 1 || runtime.NumGoroutine() > before {
			t.Errorf("%d reads stay behind", calls.Load())
		}
		close(answer)
		synctest.Wait()
		if b, err := read(t.Context(), path, func() ([]byte, error) { return []byte("good"), nil }); err != nil || string(b) != "good" {
			t.Errorf("after it answered: %q, %v", b, err)
		}
	})
}

// TestGivenUp: a caller that stops waiting returns at once.
func TestGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := make(chan struct{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		began := time.Now()
		_, err := read(ctx, "/hung/other", func() ([]byte, error) { <-answer; return nil, nil })
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Millisecond {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		close(answer)
	})
}

// TestPipe: a path on the command line may be a pipe.
func TestPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := ReadOrPipe(t.Context(), path, 1024); err != nil || len(b) != 0 { // without a writer
		t.Errorf("%q, %v", b, err)
	}
	w, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString("content"); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(20*time.Millisecond, func() { _ = w.Close() })
	if b, err := ReadOrPipe(t.Context(), path, 1024); err != nil || string(b) != "content" {
		t.Errorf("%q, %v", b, err)
	}
}
