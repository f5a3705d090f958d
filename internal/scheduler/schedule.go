// Package scheduler decides when.
//
// A [Schedule] turns a cron expression into slots, a [Freeze] is a period in which nothing
// may begin, and a [Timetable] puts these together with a token's jitter and window; a
// [Queue] keeps one heap of due times and one timer, and a [Clock] tells when the wall clock
// was set. The package knows nothing about tokens, Cloudflare or Vault, and keeps nothing:
// the next due time is always computed from what the ledger says was done last, so a
// restart neither forgets a slot nor runs one early.
//
// Guarantee: all of it but Queue and Clock is a pure function of its arguments and of the
// time zone database. The same slot begins at the same moment on every replica and after
// every restart.
//
// robfig/cron parses the expressions. Its runner is not used: it sleeps on the monotonic
// clock, forgets everything at a restart, and skips or repeats runs when clocks are set for
// daylight saving.
package scheduler

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

var parser = cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)

// Schedule is a parsed cron expression in a time zone. It is immutable.
type Schedule struct {
	expression string
	location   *time.Location
	fields     *fields       // of readings: see fields.go and civil.go
	onTheClock bool          // it goes with the clock, whatever the clock does
	every      time.Duration // the period of @every, 0 for all others
}

// Parse reads a five-field cron expression, a descriptor such as @weekly, or
// "@every DURATION" with a whole number of seconds of at least one. Sunday is 0, 7 or SUN.
// location says in which zone the fields are read; nil means UTC. @every ignores it.
func Parse(expression string, location *time.Location) (*Schedule, error) {
	if location == nil {
		location = time.UTC
	}
	expression = strings.TrimSpace(expression)
	if problem := refused(expression); problem != "" {
		return nil, errors.New(problem)
	}
	s := &Schedule{expression: expression, location: location}
	if period, ok := strings.CutPrefix(expression, "@every"); ok {
		var err error
		if s.every, err = parsePeriod(period); err != nil {
			return nil, err
		}
		return s, nil
	}
	text, err := expression, error(nil)
	if expression[0] == '@' {
		if !slices.Contains(descriptors, expression) {
			err = unknownDescriptor(expression)
		}
	} else {
		text, err = readable(expression)
	}
	if err != nil {
		return nil, err
	}
	parsed, err := parser.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%q is neither five cron fields (%s) nor a descriptor such as @weekly or @every 720h: %w", expression, fieldNames, err)
	}
	s.fields, s.onTheClock = fieldsOf(parsed.(*cron.SpecSchedule)), goesWithTheClock(expression)
	if s.Next(time.Now()).IsZero() {
		return nil, fmt.Errorf("%q never comes: no such date in the next five years", expression)
	}
	return s, nil
}

// refused says why something that a cron takes is not taken here.
func refused(expression string) string {
	zone, isZone := strings.CutPrefix(strings.TrimPrefix(expression, "CRON_"), "TZ=")
	switch {
	case expression == "":
		return "the schedule is empty"
	case isZone:
		zone, rest, _ := strings.Cut(zone, " ")
		return fmt.Sprintf("a zone inside the expression is not accepted: use time_zone (schedule: %q, time_zone: %q)", strings.TrimSpace(rest), zone)
	case strings.EqualFold(expression, "@reboot"):
		return "@reboot is not accepted: a restart must never rotate"
	}
	return ""
}

// parsePeriod reads what follows @every.
func parsePeriod(text string) (time.Duration, error) {
	period := strings.TrimSpace(text)
	d, err := time.ParseDuration(period)
	switch hint := DurationHint(period); {
	case err == nil && text[0] != ' ':
		return 0, fmt.Errorf("a space is missing: write @every %s", period)
	case period == "":
		return 0, errors.New("@every wants a duration: write one behind it, such as @every 720h")
	case err != nil && hint != "":
		return 0, fmt.Errorf("@every wants a duration such as 720h, not %q: write %s", period, hint)
	case err != nil:
		return 0, fmt.Errorf("@every wants a duration such as 720h, not %q", period)
	case d < time.Second || d%time.Second != 0:
		return 0, fmt.Errorf("@every wants whole seconds, at least 1s, not %s", d)
	}
	return d, nil
}

// String returns the expression as it was written.
func (s *Schedule) String() string { return s.expression }

// Location is the zone that the expression is read in.
func (s *Schedule) Location() *time.Location { return s.location }

// Interval is the period of an @every schedule and 0 for every other kind. Only
// @every depends on when counting began.
func (s *Schedule) Interval() time.Duration { return s.every }

// goesWithTheClock reports whether an expression is for no time of day in particular. ISC
// cron draws the same line: its minutes or its hours begin with *.
func goesWithTheClock(expression string) bool {
	fields := strings.Fields(expression)
	if len(fields) != 5 {
		return fields[0] == "@hourly"
	}
	return strings.ContainsAny(fields[0][:1]+fields[1][:1], "*?")
}

// Next returns the first slot strictly after t, in the schedule's zone, or the zero time if
// there is none in the next five years.
//
// Where clocks are set for daylight saving, slots are as ISC cron has them. A time of day
// that is left out comes right after the gap, and one that comes twice is a slot the first
// time only. An expression whose minutes or hours begin with * is for no time of day: it
// goes with the clock, and has no slot at times that are left out and two at those that come
// twice. @every counts elapsed time. Two slots never fall on one moment.
func (s *Schedule) Next(t time.Time) time.Time {
	switch {
	case s.every > 0:
		return t.Add(s.every)
	case s.location == time.UTC:
		return s.fields.next(t.UTC())
	case s.onTheClock:
		return s.nextOnTheClock(t)
	}
	for r := readingAt(t, s.location); ; {
		if r = s.fields.next(r); r.IsZero() {
			return time.Time{}
		}
		if slot, _ := shown(r, s.location); slot.After(t) {
			return slot
		} // else the clock was put back since, and shows this reading for the second time
	}
}

// nextOnTheClock looks through one stretch of constant offset after the other.
func (s *Schedule) nextOnTheClock(t time.Time) time.Time {
	const stretch = 24 * time.Hour
	for r := readingAt(t, s.location); ; {
		next := s.fields.next(r)
		if next.IsZero() {
			return time.Time{}
		}
		end, set := setBetween(t, t.Add(stretch), s.location)
		if !set {
			end = t.Add(stretch)
		}
		slot := next.Add(-offsetAt(t, s.location))
		if slot.Before(end) {
			return slot.In(s.location)
		}
		if near := slot.Add(-stretch); !set && near.After(end) {
			end = near // nothing fits until next
		}
		t, r = end, readingAt(end, s.location).Add(-1) // the end itself may be a slot
	}
}

// SmallestGap is the shortest distance between neighbours among the next n slots
// after from. It is exact for @every and a good bound for the rest when n covers
// the expression's cycle.
func (s *Schedule) SmallestGap(from time.Time, n int) time.Duration {
	if s.every > 0 {
		return s.every
	}
	var smallest time.Duration
	previous := s.Next(from)
	for range n {
		next := s.Next(previous)
		if next.IsZero() {
			break
		}
		if gap := next.Sub(previous); smallest == 0 || gap < smallest {
			smallest = gap
		}
		previous = next
	}
	return smallest
}
