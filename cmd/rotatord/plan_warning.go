package main

import (
	"fmt"
	"time"

	"rotatord/internal/printable"
	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
)

// planWarning is something about an entry that deserves a look.
type planWarning struct {
	Code    string `json:"code"` // stable, as docs/plan.md has it
	Message string `json:"message"`
	brief   string // for a column
}

// The codes of the warnings.
const (
	warnGrace    = "deferred_by_grace"
	warnFreeze   = "deferred_by_freeze"
	warnMerges   = "merges_slots"
	warnWindow   = "after_window"
	warnMissed   = "missed"
	warnSkips    = "skips_more"
	warnExpired  = "token_expired"
	warnOverdue  = "overdue"
	warnPaused   = "paused"
	warnDoubt    = "in_doubt"
	warnInHand   = "unfinished"
	warnReissue  = "reissue"
	warnOrdered  = "ordered"
	warnCreate   = "create"
	warnFailing  = "failing"
	warnNever    = "no_slot"
	warnEstimate = "estimated"
	warnLedger   = "ledger_conflict"
)

func (e *planned) warn(code, brief, format string, args ...any) {
	e.warnings = append(e.warnings, planWarning{code, printable.Line(fmt.Sprintf(format, args...), maxWarning), brief})
}

// maxWarning is how many bytes of a warning are shown.
const maxWarning = 2000

// explain adds the warnings of a rotation that begins at that time.
func (o *outlook) explain(e *planned, due rotation.Due, pause rotation.Pause, at time.Time, passed scheduler.Passed) {
	r := &o.record
	switch due.Reason {
	case rotation.DueUnfinished:
		if o := r.Work.Overtaken; o != nil {
			e.warn(warnInHand, "overtaken", "a new secret was overtaken, which was found at %s; nothing is rotated until an operator decides: see rotatord status", rfc(o.Since))
			break
		}
		e.warn(warnInHand, "unfinished", "a rotation is in progress since %s, and is finished first", rfc(r.Work.Began))
	case rotation.DueInDoubt:
		e.warn(warnDoubt, "in doubt", "in doubt since %s: it is not known whether its rotation was carried out, so what follows is a guess: "+
			"see rotatord resolve", rfc(r.Doubt.Since))
	case rotation.DueReissue:
		e.warn(warnReissue, "reissue", "a secret was lost, and this rotation replaces it, regardless of the schedule")
	case rotation.DueOrdered:
		e.warn(warnOrdered, "ordered", "an operator ordered it at %s, and the daemon tries until it is done", rfc(r.Order.Since))
	case rotation.DueCreate:
		e.warn(warnCreate, "is created", "the service token is created, with its first secret")
	default:
		o.explainSlot(e, due, pause, at, passed)
	}
	if r.Failures > 0 {
		e.warn(warnFailing, fmt.Sprintf("%d failed", r.Failures), "it has failed %d times in a row, the last time with: %s",
			r.Failures, r.LastError)
	}
	for _, facts := range r.ServiceTokens() {
		if expiry := facts.ExpiresAt; !expiry.IsZero() && at.After(expiry) {
			e.warn(warnExpired, "token expired", "the service token expires before this, at %s", rfc(expiry))
			break
		}
	}
	if o.counted != "ledger" && o.token.Timetable.Schedule.Interval() > 0 {
		e.warn(warnEstimate, "estimated", "@every is counted from the last rotation, which is not known here")
	}
}

// explainSlot adds why a slot begins when it does, and what else it serves.
func (o *outlook) explainSlot(e *planned, due rotation.Due, pause rotation.Pause, at time.Time, passed scheduler.Passed) {
	tt := &o.token.Timetable
	natural := due.Slot.Add(tt.Delay(due.Slot))
	if own := tt.Firing(due.Slot); own.Freeze != "" {
		e.deferred(warnFreeze, own.Freeze, own.Begin.Sub(natural))
	}
	if last := o.record.Last; last != nil {
		e.deferred(warnGrace, "", last.GraceEndsAt.Sub(due.Begin))
	}
	if due.Reason == rotation.DueFreeze && at.After(due.Begin) {
		e.deferred(warnFreeze, due.Freeze, at.Sub(due.Begin))
	}
	if pause.On() && at.After(natural) && !pause.Until.Before(natural) {
		e.paused(pause, "until "+rfc(pause.Until))
	}
	late := o.now.Sub(due.Begin)
	isLate := late >= time.Second && (due.Reason == rotation.DueCatchUp || due.At.Before(o.now))
	if isLate && o.counted != "from" && !pause.On() {
		e.warn(warnOverdue, "overdue "+brief(late), "it should have started at %s: a daemon that starts now starts it at this time, "+
			"because late rotations are spread", rfc(due.Begin))
	}
	if slots := o.served(due.Slot, passed); slots > 1 {
		e.slots, e.last, e.closes = slots, passed.LastDue.Slot, passed.LastDue.Close
		e.warn(warnMerges, fmt.Sprintf("merges %d slots", slots), "it serves %d slots at once, the last of them that of %s",
			slots, e.last.Format(time.RFC3339))
	}
	if passed.DueCount > 0 && !passed.LastDueOpen() {
		e.warn(warnWindow, "after its window", "its window closes at %s: it counts as missed, and this rotation makes up for it", rfc(e.closes))
	}
}

func (e *planned) paused(pause rotation.Pause, until string) {
	e.warn(warnPaused, "paused", "paused%s, %s%s", ifSet(" by %s", pause.By), until, ifSet(": %s", pause.Reason))
}

// deferred warns of what a slot waits for, if it is a matter of seconds at least.
func (e *planned) deferred(code, freeze string, by time.Duration) {
	if by < time.Second {
		return
	}
	what := "grace"
	text := "it waits %s for the end of the previous secret's grace, because rotating would cut that secret off"
	if code == warnFreeze {
		what, text = "freeze "+freeze, "it waits %s for the end of the freeze "+freeze
	}
	e.warn(code, brief(by)+" "+what, text, brief(by))
}

// served counts the slots that one rotation serves, from first on: those that passed but for
// those that a freeze passes over.
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
