package webpage

import (
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"rotatord/internal/printable"
	"rotatord/internal/status"
)

const (
	// fleetEvery is how old a look at the fleet becomes, and lookIdle for how long looks are kept fresh after a page was asked for.
	// A page that is open is asked for every 15 seconds.
	fleetEvery = 2 * time.Second
	lookIdle   = 40 * time.Second
	// firstWait is how long a page waits for the first look, and for one after something has happened that may be about any
	// token, such as a command for all of them.
	firstWait = 200 * time.Millisecond
	// maxChoices is how many accounts or sinks a list offers.
	maxChoices = 200
)

// level says how a token is, the worst first.
type level int

const (
	critical level = iota
	warning
	busy
	paused
	fine
)

var levelNames = []string{"critical", "warning", "busy", "paused", "fine"}

func (l level) String() string { return levelNames[l] }

// entry is what searching, sorting and counting need of one token. What a page shows of it is read when the page is made.
// It is never changed.
type entry struct {
	status.Concern
	level         level
	last, expires time.Time
	search        string // IDs and sinks in lower case, one a line
	endings       []ending
}

// ending is something that ends at a known time.
type ending struct {
	at   time.Time
	kind string // of a [happening]
	what string
}

// newEntry returns the entry of a token. soon is until when endings are of interest.
func newEntry(t *status.Token, now, soon time.Time) *entry {
	e := &entry{Concern: t.Concern(now), last: t.LastSuccess, expires: t.Expiry}
	e.level = levelOf(t, e.In)
	words := []string{t.TokenID, t.ClientID}
	for _, s := range t.Sinks {
		words = append(words, s.Name)
	}
	e.search = strings.ToLower(strings.Join(words, "\n"))
	add := func(at time.Time, kind, what string) {
		if at.After(now) && !at.After(soon) {
			e.endings = append(e.endings, ending{at, kind, what})
		}
	}
	if t.Strategy != "pair" {
		add(t.GraceEnd, "grace", "the previous secret stops working")
	}
	add(t.CutOffAt, "critical", "clients lose the last secret that works")
	add(t.Expiry, "critical", "the service token expires")
	add(t.Renews, "rotation", "the service token is renewed")
	if t.Pause != nil {
		add(t.Pause.Until, "grace", "the pause ends")
	}
	return e
}

// same reports whether two entries of one token are equal.
func (e *entry) same(o *entry) bool {
	return e.level == o.level && e.search == o.search && e.Account == o.Account && e.Next.Equal(o.Next) && e.last.Equal(o.last) && e.expires.Equal(o.expires) &&
		slices.Equal(e.Mounts, o.Mounts) && slices.Equal(e.In, o.In) && slices.Equal(e.endings, o.endings)
}

// levelOf returns how a token is that is in these troubles.
func levelOf(t *status.Token, in []status.In) level {
	switch {
	case slices.ContainsFunc(in, func(i status.In) bool { return i.Severity() == status.Critical }):
		return critical
	case len(in) > 0:
		return warning
	case t.Pause != nil || t.Reason == "paused" || t.Freeze != "":
		return paused
	case t.State != "idle" || t.Waiting || t.Order != nil:
		return busy
	}
	return fine
}

// fleet is what is known of all tokens at one moment. It is never changed.
type fleet struct {
	now      time.Time
	seen     uint64   // the changes that it knows: see [Source]
	entries  []*entry // by name
	checks   []status.Check
	replicas *status.Replicas
	troubles []status.Trouble
	counts   [fine + 1]int
	accounts []string
	sinks    []string
	choice   map[string]string // what stands for an account or a sink in a list of choices and in an address
	orders   *orders
}

