package alerts

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// fault is one way to fail.
type fault struct {
	what    string
	token   string   // empty: all of the place
	alerts  []string // that fire while it lasts
	after   []string // that fire once it is mended
	passing bool     // it may end by itself
	// fromStart is set if it is there since the daemon started.
	fromStart bool
	// before is done while all is well, a while before the failure. It may be nil.
	before, provoke, mend func(t *testing.T, p *place)

	place            *place
	provoked, mended time.Time
}

func (f *fault) names() []string { return slices.Concat(f.alerts, f.after) }

// concerns reports whether an alert is about this fault.
func (f *fault) concerns(labels map[string]string) bool {
	name := f.place.design.name
	if world := labels[worldLabel]; world != "" || f.place.design.alone {
		return world == name
	}
	job, account, token := labels["job"], labels["account"], labels["token"]
	if job != "" && job != name || job == "" && account != "" && account != name {
		return false
	}
	return token == "" || f.token == "" || token == f.token
}

// stage is one alert on its way.
type stage struct {
	fault   *fault
	alert   string
	fired   time.Duration // after the failure, or after it was mended if the alert comes then
	cleared time.Duration // after the failure was mended
	runbook bool
	texts   []string       // what the receiver was told, where something is missing in it
	ended   time.Time      // when it had cleared
	firings map[string]int // how often it fired until then, by its labels
}

// update takes over what the pager has received.
func (s *stage) update(calls []call) {
	f := s.fault
	s.firings = map[string]int{}
	for _, c := range calls {
		if c.Labels["alertname"] != s.alert || !f.concerns(c.Labels) || c.at.Before(f.provoked) {
			continue
		}
		if c.Status == "firing" && (s.ended.IsZero() || c.at.Before(s.ended)) {
			s.firings[labelsOf(c.Labels)]++
		}
		switch {
		case c.Status == "firing" && s.fired == 0:
			since := f.provoked
			if slices.Contains(f.after, s.alert) {
				since = f.mended
			}
			s.fired = c.at.Sub(since)
			_, section, _ := strings.Cut(c.Annotations["runbook_url"], "#")
			s.texts = gaps(c.Annotations)
			s.runbook = section == strings.ToLower(s.alert) && runbookSections()[section]
			progress("%s: %s (%s) fires after %s: %s", f.place.design.name, s.alert, c.Labels["severity"], round(s.fired), c.Annotations["summary"])
		case c.Status != "resolved" || s.fired == 0 || s.cleared != 0:
		case !f.mended.IsZero() && c.at.After(f.mended):
			s.clear(c, c.at.Sub(f.mended))
		case f.passing:
			s.clear(c, c.at.Sub(f.provoked)-s.fired)
		}
	}
}

func (s *stage) clear(c call, after time.Duration) {
	s.cleared, s.ended = after, c.at
	progress("%s: %s has cleared after %s", s.fault.place.design.name, s.alert, round(after))
}

// gap is what a text looks like whose label or query gave nothing.
var gap = regexp.MustCompile(`<no value>|<error|  | [.,:;)]|\( |\(\)|NaN|^$`)

func gaps(annotations map[string]string) (found []string) {
	for _, name := range []string{"summary", "description"} {
		if gap.MatchString(annotations[name]) {
			found = append(found, annotations[name])
		}
	}
	return found
}

func labelsOf(labels map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		if name != "alertname" && name != "severity" {
			fmt.Fprintf(&b, "%s=%s ", name, labels[name])
		}
	}
	return b.String()
}

// wrong returns what is wrong: the alert must have fired once, with its section of the runbook, and must have cleared.
func (s *stage) wrong() (all []string) {
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	switch {
	case s.fired == 0:
		add("%s did not fire: %s", s.alert, s.fault.what)
	case s.cleared == 0:
		add("%s did not clear: %s", s.alert, s.fault.what)
	case !s.runbook:
		add("%s does not name its section of the runbook", s.alert)
	case len(s.firings) > 1:
		add("%s fired for one failure as several alerts: %v", s.alert, s.firings)
	}
	for _, text := range s.texts {
		add("something is missing in the text of %s: %q", s.alert, text)
	}
	for labels, n := range s.firings {
		if n > 1 {
			add("%s fired %d times before it cleared: %s", s.alert, n, labels)
		}
	}
	return all
}

func everyTable(places []*place) string {
	var stages []*stage
	for _, p := range places {
		stages = append(stages, p.stages...)
	}
	var b strings.Builder
	b.WriteString("| alert | how it was made to fire | fired after | cleared after |\n| --- | --- | --- | --- |\n")
	slices.SortStableFunc(stages, func(a, b *stage) int { return cmp.Compare(a.alert, b.alert) })
	show := func(d time.Duration) string {
		if d == 0 {
			return "never"
		}
		return round(d).String()
	}
	for _, s := range stages {
		what := s.fault.what
		if slices.Contains(s.fault.after, s.alert) {
			what += ", then mended"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", s.alert, what, show(s.fired), show(s.cleared))
	}
	reasons := unprovoked()
	for _, name := range slices.Sorted(maps.Keys(reasons)) {
		fmt.Fprintf(&b, "| %s | not here: %s | | |\n", name, reasons[name])
	}
	return b.String()
}
