package config

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// This file says what an operator has to fix in a file that is not valid YAML. The parser's own
// message describes its state, and may quote a password. So this code looks at the line with the
// fault again. It repeats nothing of the line but a cron expression.

// syntaxFault returns where a file is not valid YAML, and what would be right.
func syntaxFault(data []byte, err error) (position, string) {
	problem := parserPrefix.ReplaceAllString(err.Error(), "")
	if strings.HasPrefix(problem, "control characters are not allowed") {
		return controlCharacter(data), "a control character: remove it"
	}
	line, lines := syntaxErrorLine(data, err), bytes.Split(data, []byte("\n"))
	text := lineAt(lines, line)
	if at, hint := lineFault(text); hint != "" {
		return position{line, at}, hint
	}
	if strings.HasPrefix(problem, "mapping values are not allowed") {
		above := line - 1
		for ; above > 1 && isBlank(lineAt(lines, above)); above-- {
		}
		if at, hint := colonFault(text, lineAt(lines, above)); hint != "" {
			if at < 0 {
				return position{above, -at}, hint
			}
			return position{line, at}, hint
		}
	}
	return position{line, 1}, syntaxHint(err)
}

// lineAt returns a line, from 1 on, without its end.
func lineAt(lines [][]byte, n int) string {
	if n < 1 || n > len(lines) {
		return ""
	}
	return strings.TrimSuffix(strings.TrimPrefix(string(lines[n-1]), "\ufeff"), "\r")
}

func isBlank(line string) bool {
	line = strings.TrimSpace(line)
	return line == "" || strings.HasPrefix(line, "#")
}

func controlCharacter(data []byte) position {
	p := position{1, 1}
	for _, c := range string(data) {
		switch {
		case c == '\n':
			p = position{p.line + 1, 1}
			continue
		case unicode.IsControl(c) && c != '\t' && c != '\r' && c != '\u0085':
			return p
		}
		p.column++
	}
	return position{1, 1}
}

var (
	directive  = regexp.MustCompile(`^%(?:YAML +(\d\.\d))?`)
	bracketed  = regexp.MustCompile(`[:-] +(\[[0-9a-fA-F.]*:[0-9a-fA-F:.]*\]:\d+)\s*$`)
	bracket    = regexp.MustCompile(`(?:^ *|[:-] +)([\[{])`)
	indentTab  = regexp.MustCompile(`^ *\t`)
	reserved   = regexp.MustCompile("(^ *|[:,\\[{-] +)([*@`%])")
	unclosed   = regexp.MustCompile(`(^ *|[:-] +)("(?:[^"\\]|\\.)*|'(?:[^']|'')*)$`)
	noSpace    = regexp.MustCompile(`^( *(?:- +)*[A-Za-z_][A-Za-z0-9_.-]*:)[^\s/:]`)
	withValue  = regexp.MustCompile(`^ *(?:- +)*[^\s:]+: +[^\s#]`)
	safeCron   = regexp.MustCompile(`^(\*(?:/\d{1,2})?(?: (?:[0-9*/,?-]|(?i:sun|mon|tue|wed|thu|fri|sat|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec))+){3,6})(?:$|[\s,}\]])`)
	safeNamed  = regexp.MustCompile(`^(@(?:hourly|daily|midnight|weekly|monthly|yearly|annually|reboot|every [0-9hms.]{1,12}))(?:$|[\s,}\]])`)
	secondPair = regexp.MustCompile(`^ *(?:- +)*[^\s:]+: +[^\s"'{\[].*?(:)(?: |$)`)
)

// column is that of a byte of a line.
func column(line string, at int) int { return utf8.RuneCountInString(line[:at]) + 1 }

// lineFault looks for what one line alone shows to be wrong. hint is empty if nothing is.
func lineFault(line string) (at int, hint string) {
	if found := directive.FindStringSubmatch(line); found != nil && found[1] != "" && found[1] != "1.1" {
		return 1, "this line declares YAML " + found[1] + ", and the file is read as YAML 1.1: remove it"
	} else if found != nil {
		return 1, "a line that begins with % is a directive of YAML, and none is needed: remove it"
	}
	if found := indentTab.FindStringIndex(line); found != nil {
		return column(line, found[1]-1), "a tab in the indentation: indent with spaces"
	}
	if found := unclosed.FindStringSubmatchIndex(line); found != nil {
		return column(line, found[4]), "the quote that opens here is not closed on its line: close it"
	}
	if found := bracketed.FindStringSubmatchIndex(line); found != nil {
		return column(line, found[2]), fmt.Sprintf("a value that begins with [ is a list to YAML: put quotes around it: %q", line[found[2]:found[3]])
	}
	if found := bracket.FindStringSubmatchIndex(line); found != nil && isOpen(line[found[2]:]) {
		return column(line, found[2]), "the bracket that opens here is not closed: close it"
	}
	if found := reserved.FindStringSubmatchIndex(line); found != nil {
		from := found[4]
		return column(line, from), reservedHint(line[:from], line[from:])
	}
	return 0, ""
}

