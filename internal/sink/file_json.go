package sink

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// jsonFormat is a file with one JSON object. Only the two values change: the order of the keys, the numbers and
// the white space stay as they are.
type jsonFormat struct{}

// jsonMember is one key of the object.
type jsonMember struct {
	name       string
	value      json.RawMessage
	start, end int // of the value in the content
}

var errNotObject = errors.New("it is valid JSON and not an object: the two fields have no place in it")

// get implements fileFormat.
func (jsonFormat) get(content []byte, names ...string) (map[string]string, error) {
	members, err := jsonMembers(content)
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	var other error
	for _, m := range members {
		if !slices.Contains(names, m.name) {
			continue
		}
		if _, twice := values[m.name]; twice {
			return nil, fmt.Errorf("it has the key %s twice: remove one", m.name)
		}
		var text *string
		if err := json.Unmarshal(m.value, &text); err != nil {
			other = &otherValue{m.name}
		}
		values[m.name] = ""
		if text != nil {
			values[m.name] = *text
		}
	}
	return values, other
}

// set implements fileFormat.
func (jsonFormat) set(content []byte, values []assignment) ([]byte, error) {
	if len(bytes.TrimSpace(content)) == 0 {
		content = []byte("{\n}\n")
	}
	newline := lineEnd(content)
	for _, v := range values {
		members, err := jsonMembers(content)
		if err != nil {
			return nil, err
		}
		text := jsonText(v.value)
		if i := slices.IndexFunc(members, func(m jsonMember) bool { return m.name == v.name }); i >= 0 {
			content = slices.Concat(content[:members[i].start], text, content[members[i].end:])
			continue
		}
		added := slices.Concat(jsonText(v.name), []byte(": "), text)
		if len(members) == 0 {
			begin, end := bytes.IndexByte(content, '{')+1, bytes.LastIndexByte(content, '}')
			content = slices.Concat(content[:begin], []byte(newline+"  "), added, []byte(newline), content[end:])
			continue
		}
		last := members[len(members)-1]
		content = slices.Concat(content[:last.end], []byte(","), jsonIndent(content), added, content[last.end:])
	}
	return content, nil
}

// jsonText writes a string as JSON.
func jsonText(s string) []byte {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(s) // a string can always be encoded
	return bytes.TrimSpace(b.Bytes())
}

// jsonIndent returns the white space before the first key, which a new key gets as well.
func jsonIndent(content []byte) []byte {
	rest := content[bytes.IndexByte(content, '{')+1:]
	space := rest[:len(rest)-len(bytes.TrimLeft(rest, " \t\r\n"))]
	if len(space) == 0 {
		return []byte(" ")
	}
	return slices.Clone(space)
}

// jsonMembers returns the keys of the object. An empty file has none.
func jsonMembers(content []byte) ([]jsonMember, error) {
	if err := unmarked(content); err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(content)) == 0 {
		return nil, nil
	}
	if err := validJSON(content); err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(content))
	if open, err := decoder.Token(); err != nil || open != json.Delim('{') {
		return nil, errNotObject
	}
	var members []jsonMember
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return nil, errNotObject
		}
		var m jsonMember
		m.name, _ = name.(string)
		if err := decoder.Decode(&m.value); err != nil {
			return nil, errNotObject
		}
		m.end = int(decoder.InputOffset())
		m.start = m.end - len(m.value)
		members = append(members, m)
	}
	return members, nil
}

// validJSON returns where the content is not JSON, or has something after its first value. The library's own error
// could quote the content.
func validJSON(content []byte) error {
	var all json.RawMessage
	err := json.Unmarshal(content, &all)
	if err == nil {
		return nil
	}
	at := len(content)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		at = min(int(syntax.Offset), at)
	}
	line := 1 + bytes.Count(content[:max(at-1, 0)], []byte("\n"))
	switch first := json.NewDecoder(bytes.NewReader(content)).Decode(&all); {
	case first == nil:
		return fmt.Errorf("it has something after its first value, in line %d: remove it", line)
	case errors.Is(first, io.ErrUnexpectedEOF):
		return fmt.Errorf("it ends before its object does, in line %d: is it cut off?", line)
	}
	return fmt.Errorf("line %d is not valid JSON", line)
}
