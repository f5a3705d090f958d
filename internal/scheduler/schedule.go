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
	"regexp"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

var parser = cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)

// item is what each part of a field's list may look like. The parser takes more than it
// understands: "*-5" is * to it, "+5" is 5, and it overlooks that a list has nothing in it.
var item = regexp.MustCompile(`^([*?]|\w+(-\w+)?)(/\d+)?$`)

// Schedule is a parsed cron expression in a time zone. It is immutable.
type Schedule struct {
	expression string
	location   *time.Location
	fields     *fields       // of readings: see fields.go and civil.go
	onTheClock bool          // it goes with the clock, whatever the clock does
	every      time.Duration // the period of @every, 0 for all others
}

// Parse reads a five-field cron expression, a descriptor such as @weekly, or
// "@every DURATION" with a whole number of seconds of at least one. location says
// in which zone the fields are read; nil means UTC. @every ignores it.
func Parse(expression string, location *time.Location) (*Schedule, error) {
	if location == nil {
		location = time.UTC
	}
	expression = strings.TrimSpace(expression)
	switch {
	case expression == "":
		return nil, errors.New("the schedule is empty")
	case strings.HasPrefix(expression, "TZ="), strings.HasPrefix(expression, "CRON_TZ="):
		return nil, errors.New("a zone inside the expression is not accepted: use time_zone")
	case expression == "@reboot":
		return nil, errors.New("@reboot is not accepted: a restart must never rotate")
	}
	s := &Schedule{expression: expression, location: location}
	if period, ok := strings.CutPrefix(expression, "@every "); ok {
		d, err := time.ParseDuration(strings.TrimSpace(period))
		if err != nil {
			return nil, fmt.Errorf("@every wants a duration such as 720h, not %q", strings.TrimSpace(period))
		}
		if d < time.Second || d%time.Second != 0 {
			return nil, fmt.Errorf("@every wants whole seconds, at least 1s, not %s", d)
		}
		s.every = d
		return s, nil
	}
	parsed, err := parser.Parse(expression)
	if err == nil && expression[0] != '@' {
		err = checkItems(expression)
	}
	if err != nil {
		return nil, fmt.Errorf("%q is neither five cron fields (minute hour day-of-month month day-of-week) "+
			"nor a descriptor such as @weekly or @every 720h: %w", expression, err)
	}
	s.fields, s.onTheClock = fieldsOf(parsed.(*cron.SpecSchedule)), goesWithTheClock(expression)
	if s.Next(time.Now()).IsZero() {
		return nil, fmt.Errorf("%q never comes: no such date in the next five years", expression)
	}
	return s, nil
}

func checkItems(expression string) error {
	for field := range strings.FieldsSeq(expression) {
		for part := range strings.SplitSeq(field, ",") {
			if !item.MatchString(part) {
				return fmt.Errorf("%q in %q is neither * nor a number, a name or a range of them", part, field)
			}
		}
	}
	return nil
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
