package status

import (
	"cmp"
	"iter"
	"slices"
	"strings"
	"time"

	"rotatord/internal/moment"
)

// Concern is what the list of troubles has to know of one token. It is a small part of what is known of it, so that the
// troubles of many tokens can be found without all of that at once.
type Concern struct {
	Name    string
	Account string
	Mounts  []string
	Next    time.Time // see [Token]
	// In are the troubles that the token is in, the worst first; nil if there is none.
	In []In
}

// In says that a token is in one kind of trouble, since when and until when. A zero time is not known.
type In struct {
	kind         uint8 // an index of kinds
	overGrace    bool  // a rotation ends the trouble, and has to override the grace of our own previous secret
	Since, Until time.Time
}

// Kind returns the name of the kind of trouble, as in docs/runbook.md.
func (i In) Kind() string { return kinds[i.kind].name }

// Severity returns how soon an operator must act.
func (i In) Severity() Severity { return kinds[i.kind].severity }

// Concern returns what the list of troubles has to know of the token.
func (t *Token) Concern(now time.Time) Concern {
	c := Concern{Name: t.Name, Account: t.Account, Mounts: t.Mounts, Next: t.Next}
	for i := range kinds {
		k := &kinds[i]
		if !k.is(t, now) {
			continue
		}
		// That grace is of a secret that is dead since the others rotated.
		in := In{kind: uint8(i), overGrace: k.name == rotatedOutside && t.GraceEnd.After(now)}
		if k.since != nil {
			in.Since = k.since(t)
		}
		if k.until != nil {
			in.Until = k.until(t)
		}
		c.In = append(c.In, in)
	}
	return c
}

// concernsOf returns what the list of troubles has to know of tokens, one after the other.
func concernsOf(tokens []Token, now time.Time) iter.Seq[*Concern] {
	return func(yield func(*Concern) bool) {
		for i := range tokens {
			if c := tokens[i].Concern(now); !yield(&c) {
				return
			}
		}
	}
}

// Sum returns what is wrong with tokens, with what rotations need, and with the replicas that share the ledger, the worst
// first. Tokens in the same trouble share one entry. replicas is nil if the daemon is alone. The result is nil if nothing is
// wrong. A [Concern] is not used after the next one was asked for.
func Sum(all iter.Seq[*Concern], checks []Check, replicas *Replicas, now time.Time) []Trouble {
	checks = slices.DeleteFunc(slices.Clone(checks), func(c Check) bool { return c.OK })
	next := make([]time.Time, len(checks)) // when the first rotation begins that a check stops
	found := make([]tally, len(kinds))
	for c := range all {
		for _, in := range c.In {
			trouble := &found[in.kind]
			trouble.Tokens = append(trouble.Tokens, c.Name)
			trouble.overGrace = trouble.overGrace || in.overGrace
			trouble.Since, trouble.Until = moment.MinNonZero(trouble.Since, in.Since), moment.MinNonZero(trouble.Until, in.Until)
		}
		for i := range checks {
			if checks[i].Stops && checks[i].stops(c) {
				next[i] = moment.MinNonZero(next[i], c.Next)
			}
		}
	}
	var troubles []Trouble
	for i := range kinds {
		if trouble, ok := kinds[i].trouble(found[i]); ok {
			troubles = append(troubles, trouble)
		}
	}
	for i, c := range checks {
		troubles = append(troubles, ofCheck(c, next[i], now))
	}
	if replicas != nil {
		if replicas.SyncedAt.IsZero() { // one line for the ledger is enough
			troubles = slices.DeleteFunc(troubles, func(t Trouble) bool { return t.Kind == unread })
		}
		troubles = append(troubles, replicas.troubles(now)...)
	}
	slices.SortStableFunc(troubles, func(a, b Trouble) int { return cmp.Compare(rank(a.Severity), rank(b.Severity)) })
	return troubles
}

// tally is what was found of one kind of trouble.
type tally struct {
	Trouble
	overGrace bool // see [In]
}

// trouble completes what was found of a kind of trouble; ok is false if no token is in it.
func (k *kind) trouble(found tally) (_ Trouble, ok bool) {
	if len(found.Tokens) == 0 {
		return Trouble{}, false
	}
	found.Severity, found.Kind, found.What, found.ToDo, found.Runbook = k.severity, k.name, k.what, k.toDo, section(k.section)
	slices.Sort(found.Tokens)
	if len(found.Tokens) == 1 {
		name := found.Tokens[0]
		if found.overGrace {
			name += " --override-grace"
		}
		found.ToDo = strings.ReplaceAll(found.ToDo, "NAME", name)
	} else if k.many != "" {
		found.What = k.many
	}
	return found.Trouble, true
}

// stops reports whether rotations of a token need what the check is about.
func (c *Check) stops(t *Concern) bool {
	switch c.Name {
	case CheckCloudflare, CheckCredential:
		return t.Account == c.Subject
	case CheckSink:
		return slices.Contains(t.Mounts, c.Subject)
	case CheckVault:
		return len(t.Mounts) == 0 || slices.ContainsFunc(t.Mounts, func(m string) bool { return strings.HasPrefix(m, "vault:") })
	}
	return true
}
