package doctor

import (
	"fmt"
	"time"

	"rotatord/internal/rotation"
)

// lasting reports whether a place keeps its versions. It adds a finding if Vault deletes the present
// version, or the next one, by itself.
func (e *examination) lasting(p place, s rotation.Stored) bool {
	now := e.Now()
	next, after := e.neededUntil(p, now)
	const advice = "switch delete_version_after off at the secret and at the mount, and write the version again: docs/vault.md#a-version-that-deletes-itself"
	switch {
	case s.Exists && !s.DeletesAt.IsZero() && (next.IsZero() || s.DeletesAt.Before(next)):
		e.add(Bad, SinkDeletes, p.subject, fmt.Sprintf("Vault deletes version %d of %s/%s by itself at %s (delete_version_after), before it is rotated",
			s.Version, p.Mount, p.Path, shown(s.DeletesAt)), advice)
	case s.DeleteAfter > 0 && (after.IsZero() || next.Add(s.DeleteAfter).Before(after)):
		e.add(Bad, SinkDeletes, p.subject, fmt.Sprintf("Vault deletes each version of %s/%s by itself after %s (delete_version_after), before the next rotation: scheduled rotations are refused",
			p.Mount, p.Path, s.DeleteAfter), advice)
	case s.DeleteAfter > 0:
		e.add(Warning, SinkDeletes, p.subject, fmt.Sprintf("Vault deletes each version of %s/%s by itself after %s (delete_version_after): if rotations fail for as long, consumers find nothing",
			p.Mount, p.Path, s.DeleteAfter), advice)
	default:
		return true
	}
	return false
}

// neededUntil returns until when the present version and the next one are needed: the latest times at
// which the next two rotations may begin. Zero means without an end.
func (e *examination) neededUntil(p place, now time.Time) (present, following time.Time) {
	timetable := p.timetable
	if timetable.Schedule == nil {
		return time.Time{}, time.Time{}
	}
	first := timetable.Next(now)
	if first.Slot.IsZero() {
		return time.Time{}, time.Time{}
	}
	present = first.Begin
	if !first.Close.IsZero() {
		present = first.Close
	}
	second := timetable.Next(first.Slot)
	if second.Slot.IsZero() {
		return present, time.Time{}
	}
	following = second.Begin
	if !second.Close.IsZero() {
		following = second.Close
	}
	return present, following
}
