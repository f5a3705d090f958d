package notify

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"rotatord/internal/printable"
	"rotatord/internal/status"
)

// The bounds of a message. With all of them it has less than 64 KiB.
const (
	maxNews  = 30  // groups of news
	maxNames = 10  // names of tokens in a group
	maxText  = 500 // bytes of a text in a group
	maxTitle = 150
)

// Message is what a receiver is told. It is also the JSON of a generic webhook. Texts are scrubbed.
type Message struct {
	Version int `json:"version"` // 1
	// ID is the same if the message is sent again.
	ID       string    `json:"id"`
	Receiver string    `json:"receiver"`
	Replica  string    `json:"replica,omitempty"` // that tells it; empty if the daemon is alone
	At       time.Time `json:"at"`                // when the news was collected
	// Severity is the worst of the news: critical, warning, or info if there is only what is over.
	Severity string `json:"severity"`
	Title    string `json:"title"`
	News     []News `json:"news"`
	// More counts groups of news that are left out.
	More int    `json:"more,omitempty"`
	URL  string `json:"url,omitempty"` // of the status page
	// Test is set in the message of rotatord notify test. It has no news.
	Test bool `json:"test,omitempty"`
	// Reached are the addresses of the receiver that have the message already.
	Reached []string `json:"-"`
}

// News is one kind of trouble of some tokens, of a check, or of replicas.
type News struct {
	// Change is new, changed, still, recovered or happened.
	Change   string `json:"change"`
	Topic    string `json:"topic"`
	Kind     string `json:"kind"`
	Severity string `json:"severity"` // critical, warning, or info for what is over
	// Subject is a check or the replicas; empty if it is about tokens.
	Subject string `json:"subject,omitempty"`
	// Tokens are the first of them by name, and TokenCount is how many there are.
	Tokens     []string `json:"tokens,omitempty"`
	TokenCount int      `json:"token_count,omitempty"`
	What       string   `json:"what"`
	ToDo       string   `json:"to_do,omitempty"` // what to type or to do
	// Since is when it began, or when it happened; Until is when clients lose the last secret that works. Zero: not known.
	Since   time.Time `json:"since,omitzero"`
	Until   time.Time `json:"until,omitzero"`
	Runbook string    `json:"runbook,omitempty"` // the section that explains it
}

// compose makes a message of news.
func compose(receiver, replica, externalURL string, v view, news []change) *Message {
	m := &Message{Version: 1, ID: newID(), Receiver: receiver, Replica: replica, At: v.At.UTC(), Severity: "info", URL: externalURL}
	for len(news) > 0 {
		n := 1
		for n < len(news) && together(news[0], news[n]) {
			n++
		}
		if len(m.News) < maxNews {
			group := groupOf(v, news[:n])
			group.Runbook = linked(externalURL, group.Runbook)
			m.News = append(m.News, group)
		} else {
			m.More++
		}
		m.Severity = worse(m.Severity, severityOf(news[0]))
		news = news[n:]
	}
	m.Title = printable.Shortened(m.title(), maxTitle)
	return m
}

// together reports whether two pieces of news go into one group.
func together(a, b change) bool {
	return a.token != "" && b.token != "" && a.how == b.how && a.kind == b.kind && a.mixed == b.mixed && a.how != ChangeHappened
}

func severityOf(c change) string {
	if c.how == ChangeRecovered {
		return "info"
	}
	return string(c.severity)
}

func worse(a, b string) string {
	order := []string{"info", string(status.Warning), string(status.Critical)}
	return order[max(slices.Index(order, a), slices.Index(order, b))]
}

// groupOf returns news of one kind as it is shown.
func groupOf(v view, all []change) News {
	first := all[0]
	n := News{Change: first.how, Topic: first.topic, Kind: first.kind, Severity: severityOf(first), Since: first.since}
	trouble := first.trouble
	if first.token != "" {
		var tokens []status.Token
		for _, c := range all {
			n.Tokens = append(n.Tokens, c.token)
			if i, there := v.tokens[c.token]; there {
				tokens = append(tokens, v.Tokens[i])
			}
			if !c.since.IsZero() && c.since.Before(n.Since) {
				n.Since = c.since
			}
		}
		n.TokenCount = len(n.Tokens)
		n.Tokens = n.Tokens[:min(len(n.Tokens), maxNames)]
		if first.how != ChangeRecovered && first.how != ChangeHappened {
			for _, t := range status.Troubles(tokens, nil, v.At) {
				if t.Kind == first.kind {
					trouble = t
				}
			}
		}
	} else {
		n.Subject = subjectOf(first)
	}
	if first.how == ChangeRecovered {
		switch text := ended[first.kind]; {
		case first.mixed:
			n.What, n.ToDo = "over: "+words(first.kind)+"; something else is wrong", "rotatord status "+n.Tokens[0]
		case text == "":
			n.What = "over: " + words(first.kind)
		default:
			n.What = text
		}
		return n
	}
	n.What, n.ToDo = printable.Line(trouble.What, maxText), printable.Line(trouble.ToDo, maxText)
	if commands := status.Commands(trouble.Steps); len(commands) > 0 && !strings.Contains(n.ToDo, commands[0]) {
		n.ToDo += ". Type: " + printable.Line(commands[0], maxText)
	}
	n.Until, n.Runbook = trouble.Until, trouble.Runbook
	if !trouble.Since.IsZero() {
		n.Since = trouble.Since
	}
	if n.TokenCount > 1 {
		n.ToDo = strings.ReplaceAll(n.ToDo, "NAME", n.Tokens[0]) + " (and so for each)"
	}
	return n
}