// newFleet looks at all tokens. What is as it was in an earlier look, which may be nil, is taken from there.
func newFleet(from Source, now time.Time, old *fleet) *fleet {
	_, seen, _ := from.Changes(0)
	f := &fleet{now: now, seen: seen, checks: printable.Copy(from.Checks()), replicas: from.Replicas().Scrubbed()}
	soon := now.Add(laneDays * 24 * time.Hour)
	if old != nil {
		f.entries = make([]*entry, 0, len(old.entries))
	}
	i := 0
	for t := range status.From(from, "") {
		e := newEntry(t, now, soon)
		if old != nil {
			for i < len(old.entries) && old.entries[i].Name < e.Name {
				i++
			}
			if i < len(old.entries) && old.entries[i].Name == e.Name && old.entries[i].same(e) {
				e = old.entries[i]
			}
		}
		f.entries = append(f.entries, e)
	}
	f.sumUp(old)
	return f
}

// with returns the fleet with these tokens as they are now, and these results of checks. The rest is from f, and so is its time.
func (f *fleet) with(from Source, names []string, checks []status.Check, now time.Time, seen uint64) *fleet {
	next := *f
	next.seen, next.checks, next.counts = seen, checks, [fine + 1]int{}
	soon := now.Add(laneDays * 24 * time.Hour)
	copied := false
	for _, name := range names {
		i, known := f.index(name)
		t, ok := from.Token(name)
		if !known || !ok {
			continue // a reload has added or removed it, and the next look at all finds that
		}
		e := newEntry(&t, now, soon)
		if f.entries[i].same(e) {
			continue
		}
		if !copied {
			next.entries, copied = slices.Clone(f.entries), true
		}
		next.entries[i] = e
	}
	next.sumUp(f)
	return &next
}

// index returns the place of a token among the entries.
func (f *fleet) index(name string) (int, bool) {
	return slices.BinarySearchFunc(f.entries, name, func(e *entry, name string) int { return strings.Compare(e.Name, name) })
}

// concerns returns what the list of troubles has to know.
func (f *fleet) concerns() iter.Seq[*status.Concern] {
	return func(yield func(*status.Concern) bool) {
		for _, e := range f.entries {
			if !yield(&e.Concern) {
				return
			}
		}
	}
}

// sumUp finds what is known of all tokens together. old is an earlier fleet, or nil.
func (f *fleet) sumUp(old *fleet) {
	f.troubles = status.Sum(f.concerns(), f.checks, f.replicas, f.now)
	for _, e := range f.entries {
		f.counts[e.level]++
	}
	changed, comparable := f.changed(old)
	if !comparable {
		f.setChoices()
		f.orders = &orders{entries: f.entries}
		f.orders.by(sorts[0])
		return
	}
	f.orders = old.orders.with(f.entries, changed)
	f.choice, f.accounts, f.sinks = old.choice, old.accounts, old.sinks
	if slices.ContainsFunc(changed, func(i int32) bool {
		return f.entries[i].Account != old.entries[i].Account || !slices.Equal(f.entries[i].Mounts, old.entries[i].Mounts)
	}) {
		f.setChoices()
	}
}

// changed returns the indices of the entries that an earlier fleet has not; ok is false if the names differ, or without one.
func (f *fleet) changed(old *fleet) (changed []int32, ok bool) {
	if old == nil || len(old.entries) != len(f.entries) {
		return nil, false
	}
	for i, e := range f.entries {
		switch o := old.entries[i]; {
		case e == o:
		case e.Name != o.Name:
			return nil, false
		default:
			changed = append(changed, int32(i))
		}
	}
	return changed, true
}

// setChoices finds the accounts and the sinks that a list offers.
func (f *fleet) setChoices() {
	accounts, sinks := map[string]bool{}, map[string]bool{}
	for _, e := range f.entries {
		accounts[e.Account] = true
		for _, m := range e.Mounts {
			sinks[m] = true
		}
	}
	f.choice = map[string]string{}
	f.accounts, f.sinks = f.choices(accounts), f.choices(sinks)
}

// choices returns the choices of a list. A long name is cut, so that [readQuery] does not cut its choice again.
func (f *fleet) choices(of map[string]bool) []string {
	var all []string
	for name := range maps.Keys(of) {
		f.choice[name] = printable.Line(name, maxQuery-len("..."))
		all = append(all, f.choice[name])
	}
	slices.Sort(all)
	all = slices.Compact(all)
	return all[:min(len(all), maxChoices)]
}
