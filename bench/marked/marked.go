// Package marked replaces the parts of a document that a program writes. A part begins with a line <!-- make bench: NAME -->
// and ends with a line <!-- end of make bench -->.
package marked

import (
	"fmt"
	"strings"
)

const end = "<!-- end of make bench -->\n"

func begin(name string) string { return fmt.Sprintf("<!-- make bench: %s -->\n", name) }

// Find returns the text of a part. It is an error if the document does not have the part exactly once.
func Find(document, name string) (string, error) {
	_, text, _, err := cut(document, name)
	return text, err
}

// Replace returns the document with another text for a part. The text ends with a newline.
func Replace(document, name, text string) (string, error) {
	before, _, after, err := cut(document, name)
	return before + text + after, err
}

// cut returns what is before the text of a part, with its first line, the text, and what is after it.
func cut(document, name string) (before, text, after string, err error) {
	before, rest, found := strings.Cut(document, begin(name))
	if !found || strings.Contains(rest, begin(name)) {
		return "", "", "", fmt.Errorf("the document does not have %q exactly once", strings.TrimSpace(begin(name)))
	}
	text, after, found = strings.Cut(rest, end)
	if !found {
		return "", "", "", fmt.Errorf("nothing ends %q: write %q behind it", strings.TrimSpace(begin(name)), strings.TrimSpace(end))
	}
	return before + begin(name), text, end + after, nil
}

// Cells returns the cells of a table in Markdown by the first cell of their row and the head of their column.
func Cells(table string) map[string]map[string]string {
	all := make(map[string]map[string]string)
	var heads []string
	for line := range strings.Lines(table) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case heads == nil:
			heads = cells
		case strings.Trim(cells[0], "-") == "" && cells[0] != "":
		default:
			row := make(map[string]string)
			for i := 1; i < min(len(cells), len(heads)); i++ {
				row[heads[i]] = cells[i]
			}
			all[cells[0]] = row
		}
	}
	return all
}