// isOpen reports whether more brackets open than close, quotes aside.
func isOpen(text string) bool {
	open := 0
	for _, c := range text {
		switch c {
		case '"', '\'':
			return false
		case '[', '{':
			open++
		case ']', '}':
			open--
		}
	}
	return open > 0
}

// reservedHint is about a value that begins with a character that YAML reserves.
func reservedHint(before, value string) string {
	quoted := ""
	for _, safe := range []*regexp.Regexp{safeCron, safeNamed} {
		if found := safe.FindStringSubmatch(value); found != nil {
			quoted = fmt.Sprintf("put quotes around it: %q", found[1])
		}
	}
	switch {
	case value[0] == '*' && strings.HasSuffix(strings.TrimRight(before, " "), "<<:"):
		return "a merge key (<<) and an alias (*name) are not accepted: write the fields out, or use defaults"
	case value[0] == '*' && quoted != "":
		return "a value that begins with * is an alias to YAML: " + quoted
	case value[0] == '*':
		return "a value that begins with * is an alias: aliases are not accepted, and text like that needs quotes"
	case quoted != "":
		return fmt.Sprintf("YAML reserves %c at the beginning of a value: %s", value[0], quoted)
	}
	return fmt.Sprintf("YAML reserves %c at the beginning of a value: put quotes around the value", value[0])
}

// colonFault is about a line with a colon where YAML allows none. at is negative if the
// fault is in the line above.
func colonFault(line, above string) (at int, hint string) {
	if found := noSpace.FindStringSubmatchIndex(above); found != nil {
		return -column(above, found[3]), "a space is missing after the colon"
	}
	if found := secondPair.FindStringSubmatchIndex(line); found != nil {
		return column(line, found[2]), "a colon where YAML allows none: quote a value that has one, and check the indentation"
	}
	indent := func(s string) int { return len(s) - len(strings.TrimLeft(s, " ")) }
	if a, b := indent(above), indent(line); b > a && withValue.MatchString(above) {
		return b + 1, fmt.Sprintf("this line begins with %d spaces and the one above, which has a value already, with %d: align them", b, a)
	}
	return 0, ""
}

// syntaxErrorLine finds the line that breaks a file. The parser reports where the
// construct around it began, or no line at all; an operator has to look at the line
// after the longest sequence of whole lines that is valid. Trying takes quadratic
// time at worst, so behind maxLines the parser's word is taken.
func syntaxErrorLine(data []byte, err error) int {
	const maxLines = 1000
	lines := bytes.SplitAfter(data, []byte("\n"))
	last := min(len(lines)-1, maxLines)
	for n := last; n > 0; n-- {
		if _, broken := documents(bytes.Join(lines[:n], nil)); broken != nil {
			continue
		}
		reported := parserPrefix.FindStringSubmatch(err.Error())
		if n == maxLines && len(reported) == 2 {
			if line, convErr := strconv.Atoi(reported[1]); convErr == nil && line > n && line <= len(lines) {
				return line
			}
		}
		return n + 1
	}
	return 1
}

var parserPrefix = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// syntaxHint words a parser's error for an operator. The parser quotes the name of
// an unknown anchor, and a password may begin with an asterisk; nothing that the
// parser quotes is repeated.
func syntaxHint(err error) string {
	problem, _, quotes := strings.Cut(parserPrefix.ReplaceAllString(err.Error(), ""), "'")
	for _, known := range []struct{ problem, hint string }{
		{"unknown anchor", "a value that begins with * is an alias: aliases are not accepted, and text like that needs quotes"},
		{"mapping values are not allowed", "a colon where YAML allows none: quote a value that has one, and check the indentation"},
		{"found character that cannot start any token", "a tab, or a value that begins with @, ` or %: indent with spaces, and quote such a value"},
		{"found a tab character", "a tab in the indentation: indent with spaces"},
		{"did not find expected key", "this line does not fit the mapping around it: check the indentation"},
		{"could not find expected", "this line is neither a key with a colon nor part of the value above: check it and its indentation"},
		{"did not find expected node content", "a value or a closing bracket is missing here"},
		{"did not find expected ','", "a comma or a closing bracket is missing here"},
		{"found unexpected end of stream", "a quote or bracket that opens here is never closed"},
		{"control characters are not allowed", "a control character: remove it"},
	} {
		if strings.HasPrefix(problem, known.problem) {
			return known.hint
		}
	}
	if quotes || problem == "" {
		return "this line cannot be read: check its indentation, quotes and brackets"
	}
	return problem + ": check the indentation, quotes and brackets"
}
