// Package smallfile reads the small files that the daemon depends on but does not own: credentials,
// certificates, the configuration.
//
// Guarantee: a read ends within [Wait], or with its context, whatever the path leads to. It never waits for a
// named pipe, never opens a device, and never takes more than the given number of bytes into memory. A file
// that changes while it is read is read again, so the result is never a mixture of old and new content. Each
// error names the file and says what to do.
//
// A read from a file system that hangs (NFS, a CSI mount) cannot be cancelled: its goroutine remains until
// the file system answers. Until then, further reads of that path fail at once, so they cannot pile up.
package smallfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"
)

// Wait is how long a read may take.
const Wait = 5 * time.Second

// The largest sizes of files, in bytes.
const (
	MaxSecret = 64 << 10 // a credential
	MaxPEM    = 4 << 20  // certificates: the bundle of a whole system has about 250 KiB
	MaxConfig = 64 << 20 // a configuration: one of 100,000 tokens has about 20 MiB
)

// ErrHangs is in the error about a file that could not be read in time. The content is then unknown, while
// every other error says something about the file.
var ErrHangs = errors.New("the file system does not answer")

// Read returns the content of a regular file of at most limit bytes. Symbolic links are
// followed: Kubernetes mounts Secrets as links.
func Read(ctx context.Context, path string, limit int64) ([]byte, error) {
	return read(ctx, path, func() ([]byte, error) { return readRegular(path, limit) })
}

// ReadOrPipe does the same as Read, for a path that a user names on the command line. That may also be a
// pipe, such as /dev/stdin or the shell's <(command).
func ReadOrPipe(ctx context.Context, path string, limit int64) ([]byte, error) {
	return read(ctx, path, func() ([]byte, error) {
		if info, err := os.Stat(path); err == nil && info.Mode().Type() == fs.ModeNamedPipe {
			return readPipe(path, limit)
		}
		return readRegular(path, limit)
	})
}

// Within calls a function that reads path in its own way, and gives up after [Wait], as Read does.
func Within(ctx context.Context, path string, do func() error) error {
	_, err := read(ctx, path, func() ([]byte, error) { return nil, do() })
	return err
}

// stuck are the reads that did not return in time, by path. It belongs to the process, as do the threads that
// those reads block.
var stuck = struct {
	sync.Mutex
	since map[string]time.Time
}{since: make(map[string]time.Time)}

func read(ctx context.Context, path string, do func() ([]byte, error)) ([]byte, error) {
	stuck.Lock()
	since, isStuck := stuck.since[path]
	stuck.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, context.Cause(ctx))
	}
	if isStuck && time.Since(since) >= Wait { // its caller gave up a later one, which may be fine
		return nil, hangs(path, fmt.Sprintf("a read that began at %s has not ended", since.UTC().Format(time.RFC3339)))
	}
	type result struct {
		content []byte
		err     error
	}
	began := time.Now()
	var mu sync.Mutex
	ended, late := false, false // late: no caller waits for the result any more
	done := make(chan result, 1)
	go func() {
		content, err := do()
		mu.Lock()
		defer mu.Unlock()
		ended = true
		if late {
			clear(content)
			stuck.Lock()
			delete(stuck.since, path)
			stuck.Unlock()
			return
		}
		done <- result{content, err}
	}()
	timer := time.NewTimer(Wait)
	defer timer.Stop()
	select {
	case r := <-done:
		return r.content, r.err
	case <-ctx.Done():
	case <-timer.C:
	}
	mu.Lock()
	defer mu.Unlock()
	if ended {
		r := <-done
		return r.content, r.err
	}
	late = true
	stuck.Lock()
	stuck.since[path] = began
	stuck.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("reading %s: %w: %w", path, ErrHangs, context.Cause(ctx))
	}
	return nil, hangs(path, fmt.Sprintf("it was not read within %s", Wait))
}

func hangs(path, what string) error {
	return fmt.Errorf("reading %s: %s: %w: check the mount that it is on", path, what, ErrHangs)
}

// tries is how often a file is read that changes while it is read, and pause is how long to wait in between.
const (
	tries = 5
	pause = 20 * time.Millisecond
)

func readRegular(path string, limit int64) ([]byte, error) {
	for range tries {
		content, whole, err := readOnce(path, limit)
		if err != nil || whole {
			return content, err
		}
		clear(content)
		time.Sleep(pause)
	}
	return nil, fmt.Errorf("reading %s: it changes all the time: replace it in one step (write a new file, then rename it)", path)
}

// readOnce reads a file, and reports whether it stayed the same from beginning to end.
func readOnce(path string, limit int64) (content []byte, whole bool, err error) {
	// It is checked before it is opened, because opening a device may already have an effect.
	info, err := os.Stat(path)
	if err != nil {
		return nil, false, explain(path, err)
	}
	if err := refuse(path, info, limit); err != nil {
		return nil, false, err
	}
	// Non-blocking, in case a pipe has replaced the file meanwhile.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, false, explain(path, err)
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil {
		return nil, false, explain(path, err)
	}
	if err := refuse(path, before, limit); err != nil {
		return nil, false, err
	}
	if content, err = ReadFrom(f, path, limit, before.Size()); err != nil {
		return nil, false, err
	}
	after, err := f.Stat()
	if err != nil {
		return nil, false, explain(path, err)
	}
	whole = int64(len(content)) == after.Size() && before.Size() == after.Size() && before.ModTime().Equal(after.ModTime())
	return content, whole, nil
}

// ReadFrom reads to the end of r, which is what is open of path, with a buffer of the expected size. More than limit bytes are an error.
func ReadFrom(r io.Reader, path string, limit, expected int64) ([]byte, error) {
	var b bytes.Buffer
	b.Grow(int(min(expected, limit)) + bytes.MinRead)
	n, err := b.ReadFrom(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, explain(path, err)
	}
	if n > limit {
		return nil, tooLarge(path, limit)
	}
	return b.Bytes(), nil
}

// readPipe reads until the other end of a pipe closes. It waits in the poller with a deadline, so no
// goroutine remains.
func readPipe(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, explain(path, err)
	}
	defer f.Close()
	if err := f.SetReadDeadline(time.Now().Add(Wait * 9 / 10)); err != nil {
		return nil, explain(path, err)
	}
	content, err := ReadFrom(f, path, limit, 0)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, fmt.Errorf("reading %s: it is a pipe, and its writer did not finish in time", path)
	}
	return content, err
}

// refuse returns why a path must not be read; nil if it may be.
func refuse(path string, info fs.FileInfo, limit int64) error {
	what := ""
	switch mode := info.Mode(); {
	case mode.IsRegular() && info.Size() > limit:
		return tooLarge(path, limit)
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		what = "a directory"
	case mode.Type() == fs.ModeNamedPipe:
		what = "a named pipe (FIFO)"
	case mode.Type() == fs.ModeSocket:
		what = "a socket"
	default:
		what = "a device"
	}
	return fmt.Errorf("reading %s: it is %s and must be a regular file: put the file there, or correct the path", path, what)
}

func tooLarge(path string, limit int64) error {
	return fmt.Errorf("reading %s: it has more than %d KiB: check that the path names the right file", path, limit>>10)
}

func explain(path string, err error) error {
	cause := err
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		cause = e.Err
	}
	advice := ""
	switch {
	case errors.Is(err, fs.ErrNotExist):
		advice = absent(path) + ": put the file there, or correct the path"
	case errors.Is(err, fs.ErrPermission):
		advice = Denied(path, "r")
	}
	return fmt.Errorf("reading %s: %w%s", path, cause, advice)
}
