package sink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/durable"
	"rotatord/internal/failpoint"
	"rotatord/internal/moment"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/smallfile"
)

// maxFile is how large the file may be, in bytes. A larger one is not what consumers read a credential from.
const maxFile = 1 << 20

// File is a file on this machine. It implements [Sink].
//
// A write puts a whole new file in the place of the old one, so a reader finds the old content or the new
// one, also after a crash. The new file is durable before it takes that place, and only its owner can read it
// until it has its mode and owner. What else is in the file stays. A file that cannot be read in its format
// is never overwritten.
//
// There is no check-and-set for files. Right before the new file takes its place the old one is read again,
// and if it changed the write starts over. A change by another writer in the microseconds after that is lost,
// unless it comes after the new file, when reading back finds it.
type File struct {
	config config.FileSink
	format fileFormat
	files  *Files     // all file sinks; nil if they are not compared
	mu     sync.Mutex // held while the file is used

	// Tests act as another writer: beforeCheck runs right before the old file is read again, and written
	// after each write.
	beforeCheck, written func()
}

// File implements [config.SinkKinds].
func (o *opener) File(c *config.FileSink) {
	file := NewFile(*c)
	file.files = o.Files
	o.opened = file
}

// NewFile returns a sink for one file, which is not compared with others.
func NewFile(c config.FileSink) *File { return &File{config: c, format: fileFormats[c.Format]} }

// fileFormat reads and changes the content of a file.
type fileFormat interface {
	// get returns the values of the names. A name that is missing has no value. Its error says what
	// keeps the content from being read, and repeats nothing of it. It is an [*otherValue] if all can be
	// read, and a name has another value than a text.
	get(content []byte, names ...string) (map[string]string, error)
	// set returns the content with other values for some names. All else stays as it is.
	set(content []byte, values []assignment) ([]byte, error)
}

// fileFormats are the formats that the configuration may name.
var fileFormats = map[string]fileFormat{"env": envFormat{}, "json": jsonFormat{}, "yaml": yamlFormat{}}

// unmarked refuses a byte order mark, with which shells, systemd and most parsers fail, and which says that the
// text is not UTF-8 or that an editor of Windows wrote it.
func unmarked(content []byte) error {
	switch {
	case bytes.HasPrefix(content, []byte("\ufeff")):
		return errors.New("it begins with a byte order mark: save it as UTF-8 without one")
	case bytes.HasPrefix(content, []byte("\xff\xfe")), bytes.HasPrefix(content, []byte("\xfe\xff")):
		return errors.New("it is UTF-16 text, with a byte order mark: save it as UTF-8 without one")
	}
	return nil
}

// lineEnd returns how the first line of a text ends, as new lines should.
func lineEnd(content []byte) string {
	if before, _, found := bytes.Cut(content, []byte("\n")); found && bytes.HasSuffix(before, []byte("\r")) {
		return "\r\n"
	}
	return "\n"
}

// errChanged says that another writer changed the file while it was being written.
var errChanged = errors.New("another writer changed the file")

// fileState is what was found at the path.
type fileState struct {
	info    fs.FileInfo // nil if there is no file
	content []byte
	values  map[string]string
	other   *otherValue // nil if each field of ours is missing or has a text
}

// otherValue is the error about a field of ours that has what rotatord cannot have written.
type otherValue struct{ name string }

func (o *otherValue) Error() string {
	return fmt.Sprintf("the field %s does not hold a text: does another program use it? Correct fields in the configuration, or remove the field", o.name)
}

// Name implements [rotation.Sink].
func (f *File) Name() string { return config.SinkName(&f.config) }

// Preflight implements [rotation.Sink]. It writes as much as Store would, to a file without a name, which the
// system removes when it is closed. No other process sees that file.
func (f *File) Preflight(ctx context.Context) (rotation.Stored, error) {
	now, err := f.within(ctx, func(ctx context.Context) (fileState, error) {
		now, access, err := f.look(ctx)
		switch {
		case err != nil:
			return fileState{}, err
		case now.other != nil: // Store would overwrite it: by then consumers wait for the secret
			return fileState{}, now.other
		}
		return now, f.prove(now, access)
	})
	return f.stored(now), err
}

