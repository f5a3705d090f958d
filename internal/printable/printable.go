// Package printable makes foreign text safe to show: an answer of Cloudflare or Vault, the name of a service
// token, a header, the content of a file.
//
// The threat is a text that controls the reader's terminal, or that pretends to be something else: with an
// escape sequence, a newline that starts a forged line, a character that reverses the direction of the text, or
// an invisible character. The package writes such characters as escapes, so that a reader sees them. Letters of
// every script, marks and spaces do not change.
//
// There are two layers. [Line] is used where foreign text becomes an error or a fact. [Writer] wraps everything
// that a command prints, for texts that were overlooked.
package printable

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"rotatord/internal/secret"
)

// Line returns foreign text as one line that is safe to show, log and store. It removes everything that looks like
// a credential, replaces each run of white space with one space, escapes control characters, and cuts the text to
// limit bytes; three dots show where it was cut.
func Line(text string, limit int) string {
	return Shortened(Escaped(strings.Join(strings.Fields(secret.Scrub(text)), " ")), limit)
}

// Text does the same for our own text that contains foreign text: it keeps the lines and does not cut.
func Text(text string) string { return Escaped(secret.Scrub(text)) }

// Shortened returns text cut at a whole character. Three dots show that it was cut.
func Shortened(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit] + "..."
}

// Escaped returns text with all characters escaped that can control a terminal or are invisible, and all bytes
// that are not UTF-8. Newlines and tabs do not change.
//
// The escapes are those of Go and JSON: \x1b for a byte, \u202e for a character. Characters that are allowed in JSON
// get an escape that JSON has too, so a JSON document is still valid and means the same.
func Escaped(text string) string {
	if IsPlain(text) {
		return text
	}
	return string(appendEscaped(make([]byte, 0, len(text)+16), text))
}

// IsPlain reports whether [Escaped] would not change text.
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

// shown reports whether a character needs no escape: it is visible or a space, and controls nothing.
func shown(r rune) bool {
	switch {
	case r < utf8.RuneSelf:
		return r >= ' ' && r != 0x7f || r == '\n' || r == '\t'
	case unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r), // some of them are letters without a width
		unicode.Is(unicode.Variation_Selector, r):
		return false
	}
	return unicode.IsPrint(r) || unicode.Is(unicode.Zs, r)
}
