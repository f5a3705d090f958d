package httpapi

import "github.com/prometheus/client_golang/prometheus"

// This file has the metrics of the record of events.

// RecordState is what metrics show of the record of events.
type RecordState struct {
	Seq  uint64 // the number of its last line on the disk
	Lost uint64 // events since the start that could not be recorded
}

// ShowRecord registers the metrics of the record of events.
func (m *Metrics) ShowRecord(state func() RecordState) {
	m.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "rotatord_audit_sequence", Help: "The number of the last line of the record of events that is on the disk. It never becomes smaller.",
		}, func() float64 { return float64(state().Seq) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "rotatord_audit_lost_events_total", Help: "Events that are missing in the record of events, because it could not be written.",
		}, func() float64 { return float64(state().Lost) }))
}
