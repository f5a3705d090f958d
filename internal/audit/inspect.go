package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Inspected is what [Inspect] has found of a record.
type Inspected struct {
	Head    Head      // the last line; zero if there is none
	LastAt  time.Time // when it was written
	Problem string    // what is wrong with the end of the record, or with its head; empty if nothing is
	Damaged []string  // the files that were moved aside because they were damaged
}

// Paths returns what the daemon makes for the record at path, and refuses if other users may change it: the directory, the
// record, and the head that is kept beside it. None of them need exist.
func Paths(path string) []string { return []string{filepath.Dir(path), path, headPath(path)} }

// tailSize is how much of a file Inspect reads.
const tailSize = 1 << 20

// Inspect looks at the end of the record at path, and compares it with the head that is kept beside it. It reads at most
// 1 MiB, changes nothing, and the daemon may write meanwhile. [Verify] reads everything. The error is [fs.ErrNotExist] if
// there is no record, or says what cannot be read.
func Inspect(path string) (found Inspected, err error) {
	kept, headErr := ReadHead(path) // before the lines: what is written meanwhile is only more
	if errors.Is(headErr, fs.ErrPermission) {
		return found, headErr
	}
	all, err := files(path)
	if err != nil {
		return found, err
	}
	for _, f := range all {
		if f.damaged {
			found.Damaged = append(found.Damaged, f.path)
		}
	}
	if headErr != nil {
		found.Problem = headErr.Error()
	}
	f, err := openFile(path)
	if errors.Is(err, fs.ErrNotExist) && !kept.IsZero() {
		found.Problem = fmt.Sprintf("%s is not there, and had the lines up to number %d", path, kept.Seq)
		return found, nil
	} else if err != nil {
		return found, err
	}
	defer f.Close()
	last, text, problem, err := tailOf(f, kept)
	if err != nil {
		return found, err
	}
	found.Head = last
	if l, err := decode(text); err == nil {
		found.LastAt = l.At
	}
	switch {
	case problem != "":
		found.Problem = problem
	case last.Seq < kept.Seq:
		found.Problem = fmt.Sprintf("%s ends at number %d, and had the lines up to number %d", path, last.Seq, kept.Seq)
	}
	return found, nil
}

// tailOf returns the last line of a file that is whole, and what is wrong with those before it.
func tailOf(f *os.File, kept Head) (last Head, text []byte, problem string, err error) {
	info, err := f.Stat()
	if err != nil {
		return last, nil, "", err
	}
	end := dataEnd(f, info.Size())
	from := max(end-tailSize, 0)
	lines := newReader(io.NewSectionReader(f, from, end-from))
	if from > 0 { // the rest of a line
		_, _, err = lines.next()
	}
	for err == nil {
		var line []byte
		var whole bool
		if line, whole, err = lines.next(); err != nil || !whole { // the daemon may be writing the last one
			break
		}
		p, notALine := placeOf(line)
		switch {
		case problem != "":
		case notALine != nil:
			problem = fmt.Sprintf("behind line number %d is something that is not a line of the record", last.Seq)
		case !p.fits:
			problem = fmt.Sprintf("line number %d has other bytes than when it was written", p.seq)
		case last.Seq != 0 && (p.seq != last.Seq+1 || p.prev != last.Hash):
			problem = fmt.Sprintf("line number %d does not follow line number %d", p.seq, last.Seq)
		case p.seq == kept.Seq && p.hash != kept.Hash:
			problem = fmt.Sprintf("line number %d is another one than the head that is kept beside the record says", p.seq)
		}
		if notALine == nil {
			last, text = Head{p.seq, p.hash}, append(text[:0], line...)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return last, text, problem, err
}
