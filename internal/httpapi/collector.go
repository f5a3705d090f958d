package httpapi

import (
	"cmp"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rotatord/internal/printable"
	"rotatord/internal/rotation"
)

// stateCollector makes the gauges of checks, pending secrets and the session with Vault at each scrape. Those of tokens are
// no [prometheus.Collector]: see [snapshot].
type stateCollector struct {
	source       Source
	vaultSession func() VaultSession
	clockDrift   func() time.Duration

	pending, pendingOldest, session, drift, checkOK, checkFailing, certificateEnds, unwrapFailed *prometheus.Desc
}

// VaultSession is what is shown of the session with Vault.
type VaultSession struct {
	There  bool      // there is a session
	Expiry time.Time // when it ends; zero if it does not
	// CertificateEnds is when the client certificate in use ends, and UnwrapFailed is since when the wrapping token that was
	// delivered last cannot be unwrapped. Both are zero if there is nothing to show.
	CertificateEnds, UnwrapFailed time.Time
}

// Show registers the gauges that are read from source. vaultSession is nil if no Vault is configured. clockDrift
// returns by how much the wall clock went ahead of the monotonic one.
func (m *Metrics) Show(source Source, vaultSession func() VaultSession, clockDrift func() time.Duration) {
	m.source = source
	m.showReplicas(source)
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	m.registry.MustRegister(&stateCollector{
		source: source, vaultSession: vaultSession, clockDrift: clockDrift,
		pending:       desc("rotatord_pending_secrets", "Sealed secrets that are not yet confirmed by every sink."),
		pendingOldest: desc("rotatord_pending_secret_oldest_timestamp_seconds", "When the oldest pending secret was sealed; absent without one."),
		drift:         desc("rotatord_clock_drift_seconds", "By how much the wall clock went ahead of the monotonic one since the start."),
		checkOK:       desc("rotatord_check_ok", "Whether something that rotations need was there when it was last looked at.", "check", "subject"),
		checkFailing: desc("rotatord_check_failing_since_timestamp_seconds",
			"Since when something that rotations need has been missing; absent while it is there.", "check", "subject", "reason"),
		certificateEnds: desc("rotatord_vault_client_certificate_expiry_timestamp_seconds",
			"When the client certificate in use for Vault ends; absent without one."),
		unwrapFailed: desc("rotatord_vault_unwrap_failed_timestamp_seconds",
			"Since when the wrapping token that was delivered last cannot be unwrapped; absent if it could be, or without one."),
		session: desc("rotatord_vault_session_expiry_timestamp_seconds",
			"When the session with Vault ends unless it is renewed; +Inf if it does not end, 0 without a session; absent without a Vault."),
	})
}

// Describe implements prometheus.Collector.
func (c *stateCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.pending, c.pendingOldest, c.session, c.drift, c.checkOK, c.checkFailing, c.certificateEnds, c.unwrapFailed} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *stateCollector) Collect(ch chan<- prometheus.Metric) {
	out := gauges(ch)
	for _, check := range c.source.Checks() {
		check.Subject = printable.Escaped(check.Subject) // a label
		out.gauge(c.checkOK, truth(check.OK), check.Name, check.Subject)
		if !check.OK {
			// A check without a time has failed since before this scrape.
			out.gauge(c.checkFailing, unix(check.Since), check.Name, check.Subject, cmp.Or(check.Reason, rotation.CauseOther))
		}
	}
	n, oldest := c.source.Pending()
	out.gauge(c.pending, float64(n))
	out.timestamp(c.pendingOldest, oldest)
	out.gauge(c.drift, c.clockDrift().Seconds())
	if c.vaultSession == nil {
		return
	}
	session := c.vaultSession()
	switch {
	case !session.There:
		out.gauge(c.session, 0)
	case session.Expiry.IsZero():
		out.gauge(c.session, math.Inf(1))
	default:
		out.gauge(c.session, unix(session.Expiry))
	}
	out.timestamp(c.certificateEnds, session.CertificateEnds)
	out.timestamp(c.unwrapFailed, session.UnwrapFailed)
}

// gauges is where the values of a scrape are sent to.
type gauges chan<- prometheus.Metric

func (ch gauges) gauge(d *prometheus.Desc, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

// timestamp sends a time, unless it is zero.
func (ch gauges) timestamp(d *prometheus.Desc, t time.Time, labels ...string) {
	if !t.IsZero() {
		ch.gauge(d, unix(t), labels...)
	}
}

func truth(b bool) float64 { return float64(count(b)) }

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}
