package webpage

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"rotatord/internal/printable"
	"rotatord/internal/status"
)

const (
	// maxTroubles is how many troubles a page shows, and maxNamed how many tokens one of them names.
	maxTroubles = 25
	maxNamed    = 12
	// maxSteps is how many steps it has: the page of the token, or rotatord status, has all of them.
	maxSteps = 5
	// maxText is how many bytes of a text from elsewhere a page shows in a list.
	maxText = 400
)

// shownTrouble is one trouble as the page has it.
type shownTrouble struct {
	Severity   status.Severity
	Kind       string
	Subject    string // if it is about no token
	Tokens     []string
	More       int // further tokens
	What, Why  string
	Since      time.Time
	SinceAgo   string
	Until      time.Time
	UntilIn    string
	UntilLabel string
	// OldDead is set if the secret that clients have may be dead already.
	OldDead bool
	ToDo    string
	Steps   []status.ToDo // in order; one without a command is done elsewhere, or comes by itself
	Section string        // address of its section in the runbook; empty: none
}

// untilLabels say what ends at the time that a kind of trouble has.
var untilLabels = map[string]string{
	"cut_off": "Clients have a working secret until", "reissue_owed": "Clients have a working secret until",
	"in_doubt": "The old secret works until", "refused": "The old secret works until", "grace_ending": "The old secret works until", "not_delivered": "The old secret works until", "hook_failing": "The old secret works until",
	"version_deletes_soon": "The sink deletes it", "version_deletes": "The sink deletes it",
	"expires_very_soon": "Expires", "expires_soon": "Expires", "renewal_failing": "Expires",
}

// showTrouble turns a trouble into what the page shows. find returns a token by its name.
func showTrouble(t status.Trouble, find func(string) (status.Token, bool), now time.Time) shownTrouble {
	s := shownTrouble{
		Severity: t.Severity, Kind: t.Kind, What: sentence(printable.Line(t.What, maxText)), ToDo: printable.Line(t.ToDo, maxText),
		Since: t.Since, SinceAgo: brief(t.Since, now), Until: t.Until, UntilIn: brief(t.Until, now), UntilLabel: untilLabels[t.Kind],
		Section: documentPath(t.Runbook),
	}
	s.Steps = printable.Copy(t.Steps[:min(len(t.Steps), maxSteps)])
	if s.UntilLabel == "" {
		s.UntilLabel = "Until"
	}
	switch {
	case t.Check != nil:
		s.Kind, s.Subject = t.Check.Name, t.Check.Title()
		s.Subject += ":"
		if rest, ok := strings.CutPrefix(t.What, t.Check.Title()+" "); ok {
			s.Subject, s.What = t.Check.Title(), printable.Line(rest, maxText)
		}
	case len(t.Replicas) > 0:
		s.Subject = "replica " + strings.Join(t.Replicas[:min(len(t.Replicas), maxNamed)], ", ") + ":"
	}
	s.Tokens = t.Tokens[:min(len(t.Tokens), maxNamed)]
	s.More = len(t.Tokens) - len(s.Tokens)
	if len(t.Tokens) == 0 {
		return s
	}
	first, ok := find(t.Tokens[0])
	if !ok {
		return s
	}
	s.Why = why(t.Kind, first)
	if len(t.Tokens) > 1 {
		if s.Why != "" {
			s.Why = t.Tokens[0] + ": " + s.Why
		}
		s.ToDo = strings.ReplaceAll(s.ToDo, "NAME", t.Tokens[0])
		return s
	}
	s.OldDead = t.Kind == "in_doubt" && first.Doubt != nil && !first.Doubt.Spare && first.Doubt.OldWorksUntil.IsZero()
	s.Steps = printable.Copy(first.ToDo[:min(len(first.ToDo), maxSteps)])
	if len(status.Commands(s.Steps)) > 0 && strings.HasPrefix(s.ToDo, "rotatord ") { // it only says where those commands are found
		s.ToDo = ""
	}
	return s
}

// why returns the cause of a kind of trouble as far as it is known: one line.
func why(kind string, t status.Token) string {
	text := t.LastError
	switch {
	case kind == "in_doubt" && t.Doubt != nil && t.Doubt.Detail != "":
		text = t.Doubt.Detail
	case kind == "refused" && t.Verification != nil:
		text = t.Verification.Error
	case kind == "refused_in_use" && t.RefusedInUse != nil:
		text = t.RefusedInUse.Error
	case kind == "overtaken" && t.Overtaken != nil:
		text = "a later secret is in " + strings.Join(t.Overtaken.Sinks, ", ")
	case strings.HasPrefix(kind, "sink_") && len(t.Findings) > 0:
		text = t.Findings[0].Sink + ": " + t.Findings[0].What
		if t.Findings[0].Error != "" {
			text += ": " + t.Findings[0].Error
		}
	case kind == "hook_failing":
		text = ""
		if i := slices.IndexFunc(t.Hooks, status.Hook.Failing); i >= 0 {
			text = t.Hooks[i].Name + ": " + t.Hooks[i].LastError
		}
	case kind == "renewal_failing":
		text = t.RenewalError
	case kind == "not_deleted":
		text = t.ReplacedError
	case kind == "unverified":
		text = t.Unverified
	case slices.Contains([]string{"gone", "disabled", "expired", "rotated_outside", "expires_soon", "expires_very_soon", "version_deletes", "version_deletes_soon", "late_answer"}, kind):
		return ""
	}
	return printable.Line(cut(text, 4*maxText), maxText)
}

// documentPath returns where the page serves a place in the documents, such as docs/runbook.md#x; empty if there is none.
func documentPath(place string) string {
	if !strings.HasPrefix(place, "docs/") {
		return ""
	}
	return "/" + place
}

// brief returns how far t is from now, in as few units as a reader needs; a dash if t is zero.
func brief(t, now time.Time) string {
	d := t.Sub(now).Round(time.Second)
	switch {
	case t.IsZero() || d.Abs() < time.Minute || d.Abs() >= time.Hour:
		return status.Distance(t, now)
	case d < 0:
		return strconv.Itoa(int(-d.Minutes())) + " min ago"
	}
	return "in " + strconv.Itoa(int(d.Minutes())) + " min"
}

// sentence begins a text with a capital letter.
func sentence(s string) string {
	if s == "" || s[0] < 'a' || s[0] > 'z' {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// part is a piece of a text. It is something to type if Code is set, and something to read if Link is.
type part struct {
	Text string
	Code bool
	Link string
}

var typed = regexp.MustCompile(`rotatord (?:audit verify|hook (?:run|drop)|notify test|status|resolve|rotate|doctor|run|plan|history|resume|extend-grace|revoke-previous)(?: (?:NAME|[a-z0-9][a-z0-9._-]*[0-9._-][a-z0-9._-]*[a-z0-9]|--[a-z-]+))*|docs/[a-z-]+\.md(?:#[a-z0-9_-]+)?`)

// commands marks what is to be typed, or to be read, in a text. names are tokens that commands in it may name.
func commands(text string, names []string) (parts []part) {
	last := 0
	for _, at := range typed.FindAllStringIndex(text, -1) {
		end := at[1]
		for _, name := range names {
			if rest := " " + name; strings.HasPrefix(text[end:], rest) {
				end += len(rest)
			}
		}
		if at[0] > last {
			parts = append(parts, part{Text: text[last:at[0]]})
		}
		found := text[at[0]:end]
		if strings.HasPrefix(found, "docs/") {
			parts = append(parts, part{Text: found, Link: documentPath(found)})
		} else {
			parts = append(parts, part{Text: found, Code: true})
		}
		last = end
	}
	if last < len(text) {
		parts = append(parts, part{Text: text[last:]})
	}
	return parts
}
