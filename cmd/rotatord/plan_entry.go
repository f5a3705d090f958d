package main

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/rotation"
)

// planStatus says what becomes of a slot.
type planStatus string

const (
	planPlanned planStatus = "planned" // it is served
	planSkipped planStatus = "skipped" // a freeze passes over it
	planMissed  planStatus = "missed"  // its window is over before it can begin, and it is not made up for
	planHeld    planStatus = "held"    // nobody knows when
)

// planned is one line of a plan. Times are zero where there is none.
type planned struct {
	token  *config.Token
	status planStatus
	// slot is the first slot that is served, and last the last of several.
	slot, last time.Time
	slots      int       // how many slots are served, or given up
	begins     time.Time // in UTC, with jitter and whatever else delays it
	closes     time.Time // when the slot is missed
	graceEnds  time.Time // when the previous secret stops working; begins if at once
	reason     rotation.DueReason
	freeze     string // names the freeze that passes over the slot, or that it waits for
	counted    string // ledger, now or from
	warnings   []planWarning
}

// at is where an entry stands in a plan; zero at its end.
func (e *planned) at() time.Time {
	switch {
	case !e.begins.IsZero():
		return e.begins
	case e.status == planHeld:
		return time.Time{}
	}
	return e.slot
}

// plan is the soonest first, and last what nobody knows the time of.
type plan []planned

func (p plan) sort() {
	slices.SortFunc(p, func(a, b planned) int {
		s, t := a.at(), b.at()
		if s.IsZero() != t.IsZero() {
			return t.Compare(s)
		}
		return cmp.Or(s.Compare(t), cmp.Compare(a.token.Name, b.token.Name), a.slot.Compare(b.slot))
	})
}

// brief is a duration in whole seconds, or minutes if it is long, without parts that are zero.
func brief(d time.Duration) string {
	if d >= time.Hour {
		d = d.Round(time.Minute)
	}
	s := d.Truncate(time.Second).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// rfc is a time in a message.
func rfc(t time.Time) string { return t.UTC().Format(time.RFC3339) }
