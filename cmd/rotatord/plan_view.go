package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"rotatord/internal/forecast"
	"rotatord/internal/rotation"
)

// shownPlan is an entry of a plan in JSON.
type shownPlan struct {
	Token       string             `json:"token"`
	Status      forecast.Status    `json:"status"`
	Slot        time.Time          `json:"slot,omitzero"`      // in the token's time zone
	LastSlot    time.Time          `json:"last_slot,omitzero"` // if one rotation serves several
	Slots       int                `json:"slots"`
	JitterUntil time.Time          `json:"jitter_until,omitzero"` // the latest start if only the jitter delays it
	Begins      time.Time          `json:"begins,omitzero"`       // in UTC, as all times except slots
	Closes      time.Time          `json:"window_closes,omitzero"`
	GraceEnds   time.Time          `json:"grace_ends,omitzero"`
	Reason      rotation.DueReason `json:"reason"`
	Freeze      string             `json:"freeze,omitempty"`
	Schedule    string             `json:"schedule"`
	TimeZone    string             `json:"time_zone"`
	Counted     string             `json:"counted_from"`
	Warnings    []forecast.Warning `json:"warnings"`
}

// showEntry returns an entry for JSON.
func showEntry(e *forecast.Entry) shownPlan {
	schedule := e.Token.Timetable.Schedule
	s := shownPlan{
		Token: e.Token.Name, Status: e.Status, Slots: e.Slots, Begins: e.Starts, Closes: e.Closes.UTC().Truncate(time.Second),
		GraceEnds: e.GraceEnds, Reason: e.Reason, Freeze: e.Freeze, Schedule: schedule.String(), TimeZone: schedule.Location().String(),
		Counted: e.CountedFrom, Warnings: e.Warnings,
	}
	if e.Closes.IsZero() {
		s.Closes = time.Time{}
	}
	if !e.Slot.IsZero() {
		s.Slot = e.Slot.In(schedule.Location())
		if e.Token.Timetable.Jitter > 0 {
			s.JitterUntil = e.Slot.Add(e.Token.Timetable.Jitter).UTC().Truncate(time.Second)
		}
		if e.Slots > 1 {
			s.LastSlot = e.LastSlot.In(schedule.Location())
		}
	}
	if s.Warnings == nil {
		s.Warnings = []forecast.Warning{}
	}
	return s
}

// printPlanJSON prints a plan as a JSON array. It encodes one entry after the other, because the text of all
// entries needs many times the memory of the plan.
func printPlanJSON(w io.Writer, p forecast.Forecast) error {
	out := bufio.NewWriter(w)
	separator := "\n  "
	_, _ = out.WriteString("[") // Flush returns the error
	for i := range p {
		b, err := json.MarshalIndent(showEntry(&p[i]), "  ", "  ")
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

// planColumn is a column of the table. An optional column is left out if it is empty.
type planColumn struct {
	title    string
	optional bool
	cell     func(*forecast.Entry) string
}

// Formats of times. Seconds are left out where they do not matter, so that a line fits on a screen.
const (
	planSecond = "2006-01-02 15:04:05"
	planMinute = "2006-01-02 15:04"
	planShort  = "01-02 15:04"
)

var planColumns = []planColumn{
	{title: "TOKEN", cell: func(e *forecast.Entry) string { return e.Token.Name }},
	{title: "SLOT", cell: slotCell},
	{title: "BEGINS (UTC)", cell: beginsCell},
	{title: "JITTER", optional: true, cell: jitterCell},
	{title: "LATEST", optional: true, cell: func(e *forecast.Entry) string { return shortTime(e.Closes) }},
	{title: "GRACE ENDS", optional: true, cell: graceCell},
	{title: "BECAUSE OF", cell: reasonCell},
	{title: "SCHEDULE", cell: scheduleCell},
	{title: "WARNING", optional: true, cell: warningCell},
}

func slotCell(e *forecast.Entry) string {
	switch {
	case e.Slot.IsZero():
		return "–"
	case e.Slot.Second() != 0:
		return e.Slot.In(e.Token.Timetable.Schedule.Location()).Format("Mon " + planSecond + " -07:00")
	}
	return e.Slot.In(e.Token.Timetable.Schedule.Location()).Format("Mon " + planMinute + " -07:00")
}

func beginsCell(e *forecast.Entry) string {
	if e.Starts.IsZero() {
		return string(e.Status)
	}
	return e.Starts.Format(planSecond)
}

func jitterCell(e *forecast.Entry) string {
	if e.Token.Timetable.Jitter == 0 || e.Slot.IsZero() || e.Starts.IsZero() {
		return ""
	}
	return "+" + forecast.Brief(e.Token.Timetable.Jitter)
}

func graceCell(e *forecast.Entry) string {
	if e.GraceEnds.Equal(e.Starts) && !e.Starts.IsZero() {
		return "at once"
	}
	return shortTime(e.GraceEnds)
}

func reasonCell(e *forecast.Entry) string { return string(e.Reason) + ifSet(" %s", e.Freeze) }

func scheduleCell(e *forecast.Entry) string {
	s := e.Token.Timetable.Schedule
	if s.Interval() > 0 {
		return s.String()
	}
	return s.String() + " " + s.Location().String()
}

func warningCell(e *forecast.Entry) string {
	all := make([]string, len(e.Warnings))
	for i, w := range e.Warnings {
		all[i] = w.Brief
	}
	return strings.Join(all, "; ")
}

// shortTime returns a time, in UTC and without the year, that is close to the start of the rotation.
func shortTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(planShort)
}

// printPlan prints a plan as a table. It makes each cell twice instead of storing all cells, because there can be
// hundreds of thousands.
func printPlan(w io.Writer, p forecast.Forecast) error {
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
