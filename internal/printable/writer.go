package printable

import (
	"io"
	"sync"
	"unicode/utf8"
)

// Writer escapes what is written to it, as [Escaped] does. It is safe for concurrent use. Each write becomes one
// write to the writer below.
type Writer struct {
	mu   sync.Mutex
	next io.Writer
	// rest has the first bytes of a character that is not complete yet.
	rest []byte
}

// NewWriter returns a Writer around next. Close it at the end.
func NewWriter(next io.Writer) *Writer { return &Writer{next: next} }

// Write implements io.Writer. A character that is split over two writes is written with the second.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := append(w.rest, p...)
	end := len(text) - unfinished(text)
	w.rest = append([]byte(nil), text[end:]...)
	if end == 0 {
		return len(p), nil
	}
	if err := w.put(text[:end]); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close writes the bytes of a character that is not complete. It does not close the writer below.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	rest := w.rest
	w.rest = nil
	if len(rest) == 0 {
		return nil
	}
	return w.put(rest)
}

func (w *Writer) put(text []byte) error {
	_, err := io.WriteString(w.next, Escaped(string(text)))
	return err
}

// Unescaped returns the writer below. Use it for control sequences of our own, and for a secret, which must not
// change. Foreign text must be escaped before it is written there.
func (w *Writer) Unescaped() io.Writer { return w.next }

// Unescaped returns the writer below w if w is a [Writer], and otherwise w.
func Unescaped(w io.Writer) io.Writer {
	if escaping, ok := w.(*Writer); ok {
		return escaping.Unescaped()
	}
	return w
}

// unfinished returns how many bytes at the end of p can be the beginning of a character.
func unfinished(p []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(p); n++ {
		if last := p[len(p)-n:]; utf8.RuneStart(last[0]) {
			if utf8.FullRune(last) {
				return 0
			}
			return n
		}
	}
	return 0
}
