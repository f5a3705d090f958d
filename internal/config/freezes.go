package config

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"rotatord/internal/config/raw"
	"rotatord/internal/scheduler"
)

// placedFreeze is a freeze and its path in the file.
type placedFreeze struct {
	path string // from the top of the file on
	at   position
	scheduler.Freeze
}

// What slots of a freeze may be.
const (
	slotsDefer = "defer"
	slotsSkip  = "skip"
)

// inOrder returns the names of the entries of the mapping at path, in the order of the file.
func (c *checker) inOrder(path string, names iter.Seq[string]) []string {
	return slices.SortedFunc(names, func(a, b string) int {
		p, q := c.key(join(path, a)), c.key(join(path, b))
		return cmp.Or(cmp.Compare(p.line, q.line), cmp.Compare(p.column, q.column))
	})
}

// freezes returns the freezes without a fault, in the order of the file.
func (c *checker) freezes(base string, in map[string]raw.Freeze) []placedFreeze {
	if len(in) == 0 {
		return nil
	}
	var out []placedFreeze
	for _, name := range c.inOrder(base, maps.Keys(in)) {
		path := join(base, name)
		before := len(c.faults)
		c.checkName(path, name)
		if c.isBroken(path) {
			continue
		}
		f := c.freeze(path, in[name])
		f.Name = name
		once, again := !f.From.IsZero() && !f.To.IsZero(), f.Schedule != nil && f.Duration > 0
		if len(c.faults) == before && (once || again) { // otherwise a fault was reported, here or by the decoder
			out = append(out, placedFreeze{c.full(path), c.value(path), f})
		}
	}
	c.usable = append(c.usable, out...)
	return out
}

func (c *checker) freeze(path string, in raw.Freeze) scheduler.Freeze {
	f := scheduler.Freeze{Skip: c.oneOf(path+".slots", in.Slots, slotsDefer, slotsDefer, slotsSkip) == slotsSkip}
	zone := time.UTC
	if in.TimeZone != nil {
		zone = cmp.Or(c.zone(path+".time_zone", *in.TimeZone), zone)
	}
	from, to := c.has(path+".from"), c.has(path+".to")
	schedule, duration := c.has(path+".schedule"), c.has(path+".duration")
	switch {
	case (from || to) && (schedule || duration):
		other := "schedule"
		if !schedule {
			other = "duration"
		}
		c.wrong(path+"."+other, "is written beside from or to: keep from and to for a freeze that comes once, "+
			"or schedule and duration for one that comes again and again")
	case from && to:
		c.checkOnce(path, in, zone, &f)
	case schedule && duration:
		c.checkAgain(path, in, zone, &f)
	case from:
		c.missing(path, "to", "it goes with from, and says when the freeze is over")
	case to:
		c.missing(path, "from", "it goes with to, and says when the freeze begins")
	case schedule:
		c.missing(path, "duration", "it goes with schedule, and says how long the freeze lasts each time")
	case duration:
		c.missing(path, "schedule", "it goes with duration, and says when the freeze begins, such as \"0 18 * * 5\"")
	default:
		c.missing(path, "from", "give from and to for a freeze that comes once, or schedule and duration for one that comes again and again")
	}
	return f
}

// checkOnce reads from and to. If clocks show one of these times twice, the freeze is the longest
// one that can be meant.
func (c *checker) checkOnce(path string, in raw.Freeze, zone *time.Location, f *scheduler.Freeze) {
	if in.From != nil {
		from, _, err := parseMoment(*in.From, zone)
		if err != nil {
			c.wrong(path+".from", "%s", err)
		}
		f.From = from
	}
	if in.To != nil {
		_, to, err := parseMoment(*in.To, zone)
		if err != nil {
			c.wrong(path+".to", "%s", err)
		}
		f.To = to
	}
	if !f.From.IsZero() && !f.To.IsZero() && !f.To.After(f.From) {
		c.wrong(path+".to", "%s is not after from, %s: write a later time (a date alone is the moment at which the day begins)",
			shownMoment(f.To), shownMoment(f.From))
	}
}

