package webpage

import (
	"strings"
)

// Section returns the section of a Markdown text that a link with that anchor leads to: its heading and all up to the
// next heading of the same or a higher level. It is empty if there is none.
func Section(text, anchor string) string {
	var b strings.Builder
	level := 0 // of the section; 0 before it
	eachLine(text, func(line string, heading int, id string) {
		if heading > 0 && level > 0 && heading <= level {
			level = -1 // it is over
		}
		if level == 0 && heading > 0 && id == anchor {
			level = heading
		}
		if level > 0 {
			b.WriteString(line)
		}
	})
	return strings.TrimRight(b.String(), "\n") + "\n"[:min(b.Len(), 1)]
}

// Sections returns the anchors of all headings of a Markdown text, in their order.
func Sections(text string) (all []string) {
	eachLine(text, func(_ string, heading int, id string) {
		if heading > 1 {
			all = append(all, id)
		}
	})
	return all
}

// eachLine calls f for each line of a Markdown text, with the level of the heading that it is, or 0, and its anchor.
func eachLine(text string, f func(line string, heading int, id string)) {
	ids, fenced := &headingIDs{}, false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
		}
		title := strings.TrimLeft(line, "#")
		if heading := len(line) - len(title); !fenced && heading > 0 && strings.HasPrefix(title, " ") {
			f(line, heading, string(ids.Generate([]byte(strings.TrimSpace(title)), 0)))
			continue
		}
		f(line, 0, "")
	}
}
