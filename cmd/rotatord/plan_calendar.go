package main

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	ics "github.com/arran4/golang-ical"

	"rotatord/internal/config"
	"rotatord/internal/durable"
	"rotatord/internal/scheduler"
)

const (
	// calendarRefresh is how often subscribers are asked to look for a new file.
	calendarRefresh = "PT6H"
	// calendarLength is how long a rotation is shown to be. It takes seconds.
	calendarLength = time.Minute
	calendarUTC    = "20060102T150405Z"
	// fewTokens is how many tokens a freeze names.
	fewTokens = 5
)

// saveCalendar puts a calendar in the place of path in one step: whoever reads path gets
// the old file or the new one.
func saveCalendar(path string, c *config.Config, p plan, r planRange) error {
	var b bytes.Buffer
	err := writeCalendar(&b, c, p, r)
	if err == nil {
		err = durable.WriteFile(path, b.Bytes(), 0o644)
	}
	if err != nil {
		return fmt.Errorf("writing the calendar: %w", err)
	}
	return nil
}

// writeCalendar writes the rotations of a plan, and the freezes meanwhile, as iCalendar
// (RFC 5545, with the names that RFC 7986 gives to what subscribers want to know).
func writeCalendar(w io.Writer, c *config.Config, p plan, r planRange) error {
	cal := &ics.Calendar{}
	cal.SetVersion("2.0")
	cal.SetProductId("-//rotatord//plan//EN")
	cal.SetMethod(ics.MethodPublish)
	cal.SetName("Service token rotations")
	cal.SetXWRCalDesc("When rotatord rotates the client secrets of Cloudflare Access service tokens")
	cal.SetRefreshInterval(calendarRefresh) // with VALUE=DURATION
	cal.SetXPublishedTTL(calendarRefresh)
	end := r.until
	for i := range p {
		if p[i].status == planPlanned {
			cal.AddVEvent(rotationEvent(&p[i], r.now))
			if r.until.IsZero() {
				end = latest(end, p[i].begins)
			}
		}
	}
	if err := addFreezes(cal, c.Tokens, latest(r.now, r.from), end, r.now); err != nil {
		return err
	}
	out := bufio.NewWriter(w)
	if err := cal.SerializeTo(out, ics.WithNewLineWindows); err != nil {
		return err
	}
	return out.Flush()
}

// rotationEvent is one rotation. Its UID depends on the service token and the slot alone, so
// that one which is put off is moved, and not there twice.
func rotationEvent(e *planned, now time.Time) *ics.VEvent {
	slot := "unscheduled"
	if !e.slot.IsZero() {
		slot = e.slot.UTC().Format(calendarUTC)
	}
	event := newEvent(e.token.ID+"-"+slot, "Rotate "+e.token.Name, now)
	event.SetStartAt(e.begins)
	event.SetEndAt(e.begins.Add(calendarLength))
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

func describeRotation(e *planned) string {
	schedule := e.token.Schedule
	lines := []string{"Schedule: " + schedule.String() + ", time zone " + schedule.Location().String()}
	if !e.slot.IsZero() {
		lines = append(lines, "Slot: "+e.slot.In(schedule.Location()).Format("Mon "+planSecond+" -07:00"))
	}
	if e.token.Jitter > 0 {
		lines = append(lines, "Jitter: up to "+brief(e.token.Jitter)+", included")
	}
	if !e.closes.IsZero() {
		lines = append(lines, "Latest start: "+e.closes.UTC().Format(planSecond)+" UTC")
	}
	if e.graceEnds.Equal(e.begins) {
		lines = append(lines, "The previous secret stops working at once.")
	} else {
		lines = append(lines, "The previous secret works until: "+e.graceEnds.Format(planSecond)+" UTC")
	}
	for _, w := range e.warnings {
		lines = append(lines, "Warning: "+w.Message)
	}
	return strings.Join(lines, "\n")
}

// freezeKey tells freezes apart: one that is global stands in each token.
type freezeKey struct {
	name, schedule, zone string
	skip                 bool
	from, to             time.Time
	duration             time.Duration
}

// frozen is a freeze and whom it is for.
type frozen struct {
	scheduler.Freeze
	key    freezeKey
	tokens []string // the first of them
	count  int
}

// addFreezes adds each period of a freeze that lasts at some time from begin to end.
func addFreezes(cal *ics.Calendar, tokens []config.Token, begin, end, now time.Time) error {
	for _, f := range freezesOf(tokens) {
		if f.Schedule == nil {
			if f.To.After(begin) && !f.From.After(end) {
				cal.AddVEvent(freezeEvent(f, f.From, f.To, len(tokens), now))
			}
			continue
		}
		for from := f.Schedule.Next(begin.Add(-f.Duration)); !from.IsZero() && !from.After(end); from = f.Schedule.Next(from) {
			if len(cal.Components) >= 2*maxEvents {
				return usagef("the calendar would have more than %d freezes: shorten the time between --from and --until", maxEvents)
			}
			cal.AddVEvent(freezeEvent(f, from, from.Add(f.Duration), len(tokens), now))
		}
	}
	return nil
}

// freezesOf returns the freezes of all tokens by name.
func freezesOf(tokens []config.Token) []*frozen {
	all := map[freezeKey]*frozen{}
	for i := range tokens {
		for _, f := range tokens[i].Freezes {
			key := freezeKey{name: f.Name, skip: f.Skip, from: f.From.UTC(), to: f.To.UTC(), duration: f.Duration}
			if f.Schedule != nil {
				key.schedule, key.zone = f.Schedule.String(), f.Schedule.Location().String()
			}
			if all[key] == nil {
				all[key] = &frozen{Freeze: f, key: key}
			}
			all[key].count++
			if of := all[key]; len(of.tokens) < fewTokens {
				of.tokens = append(of.tokens, tokens[i].Name)
			}
		}
	}
	sorted := make([]*frozen, 0, len(all))
	for _, f := range all {
		sorted = append(sorted, f)
	}
	slices.SortFunc(sorted, func(a, b *frozen) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), slices.Compare(a.tokens, b.tokens), cmp.Compare(fmt.Sprint(a.key), fmt.Sprint(b.key)))
	})
	return sorted
}

func freezeEvent(f *frozen, from, to time.Time, tokens int, now time.Time) *ics.VEvent {
	id := sha256.Sum256(fmt.Append(nil, f.key))
	event := newEvent(fmt.Sprintf("freeze-%s-%.8x-%s", f.Name, id, from.UTC().Format(calendarUTC)), "No rotations: "+f.Name, now)
	event.SetStartAt(from)
	event.SetEndAt(to)
	whom := strings.Join(f.tokens, ", ")
	switch {
	case f.count == tokens:
		whom = "all"
	case f.count > fewTokens:
		whom += fmt.Sprintf(" and %d more", f.count-fewTokens)
	}
	slots := "Slots in it are served when it ends."
	if f.Skip {
		slots = "Slots in it are skipped."
	}
	event.SetDescription("Tokens: " + whom + "\n" + slots)
	return event
}
