package event

import "time"

// SinkFinding tells that a sink does not hold what was written to it, or holds it again.
type SinkFinding struct {
	Sink string
	// Finding is one of the kinds of findings of package rotation; empty if the sink holds again what was
	// written. Was is the finding before it; empty if there was none.
	Finding string
	Was     string
	Since   time.Time // since when this, or for the end what was before, was found
	// Digest and Version are of what the sink holds, and Want is the digest of what was written; empty or 0
	// where there is none. WrittenAt is when it was written there; zero if the sink does not say.
	Digest    string
	Want      string
	Version   int
	WrittenAt time.Time
	Err       error // why it cannot be read; nil otherwise
}

func (d SinkFinding) kind() Kind {
	switch d.Finding {
	case "":
		return SinkAsWritten
	case "rolled_back":
		return SinkRolledBack
	case "deleted", "destroyed", "gone":
		return SinkDeleted
	case "no_secret":
		return SinkWithoutSecret
	case "never_written":
		return SinkNeverWritten
	case "unreadable":
		return SinkUnreadable
	default:
		return SinkChanged
	}
}

func (d SinkFinding) failure() error { return d.Err }
func (d SinkFinding) more(e Event) string {
	if d.Finding == "" && !d.Since.IsZero() {
		return d.Sink + ", after " + Span(e.At.Sub(d.Since))
	}
	return d.Sink
}

func (d SinkFinding) attrs(Event) []any {
	attrs := []any{"sink", d.Sink}
	if d.Finding == "" {
		return withTime(append(attrs, "was", d.Was), "since", d.Since)
	}
	attrs = append(attrs, "finding", d.Finding)
	if d.Digest != "" {
		attrs = append(attrs, "digest", d.Digest)
	}
	if d.Want != "" {
		attrs = append(attrs, "digest_written", d.Want)
	}
	if d.Version > 0 {
		attrs = append(attrs, "version", d.Version)
	}
	return withError(withTime(attrs, "written_at", d.WrittenAt), d.Err)
}

// SinkRestore tells that a secret was written back to a sink that did not hold it any more, that a rotation
// makes up for it, or why neither is done.
type SinkRestore struct {
	Sink    string // empty if it is about all sinks of the token
	Rotates bool   // no copy of the secret is left, and a rotation was ordered
	Reason  string // a stable code: why nothing is restored; empty if it is
	Err     error
}

func (d SinkRestore) kind() Kind {
	switch {
	case d.Reason != "" || d.Err != nil:
		return SinkNotRestored
	case d.Rotates:
		return SinkRestoreOrdered
	default:
		return SinkRestored
	}
}

func (d SinkRestore) failure() error { return d.Err }
func (d SinkRestore) more(Event) string {
	if d.Reason != "" && d.Err == nil {
		return RestoreText(d.Reason)
	}
	return d.Sink
}

func (d SinkRestore) attrs(Event) (attrs []any) {
	if d.Sink != "" {
		attrs = append(attrs, "sink", d.Sink)
	}
	if d.Reason != "" {
		attrs = append(attrs, "reason", d.Reason)
	}
	return withError(attrs, d.Err)
}

// RestoreText returns what a reason code for not restoring means, in words. It returns a code that it does not
// know unchanged.
func RestoreText(code string) string {
	if words, ok := restoreReasons[code]; ok {
		return words
	}
	return code
}

// restoreReasons explain why nothing is restored. A test compares them with package rotation.
var restoreReasons = map[string]string{
	"not_proven":     "Cloudflare does not show that our secret is still the last one",
	"outside":        "another person or program rotated the service token, so what the sinks hold may be right",
	"too_often":      "it was done three times within a day, and the sink was changed again each time: find the other writer",
	"gone":           "Cloudflare has no such service token any more",
	"failed":         "the secret could not be written back",
	"strategy":       "the secrets of a pair, and of strategy replace, are not restored",
	"accepted_other": "an operator accepted what others wrote, so it is not known which secret is right",
}

// InUseProbe tells that the secret in use is refused where it is tried, or is accepted there again.
type InUseProbe struct {
	Since time.Time // of the first refusal
	Error string    // what was answered; empty if it is accepted again
}

func (d InUseProbe) kind() Kind {
	if d.Error == "" {
		return InUseAccepted
	}
	return InUseRefused
}

func (d InUseProbe) more(e Event) string { return joined("since "+Span(e.At.Sub(d.Since)), d.Error) }
func (d InUseProbe) attrs(Event) []any {
	attrs := []any{"since", d.Since}
	if d.Error != "" {
		attrs = append(attrs, "error", d.Error)
	}
	return attrs
}
