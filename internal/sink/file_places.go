package sink

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

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
	known knownFiles                             // never changed, only replaced
	stat  func(path string) (fs.FileInfo, error) // of a directory; nil: os.Stat. Tests replace it
}

// placedFile is a file sink and its token.
type placedFile struct{ path, token string }

// knownFiles are file sinks by the names of their files in one spelling, see spelling. Two names with different
// spellings never lead to one file that both can write: no file system takes them for the same, and a file that is
// mounted on another name cannot be replaced there.
//
// A name whose spelling is not known is at "".
type knownFiles map[string][]placedFile

// spelling returns the name of a file in lower case. It returns "" for a name with a character that is not ASCII: how
// file systems compare those differs.
func spelling(path string) string {
	name := []byte(filepath.Base(path))
	for i, c := range name {
		switch {
		case c >= utf8.RuneSelf:
			return ""
		case c >= 'A' && c <= 'Z':
			name[i] = c - 'A' + 'a'
		}
	}
	return string(name)
}

// like returns the sinks whose files may have the name of the one at path.
func (k knownFiles) like(path string) []placedFile {
	if name := spelling(path); name != "" {
		return slices.Concat(k[name], k[""])
	}
	return slices.Concat(slices.Collect(maps.Values(k))...)
}

// maxStats is how many directories are looked at at the same time. More than that do not hang at once, unless all do.
const maxStats = 256

// FilesOf returns the file sinks of a configuration.
func FilesOf(tokens []config.Token) *Files {
	f := &Files{}
	f.Set(tokens)
	return f
}

// Set takes over the tokens of another configuration.
func (f *Files) Set(tokens []config.Token) {
	known := make(knownFiles)
	for _, t := range tokens {
		for _, s := range t.Sinks {
			if file, ok := s.(*config.FileSink); ok {
				name := spelling(file.Path)
				known[name] = append(known[name], placedFile{file.Path, t.Name})
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
	token := ""
	others := slices.DeleteFunc(known.like(path), func(other placedFile) bool {
		if other.path == path {
			token = other.token
		}
		return other.path == path
	})
	same := sameDirs(ctx, stat, dir, others)
	for _, other := range others {
		if same[filepath.Dir(other.path)] && sameName(path, other.path) {
			return fmt.Errorf("it is the same file as %s%s: a symbolic link or a mount leads both there, and each rotation would overwrite the secret of the other. "+
				"Remove the link or the mount, or give each its own path", other.path, ofTokens(token, other.token))
		}
	}
	return nil
}

// sameDirs returns the directories of these files that are dir.
func sameDirs(ctx context.Context, stat func(string) (fs.FileInfo, error), dir fs.FileInfo, files []placedFile) map[string]bool {
	var mu sync.Mutex
	same := make(map[string]bool)
	var looks errgroup.Group
	looks.SetLimit(maxStats)
	for _, f := range files {
		there := filepath.Dir(f.path)
		mu.Lock()
		_, looked := same[there]
		if !looked {
			same[there] = false
		}
		mu.Unlock()
		if looked {
			continue
		}
		looks.Go(func() error {
			var info fs.FileInfo
			err := smallfile.Within(ctx, there, func() (err error) {
				info, err = stat(there)
				return err
			})
			mu.Lock()
			defer mu.Unlock()
			same[there] = err == nil && os.SameFile(dir, info)
			return nil // what cannot be looked at is another directory
		})
	}
	_ = looks.Wait()
	return same
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
