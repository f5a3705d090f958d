package config

import (
	"bytes"
	"errors"
	"iter"
	"runtime"

	"go.yaml.in/yaml/v3"
)

// A file may have 100,000 tokens, and the tree of nodes that YAML makes of them takes ten times the space of the file.
// So the entries of tokens are read in parts: each part is parsed as a document of its own, checked, and dropped,
// while the next ones are parsed. That is done only if the lines show where an entry begins, and if each part alone
// proves to be what it would be in the whole file. In any other case the file is parsed as a whole, and so is one with
// a syntax error, whose message needs the lines around it.

// file is the one document of a file.
type file struct {
	root  *yaml.Node // of all but the parts
	parts []part     // the entries of tokens, in their order; none if they are in root
	count int        // how many entries the parts have, nearly: it is made from lines that look like one
	at    position   // of the first entry
}

// part is some entries of tokens, one after the other.
type part struct {
	text   []byte
	before int // lines of the file before text
	column int // in which each entry begins
}

// partSize is the least size of a part but the last one, in bytes. A smaller part has more cost of its own, and a
// larger one a larger tree.
const partSize = 64 << 10

// entrySize is the least size of an entry with an ID and a sink, nearly. It bounds the memory that is made ready for
// entries: a file of lines that only look like one could have 20 million of them.
const entrySize = 80

// errWhole says that a file has to be parsed as a whole.
var errWhole = errors.New("the entries of tokens cannot be read in parts")

// apart returns the document with the entries of tokens in parts of at least size bytes. It returns false if the file
// has to be read as a whole.
func apart(data []byte, size int) (*file, bool) {
	if hasOddBreaks(data) {
		return nil, false // lines are counted differently
	}
	key, begin, end, ok := tokensIn(data)
	if !ok {
		return nil, false
	}
	body := data[begin:end]
	f := &file{}
	if !f.cut(body, key, size) {
		return nil, false
	}
	rest := make([]byte, 0, len(data)-len(body))
	rest = append(append(rest, data[:begin]...), data[end:]...)
	roots, err := documents(rest)
	if err != nil || len(roots) != 1 || !isEmptyAt(roots[0], key) {
		return nil, false
	}
	f.root = roots[0]
	moveDown(f.root, key, bytes.Count(body, []byte("\n")))
	return f, true
}

// hasOddBreaks reports characters other than LF and CRLF that end a line in YAML.
func hasOddBreaks(data []byte) bool {
	for rest := data; ; {
		i := bytes.IndexByte(rest, '\r')
		if i < 0 {
			break
		}
		if i+1 == len(rest) || rest[i+1] != '\n' {
			return true
		}
		rest = rest[i+1:]
	}
	for _, b := range []string{"\u0085", "\u2028", "\u2029"} {
		if bytes.Contains(data, []byte(b)) {
			return true
		}
	}
	return false
}

// tokensIn finds the line with the key tokens and nothing else, and the lines below it that belong to it.
func tokensIn(data []byte) (line, begin, end int, ok bool) {
	const key = "tokens:"
	number, offset := 0, 0
	for text := range bytes.Lines(data) {
		number, offset = number+1, offset+len(text)
		if after, found := bytes.CutPrefix(text, []byte(key)); found {
			value := bytes.Trim(after, " \r\n")
			if line > 0 || len(value) > 0 && (value[0] != '#' || after[0] != ' ') {
				return 0, 0, 0, false
			}
			line, begin = number, offset
			continue
		}
		if line > 0 && end == 0 && !isBelow(text) {
			end = offset - len(text)
		}
	}
	if end == 0 {
		end = len(data)
	}
	return line, begin, end, line > 0 && end > begin
}

// isBelow reports whether a line is indented, empty or a comment.
func isBelow(line []byte) bool {
	return len(line) == 0 || line[0] == ' ' || line[0] == '#' || line[0] == '\n' || line[0] == '\r'
}

// cut divides the lines below line key into parts. It returns false if the first one is not an entry.
func (f *file) cut(body []byte, key, size int) bool {
	indent, from, offset, number, first := 0, 0, 0, 0, 0
	for text := range bytes.Lines(body) {
		trimmed := bytes.TrimLeft(text, " ")
		spaces, begins := len(text)-len(trimmed), isNameByte(trimmed)
		if f.count == 0 && !isBelow(trimmed) {
			if indent = spaces; indent == 0 || !begins {
				return false
			}
			f.at = position{key + number + 1, indent + 1}
		}
		if indent > 0 && spaces == indent && begins {
			if f.count > 0 && offset-from >= size {
				f.parts = append(f.parts, part{body[from:offset], key + first, indent + 1})
				from, first = offset, number
			}
			f.count++
		}
		offset, number = offset+len(text), number+1
	}
	if f.count == 0 {
		return false
	}
	f.count = min(f.count, 1+len(body)/entrySize)
	f.parts = append(f.parts, part{body[from:], key + first, indent + 1})
	return true
}

// isNameByte reports whether a line begins as the name of an entry does.
func isNameByte(line []byte) bool {
	if len(line) == 0 {
		return false
	}
	c := line[0]
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
}

// isEmptyAt reports whether root is a mapping with the key tokens on that line, without a value.
func isEmptyAt(root *yaml.Node, line int) bool {
	if root.Kind != yaml.MappingNode {
		return false
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		k, v := root.Content[i], root.Content[i+1]
		if k.Line == line && k.Column == 1 && k.Kind == yaml.ScalarNode && k.Value == "tokens" && k.Style == 0 && k.Anchor == "" {
			return v.Kind == yaml.ScalarNode && v.Value == "" && v.Style == 0 && v.Anchor == "" && isNull(v)
		}
	}
	return false
}

// moveDown corrects the lines of nodes below a line.
func moveDown(n *yaml.Node, below, lines int) {
	if n.Line > below {
		n.Line += lines
	}
	for _, child := range n.Content {
		moveDown(child, below, lines)
	}
}

// parse returns the mapping of the entries.
func (p part) parse() (*yaml.Node, error) {
	roots, err := documents(p.text)
	if err != nil || len(roots) != 1 {
		return nil, errWhole
	}
	n := roots[0]
	if n.Kind != yaml.MappingNode || n.Style&yaml.FlowStyle != 0 || n.Column != p.column || n.Anchor != "" || isTagged(n) {
		return nil, errWhole
	}
	moveDown(n, 0, p.before)
	return n, nil
}

// mappings returns the mapping of each part. Some parts are parsed ahead, as many as there are processors, so that the
// trees in memory stay few.
func (f *file) mappings() iter.Seq2[*yaml.Node, error] {
	type parsed struct {
		n   *yaml.Node
		err error
	}
	return func(yield func(*yaml.Node, error) bool) {
		ahead := make(chan chan parsed, runtime.GOMAXPROCS(0))
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			defer close(ahead)
			for _, p := range f.parts {
				one := make(chan parsed, 1)
				select {
				case ahead <- one:
				case <-stop:
					return
				}
				go func() {
					n, err := p.parse()
					one <- parsed{n, err}
				}()
			}
		}()
		for one := range ahead {
			if p := <-one; !yield(p.n, p.err) {
				return
			}
		}
	}
}