// LookAhead implements [Sink]. A preflight costs nothing.
func (f *File) LookAhead(ctx context.Context) error {
	_, err := f.Preflight(ctx)
	return err
}

// Look implements [rotation.Looker].
func (f *File) Look(ctx context.Context) (rotation.Stored, error) {
	now, err := f.within(ctx, func(context.Context) (fileState, error) { return f.load() })
	return f.stored(now), err
}

// ReadBack implements [rotation.SinkReader].
func (f *File) ReadBack(ctx context.Context) (rotation.Credential, error) {
	now, err := f.within(ctx, func(context.Context) (fileState, error) { return f.load() })
	return f.credential(now), err
}

// Store implements [rotation.Sink]. It reads again instead of trusting the base.
func (f *File) Store(ctx context.Context, d rotation.Delivery) (rotation.Stored, error) {
	if err := storable(d.Credential); err != nil {
		return rotation.Stored{}, f.explain(err)
	}
	for range maxConflicts {
		now, err := f.within(ctx, func(ctx context.Context) (fileState, error) { return f.storeOnce(ctx, d) })
		if !errors.Is(err, errChanged) {
			return f.stored(now), err
		}
		if err := moment.Sleep(ctx, conflictPause); err != nil {
			return rotation.Stored{}, err
		}
	}
	return rotation.Stored{}, fmt.Errorf("another writer changed the file %d times in a row, each time between reading and writing it", maxConflicts)
}

// storeOnce writes the credential and reads it back. The error is errChanged if another writer came between.
func (f *File) storeOnce(ctx context.Context, d rotation.Delivery) (fileState, error) {
	now, access, err := f.look(ctx)
	if err != nil {
		return fileState{}, err
	}
	fields := wanted(f.config.SinkFields, now.value, d)
	if have(now.value, fields) && access.isOf(now.info) {
		return now, nil
	}
	if err := d.MayReplace(f.stored(now)); err != nil {
		return fileState{}, err
	}
	content, err := f.format.set(now.content, fields)
	if err != nil {
		return fileState{}, err
	}
	if err := f.write(ctx, now, content, access); err != nil {
		return fileState{}, err
	}
	after, err := f.load()
	switch {
	case err != nil:
		return fileState{}, fmt.Errorf("reading back: %w", err)
	case !bytes.Equal(after.content, content):
		return fileState{}, errChanged
	case !have(after.value, fields):
		return fileState{}, errors.New("what was written reads back as something else")
	}
	return after, nil
}

// write puts the content in the place of what was found there.
func (f *File) write(ctx context.Context, now fileState, content []byte, access fileAccess) error {
	// A crash may have left a temporary file, which holds a secret.
	if err := durable.Clean(f.config.Path); err != nil {
		return err
	}
	unchanged := func() error {
		failpoint.Reach("file.rename")
		if f.beforeCheck != nil {
			f.beforeCheck()
		}
		if err := ctx.Err(); err != nil {
			return err // the caller has given up, and may have stored another secret since
		}
		if err := rotation.MaySend(ctx); err != nil { // what is stored may be newer than ours
			return err
		}
		before, err := f.read()
		if err != nil {
			return err
		}
		if (before.info == nil) != (now.info == nil) || !bytes.Equal(before.content, now.content) {
			return errChanged
		}
		return nil
	}
	err := durable.WriteFileIf(f.config.Path, content, f.config.Mode, unchanged, access.give)
	if err == nil && f.written != nil {
		f.written()
	}
	if errors.Is(err, syscall.EBUSY) {
		return errMountPoint
	}
	return err
}

// look checks the directory and that the file is of this sink alone, and reads the file and whose it is to be.
func (f *File) look(ctx context.Context) (fileState, fileAccess, error) {
	access, err := accessOf(f.config)
	if err != nil {
		return fileState{}, access, err
	}
	dir, err := checkDir(filepath.Dir(f.config.Path), access)
	if err != nil {
		return fileState{}, access, err
	}
	if err := f.files.checkAlone(ctx, f.config.Path, dir); err != nil {
		return fileState{}, access, err
	}
	now, err := f.load()
	if err != nil {
		return fileState{}, access, err
	}
	return now, access.orThatOf(now.info), nil
}

