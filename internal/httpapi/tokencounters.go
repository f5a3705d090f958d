package httpapi

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/timestamppb"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
)

// tokenCounters are all counters that have the label token. They are kept by token and not by series. So a token that is
// removed takes them with it, whatever the number of the others; and counters that are zero, which is nearly all of them,
// take no memory. Series are made at each scrape.
//
// A counter with the label token belongs here, and not in a [prometheus.CounterVec].
type tokenCounters struct {
	rotations, slotsMissed, slotsFrozen, outOfBand, renewals, verifications *prometheus.Desc

	mu     sync.Mutex
	tokens map[string]*tokenCounts
}

// tokenCounts are the counters of one token.
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

func newTokenCounters(register func(prometheus.Collector)) *tokenCounters {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	c := &tokenCounters{
		rotations:     desc("rotatord_rotations_total", "Rotation attempts by trigger and result.", "token", "trigger", "result"),
		slotsMissed:   desc("rotatord_slots_missed_total", "Slots that passed without a rotation of their own.", "token"),
		slotsFrozen:   desc("rotatord_slots_frozen_total", "Slots that a freeze took away: passed over, or deferred until the next one came.", "token"),
		outOfBand:     desc("rotatord_token_out_of_band_rotations_total", "Rotations by another person or program that an inventory has shown.", "token"),
		renewals:      desc("rotatord_renewals_total", "Renewals of service tokens, not of their secrets.", "token", "result"),
		verifications: desc("rotatord_verifications_total", "What new secrets were found to be where they were tried.", "token", "result"),
		tokens:        make(map[string]*tokenCounts),
	}
	register(c)
	return c
}

// known makes the counters of a token exist at zero.
func (c *tokenCounters) known(token string) { c.count(token, func(t *tokenCounts) { t.known = true }) }

// forget drops what was counted of a token.
func (c *tokenCounters) forget(token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.tokens, token)
}

// count lets add change the counters of a token.
func (c *tokenCounters) count(token string, add func(*tokenCounts)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.tokens[token]
	if t == nil {
		t = &tokenCounts{since: time.Now().UnixMilli()}
		c.tokens[token] = t
	}
	add(t)
}

func inc(all *[]labelled, result, trigger string) {
	for i := range *all {
		if l := &(*all)[i]; l.result == result && l.trigger == trigger {
			l.n++
			return
		}
	}
	*all = append(*all, labelled{result, trigger, 1})
}

// Describe implements prometheus.Collector.
func (c *tokenCounters) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.rotations, c.slotsMissed, c.slotsFrozen, c.outOfBand, c.renewals, c.verifications} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. It holds the lock for one token at a time: whoever counts does not wait for a
// slow scrape.
func (c *tokenCounters) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock()
	names := make([]string, 0, len(c.tokens))
	for name := range c.tokens {
		names = append(names, name)
	}
	c.mu.Unlock()
	pairs := labelPairs{}
	for _, name := range names {
		for _, series := range c.seriesOf(name, pairs) {
			ch <- series
		}
	}
}

// seriesOf returns the series of a token; none if it was forgotten meanwhile.
func (c *tokenCounters) seriesOf(name string, pairs labelPairs) (all []prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.tokens[name]
	if t == nil {
		return nil
	}
	token, since := pair("token", name), timestamppb.New(time.UnixMilli(t.since))
	add := func(d *prometheus.Desc, n uint64, labels ...*dto.LabelPair) {
		all = append(all, &countedSeries{d, labels, float64(n), since})
	}
	scheduled := string(rotation.TriggerSchedule)
	for _, result := range event.Results {
		if t.known && !has(t.rotations, string(result), scheduled) {
			add(c.rotations, 0, pairs.of("result", string(result)), token, pairs.of("trigger", scheduled))
		}
	}
	for _, l := range t.rotations {
		add(c.rotations, l.n, pairs.of("result", l.result), token, pairs.of("trigger", l.trigger))
	}
	for _, one := range []struct {
		desc *prometheus.Desc
		n    uint64
	}{{c.slotsMissed, t.missed}, {c.slotsFrozen, t.frozen}, {c.outOfBand, t.outOfBand}} {
		if t.known || one.n > 0 {
			add(one.desc, one.n, token)
		}
	}
	for _, l := range t.renewals {
		add(c.renewals, l.n, pairs.of("result", l.result), token)
	}
	for _, l := range t.verificationsSeen {
		add(c.verifications, l.n, pairs.of("result", l.result), token)
	}
	return all
}

func has(all []labelled, result, trigger string) bool {
	for _, l := range all {
		if l.result == result && l.trigger == trigger {
			return true
		}
	}
	return false
}

// labelPairs are pairs that many series of one scrape share.
type labelPairs map[[2]string]*dto.LabelPair

func (p labelPairs) of(name, value string) *dto.LabelPair {
	key := [2]string{name, value}
	if p[key] == nil {
		p[key] = pair(name, value)
	}
	return p[key]
}

func pair(name, value string) *dto.LabelPair { return &dto.LabelPair{Name: &name, Value: &value} }

// countedSeries is one series of a scrape. It implements prometheus.Metric.
type countedSeries struct {
	desc   *prometheus.Desc
	labels []*dto.LabelPair // sorted by name
	n      float64
	since  *timestamppb.Timestamp
}

// Desc implements prometheus.Metric.
func (c *countedSeries) Desc() *prometheus.Desc { return c.desc }

// Write implements prometheus.Metric.
func (c *countedSeries) Write(out *dto.Metric) error {
	out.Label = c.labels
	out.Counter = &dto.Counter{Value: &c.n, CreatedTimestamp: c.since}
	return nil
}
