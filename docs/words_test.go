// Package docs_test checks the documents, and the words of the whole repository.
package docs_test

import (
	"flag"
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = ".."

var all = flag.Bool("all", false, "look for the words in every file, not only in the rooms that are clean")

// notYet are the rooms whose words are not checked yet.
var notYet = []string{}

// unchecked are files whose words are not ours to choose, or cannot change: docs/events.md quotes log lines,
// which programs read.
var unchecked = []string{".git", ".tools", "bin", "dist", "CHANGELOG.md", "LICENSE", "docs/events.md", "internal/event/kinds.go", "docs/glossary.md", "docs/words_test.go"}

// word is a row of the glossary's last table.
type word struct {
	phrases
	better  string
	allowed *regexp.Regexp // nil: nowhere
}

// plain returns a text in lower case, with one space wherever a phrase may be broken. To look for a phrase in that is a
// hundred times faster than the pattern, and most texts have none.
func plain(text string) string {
	return strings.ToLower(strings.Join(strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune("\t\n\f\r /*#", r) }), " "))
}

// phrases are some phrases that are looked for.
type phrases struct {
	plain   []string       // as plain returns them
	pattern *regexp.Regexp // matches each of them, also across a line break; nil if there is none
}

func phrasesOf(list string) (p phrases) {
	var each []string
	for phrase := range strings.SplitSeq(list, ",") {
		if phrase = strings.TrimSpace(phrase); phrase != "" {
			p.plain = append(p.plain, plain(phrase))
			each = append(each, strings.Join(strings.Fields(regexp.QuoteMeta(phrase)), `[\s/*#]+`))
		}
	}
	if len(each) > 0 {
		p.pattern = regexp.MustCompile(`(?i)\b(?:` + strings.Join(each, "|") + `)\b`)
	}
	return p
}

// mayBeIn reports whether the pattern can match a text, by what plain returns of it.
func (p phrases) mayBeIn(plain string) bool {
	return slices.ContainsFunc(p.plain, func(phrase string) bool { return strings.Contains(plain, phrase) })
}

