package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"rotatord/internal/scheduler"
)

// This file finds freezes that leave too little of a schedule. Many tokens share freezes and
// schedules, so each combination is checked once, without the jitter of a token.

// longBlock is how long freezes may keep a schedule from rotating without a warning.
const longBlock = 60 * 24 * time.Hour

// thawSpread is over how long package scheduler spreads the tokens that wait for the end of a
// freeze, unless their jitter is longer or a quarter of the gap between their slots shorter.
const thawSpread = 10 * time.Minute

// freezeSet is the freezes that apply to a token, or to several tokens.
type freezeSet struct {
	placed  []placedFreeze
	freezes []scheduler.Freeze

	measured bool
	endless  bool
	longest  time.Duration // the longest time between freezes that repeat; 0 if none repeats

	users []user
	index map[*scheduler.Schedule]int // into users
}

type frozenKey struct {
	set      *freezeSet
	schedule *scheduler.Schedule
}

// frozen is a harmful effect of freezes on a schedule.
type frozen struct {
	guilty  []placedFreeze // each of them is needed for the effect
	fault   bool
	always  bool // every other schedule has the same effect
	message string
}

// checkFrozen refuses freezes that let a schedule never rotate, and warns of those that let it not rotate
// for long.
func (c *checker) checkFrozen(own string, set *freezeSet, s slots, jitter span) {
	if len(set.freezes) == 0 {
		return
	}
	set.measure()
	spread, least := max(jitter.value, thawSpread), thawSpread
	if s.smallest > 0 {
		spread, least = min(spread, s.smallest/4), min(least, s.smallest/4)
	}
	var found *frozen
	if jitter.ok && !set.endless && set.longest > 0 && spread > set.longest {
		found = set.tight(spread, least)
	} else {
		key := frozenKey{set, s.schedule}
		known := false
		if found, known = c.frozen[key]; !known {
			found = set.look(s)
			c.frozen[key] = found
		}
	}
	switch {
	case found == nil:
	case found.fault:
		c.wrong(found.blame(c.full(own), s), "%s", found.message)
	default:
		c.warn(found.blame(c.full(own), s), "%s", found.message)
	}
}

// blame is the field at which the effect is reported. A field of the token itself comes before one
// that it inherits.
func (f *frozen) blame(own string, s slots) string {
	for _, guilty := range slices.Backward(f.guilty) {
		if strings.HasPrefix(guilty.path, own+".") {
			return guilty.path
		}
	}
	if path := s.own(); path != "" && !f.always {
		return path
	}
	return f.guilty[len(f.guilty)-1].path
}

// measure looks at the freezes without a schedule.
func (set *freezeSet) measure() {
	if set.measured {
		return
	}
	set.measured = true
	if set.endless = endless(set.freezes); set.endless {
		return
	}
	again := slices.DeleteFunc(slices.Clone(set.freezes), func(f scheduler.Freeze) bool { return f.Schedule == nil })
	if !slices.ContainsFunc(again, func(f scheduler.Freeze) bool { return !f.Skip }) {
		return // none defers
	}
	table := scheduler.Timetable{Freezes: again}
	const manyFreezes = 400
	for at, n := start, 0; n < manyFreezes; n++ {
		free, _ := table.FrozenUntil(at)
		at = time.Time{}
		for _, f := range again {
			if next := f.Schedule.Next(free); !next.IsZero() && (at.IsZero() || next.Before(at)) {
				at = next
			}
		}
		if at.IsZero() {
			break // the last one is years away
		}
		set.longest = max(set.longest, at.Sub(free))
	}
}

// endless reports whether there is no moment outside of the freezes.
func endless(freezes []scheduler.Freeze) bool {
	table := scheduler.Timetable{Freezes: freezes}
	end, _ := table.FrozenUntil(start)
	return end.IsZero()
}

// tight is the fault of freezes with less time between them than the time over which tokens are
// spread. That time is at least least, whatever the jitter is.
func (set *freezeSet) tight(spread, least time.Duration) *frozen {
	guilty := slices.DeleteFunc(slices.Clone(set.placed), func(f placedFreeze) bool { return f.Schedule == nil })
	who, _ := describe(guilty)
	remedies := []string{"shorten " + pick(guilty, "it", "one of them") + " to leave more than that"}
	if least <= set.longest {
		remedies = append(remedies, "jitter to "+short(set.longest))
	}
	return &frozen{guilty: guilty, fault: true, always: true, message: fmt.Sprintf(
		"%s %s no more than %s at a time, and a slot that waits for the end begins up to %s after it, so that it may be deferred without an end: %s%s",
		who, pick(guilty, "leaves", "leave"), short(set.longest), short(spread), strings.Join(remedies, ", or "), orExcept(guilty))}
}

