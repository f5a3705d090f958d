package httpapi

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
)

// Metrics counts what happens. It observes the rotation core, Cloudflare and Vault, and
// keeps its own registry. It is safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry // of all that is not of tokens
	source   Source               // of the gauges of tokens; nil before Show

	perToken          *tokenCounters
	rotationDuration  *prometheus.HistogramVec
	stepDuration      *prometheus.HistogramVec
	lag               prometheus.Histogram
	sinkWrites        *prometheus.CounterVec
	hooks             *prometheus.CounterVec
	hookDuration      *prometheus.HistogramVec
	doubtVerdicts     *prometheus.CounterVec
	graceExtensions   *prometheus.CounterVec
	inventorySuccess  *prometheus.GaugeVec
	cfRequests        *prometheus.CounterVec
	cfDuration        *prometheus.HistogramVec
	cfRemaining       *prometheus.GaugeVec
	cfThrottled       *prometheus.CounterVec
	vaultRequests     *prometheus.CounterVec
	clusterRequests   *prometheus.CounterVec
	vaultLogins       *prometheus.CounterVec
	clockSkew         prometheus.Gauge
	reloadSuccessful  prometheus.Gauge
	reloadSuccessTime prometheus.Gauge
	watch             watchMetrics
	notify            notifyMetrics
	replicas          replicaMetrics // registered only if the ledger is shared
	essential         atomic.Bool    // see the table essential
}

// Build identifies the running binary.
type Build struct{ Version, Revision, GoVersion string }

// NewMetrics returns metrics with a registry of their own.
func NewMetrics(b Build) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		m.registry.MustRegister(c)
		return c
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
		m.registry.MustRegister(g)
		return g
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: name, Help: help, Buckets: buckets,
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
		}, labels)
		m.registry.MustRegister(h)
		return h
	}
	seconds := []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20, 60}
	m.perToken = newTokenCounters()
	m.rotationDuration = histogram("rotatord_rotation_duration_seconds", "Duration of rotation attempts.", seconds, "result")
	m.stepDuration = histogram("rotatord_rotation_step_duration_seconds", "Duration of the steps of a rotation.", seconds, "step")
	m.lag = histogram("rotatord_schedule_lag_seconds", "How late rotations began, after slot and jitter.",
		[]float64{.01, .1, 1, 10, 60, 300, 1800, 3600, 6 * 3600, 24 * 3600}).WithLabelValues().(prometheus.Histogram)
	m.sinkWrites = counter("rotatord_sink_writes_total", "Deliveries to sinks, each confirmed by read-back or failed.", "sink", "result")
	m.hooks = counter("rotatord_hooks_total", "Runs of hooks after rotations.", "kind", "result")
	m.hookDuration = histogram("rotatord_hook_duration_seconds", "Duration of runs of hooks.", seconds, "kind")
	m.doubtVerdicts = counter("rotatord_doubt_verdicts_total", "Verdicts about tokens in doubt, also those to wait.", "reason")
	m.graceExtensions = counter("rotatord_grace_extensions_total", "Attempts to give an old secret more time while consumers have no other.", "result")
	m.watch = newWatchMetrics(counter)
	m.notify = newNotifyMetrics(counter, gauge)
	m.replicas = newReplicaMetrics()
	m.inventorySuccess = gauge("rotatord_inventory_success_timestamp_seconds", "When the account's service tokens were last listed.", "account")
	m.cfRequests = counter("rotatord_cloudflare_requests_total", "Requests to Cloudflare's API by operation and HTTP status.", "operation", "code")
	m.cfDuration = histogram("rotatord_cloudflare_request_duration_seconds", "Duration of requests to Cloudflare's API.", seconds, "operation")
	m.cfRemaining = gauge("rotatord_cloudflare_ratelimit_remaining", "Requests left in Cloudflare's present window, as last told.", "account")
	m.cfThrottled = counter("rotatord_cloudflare_throttled_seconds_total", "Seconds for which Cloudflare asked to be left alone.", "account")
	m.vaultRequests = counter("rotatord_vault_requests_total", "Requests to Vault by operation and HTTP status.", "operation", "code")
	m.clusterRequests = counter("rotatord_kubernetes_requests_total", "Requests to the Kubernetes API server by operation and HTTP status.", "operation", "code")
	m.vaultLogins = counter("rotatord_vault_logins_total", "Logins to Vault by method and result.", "method", "result")
	m.clockSkew = gauge("rotatord_clock_skew_seconds", "How far Cloudflare's clock is ahead of the local one, at most.").WithLabelValues()
	m.reloadSuccessful = gauge("rotatord_config_last_reload_successful", "Whether the configuration was last loaded with success.").WithLabelValues()
	m.reloadSuccessTime = gauge("rotatord_config_last_reload_success_timestamp_seconds", "When the configuration was last loaded with success.").WithLabelValues()
	gauge("rotatord_build_info", "The running binary; always 1.", "version", "revision", "goversion").
		WithLabelValues(b.Version, b.Revision, b.GoVersion).Set(1)
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Essential says whether only essential series of each token are shown from now on, or all.
func (m *Metrics) Essential(only bool) { m.essential.Store(only) }

