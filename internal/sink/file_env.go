package sink

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// envFormat is a file of lines NAME=VALUE, as systemd (EnvironmentFile=), shells (set -a; . FILE) and Docker
// (--env-file) read them. Those differ in quotes and backslashes, so a value is written without quotes where
// that means the same to all. Every client ID and client secret of Cloudflare is of this kind.
type envFormat struct{}

var (
	envLine  = regexp.MustCompile(`^(\s*(?:export\s+)?)([A-Za-z_][A-Za-z0-9_]*)=(.*)$`)
	envPlain = regexp.MustCompile(`^[A-Za-z0-9_./:=@%+,-]+$`) // means itself without quotes, everywhere
)

// get implements fileFormat.
func (envFormat) get(content []byte, names ...string) (map[string]string, error) {
	values := map[string]string{}
	wanted := map[string]bool{}
	for _, name := range names {
		wanted[name] = true
	}
	if err := unmarked(content); err != nil {
		return nil, err
	}
	if bytes.IndexByte(content, 0) >= 0 || !utf8.Valid(content) {
		return nil, errors.New("it is not UTF-8 text")
	}
	for i, line := range envLines(content) {
		text := strings.TrimSuffix(line, "\n")
		if strings.HasSuffix(text, "\r") {
			return nil, fmt.Errorf("line %d ends with a carriage return, which a shell would take for a part of the value: save the file with Unix line ends", i+1)
		}
		if rest := strings.TrimSpace(text); rest == "" || rest[0] == '#' || rest[0] == ';' {
			continue
		}
		found := envLine.FindStringSubmatch(text)
		if found == nil {
			return nil, fmt.Errorf("line %d is not NAME=VALUE, a comment or empty", i+1)
		}
		value, ok := envValue(strings.TrimSpace(found[3]))
		if !ok {
			return nil, fmt.Errorf("line %d has a value that goes on in the next line, or something after its closing quote", i+1)
		}
		name := found[2]
		if _, twice := values[name]; twice {
			return nil, fmt.Errorf("line %d sets %s for the second time: remove one", i+1, name)
		}
		if wanted[name] {
			values[name] = value
		}
	}
	return values, nil
}

// set implements fileFormat.
func (envFormat) set(content []byte, values []assignment) ([]byte, error) {
	lines := envLines(content)
	for _, v := range values {
		written := false
		for i, line := range lines {
			text, ended := strings.CutSuffix(line, "\n")
			if found := envLine.FindStringSubmatch(text); found != nil && found[2] == v.name {
				lines[i], written = found[1]+v.name+"="+envQuoted(v.value), true
				if ended {
					lines[i] += "\n"
				}
			}
		}
		if written {
			continue
		}
		if n := len(lines); n > 0 && !strings.HasSuffix(lines[n-1], "\n") {
			lines[n-1] += "\n"
		}
		lines = append(lines, v.name+"="+envQuoted(v.value)+"\n")
	}
	return []byte(strings.Join(lines, "")), nil
}

// envLines splits a file into lines with their ends.
func envLines(content []byte) []string {
	var lines []string
	for line := range bytes.Lines(content) {
		lines = append(lines, string(line))
	}
	return lines
}

// envValue takes the quotes away from a value. It returns false if the value does not end on its line.
func envValue(text string) (value string, ok bool) {
	var b strings.Builder
	for text != "" {
		switch c := text[0]; c {
		case '\'':
			inner, rest, closed := strings.Cut(text[1:], "'")
			if !closed {
				return "", false
			}
			b.WriteString(inner)
			text = rest
		case '"':
			rest, closed := envDoubleQuoted(&b, text[1:])
			if !closed {
				return "", false
			}
			text = rest
		case '\\':
			if len(text) == 1 {
				return "", false
			}
			b.WriteByte(text[1])
			text = text[2:]
		default:
			b.WriteByte(c)
			text = text[1:]
		}
	}
	return b.String(), true
}

// envDoubleQuoted reads up to the closing quote, and returns what follows it.
func envDoubleQuoted(b *strings.Builder, text string) (rest string, closed bool) {
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			return text[i+1:], true
		case c == '\\' && i+1 < len(text) && strings.IndexByte("\"\\$`", text[i+1]) >= 0:
			i++
			b.WriteByte(text[i])
		case c == '\\' && i+1 == len(text):
			return "", false
		default:
			b.WriteByte(c)
		}
	}
	return "", false
}

// envQuoted writes a value. In single quotes nothing has a meaning; a value with a single quote needs double
// quotes and backslashes, which systemd reads like a shell since version 247.
func envQuoted(value string) string {
	switch {
	case envPlain.MatchString(value):
		return value
	case !strings.Contains(value, "'"):
		return "'" + value + "'"
	}
	return `"` + strings.NewReplacer(`"`, `\"`, `\`, `\\`, "$", `\$`, "`", "\\`").Replace(value) + `"`
}
