// Package event is the one stream of what happens: to service tokens, by operators, and to the
// daemon itself. It answers who did what, and when.
//
// An [Event] is an envelope around a typed [Detail]. All details are in this package, and so is the
// wording: the table in kinds.go has one row for each [Kind], with its message, its severity and the
// moment at which it happens. The log, the drill and the demo take their words from there. A part of
// the daemon that tells of something creates the detail and hands it to a [Stream]; a part that wants
// to know subscribes.
//
// # Guarantees
//
// Order: [Stream.Publish] hands an event to the subscribers in the order of their table. Events that
// one goroutine publishes reach each subscriber in the order in which they were published. The events
// of a rotation come from one goroutine. Between goroutines there is no order but [Event.At].
//
// Delivery: each subscriber gets each event once, in this process. Nothing is kept for the next
// process: a subscriber that must not lose an event writes it down itself.
//
// Delay: a subscriber that only touches memory is inline. It runs on the goroutine of the publisher,
// must be safe for concurrent use, and must not wait for anything. A subscriber that writes to
// something, such as the log, is queued ([Subscriber.Queued]). It runs on a goroutine of its own, one event
// at a time. Publish waits for it for a short time, so that a line is written before the next step
// begins, and then goes on without it. So a reader of the log that stalls delays one event by that
// time, and no later event at all until it reads again. The queue is bounded. Beyond that,
// events are dropped for this subscriber alone, and it is told how many were.
//
// Panic: if a subscriber panics, the panic is reported, the event counts as delivered to it, and all
// other subscribers and all later events are not affected.
//
// Repeats: while Vault is sealed or the disk is full, thousands of tokens are tried again and again. A token that is skipped, or
// that cannot be worked on, for the same cause as less than an hour before has an event of another kind, which is neither in the record
// nor, by default, in the log. Its detail is the same, so whoever counts attempts counts them all.
//
// Secrets: no detail has a field for one, and a test looks at the fields. Errors come from elsewhere,
// so a subscriber that shows them scrubs them first, as the log handler and package printable do.
//
// # What must be durable first
//
// A stream cannot refuse anything. The record of events, which must have a line before a request
// leaves, is therefore not a subscriber alone. It is a port of the rotation core as well: a function
// that takes an Event, and returns an error if that is not durable. The envelope is the same.
package event

import (
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// Event is something that happened. Create it with [New].
type Event struct {
	At       time.Time
	Token    string // name in the configuration; empty if it is not about one token
	By       Actor
	Kind     Kind
	Severity Severity
	Detail   Detail
}

// New returns the event that a detail tells of. Its kind and severity follow from the detail; a [Stream] changes both
// if the token has told the same less than an hour ago.
func New(at time.Time, token string, by Actor, d Detail) Event {
	kind := d.kind()
	return Event{At: at, Token: token, By: by, Kind: kind, Severity: kind.definition().Severity, Detail: d}
}

// Kind identifies what happened. Kinds are stable: files, notifications and users select by them.
type Kind string

// Severity says how soon a person must act.
type Severity string

// The severities. They are those of the alerting rules, and one for what needs nobody.
const (
	Info     Severity = "info"     // nothing is to be done
	Warning  Severity = "warning"  // the next working day is soon enough
	Critical Severity = "critical" // consumers are, or soon will be, locked out, or a secret may be lost
)

// Detail is what is known of an event. It is one of the types of this package. All exported fields
// are fit to be shown once errors are scrubbed.
type Detail interface {
	// kind returns the kind of event that the detail tells of.
	kind() Kind
	// attrs returns what the log shows beside the message, as arguments of slog.
	attrs(Event) []any
	// more returns what a person needs to know beside the message and an error. It may be empty.
	more(Event) string
}

// failing is a detail that may have an error.
type failing interface{ failure() error }

// Message returns what happened, in words that are the same for all events of the kind but for
// the name of the token.
func (e Event) Message() string {
	return strings.ReplaceAll(e.Kind.definition().Message, "NAME", e.Token)
}

// Attrs returns the event's details as arguments of slog, the token first. Only an operator's command has
// its verb before that.
func (e Event) Attrs() []any {
	attrs := e.Detail.attrs(e)
	if _, isCommand := e.Detail.(Command); isCommand || e.Token == "" {
		return attrs
	}
	return append([]any{"token", e.Token}, attrs...)
}

// Err returns the error that the event tells of; nil if it tells of none.
func (e Event) Err() error {
	if d, ok := e.Detail.(failing); ok {
		return d.failure()
	}
	return nil
}

// Sentence returns what happened in words for people, without time, token and error.
func (e Event) Sentence() string { return joined(e.Message(), e.Detail.more(e)) }

// Line returns what happened in words for people, error included, without time and token.
func (e Event) Line() string { return joined(e.Sentence(), text(e.Err())) }

// joined returns a text and what explains it.
func joined(what, more string) string {
	if more == "" {
		return what
	}
	return what + ": " + more
}

// Level returns the level at which the log shows the event.
func (e Event) Level() slog.Level {
	d := e.Kind.definition()
	switch {
	case d.Level != nil:
		return d.Level.Level()
	case d.Severity == Critical:
		return slog.LevelError
	case d.Severity == Warning:
		return slog.LevelWarn
	default:
		return slog.LevelInfo
	}
}

// left returns how long an event's time is before t, for people.
func (e Event) left(t time.Time) string { return Span(t.Sub(e.At)) }

// Span returns a duration in the one or two units that a reader needs: 1.1 s, 60 s, 5 min, 2 h 30 min, 83 d 8 h.
func Span(d time.Duration) string {
	units := func(large, small time.Duration, largeName, smallName string) string {
		d = d.Round(small)
		if rest := d % large / small; rest > 0 {
			return fmt.Sprintf("%d %s %d %s", d/large, largeName, rest, smallName)
		}
		return fmt.Sprintf("%d %s", d/large, largeName)
	}
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", max(d, 0).Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 99*time.Minute:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d < 100*time.Hour:
		return units(time.Hour, time.Minute, "h", "min")
	default:
		return units(24*time.Hour, time.Hour, "d", "h")
	}
}

// text returns an error's text, empty for nil.
func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
