package notify

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"rotatord/internal/durable"
	"rotatord/internal/kvstore"
	"rotatord/internal/smallfile"
)

// page is what a receiver was told, and what waits for it. It is what a [book] keeps.
type page struct {
	Format int `json:"format"`
	// Told has what is wrong and was told, by the keys of items.
	Told map[string]told `json:"told,omitempty"`
	// Outbox is the message that is to be delivered; nil if there is none. Before has what Told was before it, for the keys
	// that it has changed; nothing for those that are new. Telling is what Happened was before it.
	Outbox  *Message         `json:"outbox,omitempty"`
	Before  map[string]*told `json:"before,omitempty"`
	Telling []happened       `json:"telling,omitempty"`
	// Reached are the addresses that have the message in the outbox, if others of the same receiver do not have it.
	Reached []string `json:"reached,omitempty"`
	// Happened waits for the next message.
	Happened []happened `json:"happened,omitempty"`
	// GivenUp has the kinds of what is not told before QuietUntil unless there is other news: a message with them was refused.
	GivenUp    map[string]string `json:"given_up,omitempty"`
	QuietUntil time.Time         `json:"quiet_until,omitzero"`
	// Delivered is when the last message was taken.
	Delivered time.Time `json:"delivered,omitzero"`
}

// told says what a receiver knows of a key.
type told struct {
	Kind  string    `json:"k"`
	Rank  int       `json:"r"`
	Since time.Time `json:"s,omitzero"` // since when it is wrong
	At    time.Time `json:"a"`          // when it was told last
}

const pageFormat = 1

// maxPage is the largest page that is read, in bytes: one of 200,000 tokens in trouble has about half.
const maxPage = 64 << 20

// book keeps the page of one receiver.
type book interface {
	// load returns the page and its version. A page that cannot be used is an error that wraps errDamaged, with an empty
	// page: the receiver is told everything again.
	load(ctx context.Context) (*page, int, error)
	// save replaces the page of a version, and returns the next version. errOvertaken is in the error if another process
	// has written.
	save(ctx context.Context, p *page, version int) (int, error)
	// mayGoOn reports whether messages are sent although the page cannot be saved.
	mayGoOn() bool
}

var (
	errDamaged   = errors.New("what was told cannot be read")
	errOvertaken = errors.New("another replica tells this receiver")
)

func newPage() *page { return &page{Format: pageFormat, Told: make(map[string]told)} }

func decodePage(content []byte) (*page, error) {
	p := newPage()
	if err := json.Unmarshal(content, p); err != nil {
		return newPage(), fmt.Errorf("%w: it is not what rotatord writes there", errDamaged)
	}
	if p.Format != pageFormat {
		return newPage(), fmt.Errorf("%w: it has format %d, and this version of rotatord knows %d", errDamaged, p.Format, pageFormat)
	}
	if p.Outbox != nil && !isID(p.Outbox.ID) { // it becomes a header
		return newPage(), fmt.Errorf("%w: its message has an id that rotatord does not write", errDamaged)
	}
	if p.Told == nil {
		p.Told = make(map[string]told)
	}
	return p, nil
}

// fileBook is a file in the state directory.
type fileBook struct{ path string }

func (b fileBook) load(ctx context.Context) (*page, int, error) {
	content, err := smallfile.Read(ctx, b.path, maxPage)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return newPage(), 0, nil
	case err != nil:
		return newPage(), 0, fmt.Errorf("%w: %w", errDamaged, err)
	}
	p, err := decodePage(content)
	if err != nil {
		aside := b.path + ".damaged"
		err = fmt.Errorf("%w: %s; it is kept as %s", err, b.path, aside)
		err = errors.Join(err, durable.WriteFile(aside, content, 0o600))
	}
	return p, 0, err
}

func (b fileBook) save(_ context.Context, p *page, version int) (int, error) {
	content, err := json.Marshal(p)
	if err != nil {
		return version, err
	}
	return version, durable.WriteFile(b.path, content, 0o600)
}

// mayGoOn: a full disk is what has to be told.
func (fileBook) mayGoOn() bool { return true }

// storeBook is an entry in the store that several replicas share. The page is compressed: the store takes 512 KiB.
type storeBook struct {
	kv   Store
	path string
}

// Store is what several replicas share. It is a part of [kvstore.KV], which has the contract.
type Store interface {
	Get(ctx context.Context, path string) (kvstore.Entry, error)
	Put(ctx context.Context, path string, data any, version int) (kvstore.Entry, error)
}

// stored is the entry.
type stored struct {
	Format int    `json:"format"`
	Page   []byte `json:"page"` // JSON, compressed with gzip
}

func (b storeBook) load(ctx context.Context) (*page, int, error) {
	entry, err := b.kv.Get(ctx, b.path)
	if err != nil || entry.Version == 0 {
		return newPage(), entry.Version, err
	}
	var s stored
	if err := entry.Decode(b.path, &s); err != nil {
		return newPage(), entry.Version, fmt.Errorf("%w: %w", errDamaged, err)
	}
	reader, err := gzip.NewReader(bytes.NewReader(s.Page))
	if err != nil {
		return newPage(), entry.Version, fmt.Errorf("%w: %s is not compressed as rotatord writes it", errDamaged, b.path)
	}
	content, err := io.ReadAll(io.LimitReader(reader, maxPage+1))
	if err != nil || len(content) > maxPage {
		return newPage(), entry.Version, fmt.Errorf("%w: %s is damaged or too large", errDamaged, b.path)
	}
	p, err := decodePage(content)
	return p, entry.Version, err
}

func (b storeBook) save(ctx context.Context, p *page, version int) (int, error) {
	content, err := json.Marshal(p)
	if err != nil {
		return version, err
	}
	var compressed bytes.Buffer
	writer := gzip.NewWriter(&compressed)
	if _, err := writer.Write(content); err != nil {
		return version, err
	}
	if err := writer.Close(); err != nil {
		return version, err
	}
	entry, err := b.kv.Put(ctx, b.path, stored{pageFormat, compressed.Bytes()}, version)
	if errors.Is(err, kvstore.ErrConflict) {
		err = fmt.Errorf("%w: %w", errOvertaken, err)
	}
	if err != nil {
		return version, err
	}
	return entry.Version, nil
}

// mayGoOn: another replica may have the turn.
func (storeBook) mayGoOn() bool { return false }

// isID reports whether a text is one of newID.
func isID(text string) bool {
	b, err := hex.DecodeString(text)
	return err == nil && len(b) == 16
}

// newID returns the id of a message, which no other one has.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	return hex.EncodeToString(b[:])
}