// ConfigLoaded records a load of the configuration.
func (m *Metrics) ConfigLoaded(at time.Time) {
	m.reloadSuccessful.Set(1)
	m.reloadSuccessTime.Set(unix(at))
}

// ConfigRefused records that a new configuration was not taken.
func (m *Metrics) ConfigRefused() { m.reloadSuccessful.Set(0) }

// Known makes the counters of a token exist at zero, so that the first increase can be
// seen by rate().
func (m *Metrics) Known(token string) { m.perToken.known(token) }

// Inventoried records that an account's service tokens were listed.
func (m *Metrics) Inventoried(account string, at time.Time) {
	m.inventorySuccess.WithLabelValues(account).Set(unix(at))
}

// Forget drops what was counted of a token that is no longer configured.
func (m *Metrics) Forget(token string) { m.perToken.forget(token) }

// Subscriber returns what counts events. It is inline.
func (m *Metrics) Subscriber() *event.Subscriber {
	return event.NewSubscriber("metrics",
		event.On(func(_ event.Event, d event.PhaseEnded) {
			m.stepDuration.WithLabelValues(string(d.Phase)).Observe(d.Duration.Seconds())
		}),
		event.On(func(_ event.Event, d event.SinkWrite) {
			m.sinkWrites.WithLabelValues(sinkKind(d.Sink), resultOf(d.Err)).Inc()
		}),
		event.On(m.rotationEnded),
		event.On(func(_ event.Event, d event.HookEnded) {
			m.hooks.WithLabelValues(event.HookKind(d.Hook), resultOf(d.Err)).Inc()
			m.hookDuration.WithLabelValues(event.HookKind(d.Hook)).Observe(d.Duration.Seconds())
		}),
		event.On(func(_ event.Event, d event.HookDrop) {
			m.hooks.WithLabelValues(event.HookKind(d.Hook), "dropped").Inc()
		}),
		event.On(func(_ event.Event, d event.Verdict) { m.doubtVerdicts.WithLabelValues(d.Reason).Inc() }),
		event.On(func(_ event.Event, d event.GraceExtension) { m.graceExtensions.WithLabelValues(resultOf(d.Err)).Inc() }),
		event.On(func(e event.Event, _ event.OutsideRotation) {
			m.perToken.count(e.Token, func(t *tokenCounts) { t.outOfBand++ })
		}),
		event.On(m.restored),
		event.On(func(e event.Event, d event.Renewal) {
			m.perToken.count(e.Token, func(t *tokenCounts) { inc(&t.renewals, resultOf(d.Err), "") })
		}),
		event.On(func(e event.Event, d event.Probe) {
			m.perToken.count(e.Token, func(t *tokenCounts) { inc(&t.verificationsSeen, string(d.Result), "") })
		}),
		event.On(func(_ event.Event, d event.VaultLogin) {
			m.vaultLogins.WithLabelValues(d.Method, resultOf(d.Err)).Inc()
		}),
		event.On(func(e event.Event, d event.Missed) {
			m.perToken.count(e.Token, func(t *tokenCounts) {
				t.missed += uint64(max(d.Count, 0))
				t.frozen += uint64(max(d.Frozen, 0))
			})
		}),
		event.On(m.replicas.takenOverFrom), event.On(m.replicas.late), event.On(m.replicas.copied), event.On(m.replicas.clockJumped),
		// Where these lead to a state that matters, a gauge shows it.
		event.Ignore(event.Stuck, event.StuckAsBefore, event.SealFailed, event.VersionDeletes, event.OvertakenEnded, event.DoubtResolved, event.ClockHealed, event.Adopted,
			event.ReplacedDeleted, event.ReplacedNotDeleted, event.ChangedOutside, event.TokenGone, event.TokenDisabled, event.TokenUnreadable, event.TokenNotFound,
			event.SinkChanged, event.SinkRolledBack, event.SinkDeleted, event.SinkWithoutSecret, event.SinkNeverWritten, event.SinkUnreadable,
			event.SinkAsWritten, event.InUseRefused, event.InUseAccepted),
		event.Ignore(event.Commands...), event.Ignore(event.Record...), event.Ignore(event.DaemonLife...), event.Ignore(without(event.Replicas, counted)...),
		event.Ignore(without(event.Surroundings, counted)...))
}

