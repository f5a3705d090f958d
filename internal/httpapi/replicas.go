package httpapi

import (
	"cmp"
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"rotatord/internal/event"
	"rotatord/internal/printable"
	"rotatord/internal/status"
)

// This file has the metrics of several replicas that share a ledger. A daemon that is alone has none of them.

// replicaMetrics count what a replica does. They are registered by [Metrics.Show].
type replicaMetrics struct {
	takenOver, lateAnswers, copies *prometheus.CounterVec
	clockJumps                     prometheus.Counter
}

// Values of labels.
const (
	lateDelivered  = "delivered"
	lateSuperseded = "superseded"
)

func newReplicaMetrics() replicaMetrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	return replicaMetrics{
		takenOver: counter("rotatord_claims_taken_over_total", "Tokens taken over from replicas whose claim had ended, by the step that their rotation had reached.", "step"),
		lateAnswers: counter("rotatord_late_answers_total",
			"Answers to rotate requests that came after the claim had ended, by what became of them.", "result"),
		copies: counter("rotatord_answer_copies_total", "Copies of sealed answers in the shared store, made because an answer could not be delivered at once.", "result"),
		clockJumps: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "rotatord_vault_clock_jumps_total", Help: "Jumps of Vault's clock, as its answers to writes showed them.",
		}),
	}
}

func (m *replicaMetrics) takenOverFrom(_ event.Event, d event.ClaimTakenOver) {
	m.takenOver.WithLabelValues(cmp.Or(d.Step, "idle")).Inc()
}

func (m *replicaMetrics) late(_ event.Event, d event.LateAnswer) {
	result := lateSuperseded
	if d.Delivered {
		result = lateDelivered
	}
	m.lateAnswers.WithLabelValues(result).Inc()
}

func (m *replicaMetrics) copied(_ event.Event, d event.AnswerCopied) {
	m.copies.WithLabelValues(resultOf(d.Err)).Inc()
}

func (m *replicaMetrics) clockJumped(event.Event, event.VaultClockJump) { m.clockJumps.Inc() }

// showReplicas registers the metrics of replicas, unless the daemon is alone. Counters begin at 0, so that increase()
// sees the first event.
func (m *Metrics) showReplicas(source Source) {
	if source.Replicas() == nil {
		return
	}
	r := &m.replicas
	for _, step := range status.States {
		if step != status.Overtook {
			r.takenOver.WithLabelValues(step)
		}
	}
	r.lateAnswers.WithLabelValues(lateDelivered)
	r.lateAnswers.WithLabelValues(lateSuperseded)
	r.copies.WithLabelValues(resultOf(nil))
	r.copies.WithLabelValues(resultOf(errors.ErrUnsupported))
	m.registry.MustRegister(r.takenOver, r.lateAnswers, r.copies, r.clockJumps, newReplicaCollector(source))
}

// replicaCollector makes the gauges of replicas from the source at each scrape.
type replicaCollector struct {
	source Source

	info, living, up, aside, offset, held, copies, synced *prometheus.Desc
}

func newReplicaCollector(source Source) *replicaCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &replicaCollector{
		source: source,
		info:   desc("rotatord_replica_info", "This replica and the ledger that it shares with others; always 1.", "replica", "ledger"),
		living: desc("rotatord_replicas_living", "Replicas of which this one sees that they work, itself included."),
		up:     desc("rotatord_replica_up", "Whether this replica sees that a replica works; absent for one that stopped in an orderly way.", "replica"),
		aside:  desc("rotatord_replica_stands_aside", "Whether this replica begins nothing, because its clock is wrong, its name is used twice, the ledger is out of use or Vault away, or it starts or stops."),
		offset: desc("rotatord_replica_clock_offset_seconds", "How far the clock of this replica is ahead of Vault's; absent if it was not measured."),
		held:   desc("rotatord_claims_held", "Tokens that this replica works on now."),
		copies: desc("rotatord_answer_copies_pending", "Tokens with a copy of a sealed answer in the shared store, which is not delivered yet."),
		synced: desc("rotatord_ledger_last_sync_timestamp_seconds",
			"When this replica last knew all that the others had saved; absent if it never did."),
	}
}

// Describe implements prometheus.Collector.
func (c *replicaCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.info, c.living, c.up, c.aside, c.offset, c.held, c.copies, c.synced} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *replicaCollector) Collect(ch chan<- prometheus.Metric) {
	all := c.source.Replicas()
	if all == nil {
		return
	}
	out := gauges(ch)
	self := all.Self()
	out.gauge(c.info, 1, printable.Escaped(self.Name), printable.Escaped(all.Ledger))
	out.gauge(c.living, float64(all.Living()))
	for _, r := range all.Replicas {
		if !r.Leaving {
			out.gauge(c.up, truth(r.Living), printable.Escaped(r.Name))
		}
	}
	out.gauge(c.aside, truth(self.StandsAside != ""))
	if self.ClockKnown {
		out.gauge(c.offset, self.ClockOffset)
	}
	out.gauge(c.held, float64(len(self.Tokens)))
	out.gauge(c.copies, float64(all.Copies))
	out.timestamp(c.synced, all.SyncedAt)
}

// replicasAnswer is what /api/v1/replicas answers.
type replicasAnswer struct {
	// Shared is set if the daemon shares its ledger.
	Shared bool `json:"shared"`
	*status.Replicas
}
