package config

import (
	"strconv"
	"strings"
	"time"

	"rotatord/internal/config/raw"
	"rotatord/internal/scheduler"
)

// gapKey identifies a schedule in a zone; many tokens share one.
type gapKey struct{ expression, zone string }

type gap struct {
	schedule *scheduler.Schedule
	smallest time.Duration
}

// span is a duration that has to fit into the gap between two slots.
type span struct {
	name string
	choice[time.Duration]
}

// slots are the slots of a token without its freezes, and the fields of the file that decide on them.
type slots struct {
	gap
	expression choice[string]
	zone       choice[*time.Location]
}

// checkTiming decides when a token rotates. It refuses durations that do not fit into the
// schedule.
func (c *checker) checkTiming(t *Token, own, defaults *settings) {
	zone := choose(c, own, defaults, "time_zone", &own.zone, &defaults.zone, new(time.UTC))
	expression := choose(c, own, defaults, "schedule", own.schedule, defaults.schedule, nil)
	grace := span{"grace", choose(c, own, defaults, "grace", own.grace, defaults.grace, new(defaultGrace))}
	window := span{"window", choose(c, own, defaults, "window", own.window, defaults.window, new(time.Duration(0)))}
	jitter := span{"jitter", choose(c, own, defaults, "jitter", own.jitter, defaults.jitter, new(time.Duration(0)))}
	catchUp := choose(c, own, defaults, "catch_up", own.catchUp, defaults.catchUp, new(catchUpOnce))
	t.Grace, t.Window, t.Jitter, t.SkipMissed = grace.value, window.value, jitter.value, catchUp.value == catchUpSkip

	switch {
	case grace.ok && grace.value == 0 && t.Replace:
		c.warn(grace.path, "0 deletes the old service token at once: consumers fail from each rotation until they have read the new client ID and secret")
	case grace.ok && grace.value == 0:
		c.warn(grace.path, "0 revokes the previous secret at once: consumers fail from each rotation until they have read the new one")
	}
	if t.SkipMissed && window.ok && window.value == 0 {
		c.warn(catchUp.path, "skip without a window: a slot is missed only when the next one has come, so the last one before an outage ended "+
			"is still served late; give a window, such as 1h, or write once")
	}
	set := c.freezesOf(own, defaults)
	t.Freezes = set.freezes
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
	c.checkDays(expression.path, g.schedule)
	s := slots{g, expression, zone}
	if g.smallest > 0 { // otherwise it has one slot in years
		c.checkSpans(s, window, jitter, grace)
		c.checkWindow(s, window)
		c.checkLife(t, own.base, s)
	}
	c.checkFrozen(own.base, set, s, jitter)
	set.usedBy(s.schedule, jitter.value)
}

// checkDays warns of an expression that names days of the month and of the week: cron takes
// either, and many people who write it mean both.
func (c *checker) checkDays(path string, schedule *scheduler.Schedule) {
	if words := schedule.EitherDay(); words != "" {
		c.warn(path, "%q comes %s: if both fields are given, cron uses every day that matches one of them; write * in one of the two fields, if you mean only the other",
			schedule.String(), words)
	}
}

// checkSpans compares each of the spans, and then all of them together, to the smallest gap.
func (c *checker) checkSpans(s slots, window, jitter, grace span) {
	ok, sum := true, time.Duration(0)
	spans := []span{window, jitter, grace}
	for _, p := range spans {
		if !p.ok {
			ok = false
			continue
		}
		sum += p.value
		if p.value < s.smallest {
			continue
		}
		ok = false
		kind := "the "
		if p.path == "" {
			kind = "the default "
		}
		c.wrong(s.blame(p), "%s%s of %s is not shorter than %s: shorten %s or rotate less often",
			kind, p.name, short(p.value), s.describe(), p.name)
	}
	if !ok || sum <= s.smallest || grace.value == 0 {
		return
	}
	var parts, remedies []string
	for _, p := range spans {
		if p.value == 0 {
			continue
		}
		parts = append(parts, p.name+" ("+short(p.value)+")")
		if rest := s.smallest - (sum - p.value); rest > 0 && (p.name != window.name || rest >= shortWindow) {
			remedies = append(remedies, p.name+" to "+short(rest))
		}
	}
	remedy := "shorten them to " + short(s.smallest) + " together"
	if len(remedies) > 0 {
		remedy = "shorten " + strings.Join(remedies, ", or ")
	}
	c.warn(s.blame(spans...), "%s are %s together, longer than %s: rotations will be deferred until the grace has ended; %s",
		list(parts), short(sum), s.describe(), remedy)
}