// look returns the harmful effect of the freezes on a schedule; nil if there is none.
func (set *freezeSet) look(s slots) *frozen {
	if set.endless {
		guilty := needed(set.placed, endless)
		who, _ := describe(guilty)
		return &frozen{guilty: guilty, fault: true, always: true, message: fmt.Sprintf(
			"no rotation can ever begin: %s follow each other without an end: shorten one of them%s", who, orExcept(guilty))}
	}
	every := s.schedule.Interval()
	anchors, steps := []time.Time{start}, 12
	if every > 0 { // its slots fall anywhere
		anchors, steps = nil, 1
	}
	for _, f := range set.freezes {
		begin := f.From
		switch {
		case f.Schedule != nil:
			begin = f.Schedule.Next(start)
		case !f.To.After(start):
			continue
		case begin.Before(start):
			begin = start
		}
		if every == 0 {
			anchors = append(anchors, begin.Add(-1))
			continue
		}
		anchors = append(anchors, begin.Add(-every))
		if f.Schedule != nil {
			anchors = append(anchors, begin.Add(f.Duration/2-every))
		}
	}
	for i, anchor := range anchors {
		if i > 0 {
			steps = 2
		}
		for n := 0; n < steps; n++ {
			b := blockAfter(s.schedule, set.freezes, anchor)
			if b.long() {
				return set.blocked(s, anchor, b)
			}
			anchor = b.until
		}
	}
	return nil
}

// block is a time in which a schedule has slots, and freezes let none of them be served.
type block struct {
	from  time.Time // the first of these slots
	until time.Time // zero: it never ends
}

func (b block) long() bool { return b.until.IsZero() || b.until.Sub(b.from) > longBlock }

// blockAfter returns how long freezes block the first slot after anchor.
func blockAfter(schedule *scheduler.Schedule, freezes []scheduler.Freeze, anchor time.Time) block {
	table := scheduler.Timetable{Schedule: schedule, Freezes: freezes}
	b := block{from: schedule.Next(anchor)}
	if b.from.IsZero() {
		return block{anchor, anchor.Add(longBlock)} // there is no slot to block
	}
	if slot := table.Next(anchor).Slot; !slot.IsZero() {
		b.until, _ = table.FrozenUntil(slot)
	}
	return b
}

// blocked describes a long block.
func (set *freezeSet) blocked(s slots, anchor time.Time, b block) *frozen {
	guilty := needed(set.placed, func(freezes []scheduler.Freeze) bool {
		return blockAfter(s.schedule, freezes, anchor).long()
	})
	who, skips := describe(guilty)
	it := pick(guilty, "it", "them")
	expression, every := s.expression.value, s.schedule.Interval() > 0
	var remedies []string
	if skips && !blockAfter(s.schedule, deferring(guilty), anchor).long() {
		remedies = append(remedies, "write slots: defer")
	}
	f := &frozen{guilty: guilty}
	switch {
	case b.until.IsZero() && every:
		f.message = fmt.Sprintf("a slot of %s that falls into %s is followed by none outside of %s, and is never served: ", expression, who, it)
		remedies = append(remedies, "write a schedule of five cron fields that lie outside of "+it)
	case b.until.IsZero():
		f.fault = true
		f.message = fmt.Sprintf("no slot of %s is ever served: %s %s over all of them: ", expression, who, pick(guilty, "passes", "pass"))
		remedies = append(remedies, "move the schedule out of "+it)
	default:
		zone, served := s.schedule.Location(), "is"
		if every {
			served = "may be"
		}
		f.message = fmt.Sprintf("no slot of %s %s served from %s to %s, %d days, because of %s: ", expression, served,
			shownMoment(b.from.In(zone)), shownMoment(b.until.In(zone)), int(b.until.Sub(b.from)/(24*time.Hour)), who)
		remedies = append(remedies, "shorten "+pick(guilty, "it", "one of them"))
	}
	f.message += strings.Join(remedies, ", or ") + orExcept(guilty)
	return f
}

// deferring returns the freezes as they would be if all of them deferred slots.
func deferring(placed []placedFreeze) []scheduler.Freeze {
	var freezes []scheduler.Freeze
	for _, f := range placed {
		f.Skip = false
		freezes = append(freezes, f.Freeze)
	}
	return freezes
}

// needed leaves out each freeze that is not needed for the effect: so reports whether some freezes
// have it.
func needed(placed []placedFreeze, so func([]scheduler.Freeze) bool) []placedFreeze {
	kept := slices.Clone(placed)
	for i := 0; i < len(kept); {
		var without []scheduler.Freeze
		for j, f := range kept {
			if j != i {
				without = append(without, f.Freeze)
			}
		}
		if so(without) {
			kept = slices.Delete(kept, i, i+1)
		} else {
			i++
		}
	}
	return kept
}

// describe names freezes, with when they are, and reports whether one of them passes over slots.
func describe(freezes []placedFreeze) (text string, skips bool) {
	var parts []string
	for _, f := range freezes {
		when := "from " + shownMoment(f.From) + " to " + shownMoment(f.To)
		if f.Schedule != nil {
			when = short(f.Duration) + " from each " + f.Schedule.String() + ", " + f.Schedule.Location().String()
		}
		parts = append(parts, f.Name+" ("+when+")")
		skips = skips || f.Skip
	}
	return pick(freezes, "the freeze ", "the freezes ") + list(parts), skips
}

func pick(freezes []placedFreeze, one, many string) string {
	if len(freezes) == 1 {
		return one
	}
	return many
}

// orExcept is a further remedy if one of the freezes is global.
func orExcept(freezes []placedFreeze) string {
	for _, f := range freezes {
		if strings.HasPrefix(f.path, "freezes.") {
			return ", or except the token from " + f.Name + " (except_freezes)"
		}
	}
	return ""
}
