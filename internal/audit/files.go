package audit

import (
	"cmp"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// A record is the file that is written, and beside it:
//
//	audit.jsonl.000000000001   a file that is full, with the number of its first line
//	audit.head                 the last line that is on the disk
//	audit.jsonl.torn-42        an unfinished end that was cut off before line 42
//	audit.jsonl.000000000001.damaged   a file that was damaged or is not ours

// headPath returns where the head of the record at path is kept.
func headPath(path string) string { return strings.TrimSuffix(path, ".jsonl") + ".head" }

// numbered returns the name of a full file whose first line has that number.
func numbered(path string, first uint64) string { return fmt.Sprintf("%s.%012d", path, first) }

const damagedSuffix = ".damaged"

// afterName is what the name of a full file has behind that of the record: the number of its first line, a second number
// if that name was taken, and whether it was damaged.
var afterName = regexp.MustCompile(`^([0-9]{12,})(?:-[0-9]+)?(` + regexp.QuoteMeta(damagedSuffix) + `.*)?$`)

// file is one file of a record.
type file struct {
	path    string
	first   uint64 // the number of its first line, as its name says; 0 for the file that is written
	damaged bool   // it was moved aside because it was damaged
}

// files returns the files of the record at path in the order of their lines. The last one is the file that is
// written; it may not exist.
func files(path string) ([]file, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	var all []file
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), filepath.Base(path)+".")
		if !ok || !e.Type().IsRegular() {
			continue
		}
		parts := afterName.FindStringSubmatch(rest)
		if parts == nil {
			continue
		}
		first, err := strconv.ParseUint(parts[1], 10, 64)
		if err != nil {
			continue
		}
		all = append(all, file{path: filepath.Join(filepath.Dir(path), e.Name()), first: first, damaged: parts[2] != ""})
	}
	slices.SortFunc(all, func(a, b file) int { return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.path, b.path)) })
	return append(all, file{path: path}), nil
}

// openFile opens a file of the record for reading. Anything but a regular file is refused: a pipe or a device could keep
// its reader for ever.
func openFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// headSize is the size of the file of the head. It is less than a sector of any disk, so a write of it is not torn.
const headSize = 128

// encodeHead returns the content of the file of the head.
func encodeHead(h Head) []byte {
	text := fmt.Sprintf("%s %08x", h, crc32.ChecksumIEEE([]byte(h.String())))
	return fmt.Appendf(nil, "%-*s\n", headSize-1, text)
}

// ReadHead returns the head that is kept beside the record at path: the last line that is known to be on the disk. It
// is zero if there is none yet.
func ReadHead(path string) (Head, error) {
	f, err := openFile(headPath(path))
	if os.IsNotExist(err) {
		return Head{}, nil
	} else if err != nil {
		return Head{}, err
	}
	defer f.Close()
	return readHead(f)
}

func readHead(f *os.File) (Head, error) {
	text := make([]byte, headSize+1)
	n, err := f.ReadAt(text, 0)
	if err != nil && err != io.EOF {
		return Head{}, err
	}
	if n == 0 { // it was created, and nothing was recorded yet
		return Head{}, nil
	}
	head, sum, _ := strings.Cut(strings.TrimSpace(string(text[:n])), " ")
	if sum != fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(head))) {
		return Head{}, fmt.Errorf("%s is damaged: it does not say what the last line is", f.Name())
	}
	return ParseHead(head)
}
