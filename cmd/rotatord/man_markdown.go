//go:build man

package main

import (
	"regexp"
	"strings"
)

var (
	relativeLink = regexp.MustCompile(`\[([^\]]+)\]\((?:#|\.|[a-z0-9.-]+(?:/|\.md|\.json))[^)]*\)`)
	tableRow     = regexp.MustCompile(`^\|(.*)\|$`)
	tableRule    = regexp.MustCompile(`^\|[ :|-]+\|$`)
	// cellEnd is a bar that no backslash takes for text.
	cellEnd = regexp.MustCompile(`[^\\]\|`)
)

// manMarkdown returns a page of docs/ in the Markdown that becomes a readable man page: sections are headings of the first
// level, a row of a table is a term with its meaning, because a terminal is too narrow for columns of sentences, and
// a link to another page is its text.
func manMarkdown(page string) string {
	var b strings.Builder
	b.WriteString("# NAME\nrotatord.yaml - the configuration file of rotatord\n\n# DESCRIPTION\n")
	lines := strings.Split(page, "\n")
	code := false
	for i, line := range lines {
		switch {
		case strings.HasPrefix(line, "```"):
			code = !code
		case code:
		case strings.HasPrefix(line, "# "), strings.HasPrefix(line, "<!--"):
			continue // the title is NAME
		case strings.HasPrefix(line, "##"):
			line = line[1:]
		case tableRule.MatchString(line), i+1 < len(lines) && tableRule.MatchString(lines[i+1]):
			continue // what the columns are shows in the text
		case tableRow.MatchString(line):
			line = definition(line)
		}
		if !code {
			line = relativeLink.ReplaceAllString(line, "$1")
		}
		b.WriteString(line + "\n")
	}
	b.WriteString("\n# SEE ALSO\n**rotatord(1)**, **rotatord-check(1)**, **rotatord-run(1)**\n\n" +
		"The daemon shows the other pages of its documents at the address of `listen`, below /docs/.\n")
	return b.String()
}

// definition returns the row of a table as a definition: the first cell is the term. Of three cells the second is a default.
func definition(row string) string {
	row = strings.TrimSpace(strings.Trim(row, "|"))
	var cells []string
	for {
		end := cellEnd.FindStringIndex(row)
		if end == nil {
			break
		}
		cells, row = append(cells, strings.TrimSpace(row[:end[0]+1])), row[end[1]:]
	}
	cells = append(cells, strings.TrimSpace(row))
	for i, c := range cells {
		cells[i] = strings.ReplaceAll(c, `\|`, "|")
	}
	term, meaning := cells[0], cells[len(cells)-1]
	if len(cells) == 3 && cells[1] != "" {
		meaning += " Default: " + strings.TrimSuffix(cells[1], ".") + "."
	}
	return term + "\n: " + meaning + "\n"
}
