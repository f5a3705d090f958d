package transfer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/durable"
	"rotatord/internal/rotation"
	"rotatord/internal/smallfile"
)

// This file is the format: lines of JSON. The first says what it is, each record has a line, then come the
// pauses. The last line has a checksum of all bytes before it, so a part of a file is not taken for a whole.

// Format is the version of the format that this code writes. It reads no other.
const Format = 1

const (
	// maxFile is the largest file: 10,000 tokens have about 20 MiB.
	maxFile = 256 << 20
	// maxTokens is the largest number of records.
	maxTokens = 200_000
)

// what is in the first line of each file.
const what = "ledger of rotatord"

// line is one line of a file. Exactly one of its fields is set.
type line struct {
	Header *header                   `json:"header,omitempty"`
	Record json.RawMessage           `json:"record,omitempty"`
	Pauses map[string]rotation.Pause `json:"pauses,omitempty"`
	End    *end                      `json:"end,omitempty"`
}

type header struct {
	What   string    `json:"what"`
	Format int       `json:"format"`
	From   string    `json:"from"`
	At     time.Time `json:"at"`
	By     string    `json:"by"`
}

type end struct {
	Records int    `json:"records"`
	Pauses  int    `json:"pauses"`
	SHA256  string `json:"sha256"` // of all bytes before this line
}

// Encode returns the content as a file.
func (c Content) Encode() ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(line{Header: &header{What: what, Format: Format, From: c.From, At: c.At, By: c.By}})
	for _, r := range c.Records {
		raw, marshalErr := json.Marshal(bare(r))
		err = errors.Join(err, marshalErr, encoder.Encode(line{Record: raw}))
	}
	if len(c.Pauses) > 0 {
		err = errors.Join(err, encoder.Encode(line{Pauses: c.Pauses}))
	}
	sum := sha256.Sum256(b.Bytes())
	err = errors.Join(err, encoder.Encode(line{End: &end{len(c.Records), len(c.Pauses), hex.EncodeToString(sum[:])}}))
	return b.Bytes(), err
}

// Save writes the content to a new file of mode 0600, which is on the disk when Save returns nil. It
// replaces no file.
func (c Content) Save(path string) error {
	b, err := c.Encode()
	if err != nil {
		return err
	}
	if len(b) > maxFile {
		return fmt.Errorf("the ledger is too large to be moved: %d MiB, and %d are possible", len(b)>>20, maxFile>>20)
	}
	err = durable.CreateFile(path, b, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists, and an export replaces no file: name another one with --out, or move it away", path)
	}
	return err
}

