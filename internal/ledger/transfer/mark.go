package transfer

import (
	"context"
	"fmt"
	"time"

	"rotatord/internal/kvstore"
)

// This file has the entry that says whether the shared ledger is in use. A key-value store has no lock that a
// command could take, so the entry keeps replicas from beginning.

// MarkPath is the path of the entry below the prefix of a shared ledger.
const MarkPath = "moved"

// markFormat is the version of the entry.
const markFormat = 1

// MarkState says why a shared ledger is not in use.
type MarkState string

// The states of a mark. A ledger without a mark is in use.
const (
	InUse     MarkState = ""
	Exported  MarkState = "exported"  // its content is in a file
	Importing MarkState = "importing" // a file is being written to it
)

// Mark is the entry. The zero Mark is that there is none.
type Mark struct {
	Format int       `json:"format"`
	State  MarkState `json:"state"`
	// At is when the ledger was exported, or when the file was that is imported.
	At time.Time `json:"at"`
	By string    `json:"by"` // who did it, for people
	// File identifies the content of the file that is imported, and OutOfUse says that the ledger was out of use
	// when that began, so that the file may replace what it holds.
	File     string `json:"file,omitempty"`
	OutOfUse bool   `json:"out_of_use,omitempty"`

	version int // of the entry
}

// String implements fmt.Stringer.
func (m Mark) String() string {
	switch m.State {
	case Exported:
		return fmt.Sprintf("exported at %s by %s", m.At.UTC().Format(time.RFC3339), m.By)
	case Importing:
		return fmt.Sprintf("an import is not complete, begun by %s, of a file that was exported at %s", m.By, m.At.UTC().Format(time.RFC3339))
	}
	return "in use"
}

// ReadMark returns the mark of a shared ledger. An entry that cannot be read is an error: then it is not known
// whether the ledger is in use.
func ReadMark(ctx context.Context, kv kvstore.KV) (Mark, error) {
	e, err := kv.Get(ctx, MarkPath)
	if err != nil || e.Version == 0 {
		return Mark{}, err
	}
	var m Mark
	if err := e.Decode(MarkPath, &m); err != nil {
		return Mark{}, err
	}
	if m.Format != markFormat || m.State != Exported && m.State != Importing && m.State != InUse {
		return Mark{}, fmt.Errorf("the entry %s of the shared ledger has format %d and state %q, which this rotatord does not know: use the version that wrote it", MarkPath, m.Format, m.State)
	}
	m.version = e.Version
	return m, nil
}

// Replace writes another mark in place of m, and returns it as it is stored. [kvstore.ErrConflict] is in the
// error if the entry has changed meanwhile.
func (m Mark) Replace(ctx context.Context, kv kvstore.KV, now Mark) (Mark, error) {
	now.Format = markFormat
	e, err := kv.Put(ctx, MarkPath, now, m.version)
	if err != nil {
		return m, err
	}
	now.version = e.Version
	return now, nil
}

// Usable returns nil if replicas may use a shared ledger; else why they may not, and what to do.
func Usable(ctx context.Context, kv kvstore.KV) error {
	m, err := ReadMark(ctx, kv)
	switch {
	case err != nil:
		return err
	case m.State == Exported:
		return fmt.Errorf("the shared ledger is out of use: it was %s. To use it again: rotatord ledger import FILE, with the file of that export or a later one", m)
	case m.State == Importing:
		return fmt.Errorf("the shared ledger is out of use: %s. Repeat it: rotatord ledger import FILE", m)
	}
	return nil
}