// load reads the file, and in it our fields.
func (f *File) load() (fileState, error) {
	s, err := f.read()
	if err != nil {
		return s, err
	}
	s.values, err = f.format.get(s.content, ownFields(f.config.SinkFields)...)
	if other, ok := errors.AsType[*otherValue](err); ok {
		s.other = other
	} else if err != nil {
		return s, fmt.Errorf("it cannot be read as %s, so it is not overwritten: %w", f.config.Format, err)
	}
	return s, nil
}

// read reads the file. It follows no symbolic link, and opens nothing but a regular file.
func (f *File) read() (fileState, error) {
	file, err := os.OpenFile(f.config.Path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fileState{}, nil
	case errors.Is(err, syscall.ELOOP):
		return fileState{}, errors.New("it is a symbolic link, which is not followed: name the file itself, or remove the link")
	case errors.Is(err, syscall.ENXIO):
		return fileState{}, errors.New("it is not a regular file: name another path, or remove it")
	case errors.Is(err, fs.ErrPermission):
		return fileState{}, fmt.Errorf("the daemon may not read it: %w%s", syscall.EACCES, smallfile.Denied(f.config.Path, "r"))
	case err != nil:
		return fileState{}, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return fileState{}, err
	}
	if !info.Mode().IsRegular() {
		return fileState{}, errors.New("it is not a regular file: name another path, or remove it")
	}
	content, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	switch {
	case err != nil:
		return fileState{}, err
	case len(content) > maxFile:
		return fileState{}, fmt.Errorf("it is larger than %d MiB: is it the right file?", maxFile>>20)
	}
	return fileState{info: info, content: content}, nil
}

// within runs do, which uses the file system, and gives up if the file system hangs. The context of do ends
// when nobody waits for it any more.
func (f *File) within(ctx context.Context, do func(context.Context) (fileState, error)) (fileState, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	found := make(chan fileState, 1)
	err := smallfile.Within(ctx, f.config.Path, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if err := ctx.Err(); err != nil {
			return err
		}
		s, err := do(ctx)
		found <- s
		return err
	})
	if err != nil {
		return fileState{}, f.explain(err)
	}
	return <-found, nil
}

// explain says what to do about the usual causes of an error. It does not name the file, since who asks the sink
// names it.
func (f *File) explain(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok && e == err && e.Path == f.config.Path {
		err = e.Err
	}
	dir := filepath.Dir(f.config.Path)
	advice := ""
	switch {
	case errors.Is(err, syscall.EROFS):
		advice = ": the file system is read-only for the daemon; under systemd add ReadWritePaths=" + dir + " to the unit (systemctl edit rotatord)"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		advice = ": make space on the disk; the file is as it was"
	}
	return fmt.Errorf("%w%s", err, advice)
}

func (f *File) credential(s fileState) rotation.Credential {
	return rotation.Credential{ClientID: s.values[f.config.ClientIDField], ClientSecret: secret.New(s.values[f.config.ClientSecretField])}
}

func (s fileState) value(name string) string { return s.values[name] }

// stored describes what was found. A file has no versions; the time of its last change is known.
func (f *File) stored(s fileState) rotation.Stored {
	if s.info == nil {
		return rotation.Stored{}
	}
	c := f.credential(s)
	return rotation.Stored{Exists: true, ClientID: c.ClientID, Digest: c.ClientSecret.Digest(), WrittenAt: s.info.ModTime().UTC().Truncate(time.Microsecond)}
}

// storable refuses a credential that a line of a file cannot hold.
func storable(c rotation.Credential) error {
	for what, text := range map[string]string{"client ID": c.ClientID, "client secret": c.ClientSecret.Reveal()} {
		if problem := unprintable(text); problem != "" {
			return fmt.Errorf("the %s cannot be written to a file: it %s", what, problem)
		}
	}
	return nil
}
