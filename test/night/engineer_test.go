package night

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/net/html"
)

// engineer is the person who is paged. It knows only what it has seen.
type engineer struct {
	w     *world
	seen  []string // texts, in order
	steps []step
}

// step is one thing that the engineer does.
type step struct{ kind, what string }

// The kinds of steps.
const (
	look    = "look"      // at the page, or at the output of a command that only shows
	follow  = "follow"    // a link to the runbook
	typed   = "type"      // a command
	outside = "elsewhere" // what a document says is done in another program
)

func (e *engineer) did(kind, what string) { e.steps = append(e.steps, step{kind, what}) }

func (e *engineer) sees(text string) {
	e.seen = append(e.seen, strings.Join(strings.Fields(text), " "))
}

// has reports whether the engineer has seen a text.
func (e *engineer) has(text string) bool {
	text = strings.Join(strings.Fields(text), " ")
	return slices.ContainsFunc(e.seen, func(s string) bool { return strings.Contains(s, text) })
}

// card is a trouble as the status page shows it.
type card struct{ kind, text, runbook string }

// page looks at the status page, and returns the card whose runbook link is about that kind; the zero card if the daemon
// does not answer.
func (e *engineer) page(kind string) card {
	e.w.t.Helper()
	e.did(look, "the status page")
	body, code := e.w.get("/")
	if code != http.StatusOK {
		e.sees(body)
		return card{}
	}
	all := cardsOf(body)
	i := slices.IndexFunc(all, func(c card) bool { return c.kind == kind })
	if i < 0 {
		e.w.t.Fatalf("the page has no card about %q: %+v", kind, all)
	}
	e.sees(all[i].text)
	if e.section(all[i]) == "" {
		e.w.t.Errorf("the link of %q leads nowhere: %s", kind, all[i].runbook)
	}
	return all[i]
}

// section returns the section of the runbook where a card leads; empty if there is none.
func (e *engineer) section(c card) string {
	body, code := e.w.get(c.runbook)
	if code != http.StatusOK {
		return ""
	}
	_, anchor, _ := strings.Cut(c.runbook, "#")
	return sectionOf(body, anchor)
}

// follow opens the runbook where a card leads.
func (e *engineer) follow(c card) {
	e.w.t.Helper()
	e.did(follow, c.runbook)
	section := e.section(c)
	e.sees(section)
}

// looks runs a command that only shows. It must be written in what was seen, unless it is what everybody types first.
func (e *engineer) looks(command string) string {
	e.w.t.Helper()
	if command != "rotatord status" && !e.has(command) {
		e.w.t.Fatalf("nothing says to type %q; seen: %q", command, e.seen)
	}
	e.did(look, "`"+command+"`")
	out, _ := e.w.shell(command, "") // it fails if something is wrong, which is why it is typed
	e.sees(out)
	return out
}

// types runs a command that is written in what was seen, character by character. fill has words in capitals in it, which
// are replaced by what was seen elsewhere. input is what the engineer types into it.
func (e *engineer) types(command, input string, fill ...string) string {
	e.w.t.Helper()
	if !e.has(command) {
		e.w.t.Fatalf("nothing says to type %q; seen:\n%s", command, strings.Join(e.seen, "\n\n"))
	}
	for i := 0; i < len(fill); i += 2 {
		if !strings.Contains(command, fill[i]) || !e.has(fill[i+1]) {
			e.w.t.Fatalf("%q: nothing says that %s is %q", command, fill[i], fill[i+1])
		}
		command = strings.ReplaceAll(command, fill[i], fill[i+1])
	}
	e.did(typed, "`"+command+"`")
	out, err := e.w.shell(command, input)
	e.w.t.Logf("$ %s\n%s", command, out)
	if err != nil {
		e.w.t.Fatalf("%s: %v\n%s", command, err, out)
	}
	e.sees(out)
	return out
}

// elsewhere does what was read and cannot be typed here.
func (e *engineer) elsewhere(what, read string, do func()) {
	e.w.t.Helper()
	if !e.has(read) {
		e.w.t.Fatalf("nothing says %q; seen:\n%s", read, strings.Join(e.seen, "\n\n"))
	}
	e.did(outside, what)
	do()
}

// cardsOf returns the cards of the status page.
func cardsOf(page string) (all []card) {
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		return nil
	}
	walk(root, func(n *html.Node) {
		if n.Data != "article" || !strings.HasPrefix(attribute(n, "class"), "trouble") {
			return
		}
		c := card{text: textOf(n)}
		walk(n, func(link *html.Node) {
			if link.Data == "a" && strings.Contains(attribute(link, "href"), "#") {
				if kind, is := strings.CutPrefix(textOf(link), "Runbook: "); is {
					c.kind, c.runbook = kind, attribute(link, "href")
				}
			}
		})
		all = append(all, c)
	})
	return all
}

var heading = regexp.MustCompile(`^h([1-6])$`)

// sectionOf returns the text below the heading with that id, up to the next heading of the same or a higher level.
func sectionOf(page, id string) string {
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		return ""
	}
	var b strings.Builder
	level := ""
	walk(root, func(n *html.Node) {
		m := heading.FindStringSubmatch(n.Data)
		switch {
		case n.Parent == nil || n.Parent.Data != "article":
		case m != nil && attribute(n, "id") == id:
			level = m[1]
		case m != nil && level != "" && m[1] <= level:
			level = "over"
		case level != "" && level != "over":
			b.WriteString(textOf(n) + "\n")
		}
	})
	return b.String()
}

func walk(n *html.Node, f func(*html.Node)) {
	if n.Type == html.ElementNode {
		f(n)
	}
	for child := range n.ChildNodes() {
		walk(child, f)
	}
}

func attribute(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

func textOf(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data)
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// counts returns how many steps there were, and of which kinds.
func (e *engineer) counts() (n int, kinds string) {
	var parts []string
	for _, s := range e.steps {
		parts = append(parts, s.kind)
	}
	return len(e.steps), strings.Join(parts, ", ")
}

// told describes the steps for the table.
func (e *engineer) told() string {
	var parts []string
	for _, s := range e.steps {
		parts = append(parts, fmt.Sprintf("%s: %s", s.kind, s.what))
	}
	return strings.Join(parts, "; ")
}
