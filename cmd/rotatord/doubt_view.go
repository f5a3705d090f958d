package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// meaning is a reason code with what it means.
func meaning(code string) string {
	if text, ok := meanings[code]; ok {
		return code + " (" + text + ")"
	}
	return code
}

// meanings explain the reason codes of package rotation.
var meanings = map[string]string{
	rotation.ReasonOutcomeUnknown:     "the request left and no usable answer came",
	rotation.ReasonAnswerInvalid:      "an answer came, for another client or without a usable secret",
	rotation.ReasonUnfamiliarSecret:   "an answer came with a secret of neither known format",
	rotation.ReasonOddAnswer:          "an answer came with a good secret, and something else in it speaks against it",
	rotation.ReasonSealedLost:         "what was sealed is gone from the disk, or cannot be opened",
	rotation.ReasonInterrupted:        "the daemon ended between asking and keeping an answer",
	rotation.ReasonUpdatedAtUnchanged: "nothing was carried out",
	rotation.ReasonOldSecretRevoked:   "there is no old secret left to protect",
	rotation.ReasonGraceEnding:        "half of the grace is left, or three graces are over",
	rotation.ReasonOldSecretWorks:     "rotating again would cut the old secret off",
	rotation.ReasonUnderWay:           "the request may still be under way",
	rotation.ReasonSpare:              "what was rotated is not in use",
	rotation.ReasonUnfamiliarKept:     "what consumers use works on, and somebody has to look at the new one",
	rotation.ReasonOperatorRotateNow:  "an operator has it rotated again",
	rotation.ReasonOperatorNotRotated: "an operator knows that nothing was carried out",
	rotation.ReasonOperatorDeliver:    "an operator has the sealed answer delivered",
	rotation.ReasonCreatedAndLost:     "a service token was made, and nobody has its secret",
	rotation.ReasonCreatedAndSealed:   "a service token was made, and the sealed answer is about it",
	rotation.ReasonNotCreated:         "no service token was made",
	rotation.ReasonCannotLook:         "Cloudflare could not be asked whether a service token was made",
	rotation.ReasonUndelivered:        "the new secret waits for its sinks, and is tried again now",
	rotation.ReasonOvertaken:          "the token was rotated by others, and a sink holds their secret: the new one is kept sealed",
	rotation.ReasonOursWorks:          "the secret in the sinks is refused where it was tried, and ours is accepted",
	rotation.ReasonTheirsWorks:        "the secret in the sinks is accepted where it was tried",
	rotation.ReasonLeakOrder:          "an order to revoke overrides it",
	rotation.ReasonAfterOutside:       "outside_rotation has the token rotated again",
	rotation.ReasonOperatorDrop:       "an operator gave the new secret up",
	rotation.ReasonUnverified:         "the new secret is in every sink, and is refused where it is tried",
	rotation.ReasonOperatorAccept:     "an operator takes the new secret as good",
}

// page is text for people: titles with lines below them.
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

// line is a name with its value. The lines of a value that has several stand below each other, so that
// none looks like one of ours.
func (p *page) line(name, format string, args ...any) {
	value := strings.ReplaceAll(strings.TrimRight(fmt.Sprintf(format, args...), "\n"), "\n", "\n"+strings.Repeat(" ", 19))
	fmt.Fprintf(&p.b, "  %-17s%s\n", name, value)
}

// text is a paragraph, broken into lines.
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

// choice is a command with what it does.
func (p *page) choice(command, consequence string) {
	fmt.Fprintf(&p.b, "  %s\n", command)
	p.paragraph("      ", consequence)
}

// when is a moment with its distance.
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

