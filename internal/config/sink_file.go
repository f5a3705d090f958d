package config

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"rotatord/internal/config/raw"
	"rotatord/internal/smallfile"
)

// FileSink is a file on this machine. It implements [Sink].
type FileSink struct {
	Path   string
	Format string // env (default), json or yaml
	// Mode are the permission bits. Default 0600.
	Mode fs.FileMode
	// Owner and GroupName are names or numbers. Default empty: those of the file that is there, or else
	// the daemon's.
	Owner, GroupName string
	SinkFields
}

const (
	defaultFileFormat = "env"
	defaultFileMode   = 0o600
	fileKind          = "file"
)

// FilesIn returns a sink whose siblings are files in a directory, with the defaults.
func FilesIn(dir string) *FileSink {
	return &FileSink{Path: filepath.Join(dir, "sample."+defaultFileFormat), Format: defaultFileFormat, Mode: defaultFileMode, SinkFields: defaultFields}
}

// Kind implements [Sink].
func (*FileSink) Kind() string { return fileKind }

// Place implements [Sink].
func (f *FileSink) Place() string { return f.Path }

// writesTo implements [Sink]: the directory as the system knows it now, so that symbolic links and mounts are seen, and
// the name in it. A directory that does not exist yet is known by its path.
func (f *FileSink) writesTo(c *checker) place {
	dir, name := filepath.Split(f.Path)
	return place{c.folders.of(dir), name}
}

// folders are what directories of files are known by. Each is looked at once.
type folders map[string]string

func (known folders) of(dir string) string {
	folder, ok := known[dir]
	if !ok {
		folder = "file:" + folderOf(dir)
		known[dir] = folder
	}
	return folder
}

// areSame reports whether the directories are still known by the same.
func (known folders) areSame() bool {
	for dir, folder := range known {
		if "file:"+folderOf(dir) != folder {
			return false
		}
	}
	return true
}

// folderOf returns what a directory is known by, with a slash at its end.
func folderOf(dir string) string {
	var info fs.FileInfo
	err := smallfile.Within(context.Background(), dir, func() (err error) {
		info, err = os.Stat(dir)
		return err
	})
	if err == nil {
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			return fmt.Sprintf("%d:%d/", stat.Dev, stat.Ino)
		}
	}
	return dir
}

// Group implements [Sink]: the directory.
func (f *FileSink) Group() string { return f.Kind() + ":" + filepath.Dir(f.Path) }

// NeedsVault implements [Sink].
func (*FileSink) NeedsVault() bool { return false }

// NeedsKubernetes implements [Sink].
func (*FileSink) NeedsKubernetes() bool { return false }

// Sibling implements [Sink].
func (f *FileSink) Sibling(name string) Sink {
	other := *f
	other.Path = filepath.Join(filepath.Dir(f.Path), name+filepath.Ext(f.Path))
	return &other
}

// Below implements [Sink]. The file belongs to the user of this process.
func (f *FileSink) Below(dir string) Sink {
	other := *f
	other.Path = filepath.Join(dir, strings.ReplaceAll(strings.Trim(f.Path, "/"), "/", "_"))
	other.Owner, other.GroupName = "", ""
	return &other
}

// Document implements [Sink].
func (f *FileSink) Document() map[string]any {
	document := f.addTo(map[string]any{"path": f.Path, "format": f.Format, "mode": fmt.Sprintf("%04o", f.Mode)})
	if f.Owner != "" {
		document["owner"] = f.Owner
	}
	if f.GroupName != "" {
		document["group"] = f.GroupName
	}
	return document
}

// Dispatch implements [Sink].
func (f *FileSink) Dispatch(to SinkKinds) { to.File(f) }

func (*FileSink) eachSecret(string, func(string, *SecretSource, SecretKind)) {}

func (f *FileSink) check(c *checker, path string, sink raw.Sink) bool {
	in := sink.File
	f.SinkFields = c.sinkFields(path, in.Fields)
	f.Format = c.intern(c.oneOf(path+".format", in.Format, defaultFileFormat, "env", "json", "yaml"))
	f.Mode = defaultFileMode
	if in.Mode != nil {
		f.Mode = c.fileMode(path+".mode", *in.Mode)
	}
	f.Owner, f.GroupName = c.account(path+".owner", in.Owner), c.account(path+".group", in.Group)
	if f.Format == "env" {
		for _, n := range f.named() {
			if n.name != "" && !isVariable(n.name) {
				c.wrong(n.below(path), "must be the name of an environment variable in a file of format env: letters, digits and underscores, no digit first")
			}
		}
	}
	if in.Path == nil {
		return false
	}
	f.Path = filepath.Clean(*in.Path)
	return c.filePlace(path+".path", *in.Path)
}

