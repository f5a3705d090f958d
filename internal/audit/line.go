package audit

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/printable"
	"rotatord/internal/status"
)

// Line is one line of the record, without its hash.
type Line struct {
	// Seq is the number of the line. It grows by one with each line, also across files.
	Seq uint64 `json:"seq"`
	// At is when it happened, on the local clock.
	At       time.Time `json:"at"`
	Kind     string    `json:"kind"`
	Severity string    `json:"severity"`
	Token    string    `json:"token,omitempty"`
	By       By        `json:"by"`
	// What a reader selects by: the rotation, the slot that it serves, what came of it, and a stable code for why.
	RotationID string    `json:"rotation_id,omitempty"`
	Slot       time.Time `json:"slot,omitzero"`
	Result     string    `json:"result,omitempty"`
	Reason     string    `json:"reason,omitempty"`
	// Message is what happened, in words, and Error why it failed.
	Message string `json:"message"`
	Error   string `json:"error,omitempty"`
	// Detail is what else is known: see docs/events.md.
	Detail map[string]any `json:"detail,omitempty"`
	// Cut is set if the line was too long, and Detail was left out.
	Cut bool `json:"cut,omitempty"`
	// Prev is the hash of the line before it; empty if a chain begins here.
	Prev string `json:"prev"`
}

// By says who or what caused an event. UID, GID and PID are what the kernel says of an operator's process; they are
// absent for everything else.
type By struct {
	Cause string  `json:"cause"`
	User  string  `json:"user,omitempty"`
	UID   *uint32 `json:"uid,omitempty"`
	GID   *uint32 `json:"gid,omitempty"`
	PID   int32   `json:"pid,omitempty"`
	How   string  `json:"how,omitempty"` // the command
}

// Bounds of a line, in bytes. A text that is longer is cut.
const (
	maxText = 1 << 10
	maxLine = 8 << 10
)

// lineOf returns the line of an event, without its place in the chain.
func lineOf(e event.Event) Line {
	l := Line{
		At: e.At.UTC().Truncate(time.Microsecond), Kind: string(e.Kind), Severity: string(e.Severity), Token: printable.Line(e.Token, maxText),
		By:      By{Cause: cmp.Or(string(e.By.Cause), string(event.ByDaemon)), User: printable.Line(e.By.User, maxText), How: printable.Line(e.By.Command, maxText)},
		Message: printable.Line(e.Sentence(), maxText),
	}
	if e.By.Peer {
		l.By.UID, l.By.GID, l.By.PID = &e.By.UID, &e.By.GID, e.By.PID
	}
	if err := e.Err(); err != nil {
		l.Error = printable.Line(err.Error(), maxText)
	}
	if d, ok := e.Detail.(event.Command); ok && d.Err != "" { // its sentence has the error, which has a field of its own here
		l.Message = printable.Line(strings.TrimSuffix(e.Sentence(), ": "+d.Err), maxText)
	}
	attrs := e.Attrs()
	for i := 0; i+1 < len(attrs); i += 2 {
		name, _ := attrs[i].(string)
		l.add(name, attrs[i+1])
	}
	return l
}

// add puts one detail of an event where it belongs.
func (l *Line) add(name string, value any) {
	text := func() string { return printable.Line(fmt.Sprint(value), maxText) }
	switch v := value.(type) {
	case nil:
		return
	case time.Time:
		if v = v.UTC(); name == "slot" {
			l.Slot = v
		} else if !v.IsZero() {
			l.detail(name, v)
		}
		return
	case error:
		if l.Error == "" {
			l.Error = printable.Line(v.Error(), maxText)
		}
		return
	case bool, int, int64, uint64:
		l.detail(name, v)
		return
	case []string:
		l.detail(name, printable.Line(strings.Join(v, ", "), maxText))
		return
	}
	switch name {
	case "token", "uid", "gid", "pid", "user", "verb": // they are elsewhere in the line
	case "rotation_id":
		l.RotationID = text()
	case "result", "outcome":
		l.Result = text()
	case "reason":
		l.Reason = text()
	case "error":
		l.Error = cmp.Or(l.Error, text())
	default:
		if shown := text(); shown != "" {
			l.detail(name, shown)
		}
	}
}

func (l *Line) detail(name string, value any) {
	switch name {
	case "uid", "gid", "pid": // in By
		return
	}
	if l.Detail == nil {
		l.Detail = make(map[string]any, 4)
	}
	l.Detail[name] = value
}

// hashSize is the length of a hash as text: 64 hex digits with a dash in their middle. Without the dash it would look
// like a client secret, and be removed from logs.
const hashSize = 2*sha256.Size + 1

