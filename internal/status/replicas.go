package status

import "time"

// Replicas is what one replica knows of all that share its ledger.
type Replicas struct {
	// Name is the replica that answers.
	Name string `json:"name"`
	// StandsAside says why it begins nothing now; empty if it may. Examples: its clock is wrong, or another process
	// has its name.
	StandsAside string `json:"stands_aside,omitempty"`
	// SyncedAt is when it last knew all that the others had saved; zero if it never did. LedgerError says why it
	// cannot read the ledger; empty if it can.
	SyncedAt    time.Time `json:"synced_at,omitzero"`
	LedgerError string    `json:"ledger_error,omitempty"`
	// ClaimSeconds is how long a claim lasts.
	ClaimSeconds float64 `json:"claim_seconds"`
	// Replicas are all that are known, this one included, sorted by name. One that is dead is known for a day.
	Replicas []Replica `json:"replicas"`
}

// Replica is one of several daemons that share a ledger.
type Replica struct {
	Name string `json:"name"`
	// Living is set if it was seen to work a short time ago and does not stop. Leaving is set if it stops.
	Living  bool `json:"living"`
	Leaving bool `json:"leaving,omitempty"`
	// Since is when its process began, and SeenAt when it was last seen to work.
	Since   time.Time `json:"since,omitzero"`
	SeenAt  time.Time `json:"seen_at,omitzero"`
	Version string    `json:"version,omitempty"`
	// ClockOffset is how far its wall clock is ahead of Vault's, in seconds; negative if it is behind. ClockKnown
	// is set if it was measured.
	ClockOffset float64 `json:"clock_offset_seconds"`
	ClockKnown  bool    `json:"clock_known"`
	// StandsAside says why it begins nothing; empty if it may, or if only it knows.
	StandsAside string `json:"stands_aside,omitempty"`
	// Tokens are the names of those that it works on now, sorted.
	Tokens []string `json:"tokens,omitempty"`
}

// Living returns how many replicas live.
func (r *Replicas) Living() (n int) {
	for _, replica := range r.Replicas {
		if replica.Living {
			n++
		}
	}
	return n
}
