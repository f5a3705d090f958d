package httpapi

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
)

// This file has the metrics of the watch of sinks and of the secret in use.

// watchMetrics count what the watch does.
type watchMetrics struct {
	looks, restores, inUseProbes *prometheus.CounterVec
}

func newWatchMetrics(counter func(name, help string, labels ...string) *prometheus.CounterVec) watchMetrics {
	return watchMetrics{
		looks:       counter("rotatord_sink_looks_total", "Looks of the watch at sinks, by kind of sink and result.", "sink", "result"),
		restores:    counter("rotatord_sink_restores_total", "What was done about sinks that no longer held their secret, where that is configured.", "result"),
		inUseProbes: counter("rotatord_secret_in_use_probes_total", "What secrets in use were found to be where they were tried again.", "result"),
	}
}

// SinkLooked counts one look at the sink with that name.
func (m *Metrics) SinkLooked(sink, result string) {
	m.watch.looks.WithLabelValues(sinkKind(sink), result).Inc()
}

// InUseProbed counts one request with a secret in use.
func (m *Metrics) InUseProbed(p rotation.Probe) {
	m.watch.inUseProbes.WithLabelValues(string(p.Result())).Inc()
}

func (m *Metrics) restored(_ event.Event, d event.SinkRestore) {
	result := "success"
	switch {
	case d.Err != nil:
		result = "failed"
	case d.Reason != "":
		result = "refused"
	case d.Rotates:
		result = "rotation"
	}
	m.watch.restores.WithLabelValues(result).Inc()
}

// ShowWatch registers the gauges that show whether the watch does its work. state returns how often it looks at
// each sink, and when the sink was looked at whose last look is the longest ago. Both are zero if none is watched.
func (m *Metrics) ShowWatch(state func() (every time.Duration, oldest time.Time)) {
	m.registry.MustRegister(&watchCollector{
		state: state,
		oldest: prometheus.NewDesc("rotatord_sink_look_oldest_timestamp_seconds",
			"When the sink was looked at whose last look is the longest ago; absent if no sink is watched.", nil, nil),
		period: prometheus.NewDesc("rotatord_sink_watch_period_seconds", "How often each sink is looked at; absent if no sink is watched.", nil, nil),
	})
}

type watchCollector struct {
	state          func() (every time.Duration, oldest time.Time)
	oldest, period *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *watchCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.oldest; ch <- c.period }

// Collect implements prometheus.Collector.
func (c *watchCollector) Collect(ch chan<- prometheus.Metric) {
	every, oldest := c.state()
	if oldest.IsZero() {
		return
	}
	gauges(ch).timestamp(c.oldest, oldest)
	gauges(ch).gauge(c.period, every.Seconds())
}