// doubt says what is known of a doubt.
func (p *page) doubt(d status.Doubt) {
	p.title("what is known")
	p.line("in doubt since", "%s", p.when(d.Since))
	p.line("why", "%s", meaning(d.Reason))
	if d.Detail != "" {
		p.line("detail", "%s", d.Detail)
	}
	if d.Makes != "" {
		p.line("rotation", "%s, which was to make the service token %q, asked for %s", d.RotationID, d.Makes, p.when(d.AskedAt))
	} else {
		p.line("rotation", "%s of the service token %s, asked for %s", d.RotationID, d.TokenID, p.when(d.AskedAt))
		p.line("updated_at", "before: %s", p.when(d.UpdatedBefore))
		p.line("", "last read: %s", p.when(d.UpdatedNow))
	}
	if d.CarriedOut {
		p.line("Cloudflare", "shows that the rotation was carried out")
	}
	if d.AnswerSealed {
		p.line("answer", "was sealed on the daemon's disk")
	}
	p.line("old secret", "%s", p.oldSecret(d))
	if d.Decision != "" {
		p.line("verdict", "%s, given %s", meaning(d.Decision), p.when(d.DecidedAt))
	}
}

// oldSecret says how long consumers can go on with what they have.
func (p *page) oldSecret(d status.Doubt) string {
	switch {
	case d.Makes != "":
		return "not touched: what consumers use, if anything, works on"
	case d.Spare:
		return "not touched: consumers use the other service token of the pair"
	case d.OldWorksUntil.IsZero():
		return "revoked at once, if the rotation was carried out"
	case d.OldWorksUntil.Before(p.now):
		return "stopped working at " + p.when(d.OldWorksUntil) + ", if the rotation was carried out"
	case d.Extensions > 0:
		return fmt.Sprintf("works until %s, which was put off %d time(s)", p.when(d.OldWorksUntil), d.Extensions)
	case d.CarriedOut:
		return "works until " + p.when(d.OldWorksUntil)
	default:
		return "works until " + p.when(d.OldWorksUntil) + " at least"
	}
}

// next says what the daemon does by itself about a doubt that stays.
func (p *page) next(t status.Token, d status.Doubt) {
	p.title("what comes next")
	p.text("rotatord looks again at %s.", p.when(t.Next))
	if !d.Spare && d.OldWorksUntil.After(p.now) {
		p.text("Where Cloudflare shows that the rotation was carried out, it extends the old secret, and rotates the token again three " +
			"graces after the request. Where nothing shows it, it rotates again when half of the grace is left.")
	}
}

// choices are what an operator can decide, with the consequences.
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
	p.choice(command+" --rotate-now", "Take its secret as lost, and rotate again at once."+cutOff)
	if d.Deliverable {
		p.choice(command+" --deliver", "Deliver the sealed answer to the sinks. It may be good: see why it was not delivered by itself.")
	}
	if !d.CarriedOut {
		p.choice(command+" --assume-not-rotated", "Only if you know, such as from Cloudflare's audit log, that it was not carried out: "+
			"the slot is served again at once."+cutOff)
	}
}

// overtaken says what is known of a new secret that was overtaken.
func (p *page) overtaken(t status.Token) {
	o := t.Overtaken
	if o == nil {
		return
	}
	p.line("overtaken", "since %s: a sink holds another secret, so the new one is kept sealed and not delivered", p.when(o.Since))
	if len(o.Sinks) > 0 {
		p.line("", "by what is in %s", strings.Join(o.Sinks, ", "))
	}
	switch {
	case o.Gone:
		p.line("Cloudflare", "has no such service token any more")
	case o.ChangedAt.IsZero():
		p.line("Cloudflare", "does not show whether the service token was rotated after us")
	default:
		p.line("Cloudflare", "changed the service token %s, after this rotation", p.when(o.ChangedAt))
	}
	if o.Tried != "" {
		p.line("tried", "%s", o.Tried)
	}
}

// toDo is what can be done about a token.
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

// verification says what is known of a new secret that is tried in vain.
func (p *page) verification(t status.Token) {
	v := t.Verification
	if v == nil {
		return
	}
	state := "not accepted yet, which may take the edge a moment"
	if v.Refused {
		state = "REFUSED: the old secret is kept alive, and nothing is rotated"
	}
	p.line("verification", "%s", state)
	p.line("tried", "%d times since %s", v.Probes, p.when(v.Since))
	p.line("answer", "%s", v.Error)
}
