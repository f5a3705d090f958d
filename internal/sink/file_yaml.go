package sink

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// yamlFormat is a file with one YAML mapping. Where it can, it changes the text of the two values alone, so that
// comments, order and layout stay. Otherwise the file is written again from what was read, with its comments.
// Either way the result is read, and used only if nothing but the two values differs.
type yamlFormat struct{}

var (
	errNotMapping = errors.New("it is valid YAML and not a mapping (NAME: VALUE): the two fields have no place in it")
	errDocuments  = errors.New("it has more than one YAML document (---): name a file of one")

	// yamlLine is the one part of the library's errors that is repeated: the rest could quote the content.
	yamlLine = regexp.MustCompile(`^yaml: line (\d+): `)
	// yamlEnd is the marker at the end of a document.
	yamlEnd = regexp.MustCompile(`^\.\.\.\s`)
)

// get implements fileFormat.
func (yamlFormat) get(content []byte, names ...string) (map[string]string, error) {
	root, err := yamlRoot(content)
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	var other error
	for _, name := range names {
		node, err := yamlValue(root, name)
		switch {
		case err != nil:
			return nil, err
		case node == nil:
		case node.Kind != yaml.ScalarNode || node.Anchor != "" || node.ShortTag() != "!!str" && node.ShortTag() != "!!null":
			other = &otherValue{name}
		case node.ShortTag() == "!!null":
			values[name] = ""
		default:
			values[name] = node.Value
		}
	}
	return values, other
}

// set implements fileFormat.
func (f yamlFormat) set(content []byte, values []assignment) ([]byte, error) {
	for _, write := range []func([]byte, []assignment) ([]byte, error){yamlPatched, yamlEncoded} {
		changed, err := write(content, values)
		if err == nil && f.onlyChanges(content, changed, values) {
			return changed, nil
		}
	}
	return nil, errors.New("it cannot be changed without changing something else in it: write the two keys on lines of their own, as NAME: VALUE")
}

// onlyChanges reports whether the new content has the new values, and differs in nothing else.
func (f yamlFormat) onlyChanges(before, after []byte, values []assignment) bool {
	old, err := yamlRoot(before)
	if err != nil {
		return false
	}
	now, err := yamlRoot(after)
	if err != nil {
		return false
	}
	for _, v := range values {
		node, err := yamlValue(now, v.name)
		if err != nil || node == nil || node.Value != v.value || node.ShortTag() != "!!str" {
			return false
		}
		yamlRemove(old, v.name)
		yamlRemove(now, v.name)
	}
	return yamlEqual(old, now)
}

// yamlRoot returns the mapping of a file; an empty one if the file is empty.
func yamlRoot(content []byte) (*yaml.Node, error) {
	if err := unmarked(content); err != nil {
		return nil, err
	}
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var document, second yaml.Node
	err := decoder.Decode(&document)
	if errors.Is(err, io.EOF) || err == nil && len(document.Content) == 1 && document.Content[0].ShortTag() == "!!null" && document.Content[0].Anchor == "" {
		return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}, nil
	}
	switch {
	case err != nil:
		return nil, invalidYAML(err)
	case len(document.Content) != 1, document.Content[0].Kind != yaml.MappingNode:
		return nil, errNotMapping
	}
	if err := decoder.Decode(&second); err == nil {
		return nil, errDocuments
	} else if !errors.Is(err, io.EOF) {
		return nil, invalidYAML(err)
	}
	return document.Content[0], nil
}

// invalidYAML says where a text is not YAML, as far as the library knows.
func invalidYAML(err error) error {
	if found := yamlLine.FindStringSubmatch(err.Error()); found != nil {
		return fmt.Errorf("it is not valid YAML, in line %s or near it", found[1])
	}
	return errors.New("it is not valid YAML")
}

// yamlValue returns the value of a key of a mapping; nil if there is none.
func yamlValue(root *yaml.Node, name string) (*yaml.Node, error) {
	var value *yaml.Node
	for i := 0; i+1 < len(root.Content); i += 2 {
		if key := root.Content[i]; key.Kind != yaml.ScalarNode || key.Value != name {
			continue
		}
		if value != nil {
			return nil, fmt.Errorf("it has the key %s twice: remove one", name)
		}
		value = root.Content[i+1]
	}
	return value, nil
}

func yamlRemove(root *yaml.Node, name string) {
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Kind == yaml.ScalarNode && root.Content[i].Value == name {
			root.Content = append(root.Content[:i], root.Content[i+2:]...)
			return
		}
	}
}