// tables returns the rows of a document's tables under a heading, without their heads. An empty
// heading means the whole document.
func tables(t *testing.T, path, heading string) (rows [][]string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	inside, head := heading == "", true
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if title, ok := strings.CutPrefix(line, "## "); ok && heading != "" {
			inside = title == heading
		}
		if !inside || !strings.HasPrefix(line, "|") {
			head = true
			continue
		}
		if strings.HasPrefix(line, "| ---") || strings.HasPrefix(line, "|---") {
			head = false
			continue
		}
		if head {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	if len(rows) == 0 {
		t.Fatalf("%s has no table under %q", path, heading)
	}
	return rows
}

const avoided = "Words that we do not use"

func avoidedWords(t *testing.T) (words []word) {
	t.Helper()
	for _, row := range tables(t, "docs/glossary.md", avoided) {
		if len(row) != 3 {
			t.Fatalf("docs/glossary.md: a row has %d cells and not 3: %q", len(row), row)
		}
		words = append(words, word{phrasesOf(row[0]), row[1], phrasesOf(row[2]).pattern})
	}
	return words
}

// target is the address in a link, which no reader reads.
var target = regexp.MustCompile(`\]\([^)]*\)`)

// text is a piece of a file that people read: a comment, a string, or a whole document.
type text struct {
	line int
	body string
}

// texts returns what people read in a file: of a Go file the comments and strings, of other files everything.
func texts(name string, content []byte) (found []text) {
	if filepath.Ext(name) == ".md" {
		content = target.ReplaceAll(content, []byte("]()"))
	}
	if filepath.Ext(name) != ".go" {
		return []text{{1, string(content)}}
	}
	files := token.NewFileSet()
	file := files.AddFile(name, -1, len(content))
	var s scanner.Scanner
	s.Init(file, content, nil, scanner.ScanComments)
	for {
		pos, kind, literal := s.Scan()
		switch kind {
		case token.EOF:
			return found
		case token.COMMENT, token.STRING:
			line := files.Position(pos).Line
			// Line comments that follow each other are one text: a phrase may go over two lines.
			if last := len(found) - 1; kind == token.COMMENT && last >= 0 && strings.HasPrefix(found[last].body, "//") &&
				found[last].line+strings.Count(found[last].body, "\n")+1 == line {
				found[last].body += "\n" + literal
				continue
			}
			found = append(found, text{line, literal})
		}
	}
}

// fault is an avoided word in a text.
type fault struct {
	line   int
	phrase string
	better string
}

func faults(words []word, found []text) (list []fault) {
	for _, part := range found {
		body := plain(part.body)
		for _, w := range words {
			if !w.mayBeIn(body) {
				continue
			}
			var allowed [][]int
			if w.allowed != nil {
				allowed = w.allowed.FindAllStringIndex(part.body, -1)
			}
			for _, at := range w.pattern.FindAllStringIndex(part.body, -1) {
				if slices.ContainsFunc(allowed, func(a []int) bool { return a[0] <= at[0] && at[1] <= a[1] }) {
					continue
				}
				line := part.line + strings.Count(part.body[:at[0]], "\n")
				list = append(list, fault{line, strings.Join(strings.Fields(part.body[at[0]:at[1]]), " "), w.better})
			}
		}
	}
	return list
}

// within reports whether a path is one of some files and directories or lies below one.
func within(path string, list []string) bool {
	return slices.ContainsFunc(list, func(dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") })
}

// TestWords finds words that the glossary replaces by better ones.
func TestWords(t *testing.T) {
	words := avoidedWords(t)
	files := 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if within(name, unchecked) || !*all && within(name, notYet) {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		switch filepath.Ext(name) {
		case ".sum", ".json", ".bin", ".lock", ".age", ".snap":
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		for _, f := range faults(words, texts(name, content)) {
			t.Errorf("%s:%d: %q: better: %s", name, f.line, f.phrase, f.better)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files == 0 {
		t.Error("no file was read")
	}
}

// TestWordsAreFound checks the check: what is a fault, what is not, and on which line.
func TestWordsAreFound(t *testing.T) {
	words := avoidedWords(t)
	const source = `package p

// One line. All
// the same, it goes on; there is no reason, and it is no longer so.
func somebody() string { return "is no time zone" }
`
	var got []string
	for _, f := range faults(words, texts("p.go", []byte(source))) {
		got = append(got, f.phrase)
	}
	if want := []string{"All // the same", "is no"}; !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	if f := faults(words, texts("p.md", []byte("a\nb\nit stands in c\n"))); len(f) != 1 || f[0].line != 3 {
		t.Errorf("found %v, want one fault on line 3", f)
	}
}

// TestGlossary checks that code or other documents use every term.
func TestGlossary(t *testing.T) {
	type file struct{ plain, body string }
	var files []file
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := filepath.ToSlash(strings.TrimPrefix(path, root+string(filepath.Separator)))
		if within(name, unchecked) || name == "docs/words_test.go" {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if ext := filepath.Ext(name); entry.IsDir() || ext != ".go" && ext != ".md" {
			return nil
		}
		content, err := os.ReadFile(path)
		files = append(files, file{plain(string(content)), string(content)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, row := range tables(t, "docs/glossary.md", "") {
		if len(row) != 2 { // the table of avoided words has three
			continue
		}
		for term := range strings.SplitSeq(row[0], ",") {
			term = strings.TrimSpace(term)
			if seen[term] {
				t.Errorf("docs/glossary.md: %q is there twice", term)
			}
			seen[term] = true
			p := phrasesOf(term + "," + term + "s")
			if !slices.ContainsFunc(files, func(f file) bool { return p.mayBeIn(f.plain) && p.pattern.MatchString(f.body) }) {
				t.Errorf("docs/glossary.md: %q is used nowhere else", term)
			}
		}
	}
	if len(seen) < 30 {
		t.Errorf("only %d terms were found", len(seen))
	}
}
