// Package scheduler decides when.
//
// A [Schedule] turns a cron expression into slots; a [Timetable] adds a token's
// deterministic jitter; a [Queue] keeps one heap of due times and one timer. The
// package knows nothing about tokens, Cloudflare or Vault, and keeps nothing: the
// next due time is always computed from what the ledger says was done last, so a
// restart neither forgets a slot nor runs one early.
//
// robfig/cron parses the expressions and steps from slot to slot. Its runner is not
// used: it sleeps on the monotonic clock and forgets everything at a restart.
package scheduler

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

var parser = cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)

// Schedule is a parsed cron expression in a time zone. It is immutable.
type Schedule struct {
	expression string
	location   *time.Location
	slots      cron.Schedule
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
	if err != nil {
		return nil, fmt.Errorf("%q is neither five cron fields (minute hour day-of-month month day-of-week) "+
			"nor a descriptor such as @weekly or @every 720h: %w", expression, err)
	}
	s.slots = parsed
	if s.Next(time.Now()).IsZero() {
		return nil, fmt.Errorf("%q never comes: no such date in the next five years", expression)
	}
	return s, nil
}

// String returns the expression as it was written.
func (s *Schedule) String() string { return s.expression }

// Location is the zone that the expression is read in.
func (s *Schedule) Location() *time.Location { return s.location }

// Interval is the period of an @every schedule and 0 for every other kind. Only
// @every depends on when counting began.
func (s *Schedule) Interval() time.Duration { return s.every }

// Next returns the first slot strictly after t.
func (s *Schedule) Next(t time.Time) time.Time {
	if s.every > 0 {
		return t.Add(s.every)
	}
	return s.slots.Next(t.In(s.location))
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
