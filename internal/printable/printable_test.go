package printable_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"rotatord/internal/printable"
	"rotatord/internal/secret"
)

var escapes = []struct{ name, text, want string }{
	{"escape", "a\x1b[2Jb", `a\x1b[2Jb`},
	{"window title", "\x1b]0;owned\x07", `\x1b]0;owned\x07`},
	{"NUL and backspace", "a\x00b\x08c", `a\x00b\x08c`},
	{"carriage return", "good\rbad", `good\x0dbad`},
	{"DEL", "a\x7fb", `a\u007fb`},
	{"C1 as a character", "a\u009b2Jb", `a\u009b2Jb`},
	{"C1 as a byte", "a\x9b2Jb", `a\x9b2Jb`},
	{"next line", "a\u0085b", `a\u0085b`},
	{"bidi", "a\u202eb\u2066c\u2069d\u200fe\u061cf", `a\u202eb\u2066c\u2069d\u200fe\u061cf`},
	{"no width", "a\u200bb\u2060c\ufeffd\u00ade", `a\u200bb\u2060c\ufeffd\u00ade`},
	{"letters without a shape", "a\u3164b\u115fc", `a\u3164b\u115fc`},
	{"line separators", "a\u2028b\u2029c", `a\u2028b\u2029c`},
	{"tags", "a\U000e0041b", `a\udb40\udc41b`},
	{"private use", "a\ue000b", `a\ue000b`},
	{"not UTF-8", "a\xffb\xc3", `a\xffb\xc3`},
	{"a surrogate as UTF-8", "\xed\xa0\x80", `\xed\xa0\x80`},
	{"letters", "Zażółć gęślą jaźń, Ελληνικά, 日本語, עברית, हिन्दी, naïve – “quoted”…", "Zażółć gęślą jaźń, Ελληνικά, 日本語, עברית, हिन्दी, naïve – “quoted”…"},
	{"emoji", "done ✓ 🚀", "done ✓ 🚀"},
	{"spaces", "a\u00a0b\u3000c", "a\u00a0b\u3000c"},
	{"the replacement character", "a\ufffdb", "a\ufffdb"},
	{"newline and tab", "a\n\tb", "a\n\tb"},
	{"nothing", "", ""},
}

func TestEscaped(t *testing.T) {
	for _, c := range escapes {
		if got := printable.Escaped(c.text); got != c.want {
			t.Errorf("%s: %q became %q, want %q", c.name, c.text, got, c.want)
		}
		if got := printable.IsPlain(c.text); got != (c.text == c.want) {
			t.Errorf("%s: IsPlain is %t", c.name, got)
		}
	}
}

func TestLine(t *testing.T) {
	for text, want := range map[string]string{
		"a\nrotatord: forged":                   "a rotatord: forged",
		"  a \t\r\n b\u2028c  ":                 "a b c",
		strings.Repeat("é", 30):                 strings.Repeat("é", 10) + "...",
		strings.Repeat("a", 20):                 strings.Repeat("a", 20),
		"":                                      "",
		"hvs.Ab3dEf6hIj9kLm2nOp5qRs8tUv1wXy4zA": secret.Redacted,
	} {
		if got := printable.Line(text, 20); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}

// TestWriterSplits writes every text in two parts at every place, and byte by byte.
func TestWriterSplits(t *testing.T) {
	for _, c := range escapes {
		for at := range len(c.text) + 1 {
			if got := written(t, c.text[:at], c.text[at:]); got != c.want {
				t.Errorf("%s, split at %d: %q, want %q", c.name, at, got, c.want)
			}
		}
		if got := written(t, strings.Split(c.text, "")...); got != c.want {
			t.Errorf("%s, by characters: %q, want %q", c.name, got, c.want)
		}
		var bytewise []string
		for i := range len(c.text) {
			bytewise = append(bytewise, c.text[i:i+1])
		}
		if got := written(t, bytewise...); got != c.want {
			t.Errorf("%s, by bytes: %q, want %q", c.name, got, c.want)
		}
	}
}

func written(t *testing.T, parts ...string) string {
	t.Helper()
	var b bytes.Buffer
	w := printable.NewWriter(&b)
	for _, part := range parts {
		if n, err := w.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestJSONStaysJSON: a document that is written through a Writer means the same, and has nothing raw.
func TestJSONStaysJSON(t *testing.T) {
	all := map[string]string{}
	for _, c := range escapes {
		all[c.name] = strings.ToValidUTF8(c.text, "\ufffd")
	}
	document, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	out := written(t, string(document))
	if !printable.IsPlain(out) {
		t.Errorf("something raw is left: %q", out)
	}
	var back map[string]string
	if err := json.Unmarshal([]byte(out), &back); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for name, text := range all {
		if back[name] != text {
			t.Errorf("%s: %q came back as %q", name, text, back[name])
		}
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestWriterFails(t *testing.T) {
	if n, err := printable.NewWriter(failing{}).Write([]byte("a")); n != 0 || err == nil {
		t.Errorf("%d, %v", n, err)
	}
}

// counting keeps each write on its own.
type counting struct{ writes []string }

func (c *counting) Write(p []byte) (int, error) {
	c.writes = append(c.writes, string(p))
	return len(p), nil
}

// TestWriterKeepsLinesWhole: a line of a log is one write, whoever else writes at the same time.
func TestWriterKeepsLinesWhole(t *testing.T) {
	var below counting
	w := printable.NewWriter(&below)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 50 {
				fmt.Fprintf(w, "line %d \u202e\n", i)
			}
		})
	}
	all.Wait()
	if len(below.writes) != 400 {
		t.Fatalf("%d writes", len(below.writes))
	}
	for _, line := range below.writes {
		if !strings.HasSuffix(line, ` \u202e`+"\n") || strings.Count(line, "\n") != 1 {
			t.Errorf("%q", line)
		}
	}
}

func TestUnescaped(t *testing.T) {
	var b bytes.Buffer
	if got := printable.Unescaped(printable.NewWriter(&b)); got != io.Writer(&b) {
		t.Error("another writer")
	}
	if got := printable.Unescaped(&b); got != io.Writer(&b) {
		t.Error("another writer")
	}
}

func FuzzEscaped(f *testing.F) {
	for _, c := range escapes {
		f.Add(c.text, 3)
	}
	f.Fuzz(func(t *testing.T, text string, at int) {
		escaped := printable.Escaped(text)
		if !printable.IsPlain(escaped) || !utf8.ValidString(escaped) || printable.Escaped(escaped) != escaped {
			t.Errorf("%q became %q", text, escaped)
		}
		if at = max(at, 0) % (len(text) + 1); written(t, text[:at], text[at:]) != escaped {
			t.Errorf("%q split at %d is not %q", text, at, escaped)
		}
		if line := printable.Line(text, 50); len(line) > 53 || strings.ContainsAny(line, "\n\t") {
			t.Errorf("%q became the line %q", text, line)
		}
	})
}

// TestVariationSelectors: two names that look the same must not be different without a sign.
func TestVariationSelectors(t *testing.T) {
	for given, want := range map[string]string{"tok\ufe0f": `tok\ufe0f`, "tok\ufe0ex": `tok\ufe0ex`, "tok\U000e0100": `tok\udb40\udd00`} {
		if got := printable.Escaped(given); got != want {
			t.Errorf("%q: %s, want %s", given, got, want)
		}
	}
}