// checkAgain reads schedule and duration.
func (c *checker) checkAgain(path string, in raw.Freeze, zone *time.Location, f *scheduler.Freeze) {
	if in.Duration != nil {
		switch d := time.Duration(*in.Duration); {
		case d == 0:
			c.wrong(path+".duration", "must be more than 0: remove the freeze, if none is meant")
		case d%time.Second != 0:
			c.wrong(path+".duration", "%s is not in whole seconds: leave out the fraction", d)
		default:
			f.Duration = d
		}
	}
	if in.Schedule == nil {
		return
	}
	g, err := c.gap(*in.Schedule, zone)
	switch {
	case err != nil:
		c.wrong(path+".schedule", "%s", oneLine(err))
		return
	case g.schedule.Interval() > 0:
		c.wrong(path+".schedule", "@every is counted from the last rotation, and a freeze has none: write five cron fields, @daily or @weekly")
		return
	}
	f.Schedule = g.schedule
	c.checkDays(path+".schedule", g.schedule)
	if g.smallest > 0 && f.Duration >= g.smallest {
		c.wrong(path+".duration", "%s is not shorter than %s, the smallest gap between two times of %s, so the freeze would never end: "+
			"shorten it, or let it begin less often", short(f.Duration), short(g.smallest), *in.Schedule)
	}
}

// exceptions returns the names of the global freezes that do not apply.
func (c *checker) exceptions(path string, in []*string) []string {
	var out []string
	for i, name := range in {
		item := itemPath(path, i)
		if name == nil {
			continue // reported already
		}
		if _, ok := c.raw.Freezes[*name]; !ok {
			if unread := c.has("freezes") && len(c.raw.Freezes) == 0; !unread && !c.isMerged("") {
				c.wrong(item, "%q is not an entry of the freezes at the top of the file: %s", *name,
					c.hint("freezes", *name, maps.Keys(c.raw.Freezes)))
			}
			continue
		}
		if slices.Contains(out, *name) {
			c.wrong(item, "%q is in the list twice: remove one", *name)
			continue
		}
		out = append(out, *name)
	}
	return out
}

// freezesOf returns the freezes that apply to a token: its own, and each global one that it does not
// except.
func (c *checker) freezesOf(own, defaults *settings) *freezeSet {
	ownSays := c.has(own.base+".except_freezes") || c.has(own.base+".freezes")
	if !ownSays && c.common != nil {
		return c.common
	}
	except := choose(c, own, defaults, "except_freezes", &own.except, &defaults.except, nil).value
	added := choose(c, own, defaults, "freezes", &own.freezes, &defaults.freezes, nil).value
	var key strings.Builder
	key.WriteString(strings.Join(slices.Sorted(slices.Values(except)), " "))
	for _, f := range added {
		key.WriteString(" " + f.path)
	}
	set, known := c.sets[key.String()]
	if !known {
		set = c.newFreezeSet(except, added)
		c.sets[key.String()] = set
	}
	if !ownSays {
		c.common = set
	}
	return set
}

// newFreezeSet returns the global freezes but some, and what is added to them.
func (c *checker) newFreezeSet(except []string, added []placedFreeze) *freezeSet {
	set := &freezeSet{}
	names := make(map[string]int)
	for _, f := range c.global {
		if !slices.Contains(except, f.Name) {
			set.placed = append(set.placed, f)
			names[f.Name] = c.key(f.path).line
			c.applied[f.path] = true
		}
	}
	for _, f := range added {
		if line, twice := names[f.Name]; twice {
			c.wrong(f.path, "has the name of a global freeze that applies as well (line %d): choose another name, or write it into except_freezes", line)
			continue
		}
		set.placed = append(set.placed, f)
	}
	for _, f := range set.placed {
		set.freezes = append(set.freezes, f.Freeze)
	}
	return set
}

// checkFreezesAreUsed warns of global freezes that apply to no token.
func (c *checker) checkFreezesAreUsed() {
	for _, f := range c.global {
		if !c.applied[f.path] && len(c.cfg.Tokens) > 0 {
			c.warn(f.path, "applies to no token, since all of them name it in except_freezes: remove it, or let it apply to one")
		}
	}
}
