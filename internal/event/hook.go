package event

import (
	"strings"
	"time"
)

// HookEnded tells of one run of a hook after a rotation.
type HookEnded struct {
	Hook       string
	RotationID string
	Digest     string
	Attempt    int // 1 for the first run for the rotation
	Err        error
	Duration   time.Duration
	Tokens     int  // how many tokens this run has served, at least 1
	Replaced   bool // a newer rotation was done during the run, and the hook runs again for that one
	Failures   int  // in a row
	// OwedSince is since when consumers wait for it, and NextTry when it is tried again after a failure.
	OwedSince time.Time
	NextTry   time.Time
}

// HookKind returns the kind of a hook from its name, such as exec.
func HookKind(name string) string {
	kind, _, _ := strings.Cut(name, ":")
	return kind
}

func (d HookEnded) kind() Kind {
	if d.Err != nil {
		return HookFailed
	}
	return HookSucceeded
}

func (d HookEnded) failure() error { return d.Err }
func (d HookEnded) more(e Event) string {
	if d.Err == nil && d.Attempt > 1 && !d.OwedSince.IsZero() {
		return d.Hook + ", after " + Span(e.At.Sub(d.OwedSince))
	}
	return d.Hook
}

func (d HookEnded) attrs(Event) []any {
	attrs := []any{"hook", d.Hook, "rotation_id", d.RotationID, "digest", d.Digest, "attempt", d.Attempt, "duration", d.Duration.Round(time.Millisecond).String()}
	if d.Tokens > 1 {
		attrs = append(attrs, "tokens", d.Tokens)
	}
	if d.Replaced {
		attrs = append(attrs, "replaced", true)
	}
	return withError(withTime(attrs, "next_try", d.NextTry), d.Err)
}

// HookDrop tells that a hook is not owed any more although it has not succeeded.
type HookDrop struct {
	Hook       string
	RotationID string
	Since      time.Time // since when consumers have waited for it
}

func (HookDrop) kind() Kind          { return HookDropped }
func (d HookDrop) more(Event) string { return d.Hook }
func (d HookDrop) attrs(Event) []any {
	return withTime([]any{"hook", d.Hook, "rotation_id", d.RotationID}, "owed_since", d.Since)
}
