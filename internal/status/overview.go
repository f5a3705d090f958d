package status

import (
	"encoding/json"
	"io"
	"time"

	"rotatord/internal/printable"
)

// Overview is what is shown of a whole daemon, or of one of its tokens. `rotatord status -o json`, the admin socket and
// GET /api/v1/status have it in the same form: see [WriteJSON].
type Overview struct {
	// Troubles is what is wrong with the tokens and with what rotations need, the worst first.
	Troubles []Trouble `json:"troubles"`
	// Checks has the last results of the look-ahead checks.
	Checks []Check `json:"checks"`
	Tokens []Token `json:"tokens"`
	// PendingSecrets counts the secrets of all tokens that were received but not yet confirmed by every
	// sink. PendingSince is when the oldest was received.
	PendingSecrets int       `json:"pending_secrets"`
	PendingSince   time.Time `json:"pending_since,omitzero"`
	// Replicas is what the replica that answers knows of all that share its ledger; nil if the daemon is alone.
	Replicas *Replicas `json:"replicas,omitempty"`
}

// Source provides what an [Overview] shows, from memory or local disk.
type Source interface {
	// Checks returns the last results of the look-ahead checks.
	Checks() []Check
	// Replicas returns what is known of the replicas that share the ledger; nil if the daemon is alone.
	Replicas() *Replicas
	// Pending returns how many sealed secrets a sink has not confirmed yet, and when the oldest was sealed.
	Pending() (n int, oldest time.Time)
}

// NewOverview returns what is shown of some tokens of a daemon: all, or the one that was asked for. All its texts may
// be shown, and none of its lists is nil.
func NewOverview(from Source, tokens []Token, now time.Time) Overview {
	checks, replicas := printable.Copy(from.Checks()), from.Replicas().Scrubbed()
	shown := Scrubbed(tokens)
	o := newOverview(from, checks, replicas, AllTroubles(shown, checks, replicas, now))
	o.Tokens = shown
	return o
}

// newOverview returns an overview without tokens. None of its other lists is nil.
func newOverview(from Source, checks []Check, replicas *Replicas, troubles []Trouble) Overview {
	o := Overview{Troubles: append([]Trouble{}, troubles...), Checks: append([]Check{}, checks...), Replicas: replicas}
	o.PendingSecrets, o.PendingSince = from.Pending()
	return o
}

// WriteJSON writes a value as the commands and the API show it: indented, with a newline at its end.
func WriteJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}