// The back-off of package rotation: how long a rotation waits after its first failure, twice
// that after the second, and so on up to a longest wait.
const (
	firstBackOff   = time.Second
	longestBackOff = 10 * time.Minute
)

// shortWindow leaves no time for a second try after most faults.
const shortWindow = time.Minute

// checkWindow warns of a window that is too short for enough tries, if the schedule has space for
// a longer one.
func (c *checker) checkWindow(s slots, window span) {
	enough := longestBackOff
	if enough >= s.smallest {
		enough = shortWindow
	}
	if !window.ok || window.value == 0 || window.value >= enough || enough >= s.smallest {
		return
	}
	tries, waited := 1, time.Duration(0)
	for wait := firstBackOff; waited+wait <= window.value; wait *= 2 {
		tries, waited = tries+1, waited+wait
	}
	fits := "one try"
	if tries > 1 {
		fits = strconv.Itoa(tries) + " tries"
	}
	c.warn(window.path, "a window of %s is long enough for %s, since the waits after failures grow from %s to %s: whatever is down for longer "+
		"makes the slot missed; give %s or more", short(window.value), fits, short(firstBackOff), short(longestBackOff), short(enough))
}

func (s slots) describe() string {
	text := short(s.smallest) + ", the smallest gap between two slots of " + s.expression.value
	if words := s.schedule.EitherDay(); words != "" {
		text += " (" + words + ")"
	}
	return text
}

// blame chooses the field at which a conflict between spans and the slots is reported:
// what the token itself says comes before what it inherits.
func (s slots) blame(spans ...span) string {
	for _, p := range spans {
		if p.own {
			return p.path
		}
	}
	if path := s.own(); path != "" {
		return path
	}
	for _, p := range spans {
		if p.path != "" {
			return p.path
		}
	}
	return s.expression.path
}

// own is the token's own field that decides on its slots; empty if it inherits them.
func (s slots) own() string {
	switch {
	case s.expression.own:
		return s.expression.path
	case s.zone.own:
		return s.zone.path
	}
	return ""
}

// list joins with commas and a last and.
func list(parts []string) string {
	if n := len(parts) - 1; n > 0 {
		return strings.Join(parts[:n], ", ") + " and " + parts[n]
	}
	return strings.Join(parts, "")
}

// measured is how much of a schedule is looked at. It is more than a year, so that it covers every
// day of the year.
const measured = 400 * 24 * time.Hour

// start is where measuring begins: fixed, so that a file is right or wrong whatever the date.
var start = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// gap parses a schedule and measures its smallest gap. Days on which clocks change can be shorter,
// so it looks at each change of one year.
func (c *checker) gap(expression string, zone *time.Location) (gap, error) {
	// A few slots of a rare schedule cover a whole year. Many of its slots would take centuries.
	const fewSlots, manySlots = 24, 400
	key := gapKey{expression, zone.String()}
	if g, ok := c.gaps[key]; ok {
		return g, nil
	}
	schedule, err := scheduler.Parse(expression, zone)
	if err != nil {
		return gap{}, err
	}
	smallest := schedule.SmallestGap(start, fewSlots)
	yearly := true
	if smallest > 0 && smallest*fewSlots < measured {
		slots := min(int(measured/smallest)+1, manySlots)
		smallest = schedule.SmallestGap(start, slots)
		yearly = time.Duration(slots)*smallest >= measured
	}
	for t := start; !yearly && schedule.Interval() == 0; {
		_, change := t.In(zone).ZoneBounds()
		if change.IsZero() || change.After(start.AddDate(1, 0, 0)) {
			break
		}
		if g := schedule.SmallestGap(change.Add(-48*time.Hour), manySlots); g > 0 {
			smallest = min(smallest, g)
		}
		t = change
	}
	g := gap{schedule, smallest}
	c.gaps[key] = g
	return g, nil
}

// between returns a duration of the file, which must be in these bounds, or the default.
func (c *checker) between(path string, value *raw.Duration, otherwise, shortest, longest time.Duration) time.Duration {
	d := time.Duration(or(value, raw.Duration(otherwise)))
	if d < shortest || d > longest {
		c.wrong(path, "must be %s to %s: it is %s", short(shortest), short(longest), short(d))
	}
	return d
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
