package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	ics "github.com/arran4/golang-ical"

	"rotatord/internal/config"
	"rotatord/internal/forecast"
	"rotatord/internal/moment"
)

const (
	// calendarRefresh is how often subscribers are asked to look for a new file.
	calendarRefresh = "PT6H"
	// calendarLength is the length of a rotation's event. A rotation takes seconds.
	calendarLength = time.Minute
	calendarUTC    = "20060102T150405Z"
	// fewTokens is how many tokens the event of a freeze names.
	fewTokens = 5
)

// saveCalendar writes a calendar to path in one step: a reader gets the old file or the new one.
func saveCalendar(path string, c *config.Config, p forecast.Forecast, r forecast.Range) error {
	var b bytes.Buffer
	err := writeCalendar(&b, c, p, r)
	if err == nil {
		err = writeOut(path, b.Bytes())
	}
	if err != nil {
		return fmt.Errorf("writing the calendar: %w", err)
	}
	return nil
}

// writeCalendar writes the rotations of a plan, and the freezes in the same time, as iCalendar (RFC 5545, with the
// properties of RFC 7986 for subscribers).
func writeCalendar(w io.Writer, c *config.Config, p forecast.Forecast, r forecast.Range) error {
	cal := &ics.Calendar{}
	cal.SetVersion("2.0")
	cal.SetProductId("-//rotatord//plan//EN")
	cal.SetMethod(ics.MethodPublish)
	cal.SetName("Service token rotations")
	cal.SetXWRCalDesc("When rotatord rotates the client secrets of Cloudflare Access service tokens")
	cal.SetRefreshInterval(calendarRefresh) // with VALUE=DURATION
	cal.SetXPublishedTTL(calendarRefresh)
	end := r.Until
	for i := range p {
		if p[i].Status == forecast.Planned {
			cal.AddVEvent(rotationEvent(&p[i], r.Now))
			if r.Until.IsZero() {
				end = moment.Max(end, p[i].Starts)
			}
		}
	}
	begin := r.From // which may be in the past, as the rotations are
	if begin.IsZero() {
		begin = r.Now
	}
	if err := addFreezes(cal, c, begin, end, r.Now); err != nil {
		return err
	}
	out := bufio.NewWriter(w)
	if err := cal.SerializeTo(out, ics.WithNewLineWindows); err != nil {
		return err
	}
	return out.Flush()
}

// rotationEvent returns the event of a rotation. Its UID depends only on the service token and the slot, so a
// rotation that is delayed moves in the calendar and is not there twice.
func rotationEvent(e *forecast.Entry, now time.Time) *ics.VEvent {
	slot := "unscheduled"
	if !e.Slot.IsZero() {
		slot = e.Slot.UTC().Format(calendarUTC)
	}
	event := newEvent(e.Token.ID+"-"+slot, "Rotate "+e.Token.Name, now)
	event.SetStartAt(e.Starts)
	event.SetEndAt(e.Starts.Add(calendarLength))
	event.SetDescription(describeRotation(e))
	return event
}

func newEvent(id, summary string, now time.Time) *ics.VEvent {
	event := ics.NewEvent(id + "@rotatord")
	event.SetDtStampTime(now)
	event.SetSummary(summary)
	event.SetTimeTransparency(ics.TransparencyTransparent)
	return event
}

func describeRotation(e *forecast.Entry) string {
	schedule := e.Token.Timetable.Schedule
	lines := []string{"Schedule: " + schedule.String() + ", time zone " + schedule.Location().String()}
	if !e.Slot.IsZero() {
		lines = append(lines, "Slot: "+e.Slot.In(schedule.Location()).Format("Mon "+planSecond+" -07:00"))
	}
	if e.Token.Timetable.Jitter > 0 {
		lines = append(lines, "Jitter: up to "+forecast.Brief(e.Token.Timetable.Jitter)+", included")
	}
	if !e.Closes.IsZero() {
		lines = append(lines, "Latest start: "+e.Closes.UTC().Format(planSecond)+" UTC")
	}
	if e.GraceEnds.Equal(e.Starts) {
		lines = append(lines, "The previous secret stops working at once.")
	} else {
		lines = append(lines, "The previous secret works until: "+e.GraceEnds.Format(planSecond)+" UTC")
	}
	for _, w := range e.Warnings {
		lines = append(lines, "Warning: "+w.Message)
	}
	return strings.Join(lines, "\n")
}

// addFreezes adds the periods of freezes that have a moment between begin and end.
func addFreezes(cal *ics.Calendar, c *config.Config, begin, end, now time.Time) error {
	periods, err := forecast.Periods(plannedTokens(c), begin, end, max(2*maxEvents-len(cal.Components), 0))
	if _, tooMany := errors.AsType[forecast.TooManyError](err); tooMany {
		return usagef("the calendar would have more than %d freezes: shorten the time between --from and --until", maxEvents)
	}
	for _, p := range periods {
		cal.AddVEvent(freezeEvent(p, len(c.Tokens), now))
	}
	return err
}

// freezeEvent returns the event of one period of a freeze. tokens is the number of all tokens.
func freezeEvent(p forecast.Period, tokens int, now time.Time) *ics.VEvent {
	id := sha256.Sum256([]byte(p.Key))
	event := newEvent(fmt.Sprintf("freeze-%s-%.8x-%s", p.Name, id, p.From.UTC().Format(calendarUTC)), "No rotations: "+p.Name, now)
	event.SetStartAt(p.From)
	event.SetEndAt(p.To)
	whom := strings.Join(p.Tokens[:min(len(p.Tokens), fewTokens)], ", ")
	switch {
	case len(p.Tokens) == tokens:
		whom = "all"
	case len(p.Tokens) > fewTokens:
		whom += fmt.Sprintf(" and %d more", len(p.Tokens)-fewTokens)
	}
	slots := "Slots in it are served when it ends."
	if p.Skip {
		slots = "Slots in it are skipped."
	}
	event.SetDescription("Tokens: " + whom + "\n" + slots)
	return event
}
