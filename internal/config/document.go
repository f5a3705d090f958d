package config

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// document reads the one YAML document of a file. Without one, exactly one fault
// was added and the answer is nil: what follows a syntax error cannot be trusted.
func (r *report) document(data []byte) *yaml.Node {
	if p, ok := badUTF8(data); ok {
		r.addf(p, "", "not valid UTF-8: save the file as UTF-8")
		return nil
	}
	documents, err := documents(data)
	switch {
	case err != nil:
		line := syntaxErrorLine(data, err)
		r.addf(position{line, 1}, "", "not valid YAML: %s", syntaxHint(err))
		return nil
	case len(documents) == 0 || isNull(documents[0]):
		r.addf(position{1, 1}, "", "the file is empty: it needs at least accounts, vault and tokens")
		return nil
	case len(documents) > 1:
		r.addf(at(documents[1]), "", "a second document begins here: a configuration is one document, remove the --- line")
		return nil
	}
	return documents[0]
}

// documents returns the root of each document.
func documents(data []byte) ([]*yaml.Node, error) {
	var roots []*yaml.Node
	for decoder := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var n yaml.Node
		err := decoder.Decode(&n)
		switch {
		case errors.Is(err, io.EOF):
			return roots, nil
		case err != nil:
			return nil, err
		case n.Kind == yaml.DocumentNode && len(n.Content) == 1:
			roots = append(roots, n.Content[0])
		default:
			roots = append(roots, &n)
		}
	}
}

func isNull(n *yaml.Node) bool {
	return n.Kind == 0 || n.Kind == yaml.ScalarNode && !isTagged(n) && n.ShortTag() == "!!null"
}

// isTagged reports an explicit tag, such as !!str or !vault.
func isTagged(n *yaml.Node) bool { return n.Style&yaml.TaggedStyle != 0 }

// badUTF8 finds the first byte that is not UTF-8.
func badUTF8(data []byte) (position, bool) {
	p := position{1, 1}
	for len(data) > 0 {
		c, size := utf8.DecodeRune(data)
		if c == utf8.RuneError && size == 1 {
			return p, true
		}
		p.column++
		if c == '\n' {
			p = position{p.line + 1, 1}
		}
		data = data[size:]
	}
	return p, false
}

// syntaxErrorLine finds the line that breaks a file. The parser reports where the
// construct around it began, or no line at all; an operator has to look at the line
// after the longest sequence of whole lines that is valid. Trying takes quadratic
// time at worst, so behind maxLines the parser's word is taken.
func syntaxErrorLine(data []byte, err error) int {
	const maxLines = 1000
	lines := bytes.SplitAfter(data, []byte("\n"))
	last := min(len(lines)-1, maxLines)
	for n := last; n > 0; n-- {
		if _, broken := documents(bytes.Join(lines[:n], nil)); broken != nil {
			continue
		}
		reported := parserPrefix.FindStringSubmatch(err.Error())
		if n == maxLines && len(reported) == 2 {
			if line, convErr := strconv.Atoi(reported[1]); convErr == nil && line > n && line <= len(lines) {
				return line
			}
		}
		return n + 1
	}
	return 1
}

var parserPrefix = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// syntaxHint words a parser's error for an operator. The parser quotes the name of
// an unknown anchor, and a password may begin with an asterisk; nothing that the
// parser quotes is repeated.
func syntaxHint(err error) string {
	problem, _, quotes := strings.Cut(parserPrefix.ReplaceAllString(err.Error(), ""), "'")
	for _, known := range []struct{ problem, hint string }{
		{"unknown anchor", "a value that begins with * is an alias: aliases are not accepted, and text like that needs quotes"},
		{"mapping values are not allowed", "a colon in a place where none may be: quote a value that has one, and check the indentation"},
		{"found character that cannot start any token", "a tab, or a value that begins with @, ` or %: indent with spaces, and quote such a value"},
		{"found a tab character", "a tab in the indentation: indent with spaces"},
		{"did not find expected key", "this line does not fit the mapping around it: check the indentation"},
		{"could not find expected", "this line is neither a key with a colon nor part of the value above: check it and its indentation"},
		{"did not find expected node content", "a value or a closing bracket is missing here"},
		{"did not find expected ','", "a comma or a closing bracket is missing here"},
		{"found unexpected end of stream", "a quote or bracket that opens here is never closed"},
		{"control characters are not allowed", "a control character: remove it"},
	} {
		if strings.HasPrefix(problem, known.problem) {
			return known.hint
		}
	}
	if quotes || problem == "" {
		return "this line cannot be read: check its indentation, quotes and brackets"
	}
	return problem + ": check the indentation, quotes and brackets"
}
