package forecast

import (
	"fmt"
	"strings"
	"time"

	"rotatord/internal/printable"
	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
)

// Warning is something about an entry that an operator should look at.
type Warning struct {
	Code    string `json:"code"` // one of the constants below
	Message string `json:"message"`
	Brief   string `json:"-"` // for a column of a table
}

// The codes of the warnings. docs/plan.md explains them; they do not change.
const (
	WarnGrace      = "deferred_by_grace"
	WarnFreeze     = "deferred_by_freeze"
	WarnMerges     = "merges_slots"
	WarnWindow     = "after_window"
	WarnMissed     = "missed"
	WarnSkips      = "skips_more"
	WarnExpired    = "token_expired"
	WarnOverdue    = "overdue"
	WarnPaused     = "paused"
	WarnDoubt      = "in_doubt"
	WarnInProgress = "unfinished"
	WarnReissue    = "reissue"
	WarnOrdered    = "ordered"
	WarnCreate     = "create"
	WarnFailing    = "failing"
	WarnNever      = "no_slot"
	WarnEstimate   = "estimated"
	WarnLedger     = "ledger_conflict"
)

// maxWarning is the largest length of a message, in bytes.
const maxWarning = 2000

func (e *Entry) warn(code, brief, format string, args ...any) {
	e.Warnings = append(e.Warnings, Warning{code, printable.Line(fmt.Sprintf(format, args...), maxWarning), brief})
}

// explain adds the warnings of a rotation that starts at some time.
func (o *outlook) explain(e *Entry, due rotation.Due, pause rotation.Pause, at time.Time, passed scheduler.Passed) {
	r := &o.record
	switch due.Reason {
	case rotation.DueUnfinished:
		o.explainInProgress(e)
	case rotation.DueInDoubt:
		e.warn(WarnDoubt, "in doubt", "in doubt since %s: it is not known whether its rotation was carried out, so what follows is a guess: "+
			"see rotatord resolve", rfc(r.Doubt.Since))
	case rotation.DueReissue:
		e.warn(WarnReissue, "reissue", "a secret was lost, and this rotation replaces it, regardless of the schedule")
	case rotation.DueOrdered:
		e.warn(WarnOrdered, "ordered", "an operator ordered it at %s, and the daemon tries until it is done", rfc(r.Order.Since))
	case rotation.DueCreate:
		e.warn(WarnCreate, "is created", "the service token is created, with its first secret")
	default:
		o.explainSlot(e, due, pause, at, passed)
	}
	if r.Failures > 0 {
		e.warn(WarnFailing, fmt.Sprintf("%d failed", r.Failures), "it has failed %d times in a row, the last time with: %s", r.Failures, r.LastError)
	}
	for _, facts := range r.ServiceTokens() {
		if expiry := facts.ExpiresAt; !expiry.IsZero() && at.After(expiry) {
			e.warn(WarnExpired, "token expired", "the service token expires before this, at %s", rfc(expiry))
			break
		}
	}
	if o.countedFrom != FromLedger && o.token.Timetable.Schedule.Interval() > 0 {
		e.warn(WarnEstimate, "estimated", "@every is counted from the last rotation, which is not known here")
	}
}

// explainInProgress adds why the rotation in progress is not done.
func (o *outlook) explainInProgress(e *Entry) {
	work := o.record.Work
	if work.Overtaken != nil {
		e.warn(WarnInProgress, "overtaken", "a new secret was overtaken, which was found at %s; nothing is rotated until an operator decides: see rotatord status",
			rfc(work.Overtaken.Since))
		return
	}
	e.warn(WarnInProgress, "unfinished", "a rotation is in progress since %s, and is finished first", rfc(work.Began))
}

// explainSlot adds why a slot is served when it is, and which other slots the rotation serves.
func (o *outlook) explainSlot(e *Entry, due rotation.Due, pause rotation.Pause, at time.Time, passed scheduler.Passed) {
	tt := &o.token.Timetable
	planned := due.Slot.Add(tt.Delay(due.Slot)) // without anything that delays it
	if own := tt.Firing(due.Slot); own.Freeze != "" {
		e.deferredByFreeze(own.Freeze, own.Begin.Sub(planned))
	}
	if last := o.record.Last; last != nil {
		e.deferredByGrace(last.GraceEndsAt.Sub(due.Begin))
	}
	if due.Reason == rotation.DueFreeze && at.After(due.Begin) {
		e.deferredByFreeze(due.Freeze, at.Sub(due.Begin))
	}
	if pause.On() && at.After(planned) && !pause.Until.Before(planned) {
		e.paused(pause, "until "+rfc(pause.Until))
	}
	late := o.Now.Sub(due.Begin)
	isLate := late >= time.Second && (due.Reason == rotation.DueCatchUp || due.At.Before(o.Now))
	if isLate && o.countedFrom != FromRange && !pause.On() {
		e.warn(WarnOverdue, "overdue "+Brief(late), "it should have started at %s: a daemon that starts now starts it at this time, "+
			"because late rotations are spread", rfc(due.Begin))
	}
	if slots := o.served(due.Slot, passed); slots > 1 {
		e.Slots, e.LastSlot, e.Closes = slots, passed.LastDue.Slot, passed.LastDue.Close
		e.warn(WarnMerges, fmt.Sprintf("merges %d slots", slots), "it serves %d slots at once, the last of them that of %s",
			slots, e.LastSlot.Format(time.RFC3339))
	}
	if passed.DueCount > 0 && !passed.LastDueOpen() {
		e.warn(WarnWindow, "after its window", "its window closes at %s: it counts as missed, and this rotation makes up for it", rfc(e.Closes))
	}
}

func (e *Entry) paused(pause rotation.Pause, until string) {
	by, reason := "", ""
	if pause.By != "" {
		by = " by " + pause.By
	}
	if pause.Reason != "" {
		reason = ": " + pause.Reason
	}
	e.warn(WarnPaused, "paused", "paused%s, %s%s", by, until, reason)
}

// deferredByGrace warns that a slot waits for the grace of the previous secret, if it waits for a second or more.
func (e *Entry) deferredByGrace(by time.Duration) {
	if by >= time.Second {
		e.warn(WarnGrace, Brief(by)+" grace", "it waits %s for the end of the previous secret's grace, because rotating would cut that secret off", Brief(by))
	}
}

// deferredByFreeze warns that a slot waits for the end of a freeze, if it waits for a second or more.
func (e *Entry) deferredByFreeze(freeze string, by time.Duration) {
	if by >= time.Second {
		e.warn(WarnFreeze, Brief(by)+" freeze "+freeze, "it waits %s for the end of the freeze %s", Brief(by), freeze)
	}
}

// served returns how many slots one rotation serves, from first on: those that passed, without those that a freeze
// skips.
func (o *outlook) served(first time.Time, passed scheduler.Passed) int {
	slots := passed.DueCount + passed.DeferredCount
	if passed.DeferredCount == 0 {
		return slots
	}
	tt := &o.token.Timetable
	for anchor := first; ; {
		slot := tt.Schedule.Next(anchor)
		if slot.IsZero() || !slot.Before(passed.LastDue.Slot) {
			return slots
		}
		slots -= tt.Passed(anchor, slot).SkippedCount
		anchor = slot
	}
}

// Brief returns a duration in whole seconds, or in minutes if it is an hour or longer, without the parts that are
// zero.
func Brief(d time.Duration) string {
	if d >= time.Hour {
		d = d.Round(time.Minute)
	}
	s := d.Truncate(time.Second).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
