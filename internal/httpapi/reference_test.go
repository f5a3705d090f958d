package httpapi

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/timestamppb"

	"rotatord/internal/event"
	"rotatord/internal/printable"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// This file makes the metrics of tokens in the way that the library intends. What is streamed must be the same.

// Reference returns a registry with all metrics of m, and of the tokens of source.
func Reference(m *Metrics, source Source) prometheus.Gatherer {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(&reference{
		metrics: m, source: source,
		info:        desc("rotatord_token_info", "A configured token; always 1.", "token", "account", "strategy", "schedule"),
		lastSuccess: desc("rotatord_token_last_success_timestamp_seconds", "When the token was last rotated with success.", "token"),
		next:        desc("rotatord_token_next_rotation_timestamp_seconds", "When the token is to be worked on next.", "token"),
		expiry:      desc("rotatord_token_expiry_timestamp_seconds", "When the service token itself expires; absent if never or unknown.", "token"),
		graceEnd:    desc("rotatord_token_grace_end_timestamp_seconds", "When the previous secret stops working; absent if it was revoked at once.", "token"),
		reissueOwed: desc("rotatord_token_reissue_owed_timestamp_seconds",
			"Since when a lost secret waits to be made up for; absent if none does.", "token"),
		cutOff: desc("rotatord_token_cutoff_timestamp_seconds",
			"When consumers are left without a secret that works unless the pending work is done before; absent if none is pending that threatens them.", "token"),
		lastSeen:      desc("rotatord_token_last_seen_timestamp_seconds", "When Cloudflare last saw the token used; absent if unknown.", "token"),
		enabled:       desc("rotatord_token_enabled", "Whether the token is enabled at Cloudflare; absent before it was asked.", "token"),
		paused:        desc("rotatord_token_paused", "Whether an operator has paused the token, by its name or with all tokens.", "token"),
		failures:      desc("rotatord_token_consecutive_failures", "Rotation attempts that failed in a row.", "token"),
		state:         desc("rotatord_token_state", "1 for the state that the token is in, 0 for the others.", "token", "state"),
		gone:          desc("rotatord_token_gone", "Whether the last inventory did not have the service token.", "token"),
		outside:       desc("rotatord_token_out_of_band_timestamp_seconds", "When another person or program rotated the token; absent after a rotation of our own.", "token"),
		verifyFailing: desc("rotatord_token_verify_failing", "Whether a new secret in every sink is refused where it is tried; absent where none is tried.", "token"),
		replaced:      desc("rotatord_replaced_tokens", "Service tokens whose place others took and which are still to be deleted; absent for other strategies.", "token"),
		ordersPending: desc("rotatord_orders_pending", "Tokens with an order to be rotated that is not carried out.", "account"),
		versionDeletes: desc("rotatord_sink_version_deletion_timestamp_seconds",
			"When a sink deletes by itself what it holds; absent if it keeps it.", "token", "sink"),
		finding: desc("rotatord_sink_finding_timestamp_seconds",
			"Since when a sink does not hold what was written to it; absent while it does.", "token", "sink", "finding"),
		restored:      desc("rotatord_token_restored_timestamp_seconds", "When the secret was last written back to a sink, or a rotation was ordered for that; absent after a day.", "token"),
		refusedInUse:  desc("rotatord_token_secret_refused_timestamp_seconds", "Since when the secret in use is refused where it is tried; absent while it is not.", "token"),
		hookFailing:   desc("rotatord_token_hook_failing_timestamp_seconds", "Since when consumers wait for a hook that follows a rotation and has failed; absent if none has.", "token"),
		lastFailure:   desc("rotatord_token_last_failure_info", "Why the last attempt failed; 1, and absent after one that did not.", "token", "reason"),
		doubt:         desc("rotatord_token_doubt_info", "What was last concluded about a token in doubt; 1, and absent for others.", "token", "reason"),
		rotations:     desc("rotatord_rotations_total", "Rotation attempts by trigger and result.", "token", "trigger", "result"),
		slotsMissed:   desc("rotatord_slots_missed_total", "Slots that passed without a rotation of their own.", "token"),
		slotsFrozen:   desc("rotatord_slots_frozen_total", "Slots that a freeze took away: passed over, or deferred until the next one came.", "token"),
		outOfBand:     desc("rotatord_token_out_of_band_rotations_total", "Rotations by another person or program that an inventory has shown.", "token"),
		renewals:      desc("rotatord_renewals_total", "Renewals of service tokens, not of their secrets.", "token", "result"),
		verifications: desc("rotatord_verifications_total", "What new secrets were found to be where they were tried.", "token", "result"),
	})
	all := prometheus.Gatherers{m.registry, r}
	if m.essential.Load() {
		return essentialGatherer{all, time.Now}
	}
	return all
}

