package audit_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rotatord/internal/audit"
	"rotatord/internal/event"
	"rotatord/internal/status"
)

// TestTouchedWhileItRuns: another program appends to the file, or changes its mode. It is told, what was appended is kept,
// the chain goes on, and no line is lost, also those that were not on the disk.
func TestTouchedWhileItRuns(t *testing.T) {
	appended := func(text string) func(path string) error {
		return func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteString(text)
			return errors.Join(err, f.Close())
		}
	}
	for what, c := range map[string]struct {
		touch func(path string) error
		says  string
		kept  int // bytes
	}{
		"a line":              {appended("{\"seq\":5}\n"), "10 bytes that rotatord has not written", 10},
		"one byte":            {appended("x"), "1 bytes that rotatord has not written", 1},
		"10 GB without bytes": {func(path string) error { return os.Truncate(path, 10<<30) }, "bytes that rotatord has not written", 1 << 20},
		"a mode for all":      {func(path string) error { return os.Chmod(path, 0o666) }, "the mode of", 0},
		"a mode for none":     {func(path string) error { return os.Chmod(path, 0) }, "from -rw------- to ----------", 0},
	} {
		t.Run(what, func(t *testing.T) {
			path := at(t)
			r := open(t, audit.Options{File: path})
			release, err := r.Reserve(t.Context(), "ci")
			if err != nil {
				t.Fatal(err)
			}
			defer release()
			record(t, r, 1, 3)
			r.Subscriber().Handle(event.New(now, "other", event.Daemon, event.Missed{Count: 7}))
			if err := c.touch(path); err != nil {
				t.Fatal(err)
			}
			record(t, r, 4, 5)
			if err := os.Chmod(path, 0o600); err != nil {
				t.Fatal(err)
			}
			notices := r.Notices()
			if len(notices) != 1 {
				t.Fatalf("%v", notices)
			}
			d := notices[0].(event.AuditTouched)
			if !strings.Contains(d.What, c.says) {
				t.Errorf("%+v", d)
			}
			if content, err := os.ReadFile(d.Kept); c.kept > 0 && (err != nil || len(content) != c.kept) {
				t.Errorf("%d bytes are kept (%v), want %d", len(content), err, c.kept)
			}
			h, err := r.History(t.Context(), status.HistoryQuery{})
			if err != nil || len(h.Entries) != 8 || h.Entries[7].RotationID != "R5" || h.Entries[4].Token != "other" {
				t.Errorf("%+v, %v", h, err)
			}
			if c.kept == 0 { // the mode that was changed back is a change too
				r.Notices()
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			if v := verify(t, audit.VerifyOptions{File: path}); !v.OK {
				t.Errorf("%v", v.Problems)
			}
		})
	}
}

// TestHistoryOfASparseFile: 10 GB without bytes are behind the lines. Those are found.
func TestHistoryOfASparseFile(t *testing.T) {
	path := written(t)
	if err := os.Truncate(path, 10<<30); err != nil {
		t.Skipf("no file of that size can be made here: %v", err)
	}
	h, err := audit.ReadHistory(t.Context(), path, status.HistoryQuery{Limit: 3})
	if err != nil || len(h.Entries) != 3 || h.Entries[2].Kind != string(event.Stopped) {
		t.Errorf("%+v, %v", h, err)
	}
}

// TestHistorySaysWhatItDidNotRead: real bytes that are no lines are behind the lines, more of them than are read. The
// answer says so, and does not say that there is no such line.
func TestHistorySaysWhatItDidNotRead(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 65 MiB")
	}
	path := written(t)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 65 {
		if _, err := f.Write(bytes.Repeat([]byte{'x'}, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	h, err := audit.ReadHistory(t.Context(), path, status.HistoryQuery{})
	if err != nil || len(h.Entries) != 0 || !h.More || h.Unread != filepath.Base(path) {
		t.Errorf("%+v, %v", h, err)
	}
}
