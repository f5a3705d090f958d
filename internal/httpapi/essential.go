package httpapi

import "time"

// rule says what is left of a metric that has the label token where only essential series are shown.
type rule int

const (
	always    rule = iota // every series
	ifSet                 // those that are not 0: for a token that is all right they say nothing
	ifZero                // those that are 0
	ifLong                // moments that are long ago
	ifTrouble             // those of tokens of which the family says that there is trouble: see series
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
	"rotatord_renewals_total":                          ifTrouble,
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

// shows reports whether essential metrics have a series.
func (r rule) shows(s *series, now time.Time) bool {
	switch r {
	case ifSet:
		return s.value != 0
	case ifZero:
		return s.value == 0
	case ifLong:
		return s.value <= unix(now.Add(-unusedAfter))
	case ifTrouble:
		return s.trouble
	default:
		return true
	}
}