// reference is a collector of all that is streamed.
type reference struct {
	metrics *Metrics
	source  Source

	info, lastSuccess, next, expiry, graceEnd, lastSeen, enabled, paused, failures, state *prometheus.Desc
	gone, outside, verifyFailing, replaced, ordersPending                                 *prometheus.Desc
	versionDeletes, reissueOwed, cutOff, lastFailure, doubt                               *prometheus.Desc
	finding, restored, refusedInUse, hookFailing                                          *prometheus.Desc
	rotations, slotsMissed, slotsFrozen, outOfBand, renewals, verifications               *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *reference) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.info, c.lastSuccess, c.next, c.expiry, c.graceEnd, c.lastSeen, c.enabled, c.paused,
		c.failures, c.state, c.gone, c.outside, c.verifyFailing, c.replaced, c.ordersPending,
		c.versionDeletes, c.reissueOwed, c.cutOff, c.lastFailure, c.doubt,
		c.finding, c.restored, c.refusedInUse, c.hookFailing,
		c.rotations, c.slotsMissed, c.slotsFrozen, c.outOfBand, c.renewals, c.verifications} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *reference) Collect(ch chan<- prometheus.Metric) {
	pairs := labelPairs{}
	for name := range c.metrics.perToken.tokens {
		for _, series := range c.seriesOf(name, pairs) {
			ch <- series
		}
	}
	out := gauges(ch)
	orders := map[string]int{}
	for _, t := range c.source.Tokens() {
		t.Name, t.Account, t.Schedule = printable.Escaped(t.Name), printable.Escaped(t.Account), printable.Escaped(t.Schedule) // labels
		orders[t.Account] += count(t.Order != nil)
		out.gauge(c.info, 1, t.Name, t.Account, t.Strategy, t.Schedule)
		if t.Unread { // nothing is known of it, and "no trouble" would be wrong
			continue
		}
		c.collectTimes(out, &t)
		c.collectStates(out, &t)
	}
	for account, n := range orders {
		out.gauge(c.ordersPending, float64(n), account)
	}
}

// collectTimes sends the times of a token.
func (c *reference) collectTimes(out gauges, t *TokenStatus) {
	out.timestamp(c.outside, t.Outside, t.Name)
	out.timestamp(c.lastSuccess, t.LastSuccess, t.Name)
	out.timestamp(c.next, t.Next, t.Name)
	out.timestamp(c.expiry, t.Expiry, t.Name)
	out.timestamp(c.graceEnd, t.GraceEnd, t.Name)
	out.timestamp(c.reissueOwed, t.ReissueOwed, t.Name)
	out.timestamp(c.cutOff, t.CutOffAt, t.Name)
	out.timestamp(c.lastSeen, t.LastSeen, t.Name)
	for _, f := range t.Findings {
		out.timestamp(c.finding, f.Since, t.Name, printable.Escaped(f.Sink), f.Kind)
	}
	out.timestamp(c.restored, t.RestoredAt, t.Name)
	if t.RefusedInUse != nil {
		out.timestamp(c.refusedInUse, t.RefusedInUse.Since, t.Name)
	}
	out.timestamp(c.hookFailing, t.HookFailing(), t.Name)
	for _, d := range t.Deletions {
		out.timestamp(c.versionDeletes, d.At, t.Name, printable.Escaped(d.Sink))
	}
}

