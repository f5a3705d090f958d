package httpapi

import (
	"cmp"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rotatord/internal/printable"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// stateCollector makes the gauges of tokens and pending secrets from the source at each
// scrape, so that they are true after a restart and cannot drift from the ledger.
type stateCollector struct {
	source       Source
	vaultSession func() VaultSession
	clockDrift   func() time.Duration

	info, lastSuccess, next, expiry, graceEnd, lastSeen, enabled, paused, failures, state *prometheus.Desc
	gone, outside, verifyFailing, replaced, ordersPending                                 *prometheus.Desc
	pending, pendingOldest, session, drift, versionDeletes, reissueOwed, cutOff           *prometheus.Desc
	certificateEnds, unwrapFailed, lastFailure, doubt, checkOK, checkFailing              *prometheus.Desc
	finding, restored, refusedInUse, hookFailing                                          *prometheus.Desc
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
	m.showReplicas(source)
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	m.registry.MustRegister(&stateCollector{
		source: source, vaultSession: vaultSession, clockDrift: clockDrift,
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
		pending:       desc("rotatord_pending_secrets", "Sealed secrets that are not yet confirmed by every sink."),
		pendingOldest: desc("rotatord_pending_secret_oldest_timestamp_seconds", "When the oldest pending secret was sealed; absent without one."),
		drift:         desc("rotatord_clock_drift_seconds", "By how much the wall clock went ahead of the monotonic one since the start."),
		lastFailure:   desc("rotatord_token_last_failure_info", "Why the last attempt failed; 1, and absent after one that did not.", "token", "reason"),
		doubt:         desc("rotatord_token_doubt_info", "What was last concluded about a token in doubt; 1, and absent for others.", "token", "reason"),
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
	for _, d := range []*prometheus.Desc{c.info, c.lastSuccess, c.next, c.expiry, c.graceEnd, c.lastSeen, c.enabled, c.paused,
		c.failures, c.state, c.gone, c.outside, c.verifyFailing, c.replaced, c.ordersPending, c.pending, c.pendingOldest, c.session, c.drift,
		c.versionDeletes, c.reissueOwed, c.cutOff, c.certificateEnds, c.unwrapFailed, c.lastFailure, c.doubt, c.checkOK, c.checkFailing,
		c.finding, c.restored, c.refusedInUse, c.hookFailing} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *stateCollector) Collect(ch chan<- prometheus.Metric) {
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

// collectTimes sends the times of a token.
func (c *stateCollector) collectTimes(out gauges, t *TokenStatus) {
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
func (c *stateCollector) collectStates(out gauges, t *TokenStatus) {
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

func truth(b bool) float64 { return float64(count(b)) }

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}
