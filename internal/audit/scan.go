package audit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// scanned is what a file of the record holds, from its beginning to the first line that does not fit.
type scanned struct {
	exists  bool
	size    int64
	good    int64     // the end of the lines that fit
	first   uint64    // the number of the first line; 0 if there is none
	firstAt time.Time // when that was written
	last    Head      // the last line that fits
	highest uint64    // the highest number of a line, fitting or not
	bad     string    // what is wrong with the first line that does not fit; empty if all do
	badLine int
}

// scan reads a file of the record. head is the last line that was known to be on the disk.
func scan(path string, head Head) (s scanned, err error) {
	f, err := openFile(path)
	if os.IsNotExist(err) {
		return s, nil
	} else if err != nil {
		return s, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return s, err
	}
	s.exists, s.size = true, info.Size()
	lines := newReader(io.LimitReader(f, dataEnd(f, s.size)))
	for n := 1; ; n++ {
		text, whole, err := lines.next()
		switch {
		case errors.Is(err, io.EOF):
			return s, nil
		case err != nil:
			return s, fmt.Errorf("%s: %w", path, err)
		case s.bad == "":
			if s.bad = s.take(text, whole, head); s.bad != "" {
				s.badLine = n
			}
		}
		if p, err := placeOf(text); err == nil {
			s.highest = max(s.highest, p.seq)
		}
	}
}

// take adds the next line, and returns what is wrong with it; empty if it fits.
func (s *scanned) take(text []byte, whole bool, head Head) string {
	p, err := placeOf(text)
	switch {
	case !whole:
		return "it has no end"
	case err != nil:
		return err.Error()
	case !p.fits:
		return "its hash is not that of its bytes"
	case s.first != 0 && (p.seq != s.last.Seq+1 || p.prev != s.last.Hash):
		return "it does not follow the line before it"
	case p.seq == head.Seq && head.Hash != p.hash:
		return "it is another line than the one that was written"
	}
	if s.first == 0 {
		s.first = p.seq
		if l, err := decode(text); err == nil {
			s.firstAt = l.At
		}
	}
	s.last = Head{p.seq, p.hash}
	s.good += int64(len(text)) + 1
	return ""
}

// reader reads lines of bounded length.
type reader struct{ buffered *bufio.Reader }

// longest is the longest line that is read, in bytes. It is more than a line of this or another version has.
const longest = 256 << 10

func newReader(r io.Reader) *reader { return &reader{bufio.NewReaderSize(r, longest)} }

// next returns the next line without its end, and whether it has an end. What is longer than the longest line is read
// in pieces. The text is good until the next call. The error is io.EOF after the last line.
func (r *reader) next() (text []byte, whole bool, err error) {
	text, err = r.buffered.ReadSlice('\n')
	switch {
	case err == nil:
		return bytes.TrimSuffix(text, []byte("\n")), true, nil
	case errors.Is(err, bufio.ErrBufferFull), errors.Is(err, io.EOF) && len(text) > 0:
		return text, false, nil
	}
	return nil, false, err
}
