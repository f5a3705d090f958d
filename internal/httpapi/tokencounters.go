package httpapi

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
)

// tokenCounters are all counters that have the label token. They are kept by token and not by series. So a token that is
// removed takes them with it, whatever the number of the others; and counters that are zero, which is nearly all of them,
// take no memory. Series are made while they are sent.
//
// A counter with the label token belongs here, and not in a [prometheus.CounterVec].
type tokenCounters struct {
	mu     sync.Mutex
	tokens map[string]*tokenCounts
}

// tokenCounts are the counters of one token. What is in the map is never changed, but replaced: a scrape reads it without
// the lock, and reads the same however long it takes.
type tokenCounts struct {
	since                       int64 // when counting began, in milliseconds since 1970
	known                       bool  // counters that are zero are shown, too
	missed, frozen, outOfBand   uint64
	rotations                   []labelled // by result and trigger
	renewals, verificationsSeen []labelled // by result
}

// labelled is a counter with labels beside the token. Few of them are ever in use.
type labelled struct {
	result, trigger string
	n               uint64
}

// countersOf are the metrics of [tokenCounters].
var countersOf = []*family{
	counterFamily("rotatord_slots_missed_total", "Slots that passed without a rotation of their own.", func(t *tokenCounts) uint64 { return t.missed }),
	counterFamily("rotatord_slots_frozen_total", "Slots that a freeze took away: passed over, or deferred until the next one came.", func(t *tokenCounts) uint64 { return t.frozen }),
	counterFamily("rotatord_token_out_of_band_rotations_total", "Rotations by another person or program that an inventory has shown.", func(t *tokenCounts) uint64 { return t.outOfBand }),
	resultFamily("rotatord_renewals_total", "Renewals of service tokens, not of their secrets.", func(t *tokenCounts) []labelled { return t.renewals }),
	resultFamily("rotatord_verifications_total", "What new secrets were found to be where they were tried.", func(t *tokenCounts) []labelled { return t.verificationsSeen }),
	{
		name: "rotatord_rotations_total", help: "Rotation attempts by trigger and result.", counter: true, labels: []string{"result", "token", "trigger"},
		write: func(s *snapshot, out *seriesWriter) {
			writeByResult(s, (*tokenCounts).shownRotations, func(t *countedToken, l labelled) {
				out.add(series{value: float64(l.n), since: t.since, labels: values{l.result, t.name, l.trigger}})
			})
		},
	},
}

// counterFamily is a counter without labels beside the token.
func counterFamily(name, help string, n func(*tokenCounts) uint64) *family {
	return &family{name: name, help: help, counter: true, labels: []string{"token"}, write: func(s *snapshot, out *seriesWriter) {
		for _, t := range s.counted {
			if n := n(t.tokenCounts); t.known || n > 0 {
				out.add(series{value: float64(n), since: t.since, labels: values{t.name}})
			}
		}
	}}
}

// resultFamily is a counter with the label result.
func resultFamily(name, help string, of func(*tokenCounts) []labelled) *family {
	all := func(t *tokenCounts, _ []labelled) []labelled { return of(t) }
	return &family{name: name, help: help, counter: true, labels: []string{"result", "token"}, write: func(s *snapshot, out *seriesWriter) {
		writeByResult(s, all, func(t *countedToken, l labelled) {
			failed := slices.ContainsFunc(of(t.tokenCounts), func(l labelled) bool { return l.result == resultFailed })
			out.add(series{value: float64(l.n), since: t.since, labels: values{l.result, t.name}, trouble: failed})
		})
	}}
}

// writeByResult calls write for what of returns of each token, sorted by result, token and trigger, as series are. of may
// use what it is given for what it returns.
func writeByResult(s *snapshot, of func(*tokenCounts, []labelled) []labelled, write func(*countedToken, labelled)) {
	var results []string
	var buffer []labelled
	for _, t := range s.counted {
		buffer = of(t.tokenCounts, buffer[:0])
		for _, l := range buffer {
			if !slices.Contains(results, l.result) {
				results = append(results, l.result)
			}
		}
	}
	slices.Sort(results)
	for _, result := range results {
		for i := range s.counted {
			t := &s.counted[i]
			buffer = of(t.tokenCounts, buffer[:0])
			for _, l := range buffer {
				if l.result == result {
					write(t, l)
				}
			}
		}
	}
}

// shownRotations returns the attempts of a token, with those at zero, sorted by trigger. It uses buffer for that.
func (t *tokenCounts) shownRotations(buffer []labelled) []labelled {
	buffer = append(buffer, t.rotations...)
	scheduled := string(rotation.TriggerSchedule)
	for _, result := range event.Results {
		if t.known && !has(t.rotations, string(result), scheduled) {
			buffer = append(buffer, labelled{result: string(result), trigger: scheduled})
		}
	}
	slices.SortFunc(buffer, func(a, b labelled) int { return strings.Compare(a.trigger, b.trigger) })
	return buffer
}

func newTokenCounters() *tokenCounters { return &tokenCounters{tokens: make(map[string]*tokenCounts)} }

// known makes the counters of a token exist at zero.
func (c *tokenCounters) known(token string) { c.count(token, func(t *tokenCounts) { t.known = true }) }

// forget drops what was counted of a token.
func (c *tokenCounters) forget(token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.tokens, token)
}

// count lets add change the counters of a token. What add changes of a slice must be in a copy of it.
func (c *tokenCounters) count(token string, add func(*tokenCounts)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var t tokenCounts
	if before := c.tokens[token]; before != nil {
		t = *before
	} else {
		t.since = time.Now().UnixMilli()
	}
	add(&t)
	c.tokens[token] = &t
}

// inc counts one more, in a copy of all.
func inc(all *[]labelled, result, trigger string) {
	changed := slices.Clone(*all)
	i := slices.IndexFunc(changed, func(l labelled) bool { return l.result == result && l.trigger == trigger })
	if i < 0 {
		i, changed = len(changed), append(changed, labelled{result: result, trigger: trigger})
	}
	changed[i].n++
	*all = changed
}

func has(all []labelled, result, trigger string) bool {
	return slices.ContainsFunc(all, func(l labelled) bool { return l.result == result && l.trigger == trigger })
}

// countedToken is what was counted of one token when a scrape began.
type countedToken struct {
	name string
	*tokenCounts
}

// appendTo appends the counters of all tokens, sorted by name. Whoever counts waits while they are listed, and not while
// they are sorted or sent.
func (c *tokenCounters) appendTo(all []countedToken) []countedToken {
	c.mu.Lock()
	all = slices.Grow(all, len(c.tokens))
	for name, t := range c.tokens {
		all = append(all, countedToken{name, t})
	}
	c.mu.Unlock()
	slices.SortFunc(all, func(a, b countedToken) int { return cmp.Compare(a.name, b.name) })
	return all
}
