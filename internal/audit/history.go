package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rotatord/internal/status"
)

// Bounds of one reading, in bytes and in lines.
const (
	maxRead = 64 << 20
	block   = 256 << 10
	// older lines in a row end the reading of a query with a time: lines are in the order of their time, unless the
	// clock was set.
	olderEnough = 1000
)

// ReadHistory returns lines of the record at path, the newest last. It reads from the end, at most 64 MiB, and says so if
// that was not enough. The daemon may write meanwhile.
func ReadHistory(ctx context.Context, path string, q status.HistoryQuery) (status.History, error) {
	h := history{ctx: ctx, q: q, left: maxRead, limit: min(max(q.Limit, 0), status.MaxHistory)}
	if h.limit == 0 {
		h.limit = status.HistoryLimit
	}
	if q.MaxRead > 0 {
		h.left = min(h.left, q.MaxRead)
	}
	if q.Token != "" {
		name, _ := json.Marshal(q.Token)
		h.mustHave = append([]byte(`"token":`), name...)
	}
	all, err := files(path)
	if err != nil {
		return status.History{}, err
	}
	for _, f := range slices.Backward(all) {
		if h.done {
			break
		}
		if err := h.file(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) { // it may have been renamed or deleted meanwhile
			return status.History{}, err
		}
	}
	slices.Reverse(h.found)
	if h.found == nil {
		h.found = []status.HistoryEntry{}
	}
	return status.History{Entries: h.found, More: h.more, Unread: h.unread}, nil
}

// history is one reading.
type history struct {
	ctx      context.Context
	q        status.HistoryQuery
	limit    int
	left     int64 // bytes that may still be read
	mustHave []byte
	found    []status.HistoryEntry
	lastSeq  uint64 // of the line that was taken last; a file that was renamed meanwhile is not read twice
	older    int
	done     bool
	more     bool
	unread   string // see [status.History]
}

// file reads a file from its end.
func (h *history) file(path string) error {
	f, err := openFile(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	var rest []byte // the beginning of a line whose end was in the block before
	for end := dataEnd(f, info.Size()); end > 0 && !h.done; {
		if err := h.ctx.Err(); err != nil {
			return err
		}
		if h.left <= 0 {
			h.done, h.more, h.unread = true, true, filepath.Base(path)
			return nil
		}
		size := min(end, block)
		buffer := make([]byte, size, int(size)+len(rest))
		if _, err := f.ReadAt(buffer, end-size); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		h.left -= size
		end -= size
		buffer = append(buffer, rest...)
		first := 0
		if end > 0 {
			if first = bytes.IndexByte(buffer, '\n') + 1; first == 0 {
				first = len(buffer)
			}
		}
		if rest = buffer[:first]; len(rest) > longest { // not a line of ours
			rest = nil
		}
		if h.mustHave != nil && !bytes.Contains(buffer[first:], h.mustHave) {
			continue // most blocks have no line of one token of many
		}
		for lines := buffer[first:]; len(lines) > 0 && !h.done; {
			at := bytes.LastIndexByte(lines[:len(lines)-1], '\n') + 1
			h.line(bytes.TrimSuffix(lines[at:], []byte("\n")))
			lines = lines[:at]
		}
	}
	return nil
}

// line takes a line if the query selects it.
func (h *history) line(text []byte) {
	if h.mustHave != nil && !bytes.Contains(text, h.mustHave) {
		return
	}
	l, err := decode(text)
	if err != nil || h.lastSeq != 0 && l.Seq >= h.lastSeq {
		return
	}
	switch {
	case h.q.Token != "" && l.Token != h.q.Token, h.q.Kind != "" && l.Kind != h.q.Kind && !strings.HasPrefix(l.Kind, h.q.Kind+"."):
		return
	case !h.q.Since.IsZero() && l.At.Before(h.q.Since):
		h.older++
		h.done = h.older >= olderEnough || l.At.Before(h.q.Since.Add(-24*time.Hour))
		return
	case len(h.found) == h.limit:
		h.done, h.more = true, true
		return
	}
	h.older, h.lastSeq = 0, l.Seq
	h.found = append(h.found, l.entry())
}

// History returns lines of this record: see [ReadHistory].
func (r *Recorder) History(ctx context.Context, q status.HistoryQuery) (status.History, error) {
	return ReadHistory(ctx, r.o.File, q)
}
