package status

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"rotatord/internal/printable"
)

// HistoryEntry is one line of the record of events: what happened, when, who or what caused it, and what came of
// it. Nothing in it is a secret.
type HistoryEntry struct {
	// Seq is the number of the line. It grows by one with each line and is never used again.
	Seq uint64    `json:"seq"`
	At  time.Time `json:"at"`
	// Kind is a kind of event, such as "rotation.succeeded", and Severity is "info", "warning" or "critical".
	Kind     string `json:"kind"`
	Severity string `json:"severity"`
	// Token is the name in the configuration; empty if it is not about one token.
	Token string `json:"token,omitempty"`
	// By says who or what caused it in a few words: the name of a user, or "schedule", "retry", "recovery", "daemon",
	// "outside".
	By string `json:"by"`
	// Message is what happened, in words. Error says why it failed; empty if nothing did.
	Message string `json:"message"`
	Error   string `json:"error,omitempty"`
	// Result is what came of it and Reason a stable code for why; both are empty if the kind says it all.
	Result string `json:"result,omitempty"`
	Reason string `json:"reason,omitempty"`
	// RotationID names the rotation, and Slot is the time in the schedule that it serves. They are empty and zero if
	// it is not about a rotation, or serves no slot.
	RotationID string    `json:"rotation_id,omitempty"`
	Slot       time.Time `json:"slot,omitzero"`
}

// HistoryQuery selects lines of the record of events. Its zero value selects the newest [HistoryLimit] lines.
type HistoryQuery struct {
	Token string    // only lines about this token; empty: all
	Kind  string    // only lines of this kind, or of the kinds that begin with it and a dot; empty: all
	Since time.Time // only lines that are not older; zero: all
	Limit int       // at most that many, the newest; 0: HistoryLimit; at most MaxHistory
	// MaxRead is how many bytes of the record are read at most, from its end; 0, or more than that: 64 MiB.
	MaxRead int64
}

// HistoryLimit is how many lines are returned if a query does not say it, and MaxHistory how many at most.
const (
	HistoryLimit = 100
	MaxHistory   = 10000
)

// History is the answer to a [HistoryQuery].
type History struct {
	// Entries are the lines, the newest last. It is never null in JSON.
	Entries []HistoryEntry `json:"entries"`
	// More is set if there may be older lines that the query selects.
	More bool `json:"more,omitempty"`
	// Unread is the file in which the reading has ended because it is bounded: nothing is known of the lines before.
	// Empty if it has read as far as the query asks.
	Unread string `json:"unread,omitempty"`
	// Replica is whose record this is, and Others are the other replicas, which have records of their own. Empty if the
	// daemon is alone, or if a file was read.
	Replica string   `json:"replica,omitempty"`
	Others  []string `json:"other_replicas,omitempty"`
}

// Scrubbed returns the entry in a form that may be shown: see [Token.Scrubbed].
func (h HistoryEntry) Scrubbed() HistoryEntry { return printable.Copy(h) }

// ParseSince returns the moment that a text names: a duration before now ("24h", "7d"), a date ("2026-11-29", which
// begins at midnight UTC), or a time as in RFC 3339.
func ParseSince(text string, now time.Time) (time.Time, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 && n <= maxSinceDays {
			return now.AddDate(0, 0, -n), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%.40q is neither a duration such as 24h or 7d, nor a date such as %s, nor a time such as %s",
		text, now.UTC().Format(time.DateOnly), now.UTC().Format(time.RFC3339))
}

// maxSinceDays bounds a number of days, so that the moment is still a year that can be written.
const maxSinceDays = 36500
