package config

import (
	"time"

	"rotatord/internal/scheduler"
)

// gapKey identifies a schedule in a zone; many tokens share one.
type gapKey struct{ expression, zone string }

type gap struct {
	schedule *scheduler.Schedule
	smallest time.Duration
}

// checkTiming resolves when a token rotates and refuses a grace or a jitter that
// the schedule leaves no room for.
func (c *checker) checkTiming(t *Token, own, defaults settings) {
	zone := choose(c, own, defaults, "time_zone", &own.zone, &defaults.zone, new(time.UTC))
	expression := choose(c, own, defaults, "schedule", own.schedule, defaults.schedule, nil)
	grace := choose(c, own, defaults, "grace", own.grace, defaults.grace, new(defaultGrace))
	jitter := choose(c, own, defaults, "jitter", own.jitter, defaults.jitter, new(time.Duration(0)))
	t.Grace, t.Jitter = grace.value, jitter.value

	if grace.ok && grace.value == 0 {
		c.warn(grace.path, "0 revokes the previous secret at once: consumers fail from each rotation until they have read the new one")
	}
	switch {
	case !expression.ok && expression.path == "":
		c.missing(own.base, "schedule", "say when to rotate, such as \"0 4 * * 1\" or @weekly, here or in defaults")
		return
	case !expression.ok || zone.value == nil:
		return // reported
	}
	g, err := c.gap(expression.value, zone.value)
	if err != nil {
		c.wrong(expression.path, "%s", oneLine(err))
		return
	}
	t.Schedule = g.schedule
	if g.smallest == 0 {
		return // one slot in years
	}
	slots := short(g.smallest) + ", the smallest gap between two slots of " + expression.value
	fits := true
	if grace.ok && grace.value >= g.smallest {
		fits = false
		kind := "the grace of "
		if grace.path == "" {
			kind = "the default grace of "
		}
		c.wrong(blame(grace.path, grace.own, expression.path, expression.own, zone.path, zone.own),
			"%s%s is not shorter than %s: shorten grace or rotate less often", kind, short(grace.value), slots)
	}
	if jitter.ok && jitter.value >= g.smallest {
		fits = false
		c.wrong(blame(jitter.path, jitter.own, expression.path, expression.own, zone.path, zone.own),
			"the jitter of %s is not shorter than %s: shorten jitter or rotate less often", short(jitter.value), slots)
	}
	if sum := grace.value + jitter.value; fits && grace.ok && jitter.ok && sum > g.smallest {
		c.warn(blame(jitter.path, jitter.own, expression.path, expression.own, zone.path, zone.own),
			"grace and jitter are %s together, longer than %s: rotations will be deferred until the grace has ended; shorten one of them",
			short(sum), slots)
	}
}

// blame chooses the field at which a conflict between a span, a schedule and its zone
// is reported: what the token itself says comes before what it inherits.
func blame(span string, ownSpan bool, schedule string, ownSchedule bool, zone string, ownZone bool) string {
	switch {
	case ownSpan:
		return span
	case ownSchedule:
		return schedule
	case ownZone:
		return zone
	case span != "":
		return span
	}
	return schedule
}

// gap parses a schedule and measures its smallest gap over a fixed stretch of time,
// so that a file is right or wrong whatever the date. A day on which the clocks
// change is shorter than others; every change of one year is looked at.
func (c *checker) gap(expression string, zone *time.Location) (gap, error) {
	// Few slots of a rare schedule cover more than a year already; many of them would
	// be followed through centuries.
	const (
		rareSlots, rareGap = 24, 480 * time.Hour
		manySlots          = 400
	)
	key := gapKey{expression, zone.String()}
	if g, ok := c.gaps[key]; ok {
		return g, nil
	}
	schedule, err := scheduler.Parse(expression, zone)
	if err != nil {
		return gap{}, err
	}
	start := time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)
	slots := rareSlots
	smallest := schedule.SmallestGap(start, slots)
	if smallest < rareGap {
		slots = manySlots
		smallest = schedule.SmallestGap(start, slots)
	}
	for t := start; schedule.Interval() == 0; {
		_, change := t.In(zone).ZoneBounds()
		if change.IsZero() || change.After(start.AddDate(1, 0, 0)) {
			break
		}
		if g := schedule.SmallestGap(change.Add(-48*time.Hour), slots); g > 0 {
			smallest = min(smallest, g)
		}
		t = change
	}
	g := gap{schedule, smallest}
	c.gaps[key] = g
	return g, nil
}

// short writes a duration without parts that are zero.
func short(d time.Duration) string {
	s := d.String()
	if len(s) > 2 && s[len(s)-2:] == "0s" && s[len(s)-3] == 'm' {
		s = s[:len(s)-2]
	}
	if len(s) > 2 && s[len(s)-2:] == "0m" && s[len(s)-3] == 'h' {
		s = s[:len(s)-2]
	}
	return s
}
