package httpapi

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// rule says what is left of a metric that has the label token where only essential series are shown.
type rule int

const (
	always    rule = iota // every series
	ifSet                 // those that are not 0: for a token that is all right they say nothing
	ifZero                // those that are 0
	ifLong                // moments that are long ago
	ifTrouble             // those of tokens that are in the middle of something
	ifFailed              // those of tokens for which one of them says that something failed
	together              // one sum over all tokens, whose label token is empty
)

// essential are all metrics about tokens. A healthy token has the five that are always there: an alert needs the others
// only when there is something to tell. One that is not here is left as it is.
var essential = map[string]rule{
	"rotatord_token_info":                              always,
	"rotatord_token_state":                             ifSet, // one of seven
	"rotatord_token_next_rotation_timestamp_seconds":   always,
	"rotatord_token_last_success_timestamp_seconds":    always,
	"rotatord_token_expiry_timestamp_seconds":          always,
	"rotatord_token_grace_end_timestamp_seconds":       ifTrouble,
	"rotatord_token_last_seen_timestamp_seconds":       ifLong,
	"rotatord_token_enabled":                           ifZero,
	"rotatord_token_paused":                            ifSet,
	"rotatord_token_consecutive_failures":              ifSet,
	"rotatord_token_gone":                              ifSet,
	"rotatord_token_verify_failing":                    ifSet,
	"rotatord_replaced_tokens":                         ifSet,
	"rotatord_slots_missed_total":                      ifSet,
	"rotatord_slots_frozen_total":                      together,
	"rotatord_token_out_of_band_rotations_total":       ifSet,
	"rotatord_rotations_total":                         together,
	"rotatord_verifications_total":                     together,
	"rotatord_renewals_total":                          ifFailed,
	"rotatord_token_reissue_owed_timestamp_seconds":    always, // these are there only in trouble
	"rotatord_token_cutoff_timestamp_seconds":          always,
	"rotatord_token_out_of_band_timestamp_seconds":     always,
	"rotatord_token_last_failure_info":                 always,
	"rotatord_token_doubt_info":                        always,
	"rotatord_token_hook_failing_timestamp_seconds":    always,
	"rotatord_token_restored_timestamp_seconds":        always,
	"rotatord_token_secret_refused_timestamp_seconds":  always,
	"rotatord_sink_finding_timestamp_seconds":          always,
	"rotatord_sink_version_deletion_timestamp_seconds": always, // only where a sink deletes by itself
}

// unusedAfter is from when on it is shown when a token was last used.
const unusedAfter = 7 * 24 * time.Hour

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
			return !busy[label(m, "token")]
		case ifFailed:
			return !failed[label(m, "token")]
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
