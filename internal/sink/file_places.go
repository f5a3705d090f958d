package sink

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/smallfile"
)

// placesTime is how long the directories of other sinks are waited for, all of them together.
const placesTime = time.Second

// Files knows all file sinks of a configuration, so that each can tell whether another one writes to the same
// file. The paths are compared when the configuration is loaded; a symbolic link or a mount that appears later can
// still lead two of them to one file, where each token would overwrite the secret of the other.
//
// The zero value knows none. It is safe for concurrent use.
type Files struct {
	mu    sync.Mutex
	known []placedFile
	stat  func(path string) (fs.FileInfo, error) // of a directory; nil: os.Stat. Tests replace it
}

// placedFile is a file sink and its token.
type placedFile struct{ path, token string }

// FilesOf returns the file sinks of a configuration.
func FilesOf(tokens []config.Token) *Files {
	f := &Files{}
	f.Set(tokens)
	return f
}

// Set takes over the tokens of another configuration.
func (f *Files) Set(tokens []config.Token) {
	var known []placedFile
	for _, t := range tokens {
		for _, s := range t.Sinks {
			if file, ok := s.(*config.FileSink); ok {
				known = append(known, placedFile{file.Path, t.Name})
			}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.known = known
}

// checkAlone returns an error if another sink writes to the file at this path, which is in dir. A directory of
// another sink that cannot be looked at, or not in time, is taken for another directory: this one answers, and one
// directory cannot do both.
//
// Two names of one file in one directory (hard links) are two files: each write gives its name a file of its own.
func (f *Files) checkAlone(ctx context.Context, path string, dir fs.FileInfo) error {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	known, stat := f.known, f.stat
	f.mu.Unlock()
	if stat == nil {
		stat = os.Stat
	}
	ctx, cancel := context.WithTimeout(ctx, placesTime)
	defer cancel()
	same := make([]bool, len(known))
	token := ""
	var wait sync.WaitGroup
	for i, other := range known {
		if other.path == path {
			token = other.token
			continue
		}
		wait.Go(func() {
			there := filepath.Dir(other.path)
			var info fs.FileInfo
			err := smallfile.Within(ctx, there, func() (err error) {
				info, err = stat(there)
				return err
			})
			same[i] = err == nil && os.SameFile(dir, info) && sameName(path, other.path)
		})
	}
	wait.Wait()
	for i, other := range known {
		if same[i] {
			return fmt.Errorf("it is the same file as %s%s: a symbolic link or a mount leads both there, and each rotation would overwrite the secret of the other. "+
				"Remove the link or the mount, or give each its own path", other.path, ofTokens(token, other.token))
		}
	}
	return nil
}

// sameName reports whether two paths in one directory name one file: by the same name or, where the file system
// does not distinguish them, by two.
func sameName(a, b string) bool {
	if filepath.Base(a) == filepath.Base(b) {
		return true
	}
	one, err := os.Lstat(a)
	if err != nil {
		return false
	}
	two, err := os.Lstat(b)
	if err != nil || !os.SameFile(one, two) {
		return false
	}
	stat, ok := one.Sys().(*syscall.Stat_t)
	return ok && stat.Nlink == 1
}

// ofTokens says whose the two files are.
func ofTokens(token, other string) string {
	switch token {
	case "": // a reload took the sink away, and its rotation is in progress
		return fmt.Sprintf(", of the token %s", other)
	case other:
		return fmt.Sprintf(", both of the token %s", token)
	}
	return fmt.Sprintf(", of the tokens %s and %s", token, other)
}
