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
	// Ledger names the shared ledger: the mount and the prefix in Vault.
	Ledger string `json:"ledger,omitempty"`
	// ClaimSeconds is how long a claim lasts.
	ClaimSeconds float64 `json:"claim_seconds"`
	// Copies counts the tokens of which a copy of the sealed answer may be in the shared store.
	Copies int `json:"copies"`
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
	// Tokens are the names of those that it works on now, sorted. Prefers is for how many tokens it comes first.
	Tokens  []string `json:"tokens,omitempty"`
	Prefers int      `json:"prefers"`
}

// Sharing is what is known of a token because several replicas share the ledger.
type Sharing struct {
	// Hold says which replica works on the token; nil if none does.
	Hold *Hold `json:"hold,omitempty"`
	// BegunBy is the replica that began the rotation in progress. If Cloudflare has answered, the answer is sealed on
	// its disk. Empty if no rotation is in progress.
	BegunBy string `json:"begun_by,omitempty"`
	// Copied is set if a copy of the answer may be where every replica finds it.
	Copied bool `json:"copied,omitempty"`
	// Late are answers on the disk of the replica that was asked, which came too late: their rotation is not in the
	// ledger any more.
	Late []LateAnswer `json:"late_answers,omitempty"`
}

// Hold is the right of one replica to work on a token.
type Hold struct {
	Replica string `json:"replica"`
	// Until is when it ends at the latest if that replica does not go on. It is in the past if it has ended, and zero if that
	// is not known.
	Until time.Time `json:"until,omitzero"`
}

// LateAnswer is a sealed answer whose rotation is not in the ledger any more.
type LateAnswer struct {
	RotationID string    `json:"rotation_id"`
	SealedAt   time.Time `json:"sealed_at,omitzero"`
	// Superseded is set if Cloudflare has shown that a later secret took its place, so that it is not delivered.
	Superseded bool `json:"superseded,omitempty"`
}

// TakenOverFrom returns the replica that began the rotation on which another one works now; empty if none did.
func (s *Sharing) TakenOverFrom() string {
	if s == nil || s.Hold == nil || s.BegunBy == s.Hold.Replica {
		return ""
	}
	return s.BegunBy
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

// Dead returns the names of the replicas that gave no sign of life and did not say that they stop, sorted.
func (r *Replicas) Dead() (names []string) {
	for _, replica := range r.Replicas {
		if !replica.Living && !replica.Leaving && replica.Name != r.Name {
			names = append(names, replica.Name)
		}
	}
	return names
}

// Self returns what is known of the replica that answers.
func (r *Replicas) Self() Replica {
	for _, replica := range r.Replicas {
		if replica.Name == r.Name {
			return replica
		}
	}
	return Replica{Name: r.Name}
}