// subjectOf returns in words which check or which replicas something is about.
func subjectOf(c change) string {
	switch {
	case c.trouble.Check != nil:
		return printable.Line(c.trouble.Check.Title(), maxText)
	case len(c.trouble.Replicas) > 0:
		return "replica " + printable.Line(strings.Join(c.trouble.Replicas, ", "), maxText)
	case c.how == ChangeHappened:
		return ""
	}
	_, rest, _ := strings.Cut(c.key, "/") // it is over, so there is only the key
	what, subject, _ := strings.Cut(rest, "/")
	if what == "c" {
		name, of, _ := strings.Cut(subject, "/")
		return printable.Line(status.Check{Name: name, Subject: of}.Title(), maxText)
	}
	_, names, _ := strings.Cut(subject, "/")
	return "replica " + printable.Line(strings.ReplaceAll(names, "+", ", "), maxText)
}

// words returns a stable word as people write it.
func words(kind string) string { return strings.ReplaceAll(kind, "_", " ") }

// title returns the first of the news in a few words, and how many more there are.
func (m *Message) title() string {
	if len(m.News) == 0 {
		return ""
	}
	first := m.News[0]
	text := first.Who()
	if text != "" {
		text += ": "
	}
	switch {
	case first.Change == ChangeRecovered:
		text += first.What
	case first.Change == ChangeStill:
		text += "still " + words(first.Kind)
	case first.Kind == "check":
		text += "fails"
	case first.Change == ChangeHappened:
		text += first.What
	default:
		text += words(first.Kind)
	}
	if more := len(m.News) + m.More - 1; more > 0 {
		text += fmt.Sprintf(" (and %d more)", more)
	}
	return text
}

// Who returns whom the news is about.
func (n News) Who() string {
	switch {
	case n.TokenCount > 3:
		return fmt.Sprintf("%d tokens", n.TokenCount)
	case n.TokenCount > 0:
		return strings.Join(n.Tokens, ", ")
	}
	return n.Subject
}

// changeWords is how a change begins in a text.
var changeWords = map[string]string{ChangeNew: "NEW", ChangeOther: "NOW", ChangeStill: "STILL", ChangeRecovered: "OVER", ChangeHappened: "HAPPENED"}

// Lines returns the news as lines of text, without a line break at the end.
func (n News) Lines(at time.Time) []string {
	head := changeWords[n.Change]
	if n.Severity == string(status.Critical) {
		head += ", critical"
	}
	who := n.Who()
	if who != "" {
		who += ": "
	}
	lines := []string{head + ": " + who + n.What}
	if n.TokenCount > 3 {
		names := strings.Join(n.Tokens, ", ")
		if more := n.TokenCount - len(n.Tokens); more > 0 {
			names += fmt.Sprintf(" and %d more", more)
		}
		lines = append(lines, "  tokens: "+names)
	}
	stamp := func(t time.Time) string {
		return t.UTC().Format("2006-01-02 15:04:05 MST") + ", " + status.Distance(t, at)
	}
	switch {
	case n.Since.IsZero():
	case n.Change == ChangeHappened:
		lines = append(lines, "  at: "+stamp(n.Since))
	case n.Change == ChangeRecovered:
		lines = append(lines, "  it began: "+stamp(n.Since))
	default:
		lines = append(lines, "  since: "+stamp(n.Since))
	}
	if !n.Until.IsZero() {
		lines = append(lines, "  the old secret works until: "+stamp(n.Until))
	}
	if n.ToDo != "" {
		lines = append(lines, "  to do: "+n.ToDo)
	}
	if n.Runbook != "" {
		lines = append(lines, "  read: "+n.Runbook)
	}
	return lines
}

// Text returns the whole message as text.
func (m *Message) Text() string {
	var b strings.Builder
	who := "rotatord"
	if m.Replica != "" {
		who += ", replica " + m.Replica
	}
	fmt.Fprintf(&b, "%s, %s\n", who, m.At.UTC().Format("2006-01-02 15:04:05 MST"))
	if m.Test {
		fmt.Fprintf(&b, "\nThis is a test of the receiver %s: rotatord notify test. Nothing is wrong, and nothing has to be done.\n", m.Receiver)
	}
	for _, n := range m.News {
		b.WriteString("\n" + strings.Join(n.Lines(m.At), "\n") + "\n")
	}
	if m.More > 0 {
		fmt.Fprintf(&b, "\nAnd %d more: rotatord status\n", m.More)
	}
	if m.URL != "" {
		fmt.Fprintf(&b, "\nStatus page: %s\n", m.URL)
	}
	fmt.Fprintf(&b, "\nMessage %s\n", m.ID)
	return b.String()
}

// linked returns a section of the documents as an address, if the daemon's own address is known.
func linked(externalURL, section string) string {
	if externalURL == "" || section == "" {
		return section
	}
	return strings.TrimSuffix(externalURL, "/") + "/" + section
}
