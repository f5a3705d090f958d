package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// pages are the documents that people read.
func pages(t *testing.T) (found []string) {
	t.Helper()
	for _, glob := range []string{"*.md", "docs/*.md", "docs/adr/*.md", "deploy/*/*.md", "test/*.md"} {
		paths, err := filepath.Glob(filepath.Join(root, glob))
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s matches nothing: %v", glob, err)
		}
		found = append(found, paths...)
	}
	return found
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

var (
	fenced = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	link   = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	title  = regexp.MustCompile(`(?m)^#+ (.*)$`)
)

// anchors are the parts of a page that a link can name, made from its headings as GitHub makes them.
func anchors(page string) map[string]bool {
	all := map[string]bool{"": true}
	for _, heading := range title.FindAllStringSubmatch(fenced.ReplaceAllString(page, ""), -1) {
		all[strings.Map(func(r rune) rune {
			switch {
			case r == ' ' || r == '-':
				return '-'
			case r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, heading[1])] = true
	}
	return all
}

// TestLinks checks that each link to a file of this repository leads somewhere, and to a heading that exists.
func TestLinks(t *testing.T) {
	found := 0
	of := map[string]map[string]bool{} // the anchors of each page that a link leads to
	for _, page := range pages(t) {
		for _, match := range link.FindAllStringSubmatch(fenced.ReplaceAllString(read(t, page), ""), -1) {
			if strings.Contains(match[1], "://") {
				continue
			}
			found++
			file, anchor, _ := strings.Cut(match[1], "#")
			target := page
			if file != "" {
				target = filepath.Join(filepath.Dir(page), filepath.FromSlash(file))
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: the link %s leads nowhere", page, match[1])
				continue
			}
			if filepath.Ext(target) != ".md" {
				continue
			}
			if of[target] == nil {
				of[target] = anchors(read(t, target))
			}
			if !of[target][anchor] {
				t.Errorf("%s: the link %s names no heading of that page", page, match[1])
			}
		}
	}
	if found < 100 {
		t.Errorf("only %d links were found", found)
	}
}

// TestEveryPageIsInTheIndex checks that a reader can find each page.
func TestEveryPageIsInTheIndex(t *testing.T) {
	index := read(t, filepath.Join(root, "docs/README.md"))
	paths, err := filepath.Glob(filepath.Join(root, "docs/*.md"))
	if err != nil || len(paths) < 10 {
		t.Fatalf("only %d pages: %v", len(paths), err)
	}
	for _, path := range paths {
		if name := filepath.Base(path); name != "README.md" && !strings.Contains(index, "("+name+")") {
			t.Errorf("docs/README.md does not link %s", name)
		}
	}
	decisions, err := filepath.Glob(filepath.Join(root, "docs/adr/0*.md"))
	if err != nil || len(decisions) < 10 {
		t.Fatalf("only %d decisions: %v", len(decisions), err)
	}
	index = read(t, filepath.Join(root, "docs/adr/README.md"))
	for _, path := range decisions {
		if name := filepath.Base(path); !strings.Contains(index, "("+name+")") {
			t.Errorf("docs/adr/README.md does not link %s", name)
		}
	}
}

// TestReadmeIsShort keeps the front page short enough to be read: what is longer belongs in docs/.
func TestReadmeIsShort(t *testing.T) {
	if words := len(strings.Fields(read(t, filepath.Join(root, "README.md")))); words > 1000 {
		t.Errorf("README.md has %d words and not at most 1,000: move something to docs/", words)
	}
}

// TestArchitectureNamesFiles checks that each file that docs/architecture.md names exists: there, or below internal/.
func TestArchitectureNamesFiles(t *testing.T) {
	found := 0
	for _, match := range regexp.MustCompile("`([a-z_/]+\\.(?:go|md|yaml))`").FindAllStringSubmatch(read(t, filepath.Join(root, "docs/architecture.md")), -1) {
		found++
		exists := false
		for _, below := range []string{".", "internal", "internal/rotation", "internal/app", "cmd/rotatord"} {
			if _, err := os.Stat(filepath.Join(root, below, match[1])); err == nil {
				exists = true
			}
		}
		if !exists {
			t.Errorf("docs/architecture.md names %s, which does not exist", match[1])
		}
	}
	if found < 20 {
		t.Errorf("only %d files were found", found)
	}
}