func without(kinds, others []event.Kind) []event.Kind {
	return slices.DeleteFunc(slices.Clone(kinds), func(k event.Kind) bool { return slices.Contains(others, k) })
}

// counted are the surroundings, and what replicas do, that are counted.
var counted = []event.Kind{event.VaultLoggedIn, event.VaultLoginFailed, event.VaultCredentialRefused,
	event.TakenOver, event.LateDelivered, event.LateSuperseded, event.Copied, event.NotCopied, event.VaultClockJumped}

func (m *Metrics) rotationEnded(e event.Event, d event.RotationEnded) {
	m.perToken.count(e.Token, func(t *tokenCounts) { inc(&t.rotations, string(d.Result), d.Trigger) })
	m.rotationDuration.WithLabelValues(string(d.Result)).Observe(d.Duration.Seconds())
	if d.Trigger == string(rotation.TriggerSchedule) || d.Trigger == string(rotation.TriggerCatchUp) {
		m.lag.Observe(max(d.Lag.Seconds(), 0))
	}
}

// resultFailed is the label result of what failed.
const resultFailed = "failed"

func resultOf(err error) string {
	if err != nil {
		return resultFailed
	}
	return "success"
}

// sinkKind is the part of a sink's name before the colon: a bounded label.
func sinkKind(name string) string {
	for i, c := range name {
		if c == ':' {
			return name[:i]
		}
	}
	return name
}

// CloudflareRequest implements the observer of package cloudflare.
func (m *Metrics) CloudflareRequest(operation, code string, d time.Duration) {
	m.cfRequests.WithLabelValues(operation, code).Inc()
	m.cfDuration.WithLabelValues(operation).Observe(d.Seconds())
}

// CloudflareBudget implements the observer of package cloudflare.
func (m *Metrics) CloudflareBudget(account string, remaining int) {
	m.cfRemaining.WithLabelValues(account).Set(float64(remaining))
}

// CloudflareThrottled implements the observer of package cloudflare.
func (m *Metrics) CloudflareThrottled(account string, d time.Duration) {
	m.cfThrottled.WithLabelValues(account).Add(max(d.Seconds(), 0))
}

// CloudflareSkew implements the observer of package cloudflare.
func (m *Metrics) CloudflareSkew(d time.Duration) { m.clockSkew.Set(d.Seconds()) }

// VaultRequest implements the observer of package vault.
func (m *Metrics) VaultRequest(operation, code string, _ time.Duration) {
	m.vaultRequests.WithLabelValues(operation, code).Inc()
}

// KubernetesRequest implements the observer of package kubernetes.
func (m *Metrics) KubernetesRequest(operation, code string, _ time.Duration) {
	m.clusterRequests.WithLabelValues(operation, code).Inc()
}

// unix is t in seconds, 0 for the zero time.
func unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.Unix()) + float64(t.Nanosecond())/1e9 // a float64 does not hold all nanoseconds since 1970
}
