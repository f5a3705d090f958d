package config

import (
	"bytes"
	"errors"
	"io"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// isText reports whether a file is UTF-8. If it is not, it adds exactly one fault.
func (r *report) isText(data []byte) bool {
	if isUTF16(data) || bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		r.addf(position{1, 1}, "", "not valid UTF-8 but UTF-16, as Windows tools write it: save the file as UTF-8")
		return false
	}
	if p, ok := badUTF8(data); ok {
		r.addf(p, "", "not valid UTF-8: save the file as UTF-8")
		return false
	}
	return true
}

// document reads the one YAML document of a text. If there is none, it adds exactly one
// fault and returns nil: the rest of the file after a syntax error means nothing.
func (r *report) document(data []byte) *yaml.Node {
	documents, err := documents(data)
	switch {
	case err != nil:
		at, hint := syntaxFault(data, err)
		r.addf(at, "", "not valid YAML: %s", hint)
		return nil
	case len(documents) == 0 || isNull(documents[0]):
		r.addf(position{1, 1}, "", "the file is empty: it needs at least accounts and tokens")
		return nil
	case len(documents) > 1:
		r.addf(separator(data, documents[1].Line), "", "a second document begins here: a configuration is one document, remove the --- line")
		return nil
	}
	return documents[0]
}

// CheckSyntax reports what keeps a file of YAML, of any shape, from being read at all. The error is
// of type [Faults] and repeats nothing of the file.
func CheckSyntax(filename string, data []byte) error {
	r := report{file: filename}
	if _, err := documents(data); err == nil {
		return nil
	}
	if r.isText(data) {
		r.document(data)
	}
	return Faults(r.faults)
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
	if utf8.Valid(data) {
		return p, false
	}
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

// separator finds the line --- above a document's root.
func separator(data []byte, root int) position {
	lines := bytes.Split(data, []byte("\n"))
	for n := min(root, len(lines)); n > 1; n-- {
		if bytes.HasPrefix(lines[n-1], []byte("---")) {
			return position{n, 1}
		}
	}
	return position{max(root, 1), 1}
}
