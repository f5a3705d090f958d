package audit_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"rotatord/internal/audit"
	"rotatord/internal/status"
)

// FuzzRecord: a record with any content can be read and verified. A daemon that starts on it goes on recording, or refuses the
// file and leaves it as it is. What was in the file is not lost.
func FuzzRecord(f *testing.F) {
	path := filepath.Join(f.TempDir(), "audit.jsonl")
	r := open(f, audit.Options{File: path})
	record(f, r, 1, 20)
	if err := r.Close(); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	lines := bytes.SplitAfter(whole, []byte("\n"))
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add(append(bytes.Clone(whole), make([]byte, 5000)...))
	f.Add(append(bytes.Clone(whole), "other words\n"...))
	f.Add(bytes.Join([][]byte{lines[0], lines[2], lines[1]}, nil))
	f.Add([]byte("password=x\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		path := filepath.Join(dir, "audit.jsonl")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		read := func() {
			if h, err := audit.ReadHistory(t.Context(), path, status.HistoryQuery{Limit: 1000}); err == nil && len(h.Entries) > 1000 {
				t.Errorf("%d entries", len(h.Entries))
			}
			if v, err := audit.Verify(t.Context(), audit.VerifyOptions{File: path}); err == nil && v.OK != (len(v.Problems) == 0) {
				t.Errorf("%+v", v)
			}
		}
		read()
		r, err := audit.Open(audit.Options{File: path})
		if err != nil {
			if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, content) {
				t.Errorf("the file was refused, and is not as it was: %v", err)
			}
			return
		}
		if err := r.Record(t.Context(), leaving(99)); err != nil {
			t.Error(err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		h, err := audit.ReadHistory(t.Context(), path, status.HistoryQuery{Token: "ci", Limit: 1})
		if err != nil || len(h.Entries) != 1 || h.Entries[0].RotationID != "R99" {
			t.Errorf("the new line is not found: %+v, %v", h, err)
		}
		read()
		if !isKept(t, dir, bytes.TrimRight(content, "\x00")) {
			t.Errorf("what was in the file is lost: %q", content)
		}
	})
}

// isKept reports whether each line of the content is in a file of the directory.
func isKept(t *testing.T, dir string, content []byte) bool {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	for line := range bytes.SplitSeq(content, []byte("\n")) {
		if !bytes.Contains(all, line) {
			return false
		}
	}
	return true
}
