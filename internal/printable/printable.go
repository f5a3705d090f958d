// Package printable makes text that comes from elsewhere fit to be shown: an answer of Cloudflare's
// or Vault's, the name of a service token, a header, the content of a file.
//
// The threat is a text that steers the terminal of whoever reads it, or that lies about what it is: an
// escape sequence, a newline that begins a forged line, a control that reverses the direction of writing,
// a character that takes no room. Such characters are written as escapes, so that they can be seen.
// Letters of every script, marks and spaces stay as they are.
//
// There are two layers. [Line] is used where foreign text becomes an error or a fact, and [Writer] is
// around whatever a command prints, for what was overlooked.
package printable

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"rotatord/internal/secret"
)

// Line returns foreign text as one line that may be shown, logged and stored: what looks like a
// credential is taken out, white space around it and in a row is one space, what steers a terminal is
// escaped, and it has at most limit bytes beside three dots that show where it was cut.
func Line(text string, limit int) string {
	return Shortened(Escaped(strings.Join(strings.Fields(secret.Scrub(text)), " ")), limit)
}

// Text is the same for a text of our own that has foreign text in it: it keeps its lines, and is not
// shortened.
func Text(text string) string { return Escaped(secret.Scrub(text)) }

// Shortened cuts text at a whole character, and shows that it did.
func Shortened(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit] + "..."
}

// Escaped returns text in which every character is escaped that may steer a terminal or cannot be seen,
// and every byte that is not UTF-8. Newlines and tabs stay.
//
// The escapes are those of Go and JSON: \x1b for a byte, \u202e for a character. A character that
// JSON may hold as it is gets an escape that JSON has too. So a JSON document stays one, and means the same.
func Escaped(text string) string {
	if IsPlain(text) {
		return text
	}
	return string(appendEscaped(make([]byte, 0, len(text)+16), text))
}

// IsPlain reports whether text has nothing that [Escaped] would change.
func IsPlain(text string) bool {
	for i, r := range text {
		if r == utf8.RuneError && !strings.HasPrefix(text[i:], "\uFFFD") || !shown(r) {
			return false
		}
	}
	return true
}

func appendEscaped(to []byte, text string) []byte {
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && size == 1, r < ' ' && !shown(r):
			to = fmt.Appendf(to, `\x%02x`, text[i])
		case shown(r):
			to = append(to, text[i:i+size]...)
		case r > 0xffff: // as JSON has it
			high, low := utf16.EncodeRune(r)
			to = fmt.Appendf(to, `\u%04x\u%04x`, high, low)
		default:
			to = fmt.Appendf(to, `\u%04x`, r)
		}
		i += size
	}
	return to
}

// shown reports whether a character is shown as it is: it can be seen or is a space, and does nothing.
func shown(r rune) bool {
	switch {
	case r < utf8.RuneSelf:
		return r >= ' ' && r != 0x7f || r == '\n' || r == '\t'
	case unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r), // some of them are letters that take no room
		unicode.Is(unicode.Variation_Selector, r):
		return false
	}
	return unicode.IsPrint(r) || unicode.Is(unicode.Zs, r)
}