// hashKey comes before the hash, which ends the line.
const hashKey = `,"hash":"`

// tail is the length of what is behind the bytes that are hashed.
const tail = len(hashKey) + hashSize + len(`"}`)

// encode returns the line as it is in the file, line end included, and its hash. The hash is over the JSON object
// without the hash; that object has the hash of the line before it.
func (l Line) encode() (text []byte, hash string) {
	body, err := json.Marshal(l)
	if err != nil || len(body)+tail > maxLine { // every value in it can be encoded, so it is too long
		l.Detail, l.Cut = nil, true
		body, _ = json.Marshal(l)
	}
	hash = hashOf(body)
	text = make([]byte, 0, len(body)+tail)
	text = append(text, body[:len(body)-1]...)
	text = append(append(append(text, hashKey...), hash...), "\"}\n"...)
	return text, hash
}

func hashOf(body []byte) string {
	sum := sha256.Sum256(body)
	text := hex.EncodeToString(sum[:])
	return text[:sha256.Size] + "-" + text[sha256.Size:]
}

// errNotALine is the error about bytes that are not a line of a record at all.
var errNotALine = errors.New("it is not a line of a record")

// place is what the chain needs of a line.
type place struct {
	seq        uint64
	prev, hash string
	fits       bool // the hash is that of the line's bytes
}

// placeOf reads the place of a line, without its line end. It reads only what the chain needs.
func placeOf(text []byte) (p place, err error) {
	const first = `{"seq":`
	body, hash, ok := split(text)
	if !ok || !bytes.HasPrefix(text, []byte(first)) {
		return p, errNotALine
	}
	digits, _, _ := bytes.Cut(text[len(first):min(len(text), len(first)+24)], []byte(","))
	if p.seq, err = strconv.ParseUint(string(digits), 10, 64); err != nil {
		return p, errNotALine
	}
	const prevKey = `,"prev":"`
	at := bytes.LastIndex(body, []byte(prevKey))
	if at < 0 {
		return p, errNotALine
	}
	prev, ok := bytes.CutSuffix(body[at+len(prevKey):], []byte(`"}`))
	if !ok || len(prev) != 0 && len(prev) != hashSize {
		return p, errNotALine
	}
	p.prev, p.hash = string(prev), string(hash)
	p.fits = hashOf(body) == p.hash
	return p, nil
}

// split returns the bytes of a line that are hashed, and its hash.
func split(text []byte) (body, hash []byte, ok bool) {
	at := len(text) - tail
	if at < 1 || !bytes.HasPrefix(text[at:], []byte(hashKey)) || !bytes.HasSuffix(text, []byte(`"}`)) {
		return nil, nil, false
	}
	body = append(bytes.Clone(text[:at]), '}')
	return body, text[at+len(hashKey) : at+len(hashKey)+hashSize], true
}

// decode reads a line of a record, without its line end.
func decode(text []byte) (l Line, err error) {
	if err = json.Unmarshal(text, &l); err != nil {
		return l, errNotALine
	}
	return l, nil
}

// entry returns the line as status shows it.
func (l Line) entry() status.HistoryEntry {
	by := event.Actor{Cause: event.Cause(l.By.Cause), User: l.By.User}
	return status.HistoryEntry{
		Seq: l.Seq, At: l.At, Kind: l.Kind, Severity: l.Severity, Token: l.Token, By: by.String(), Message: l.Message, Error: l.Error,
		Result: l.Result, Reason: l.Reason, RotationID: l.RotationID, Slot: l.Slot,
	}
}

// Head is the last line of a record.
type Head struct {
	Seq  uint64
	Hash string
}

// String returns SEQ:HASH, which [ParseHead] reads.
func (h Head) String() string {
	if h.IsZero() {
		return ""
	}
	return fmt.Sprintf("%d:%s", h.Seq, h.Hash)
}

// IsZero reports whether there is no line.
func (h Head) IsZero() bool { return h.Seq == 0 }

// ParseHead reads SEQ:HASH, or SEQ alone: then only the number is compared.
func ParseHead(text string) (Head, error) {
	number, hash, hasHash := strings.Cut(strings.TrimSpace(text), ":")
	seq, err := strconv.ParseUint(number, 10, 64)
	if err != nil || seq == 0 || hasHash && (len(hash) != hashSize || strings.Trim(hash, "0123456789abcdef-") != "") {
		return Head{}, fmt.Errorf("%.120q is not the head of a record: it is SEQ:HASH, as rotatord audit head prints it, or SEQ alone", text)
	}
	return Head{seq, hash}, nil
}