// yamlEqual reports whether two nodes say the same.
func yamlEqual(a, b *yaml.Node) bool {
	if a.Kind != b.Kind || a.ShortTag() != b.ShortTag() || a.Value != b.Value || a.Anchor != b.Anchor || len(a.Content) != len(b.Content) {
		return false
	}
	for i := range a.Content {
		if !yamlEqual(a.Content[i], b.Content[i]) {
			return false
		}
	}
	return true
}

// yamlOtherBreaks are line breaks for YAML that do not end a line of a file.
var yamlOtherBreaks = regexp.MustCompile("\r(?:[^\n]|$)|[\u0085\u2028\u2029]")

// yamlPatched changes the text of the values, and adds lines for those that are missing.
func yamlPatched(content []byte, values []assignment) ([]byte, error) {
	root, err := yamlRoot(content)
	if err != nil {
		return nil, err
	}
	if root.Style&yaml.FlowStyle != 0 || yamlOtherBreaks.Match(content) {
		return nil, errors.New("its lines are not those of the file")
	}
	lines, newline := envLines(content), lineEnd(content)
	for _, v := range values {
		node, err := yamlValue(root, v.name)
		if err != nil {
			return nil, err
		}
		if node == nil {
			end := len(lines)
			if i := slices.IndexFunc(lines, func(line string) bool { return yamlEnd.MatchString(line + "\n") }); i >= 0 {
				end = i // before the marker of the end
			}
			if end > 0 && !strings.HasSuffix(lines[end-1], "\n") {
				lines[end-1] += newline
			}
			lines = slices.Insert(lines, end, yamlKey(v.name)+": "+yamlQuoted(v.value)+newline)
			continue
		}
		if node.Line < 1 || node.Line > len(lines) || node.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
			return nil, errors.New("the value has no line of its own")
		}
		line := lines[node.Line-1]
		start := yamlOffset(line, node.Column)
		lines[node.Line-1] = line[:start] + yamlQuoted(v.value) + line[start+yamlLength(line[start:]):]
	}
	return []byte(strings.Join(lines, "")), nil
}

// yamlOffset returns where a column, which counts characters, begins in a line.
func yamlOffset(line string, column int) int {
	for i := range line {
		if column--; column == 0 {
			return i
		}
	}
	return len(line)
}

// yamlLength returns how long the value is that begins a text. A wrong answer is found by reading the result.
func yamlLength(text string) int {
	switch {
	case strings.HasPrefix(text, "'"):
		for i := 1; i < len(text); i++ {
			if text[i] != '\'' {
				continue
			}
			if i+1 == len(text) || text[i+1] != '\'' {
				return i + 1
			}
			i++
		}
	case strings.HasPrefix(text, `"`):
		for i := 1; i < len(text); i++ {
			switch text[i] {
			case '\\':
				i++
			case '"':
				return i + 1
			}
		}
	}
	plain := text
	if before, _, ok := strings.Cut(text, " #"); ok {
		plain = before
	}
	return len(strings.TrimRight(plain, " \t\r\n"))
}

// yamlQuoted writes a text so that it is never taken for a number, a date or a comment.
func yamlQuoted(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// yamlKey writes a key, without quotes where it needs none.
func yamlKey(name string) string {
	node := yaml.Node{Kind: yaml.ScalarNode, Value: name}
	if yamlPlainKey.MatchString(name) && node.ShortTag() == "!!str" {
		return name
	}
	return yamlQuoted(name)
}

var yamlPlainKey = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*$`)

// yamlEncoded writes the whole file from what was read.
func yamlEncoded(content []byte, values []assignment) ([]byte, error) {
	var document yaml.Node
	root, err := yamlRoot(content)
	if err != nil {
		return nil, err
	}
	if yaml.Unmarshal(content, &document) == nil && len(document.Content) == 1 && document.Content[0].Kind == yaml.MappingNode {
		root = document.Content[0] // of a document, which has comments of its own
	} else {
		document = yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{root}}
	}
	for _, v := range values {
		node, err := yamlValue(root, v.name)
		if err != nil {
			return nil, err
		}
		text := yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.SingleQuotedStyle, Value: v.value}
		if node == nil {
			root.Content = append(root.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: v.name}, &text)
			continue
		}
		text.HeadComment, text.LineComment, text.FootComment = node.HeadComment, node.LineComment, node.FootComment
		*node = text
	}
	var b bytes.Buffer
	encoder := yaml.NewEncoder(&b)
	encoder.SetIndent(2)
	if err := encoder.Encode(&document); err != nil {
		return nil, errNotMapping
	}
	return b.Bytes(), nil
}