// Read reads a file that Save wrote. It is an error if it is not whole, or if this version cannot keep all
// of it.
func Read(ctx context.Context, path string) (Content, error) {
	b, err := smallfile.ReadOrPipe(ctx, path, maxFile)
	if err != nil {
		return Content{}, err
	}
	c, err := Decode(b)
	if err != nil {
		return Content{}, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// errDamaged is in the error about a file that is not whole.
var errDamaged = errors.New("it is not whole: export again, or take it from where it was copied from")

// Decode returns the content of a file.
func Decode(b []byte) (Content, error) {
	c := Content{Pauses: make(map[string]rotation.Pause)}
	last, begun, ended := 0, false, false // last: where the present line begins
	seen := make(map[string]bool)
	for rest := b; len(rest) > 0; {
		text, after, whole := bytes.Cut(rest, []byte("\n"))
		if !begun {
			if err := c.begin(text); err != nil {
				return c, err
			}
			begun, last, rest = true, len(text)+1, after
			continue
		}
		if ended {
			return c, fmt.Errorf("more follows after its last line: %w", errDamaged)
		}
		var l line
		if err := strict(text, &l); err != nil || !whole {
			return c, fmt.Errorf("line %d cannot be read: %w", bytes.Count(b[:last], []byte("\n"))+1, errDamaged)
		}
		var err error
		switch {
		case l.End != nil:
			ended, err = true, c.finish(*l.End, b[:last])
		case l.Record != nil:
			err = c.add(l.Record, seen)
		case l.Pauses != nil:
			c.Pauses = l.Pauses
		default:
			err = errDamaged
		}
		if err != nil {
			return c, err
		}
		last, rest = last+len(text)+1, after
	}
	switch {
	case len(b) == 0:
		return c, fmt.Errorf("it is empty: %w", errDamaged)
	case !ended:
		return c, fmt.Errorf("its end is missing: %w", errDamaged)
	}
	return c, nil
}

// begin reads the first line.
func (c *Content) begin(text []byte) error {
	var l line
	err := json.Unmarshal(text, &l)
	switch {
	case bytes.IndexByte(text, 0) >= 0:
		return errors.New("it is a binary file, and not one that rotatord ledger export wrote. (A journal.db is a ledger itself: " +
			"rotatord ledger export --state-dir DIR reads it)")
	case err != nil || l.Header == nil || l.Header.What != what || l.Header.At.IsZero():
		return errors.New("it is not a file that rotatord ledger export wrote")
	case l.Header.Format != Format:
		return fmt.Errorf("it has format %d and this rotatord reads %d: import it with the version that wrote it (%s)", l.Header.Format, Format, l.Header.By)
	}
	c.From, c.At, c.By = l.Header.From, l.Header.At, l.Header.By
	return nil
}

// add adds a record. The checksum comes later, so nothing is known yet but what this line says.
func (c *Content) add(raw json.RawMessage, seen map[string]bool) error {
	var r rotation.Record
	var loose struct {
		Format int    `json:"format"`
		Token  string `json:"token"`
	}
	if err := json.Unmarshal(raw, &loose); err != nil {
		return fmt.Errorf("a record cannot be read: %w", errDamaged)
	}
	name := loose.Token
	switch {
	case !config.ValidName(name):
		return fmt.Errorf("%q cannot be the name of a token: %w", name, errDamaged)
	case seen[name]:
		return fmt.Errorf("it has two records of %s: %w", name, errDamaged)
	case len(seen) == maxTokens:
		return fmt.Errorf("it has more than %d records", maxTokens)
	case loose.Format > rotation.RecordFormat:
		return fmt.Errorf("the record of %s has format version %d and this rotatord reads up to %d: import it with the version that wrote it (%s)",
			name, loose.Format, rotation.RecordFormat, c.By)
	case loose.Format < 1:
		return fmt.Errorf("the record of %s has no format version: %w", name, errDamaged)
	}
	if err := strict(raw, &r); err != nil {
		if field, ok := unknownField(err); ok {
			return fmt.Errorf("the record of %s has %s, which this rotatord does not know and would lose: import it with the version that wrote it (%s)", name, field, c.By)
		}
		return fmt.Errorf("the record of %s cannot be read: %w", name, errDamaged)
	}
	seen[name] = true
	c.Records = append(c.Records, bare(rotation.Migrate(r)))
	return nil
}

// finish compares the last line with what came before it.
func (c *Content) finish(e end, before []byte) error {
	sum := sha256.Sum256(before)
	switch {
	case e.SHA256 != hex.EncodeToString(sum[:]):
		return fmt.Errorf("its checksum is wrong: %w", errDamaged)
	case e.Records != len(c.Records) || e.Pauses != len(c.Pauses):
		return fmt.Errorf("it has %d records and %d pauses, and its last line says %d and %d: %w", len(c.Records), len(c.Pauses), e.Records, e.Pauses, errDamaged)
	}
	return nil
}

// strict decodes one JSON value, and refuses a field that is not known: it would be lost.
func strict(text []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errDamaged
	}
	return nil
}

// unknownField returns the field that a decoder's error is about, if it is about an unknown one. Package json
// has no type for that error.
func unknownField(err error) (string, bool) {
	name, found := strings.CutPrefix(err.Error(), "json: unknown field ")
	return "the field " + name, found
}
