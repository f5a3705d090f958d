package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"rotatord/internal/rotation"
)

// shownPlan is an entry as JSON has it.
type shownPlan struct {
	Token       string             `json:"token"`
	Status      planStatus         `json:"status"`
	Slot        time.Time          `json:"slot,omitzero"`      // in the token's zone
	LastSlot    time.Time          `json:"last_slot,omitzero"` // of several that are served at once
	Slots       int                `json:"slots"`
	JitterUntil time.Time          `json:"jitter_until,omitzero"` // the latest that jitter alone can make of it
	Begins      time.Time          `json:"begins,omitzero"`       // in UTC, as are all but slots
	Closes      time.Time          `json:"window_closes,omitzero"`
	GraceEnds   time.Time          `json:"grace_ends,omitzero"`
	Reason      rotation.DueReason `json:"reason"`
	Freeze      string             `json:"freeze,omitempty"`
	Schedule    string             `json:"schedule"`
	TimeZone    string             `json:"time_zone"`
	Counted     string             `json:"counted_from"`
	Warnings    []planWarning      `json:"warnings"`
}

func (e *planned) show() shownPlan {
	schedule := e.token.Schedule
	s := shownPlan{
		Token: e.token.Name, Status: e.status, Slots: e.slots, Begins: e.begins, Closes: e.closes.UTC().Truncate(time.Second),
		GraceEnds: e.graceEnds, Reason: e.reason, Freeze: e.freeze, Schedule: schedule.String(), TimeZone: schedule.Location().String(),
		Counted: e.counted, Warnings: e.warnings,
	}
	if e.closes.IsZero() {
		s.Closes = time.Time{}
	}
	if !e.slot.IsZero() {
		s.Slot = e.slot.In(schedule.Location())
		if e.token.Jitter > 0 {
			s.JitterUntil = e.slot.Add(e.token.Jitter).UTC().Truncate(time.Second)
		}
		if e.slots > 1 {
			s.LastSlot = e.last.In(schedule.Location())
		}
	}
	if s.Warnings == nil {
		s.Warnings = []planWarning{}
	}
	return s
}

// printJSON prints one entry after the other: all of them at once would be many times as
// large as the plan.
func (p plan) printJSON(w io.Writer) error {
	out := bufio.NewWriter(w)
	separator := "\n  "
	_, _ = out.WriteString("[") // Flush returns what fails
	for i := range p {
		b, err := json.MarshalIndent(p[i].show(), "  ", "  ")
		if err != nil {
			return err
		}
		_, _ = out.WriteString(separator)
		_, _ = out.Write(b)
		separator = ",\n  "
	}
	if len(p) > 0 {
		_, _ = out.WriteString("\n")
	}
	_, _ = out.WriteString("]\n")
	return out.Flush()
}

// planColumn is a column of the table. An optional one is left out where it is empty.
type planColumn struct {
	title    string
	optional bool
	cell     func(*planned) string
}

// Seconds are left out where they do not matter, so that a line fits on a screen.
const (
	planSecond = "2006-01-02 15:04:05"
	planMinute = "2006-01-02 15:04"
	planShort  = "01-02 15:04"
)

var planColumns = []planColumn{
	{title: "TOKEN", cell: func(e *planned) string { return e.token.Name }},
	{title: "SLOT", cell: slotCell},
	{title: "BEGINS (UTC)", cell: beginsCell},
	{title: "JITTER", optional: true, cell: jitterCell},
	{title: "LATEST", optional: true, cell: func(e *planned) string { return shortTime(e.closes) }},
	{title: "GRACE ENDS", optional: true, cell: graceCell},
	{title: "BECAUSE OF", cell: reasonCell},
	{title: "SCHEDULE", cell: scheduleCell},
	{title: "WARNING", optional: true, cell: warningCell},
}

func slotCell(e *planned) string {
	switch {
	case e.slot.IsZero():
		return "–"
	case e.slot.Second() != 0:
		return e.slot.In(e.token.Schedule.Location()).Format("Mon " + planSecond + " -07:00")
	}
	return e.slot.In(e.token.Schedule.Location()).Format("Mon " + planMinute + " -07:00")
}

func beginsCell(e *planned) string {
	if e.begins.IsZero() {
		return string(e.status)
	}
	return e.begins.Format(planSecond)
}

func jitterCell(e *planned) string {
	if e.token.Jitter == 0 || e.slot.IsZero() || e.begins.IsZero() {
		return ""
	}
	return "+" + brief(e.token.Jitter)
}

func graceCell(e *planned) string {
	if e.graceEnds.Equal(e.begins) && !e.begins.IsZero() {
		return "at once"
	}
	return shortTime(e.graceEnds)
}

func reasonCell(e *planned) string { return string(e.reason) + ifSet(" %s", e.freeze) }

func scheduleCell(e *planned) string {
	s := e.token.Schedule
	if s.Interval() > 0 {
		return s.String()
	}
	return s.String() + " " + s.Location().String()
}

func warningCell(e *planned) string {
	all := make([]string, len(e.warnings))
	for i, w := range e.warnings {
		all[i] = w.brief
	}
	return strings.Join(all, "; ")
}

// shortTime is a time near that at which a rotation begins, in UTC.
func shortTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(planShort)
}

// print prints a table. It forms each cell twice rather than keep them all: there may be
// hundreds of thousands.
func (p plan) print(w io.Writer) error {
	widths := make([]int, len(planColumns))
	for i := range p {
		for c, column := range planColumns {
			widths[c] = max(widths[c], utf8.RuneCountInString(column.cell(&p[i])))
		}
	}
	var columns []int
	for c, column := range planColumns {
		if column.optional && widths[c] == 0 {
			continue
		}
		widths[c] = max(widths[c], len(column.title))
		columns = append(columns, c)
	}
	out := bufio.NewWriter(w)
	line := func(cell func(planColumn) string) {
		var b strings.Builder
		for _, c := range columns {
			fmt.Fprintf(&b, "%-*s  ", widths[c], cell(planColumns[c]))
		}
		_, _ = out.WriteString(strings.TrimRight(b.String(), " ") + "\n")
	}
	line(func(c planColumn) string { return c.title })
	for i := range p {
		line(func(c planColumn) string { return c.cell(&p[i]) })
	}
	return out.Flush()
}