// collectStates sends what else is known of a token.
func (c *reference) collectStates(out gauges, t *TokenStatus) {
	out.gauge(c.gone, truth(t.Gone), t.Name)
	out.gauge(c.paused, truth(t.Pause != nil), t.Name)
	out.gauge(c.failures, float64(t.Failures), t.Name)
	if t.Failures > 0 {
		out.gauge(c.lastFailure, 1, t.Name, cmp.Or(t.LastCause, rotation.CauseOther))
	}
	if t.Verifies {
		out.gauge(c.verifyFailing, truth(t.Verification != nil && t.Verification.Refused), t.Name)
	}
	if t.Strategy == "replace" {
		out.gauge(c.replaced, float64(t.Replaced), t.Name)
	}
	if t.Known {
		out.gauge(c.enabled, truth(t.Enabled), t.Name)
	}
	if t.Doubt != nil {
		out.gauge(c.doubt, 1, t.Name, cmp.Or(t.Doubt.Decision, t.Doubt.Reason))
	}
	for _, state := range status.States {
		out.gauge(c.state, truth(state == t.State), t.Name, state)
	}
}

// seriesOf returns the series of a token.
func (c *reference) seriesOf(name string, pairs labelPairs) (all []prometheus.Metric) {
	t := c.metrics.perToken.tokens[name]
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

// essentialGatherer leaves out the series of tokens that no alert needs, so that there are five for a token that is
// all right. See [essential].
type essentialGatherer struct {
	all prometheus.Gatherer
	now func() time.Time
}

// Gather implements prometheus.Gatherer.
func (g essentialGatherer) Gather() ([]*dto.MetricFamily, error) {
	families, err := g.all.Gather()
	busy := busyTokens(families)
	left := families[:0]
	for _, family := range families {
		if rule, ok := essential[family.GetName()]; ok {
			family.Metric = g.reduced(family, rule, busy)
		}
		if len(family.Metric) > 0 {
			left = append(left, family)
		}
	}
	return left, err
}

// busyTokens are those whose grace an alert may have to know: a rotation is in progress, or an old service token is left.
func busyTokens(families []*dto.MetricFamily) map[string]bool {
	busy := map[string]bool{}
	for _, family := range families {
		for _, m := range family.Metric {
			switch family.GetName() {
			case "rotatord_token_state":
				if value(m) != 0 && label(m, "state") != "idle" {
					busy[label(m, "token")] = true
				}
			case "rotatord_replaced_tokens", "rotatord_token_verify_failing":
				if value(m) != 0 {
					busy[label(m, "token")] = true
				}
			}
		}
	}
	return busy
}

func (g essentialGatherer) reduced(family *dto.MetricFamily, rule rule, busy map[string]bool) []*dto.Metric {
	if rule == together {
		return summed(family.Metric)
	}
	failed := map[string]bool{}
	for _, m := range family.Metric {
		if label(m, "result") == "failed" {
			failed[label(m, "token")] = true
		}
	}
	return slices.DeleteFunc(family.Metric, func(m *dto.Metric) bool {
		switch rule {
		case ifSet:
			return value(m) == 0
		case ifZero:
			return value(m) != 0
		case ifLong:
			return value(m) > unix(g.now().Add(-unusedAfter))
		case ifTrouble:
			if family.GetName() == "rotatord_renewals_total" {
				return !failed[label(m, "token")]
			}
			return !busy[label(m, "token")]
		default:
			return false
		}
	})
}

// summed adds up the counters that differ in nothing but the token.
func summed(metrics []*dto.Metric) []*dto.Metric {
	sums := map[string]*dto.Metric{}
	for _, m := range metrics {
		var key strings.Builder
		labels := slices.Clone(m.Label)
		for i, l := range labels {
			if l.GetName() == "token" {
				labels[i] = &dto.LabelPair{Name: l.Name, Value: new(string)}
			}
			key.WriteString(l.GetName() + "\x00" + labels[i].GetValue() + "\x00")
		}
		if sum := sums[key.String()]; sum != nil {
			*sum.Counter.Value += value(m)
			continue
		}
		sums[key.String()] = &dto.Metric{Label: labels, Counter: &dto.Counter{Value: new(value(m))}}
	}
	all := make([]*dto.Metric, 0, len(sums))
	for _, key := range slices.Sorted(maps.Keys(sums)) {
		all = append(all, sums[key])
	}
	return all
}

func value(m *dto.Metric) float64 {
	if m.Counter != nil {
		return m.Counter.GetValue()
	}
	return m.Gauge.GetValue()
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.Label {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}
