package config

import (
	"maps"
	"slices"
	"strings"
	"time"

	"rotatord/internal/scheduler"
)

// notes are the facts of the file that Lint, ExpiryFault and ProgramWarnings need.
type notes struct {
	freezes []placedFreeze // all that are usable
	sets    []*freezeSet
	keys    []shortPosition // of the keys of the tokens' entries, in the order of Config.Tokens
	// commands are the programs of hooks that tokens have. A hook in defaults is there once.
	commands []placedCommand
}

// shortPosition is a position in half the space.
type shortPosition struct{ line, column int32 }

// entryKey is the key of a token's entry.
type entryKey struct {
	name string
	at   shortPosition
}

// takeNotes stores the facts that are needed after the check.
func (c *checker) takeNotes() {
	n := notes{freezes: c.usable, keys: make([]shortPosition, len(c.keys)), commands: slices.Clip(c.commands)}
	for i, key := range c.keys {
		n.keys[i] = key.at
	}
	for _, key := range slices.Sorted(maps.Keys(c.sets)) {
		c.sets[key].index = nil // all users are known
		n.sets = append(n.sets, c.sets[key])
	}
	c.cfg.notes = n
}

// user is a schedule that freezes apply to, with the largest jitter of its tokens.
type user struct {
	schedule *scheduler.Schedule
	jitter   time.Duration
}

// usedBy records a token that the freezes apply to.
func (set *freezeSet) usedBy(schedule *scheduler.Schedule, jitter time.Duration) {
	if len(set.freezes) == 0 {
		return
	}
	i, known := set.index[schedule]
	if !known {
		if set.index == nil {
			set.index = map[*scheduler.Schedule]int{}
		}
		i = len(set.users)
		set.index[schedule] = i
		set.users = append(set.users, user{schedule: schedule})
	}
	set.users[i].jitter = max(set.users[i].jitter, jitter)
}

// lintYears is how far Lint looks ahead.
const lintYears = 2

// Lint returns warnings that depend on the date: freezes that are over, and freezes in which no token
// has a slot. Warnings has those that depend on the file alone.
func (c *Config) Lint(now time.Time) []Fault {
	r := report{file: c.File}
	until := now.AddDate(lintYears, 0, 0)
	sets := make(map[string][]*freezeSet) // by the paths of their freezes
	for _, set := range c.notes.sets {
		for _, f := range set.placed {
			sets[f.path] = append(sets[f.path], set)
		}
	}
	for _, f := range c.notes.freezes {
		switch {
		case f.Schedule == nil && !f.To.After(now):
			r.addf(f.at, f.path, "is over since %s: remove it", shownMoment(f.To))
		case idle(f, sets[f.path], now, until):
			who, _ := describe([]placedFreeze{f})
			r.addf(f.at, f.path, "%s covers no slot of any token that it applies to before %s: move it, or remove it", who, shownMoment(until.UTC().Truncate(time.Second)))
		}
	}
	return ordered(r.faults)
}

// ProgramWarnings returns a warning for each program of a hook about which why returns an error.
func (c *Config) ProgramWarnings(why func(program string) error) []Fault {
	r := report{file: c.File}
	said := make(map[string]error)
	for _, command := range c.notes.commands {
		err, known := said[command.program]
		if !known {
			err = why(command.program)
			said[command.program] = err
		}
		if err != nil {
			r.addf(command.spot.at, command.spot.String(), "%v", err)
		}
	}
	return ordered(r.faults)
}

// idle reports whether no slot between now and until, jitter included, lies in f, though it
// applies to a token. It returns false if the answer takes too long to find. sets are those with f in them.
func idle(f placedFreeze, sets []*freezeSet, now, until time.Time) bool {
	used, budget := false, 100_000
	for _, set := range sets {
		for _, u := range set.users {
			if used = true; covers(f.Freeze, u, now, until, &budget) {
				return false
			}
		}
	}
	return used
}

// covers reports whether a slot of u between now and until lies in f. It goes from a freeze to
// the next slot, and from a slot to the next freeze.
func covers(f scheduler.Freeze, u user, now, until time.Time, budget *int) bool {
	if u.schedule.Interval() > 0 {
		return true // its slots may fall anywhere
	}
	for t := now; *budget > 0; *budget-- {
		from, to := f.From, f.To
		if f.Schedule != nil {
			from = f.Schedule.Next(t.Add(-f.Duration))
			to = from.Add(f.Duration)
		}
		if from.IsZero() || !from.Before(until) || !to.After(t) {
			return false
		}
		if t.After(from) {
			from = t
		}
		slot := u.schedule.Next(from.Add(-u.jitter - 1))
		switch {
		case slot.IsZero() || !slot.Before(until):
			return false
		case slot.Before(to):
			return true
		}
		t = slot
	}
	return true
}

// ExpiryFault reports the service token id of a token's entry if it ends, at expires, before
// the next rotation at next and is not renewed before that: a rotation renews the secret and
// not the token. A time that is not known is zero.
func (c *Config) ExpiryFault(token, id string, now, next, expires time.Time) (Fault, bool) {
	over := !expires.After(now)
	if expires.IsZero() || !over && (next.IsZero() || next.Before(expires)) {
		return Fault{}, false
	}
	i, known := slices.BinarySearchFunc(c.Tokens, token, func(t Token, name string) int { return strings.Compare(t.Name, name) })
	renewed := known && c.Tokens[i].RenewBefore > 0
	if renewed && !over {
		return Fault{}, false
	}
	renew := "renew it in the Cloudflare dashboard, or by API (POST .../access/service_tokens/%s/refresh)"
	if known && c.Accounts[c.Tokens[i].Account].ZoneID != "" {
		renew = "renew it in the Cloudflare dashboard, or by API (PUT .../access/service_tokens/%s, with a duration)"
	}
	switch {
	case !over:
		renew = "set renew_before, or " + renew
	case !renewed:
		renew += ", and set renew_before, which does so in time"
	}
	path, at := join("tokens", token), position{1, 1}
	if known && i < len(c.notes.keys) {
		at = position{int(c.notes.keys[i].line), int(c.notes.keys[i].column)}
	}
	r := report{file: c.File}
	ended := expires.UTC().Format(time.RFC3339)
	if over {
		return r.fault(at, path, "the service token itself has ended at %s, and a rotation renews its secret alone: "+renew, ended, id), true
	}
	return r.fault(at, path, "the next rotation begins at %s, and the service token itself ends at %s already: "+renew+", or rotate more often",
		next.UTC().Format(time.RFC3339), ended, id), true
}
