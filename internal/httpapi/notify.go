package httpapi

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// notifyMetrics count messages to receivers of notifications.
type notifyMetrics struct {
	messages *prometheus.CounterVec
	success  *prometheus.GaugeVec
}

// notificationResults are the values of the label result.
var notificationResults = []string{"delivered", "failed", "refused"}

func newNotifyMetrics(counter func(name, help string, labels ...string) *prometheus.CounterVec, gauge func(name, help string, labels ...string) *prometheus.GaugeVec) notifyMetrics {
	return notifyMetrics{
		messages: counter("rotatord_notifications_total", "Attempts to send a message to a receiver of notifications.", "receiver", "result"),
		success:  gauge("rotatord_notification_last_success_timestamp_seconds", "When the receiver of notifications has last taken a message; 0 if it has taken none since the start.", "receiver"),
	}
}

// Notified implements the observer of package notify.
func (m *Metrics) Notified(receiver, result string, at time.Time) {
	m.notify.messages.WithLabelValues(receiver, result).Inc()
	if result == "delivered" {
		m.notify.success.WithLabelValues(receiver).Set(unix(at))
	}
}

// Receivers implements the observer of package notify. It makes the counters of all receivers exist at zero, and drops
// what was counted of others.
func (m *Metrics) Receivers(names, dropped []string) {
	for _, name := range names {
		for _, result := range notificationResults {
			m.notify.messages.WithLabelValues(name, result)
		}
		m.notify.success.WithLabelValues(name)
	}
	for _, name := range dropped {
		if !slices.Contains(names, name) {
			m.notify.messages.DeletePartialMatch(prometheus.Labels{"receiver": name})
			m.notify.success.DeletePartialMatch(prometheus.Labels{"receiver": name})
		}
	}
}
