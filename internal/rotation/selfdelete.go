package rotation

import (
	"errors"
	"fmt"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/moment"
)

// This file is about sinks that delete what is written to them after some time, as Vault's KV
// version 2 does with delete_version_after. A version that is gone before the next rotation leaves
// consumers with nothing, while everything looks good.

// lastingMargin is how long a version must still live after the latest begin of the next rotation.
const lastingMargin = 10 * time.Minute

// ErrDeletesItself is in the error of a rotation that was refused because the sink would delete the
// new version before the next rotation.
var ErrDeletesItself = errors.New("nothing was rotated, since consumers would find nothing")

// neededUntil returns until when a version that is written now is needed: the latest time at which the
// rotation that replaces it may begin, plus lastingMargin. If the schedule has no more slots, the version
// is needed for ever: the zero time.
func (a *attempt) neededUntil() time.Time {
	return a.token.neededUntil(a.record.Work.Slot, a.now(), time.Duration(a.record.Work.Grace))
}

// neededUntil does the same for a version that was written at the slot or after it.
func (t Token) neededUntil(slot, now time.Time, grace time.Duration) time.Time {
	next := t.Timetable.Next(moment.Max(slot, now))
	until := next.Begin
	if next.Slot.IsZero() {
		return time.Time{}
	}
	if !next.Close.IsZero() {
		until = next.Close
	}
	// A slot waits for the grace of the rotation before it.
	return moment.Max(until, now.Add(grace)).Add(lastingMargin).UTC()
}

// requireLasting refuses a rotation whose new version the sink would delete before the next one. A refusal
// harms no consumer: the stored version stays until its own end, and its secret still works at Cloudflare.
// Three kinds of rotations are not refused: an operator asked for it; it replaces a lost or leaked secret;
// or consumers find nothing in the sink even now. Consumers need such a rotation in any case, and the
// deletion time in the record raises the alarm.
func (a *attempt) requireLasting(s Stored) error {
	if s.DeleteAfter <= 0 {
		return nil
	}
	switch a.record.Work.Trigger {
	case TriggerManual, TriggerRecovery:
		return nil
	}
	if !s.Exists && s.Version > 0 {
		return nil
	}
	until := a.neededUntil()
	if dies := a.now().Add(s.DeleteAfter); !until.IsZero() && !dies.Before(until) {
		return nil
	}
	by := "there is no next rotation"
	if !until.IsZero() {
		by = "the next rotation may begin as late as " + until.Add(-lastingMargin).Format(time.RFC3339)
	}
	return fmt.Errorf("a version that is written now is deleted by itself after %s, and %s: %w. Switch delete_version_after off, "+
		"and write the present version again, so that it stays too: see docs/vault.md#a-version-that-deletes-itself",
		s.DeleteAfter.Round(time.Second), by, ErrDeletesItself)
}

// warnOfDeletion tells of a version that was just stored and will not last.
func (a *attempt) warnOfDeletion(sink string, s Stored) {
	if s.DeletesAt.IsZero() {
		return
	}
	if until := a.neededUntil(); until.IsZero() || s.DeletesAt.Before(until) {
		a.tell(event.VersionDeletion{Sink: sink, DeletesAt: s.DeletesAt, NeededUntil: until})
	}
}