// volatileDirs are the directories whose files are gone after a restart of the machine.
var volatileDirs = []string{"/run", "/var/run", "/tmp", "/dev/shm"}

// filePlace checks the path of a file that the daemon writes.
func (c *checker) filePlace(path, text string) bool {
	clean := filepath.Clean(text)
	in := func(dir string) bool { return strings.HasPrefix(clean, dir+"/") }
	switch {
	case !c.absolute(path, text, "must be an absolute path, such as /var/lib/ci/cf.env: consumers would look for it elsewhere than the daemon"):
		return false
	case strings.Contains(text, "..") && slices.Contains(strings.Split(text, "/"), ".."):
		c.wrong(path, "has .. in it: write the directory out")
		return false
	case strings.HasSuffix(text, "/"), strings.HasSuffix(text, "/."), clean == "/":
		c.wrong(path, "is a directory: give the file in it")
		return false
	case in(c.cfg.State.Dir):
		c.wrong(path, "is in state.dir, which belongs to the daemon alone: write it elsewhere, where consumers may read it")
		return false
	case clean == c.cfg.AdminSocket:
		c.wrong(path, "is also admin_socket: give each its own path")
		return false
	case clean == c.cfg.Audit.File:
		c.wrong(path, "is also audit.file: give each its own path")
		return false
	case slices.ContainsFunc(volatileDirs, in):
		c.volatile = append(c.volatile, volatileFile{filepath.Dir(clean), c.placed(path)})
	}
	return true
}

// maxNamed is how many other tokens a warning about a directory names.
const maxNamed = 5

// volatileFile is a file of a sink that is gone after a restart of the machine.
type volatileFile struct {
	dir  string
	spot spot
}

// checkVolatile warns about files that are gone after a restart, once for each directory.
func (c *checker) checkVolatile() {
	var dirs []string
	spots := make(map[string][]spot)
	for _, f := range c.volatile {
		if spots[f.dir] == nil {
			dirs = append(dirs, f.dir)
		}
		spots[f.dir] = append(spots[f.dir], f.spot)
	}
	for _, dir := range dirs {
		others := ""
		if rest := spots[dir][1:]; len(rest) > 0 {
			names := make([]string, 0, len(rest))
			for _, other := range rest {
				name, _, _ := strings.Cut(strings.TrimPrefix(other.String(), "tokens."), ".sinks")
				names = append(names, name)
			}
			names = slices.Compact(names)
			if more := len(names) - maxNamed; more > 0 {
				names = append(names[:maxNamed], fmt.Sprintf("%d more", more))
			}
			others = " (and so is each file in " + dir + " of " + strings.Join(names, ", ") + ")"
		}
		c.warnAt(spots[dir][0], "is gone after a restart of the machine%s, and rotatord keeps no copy of a secret that it has delivered: choose a directory on disk, "+
			"such as /var/lib/ci, unless you rotate after each restart", others)
	}
}

var (
	octalMode   = regexp.MustCompile(`^0?[0-7]{3}$`)
	accountName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.@\\-]*\$?$`)
)

// fileMode returns the mode of a file that holds a secret.
func (c *checker) fileMode(path, text string) fs.FileMode {
	bits, _ := strconv.ParseUint(text, 8, 32)
	mode := fs.FileMode(bits)
	switch {
	case !octalMode.MatchString(text):
		c.wrong(path, "must be three octal digits, such as 0640")
	case mode&0o002 != 0:
		c.wrong(path, "lets every user write to the file: write a mode such as 0640")
	case mode&0o111 != 0:
		c.wrong(path, "makes the file a program: write a mode such as 0640")
	case mode&0o400 == 0:
		c.wrong(path, "does not let the owner read the file, and the daemon reads it back after each write: write a mode such as 0640")
	case mode&0o004 != 0:
		c.warn(path, "lets every user of this machine read the secret: write 0640 and give it to a group, if that is not meant")
	}
	return mode
}

// account returns the name or the number of a user or a group of the system.
func (c *checker) account(path string, value *string) string {
	if value != nil && !accountName.MatchString(*value) {
		c.wrong(path, "must be the name or the number of a user or a group of this machine")
	}
	return c.intern(or(value, ""))
}
