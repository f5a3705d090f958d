package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"rotatord/internal/printable"
)

// Fault is one mistake in a configuration file. In [Config.Warnings] it is something that works, and
// that the operator should look at.
type Fault struct {
	File         string
	Line, Column int    // from 1; columns count characters
	Path         string // such as tokens.ci-deploy.sinks[0].vault.path; empty for the file as a whole
	Message      string // one line: what is wrong, and what would be right
}

// String returns file:line:column: path: message.
func (f Fault) String() string {
	s := fmt.Sprintf("%s:%d:%d: ", f.File, f.Line, f.Column)
	if f.Path != "" {
		s += f.Path + ": "
	}
	return s + f.Message
}

// Faults are all faults of one file in the order of their positions. It is the
// error of [Parse], and of [Load] for a file that could be read.
type Faults []Fault

// Error returns one line for each fault.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, fault := range f {
		lines[i] = fault.String()
	}
	return strings.Join(lines, "\n")
}

// AsFaults returns the faults that err carries.
func AsFaults(err error) (Faults, bool) { return errors.AsType[Faults](err) }

// ordered sorts faults by position and drops repetitions: a fault in defaults is
// found once for every token that inherits it.
func ordered(faults []Fault) []Fault {
	slices.SortStableFunc(faults, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Path, b.Path), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(faults)
}

// position is a place in the file.
type position struct{ line, column int }

func at(n *yaml.Node) position { return position{max(n.Line, 1), max(n.Column, 1)} }

// spot is a place in the file that is known for longer than its entry is read.
type spot struct {
	entry, path string // the path begins with inEntry if entry is not empty
	at          position
}

// String returns the path from the top of the file on.
func (s spot) String() string {
	r := report{entry: s.entry}
	return r.full(s.path)
}

// report collects faults. It removes client secrets from them: an operator may have pasted one into a
// field whose value a message quotes.
type report struct {
	file   string
	entry  string // the token whose entry is read; see inEntry
	faults []Fault
}

// inEntry begins the paths in the entry of the token that is being read. All tokens so share the same short paths,
// and the whole path is made only for what is kept or told: see [report.full].
const inEntry = "@"

// full returns the path from the top of the file on.
func (r *report) full(path string) string {
	if rest, found := strings.CutPrefix(path, inEntry); found {
		return join("tokens", r.entry) + rest
	}
	return path
}

// local returns the path as it is while the entry is read.
func (r *report) local(path string) string {
	if r.entry == "" || !strings.HasPrefix(path, "tokens.") {
		return path
	}
	if rest, found := strings.CutPrefix(path, join("tokens", r.entry)); found && (rest == "" || rest[0] == '.') {
		return inEntry + rest
	}
	return path
}

func (r *report) addf(at position, path, format string, args ...any) {
	r.faults = append(r.faults, r.fault(at, path, format, args...))
}

func (r *report) fault(at position, path, format string, args ...any) Fault {
	return Fault{
		File: r.file, Line: at.line, Column: at.column,
		Path: printable.Text(r.full(path)), Message: printable.Text(fmt.Sprintf(format, args...)),
	}
}

// join appends a key to a path. A key with a character other than letters, digits, _ and - is quoted.
// So two different fields never have one path, and a path is always on one line.
func join(path, key string) string {
	if !isPlain(key) {
		key = strconv.Quote(key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

func isPlain(key string) bool {
	for i := range len(key) {
		if c := key[i]; (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return key != ""
}

// itemPath is the path of an entry of the list at path.
func itemPath(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }
