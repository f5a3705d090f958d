package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// meaning returns a reason code with its explanation.
func meaning(code string) string {
	if text := event.ReasonText(code); text != code {
		return code + " (" + text + ")"
	}
	return code
}

// page is a text for people: titles, each with lines below it.
type page struct {
	now time.Time
	b   strings.Builder
}

func (p *page) title(format string, args ...any) {
	if p.b.Len() > 0 {
		p.b.WriteByte('\n')
	}
	fmt.Fprintf(&p.b, format+"\n", args...)
}

// line adds a name with its value. All lines of a value are in the same column, so that text from
// elsewhere cannot look like a line of ours.
func (p *page) line(name, format string, args ...any) {
	value := strings.ReplaceAll(strings.TrimRight(fmt.Sprintf(format, args...), "\n"), "\n", "\n"+strings.Repeat(" ", 19))
	fmt.Fprintf(&p.b, "  %-17s%s\n", name, value)
}

// text adds a paragraph, broken into lines.
func (p *page) text(format string, args ...any) { p.paragraph("  ", fmt.Sprintf(format, args...)) }

func (p *page) paragraph(indent, text string) {
	const width = 96
	line := indent
	for word := range strings.FieldsSeq(text) {
		if len(line) > len(indent) && len(line)+1+len(word) > width {
			p.b.WriteString(line + "\n")
			line = indent
		}
		if len(line) > len(indent) {
			line += " "
		}
		line += word
	}
	p.b.WriteString(line + "\n")
}

// choice adds a command with its consequence.
func (p *page) choice(command, consequence string) {
	fmt.Fprintf(&p.b, "  %s\n", command)
	p.paragraph("      ", consequence)
}

// when returns a time with its distance from now.
func (p *page) when(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return t.UTC().Format("2006-01-02 15:04:05") + " UTC (" + status.Distance(t, p.now) + ")"
}

func (p *page) print(w io.Writer) error {
	_, err := io.WriteString(w, p.b.String())
	return err
}

// doubt adds what is known about a doubt.
func (p *page) doubt(d status.Doubt) {
	p.title("what is known")
	p.line("in doubt since", "%s", p.when(d.Since))
	p.line("why", "%s", meaning(d.Reason))
	if d.Detail != "" {
		p.line("detail", "%s", d.Detail)
	}
	if d.Makes != "" {
		p.line("rotation", "%s, requested %s, to create the service token %q", d.RotationID, p.when(d.AskedAt), d.Makes)
	} else {
		p.line("rotation", "%s of the service token %s, requested %s", d.RotationID, d.TokenID, p.when(d.AskedAt))
		p.line("updated_at", "before: %s", p.when(d.UpdatedBefore))
		p.line("", "last read: %s", p.when(d.UpdatedNow))
	}
	if d.CarriedOut {
		p.line("Cloudflare", "shows that the rotation was carried out")
	}
	if d.AnswerSealed {
		p.line("answer", "is sealed on the daemon's disk%s", notDeliverable(d))
	}
	p.line("old secret", "%s", p.oldSecret(d))
	if d.Decision != "" {
		p.line("decision", "%s, made %s", meaning(d.Decision), p.when(d.DecidedAt))
	}
}

// notDeliverable returns that a sealed answer cannot be delivered; empty if it can.
func notDeliverable(d status.Doubt) string {
	if d.Deliverable || d.Reason != rotation.ReasonAnswerInvalid || d.Makes != "" {
		return ""
	}
	return ", and holds no secret that this token could use, so it is not delivered"
}

// oldSecret returns how long consumers can use the secret that they have.
func (p *page) oldSecret(d status.Doubt) string {
	switch {
	case d.Makes != "":
		return "not changed: the secret that consumers use, if any, still works"
	case d.Spare:
		return "not changed: consumers use the other service token of the pair"
	case d.OldWorksUntil.IsZero():
		return "revoked at once, if the rotation was carried out"
	case d.OldWorksUntil.Before(p.now):
		return "stopped working at " + p.when(d.OldWorksUntil) + ", if the rotation was carried out"
	case d.Extensions > 0:
		return fmt.Sprintf("works until %s; its grace was extended %d time(s)", p.when(d.OldWorksUntil), d.Extensions)
	case d.CarriedOut:
		return "works until " + p.when(d.OldWorksUntil)
	default:
		return "works at least until " + p.when(d.OldWorksUntil)
	}
}

// next adds what the daemon does by itself about a doubt that is not resolved.
func (p *page) next(t status.Token, d status.Doubt) {
	p.title("what comes next")
	p.text("rotatord looks again at %s.", p.when(t.Next))
	if d.Spare || !d.OldWorksUntil.After(p.now) {
		return
	}
	if d.CarriedOut {
		p.text("It extends the grace of the old secret, and rotates the token again three graces after the request.")
		return
	}
	p.text("If Cloudflare shows that the rotation was carried out, rotatord extends the grace of the old secret, and rotates the token " +
		"again three graces after the request. Otherwise it rotates again when half of the grace is left.")
}

// choices adds what an operator can decide, with the consequences.
func (p *page) choices(name string, d status.Doubt) {
	cutOff := ""
	if !d.Spare && d.OldWorksUntil.After(p.now) {
		cutOff = " If the rotation in doubt was carried out, this"
		if d.CarriedOut {
			cutOff = " This"
		}
		cutOff += " CUTS OFF the old secret, which works until " + p.when(d.OldWorksUntil) + ": consumers fail until they have read the new one from the sinks."
	}
	p.title("what you can decide")
	command := "rotatord resolve " + name
	p.choice(command, "Look again now.")
	p.choice(command+" --rotate-now", "The new secret is lost: rotate again at once."+cutOff)
	if d.Deliverable {
		p.choice(command+" --deliver", "Write the sealed answer to the sinks. It may be good: see above why the daemon did not deliver it by itself.")
	}
	if !d.CarriedOut {
		p.choice(command+" --assume-not-rotated", "Only if you know that the rotation was not carried out, for example from Cloudflare's audit log: "+
			"serve the slot again at once."+cutOff)
	}
}

// overtaken adds what is known about a new secret that was overtaken.
func (p *page) overtaken(t status.Token) {
	o := t.Overtaken
	if o == nil {
		return
	}
	p.line("overtaken", "since %s: a sink has another secret, so the new one stays sealed and is not delivered", p.when(o.Since))
	if len(o.Sinks) > 0 {
		p.line("", "sinks with another secret: %s", strings.Join(o.Sinks, ", "))
	}
	switch {
	case o.Gone:
		p.line("Cloudflare", "no longer has this service token")
	case o.ChangedAt.IsZero():
		p.line("Cloudflare", "does not show whether the service token was rotated after this rotation")
	default:
		p.line("Cloudflare", "shows that the service token was changed %s, after this rotation", p.when(o.ChangedAt))
	}
	if o.Tried != "" {
		p.line("tried", "%s", o.Tried)
	}
}

// toDo adds what an operator can do about a token.
func (p *page) toDo(all []status.ToDo) {
	if len(all) == 0 {
		return
	}
	p.title("what you can do")
	for _, do := range all {
		if do.Command == "" {
			p.text("%s", do.Does)
		} else {
			p.choice(do.Command, do.Does)
		}
	}
}

// verification adds what is known about a new secret that the application does not accept.
func (p *page) verification(t status.Token) {
	v := t.Verification
	if v == nil {
		return
	}
	state := "not accepted yet: Cloudflare's edge may need a moment"
	if v.Refused {
		state = "REFUSED: the grace of the old secret is extended, and nothing is rotated"
	}
	p.line("verification", "%s", state)
	p.line("tried", "%d times since %s", v.Probes, p.when(v.Since))
	p.line("answer", "%s", v.Error)
}
