package status

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"time"

	"rotatord/internal/printable"
)

// Tokens provides tokens from memory, one or a few at a time. It must be safe for concurrent use.
type Tokens interface {
	// Token returns the token with a name, and false if none is configured. What it costs does not grow with the number of
	// tokens.
	Token(name string) (t Token, ok bool)
	// TokensAfter returns the first n tokens whose names come after that one, sorted by name; fewer if there are no more.
	TokensAfter(name string, n int) []Token
}

// Page selects some of the tokens in the order of their names: those after a name, at most Limit. A negative Limit
// selects all of them.
type Page struct {
	After string
	Limit int
}

// MaxPage is the largest page that [ReadPage] holds in memory.
const MaxPage = 1000

// ReadPage returns the tokens of a page with a limit, and the page that follows it; ok is false if none does.
func ReadPage(from Tokens, page Page) (tokens []Token, next Page, ok bool) {
	limit := min(page.Limit, MaxPage)
	tokens = from.TokensAfter(page.After, limit+1)
	if len(tokens) <= limit || limit == 0 {
		return tokens[:min(len(tokens), limit)], Page{}, false
	}
	tokens = tokens[:limit]
	return tokens, Page{After: tokens[limit-1].Name, Limit: limit}, true
}

// chunk is how many tokens are in memory while all are read.
const chunk = 100

// From returns all tokens whose names are not before that one, sorted by name, a few of them in memory at a time. A token
// that a reload adds or removes meanwhile may be there or not; each other one is there once. A token may be changed, and is
// not used after the next one was asked for.
func From(from Tokens, name string) iter.Seq[*Token] {
	return func(yield func(*Token) bool) {
		if t, ok := from.Token(name); ok && !yield(&t) {
			return
		}
		for after := name; ; {
			tokens := from.TokensAfter(after, chunk)
			for i := range tokens {
				if !yield(&tokens[i]) {
					return
				}
			}
			if len(tokens) < chunk {
				return
			}
			after = tokens[len(tokens)-1].Name
		}
	}
}

// WriteTokens writes all tokens as [WriteJSON] writes a list of them, scrubbed. In memory it has a few of them at a time.
func WriteTokens(w io.Writer, from Tokens) error {
	out := bufio.NewWriter(w)
	if err := writeList(out, scrubbed(From(from, "")), "\n"); err != nil {
		return err
	}
	_ = out.WriteByte('\n') // Flush returns the error
	return out.Flush()
}

// Fleet provides all that an [Overview] of all tokens shows.
type Fleet interface {
	Source
	Tokens
}

// WriteOverview writes the overview of a whole daemon as [WriteJSON] writes what [NewOverview] returns, or without indents.
// page selects the tokens that are listed; what is wrong is told of all. In memory it has a few tokens at a time, and the
// names of those that are in trouble.
func WriteOverview(w io.Writer, from Fleet, page Page, indented bool, now time.Time) error {
	checks, replicas := printable.Copy(from.Checks()), from.Replicas().Scrubbed()
	o := newOverview(from, checks, replicas, Sum(concernsOfAll(from, now), checks, replicas, now))
	o.Tokens = []Token{}
	text, newline := bytes.Buffer{}, ""
	encoder, placeholder := json.NewEncoder(&text), []byte(`,"tokens":[],`)
	if indented {
		encoder.SetIndent("", "  ")
		placeholder, newline = []byte("\n  \"tokens\": [],"), "\n  "
	}
	if err := encoder.Encode(o); err != nil {
		return err
	}
	// A text in JSON has no unescaped quote, and the lists of names in it are never empty: it is there once.
	before, after, ok := bytes.Cut(text.Bytes(), placeholder)
	if !ok {
		return errors.New("the overview has no list of tokens")
	}
	out := bufio.NewWriter(w)
	_, _ = out.Write(before) // Flush returns the error
	_, _ = out.Write(bytes.TrimSuffix(placeholder, []byte("[],")))
	tokens := From(from, "")
	if page.Limit >= 0 {
		some, _, _ := ReadPage(from, page)
		tokens = each(some)
	}
	if err := writeList(out, scrubbed(tokens), newline); err != nil {
		return err
	}
	_ = out.WriteByte(',')
	_, _ = out.Write(after)
	return out.Flush()
}

// concernsOfAll returns what the list of troubles has to know of all tokens, with names that may be shown.
func concernsOfAll(from Tokens, now time.Time) iter.Seq[*Concern] {
	return func(yield func(*Concern) bool) {
		for t := range From(from, "") {
			c := t.Concern(now)
			c.Name = printable.Text(c.Name)
			if !yield(&c) {
				return
			}
		}
	}
}

// each returns tokens one after the other.
func each(tokens []Token) iter.Seq[*Token] {
	return func(yield func(*Token) bool) {
		for i := range tokens {
			if !yield(&tokens[i]) {
				return
			}
		}
	}
}

// scrubbed returns tokens in a form that may be shown.
func scrubbed(tokens iter.Seq[*Token]) iter.Seq[Token] {
	return func(yield func(Token) bool) {
		for t := range tokens {
			if !yield(t.Scrubbed()) {
				return
			}
		}
	}
}

// writeList writes a list of JSON, each element indented below newline, which is a line break with the indent of the list;
// without indents if it is empty.
func writeList(out *bufio.Writer, tokens iter.Seq[Token], newline string) error {
	first := true
	for t := range tokens {
		var text []byte
		var err error
		if newline == "" {
			text, err = json.Marshal(t)
		} else {
			text, err = json.MarshalIndent(t, newline[1:]+"  ", "  ")
		}
		if err != nil {
			return err
		}
		if first {
			_ = out.WriteByte('[')
		} else {
			_ = out.WriteByte(',')
		}
		if first = false; newline != "" {
			_, _ = out.WriteString(newline + "  ")
		}
		if _, err := out.Write(text); err != nil {
			return err
		}
	}
	switch {
	case first:
		_, _ = out.WriteString("[]")
	default:
		_, _ = out.WriteString(newline + "]")
	}
	return nil
}
