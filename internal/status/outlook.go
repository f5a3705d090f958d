package status

import "time"

// Outlook is what will happen from now until some time if each rotation succeeds at once.
type Outlook struct {
	// Until is how far it reaches. That is less than was asked for if there would be too many entries.
	Until time.Time
	// Coming are rotations and skipped slots, the earliest first.
	Coming []Coming
	// Freezes are the periods in which no rotation begins, the earliest first.
	Freezes []FreezePeriod
}

// Coming is a rotation, or a slot without one.
type Coming struct {
	Token string
	// At is when the rotation begins, or the time of the slot that is skipped.
	At time.Time
	// Skipped is set if no rotation serves the slot. Freeze names the freeze that skips or delays it; empty if none does.
	Skipped bool
	Freeze  string
	// Closes is when the window of the slot ends, and GraceEnds when the secret of before the rotation stops working.
	// Zero: there is none.
	Closes, GraceEnds time.Time
}

// FreezePeriod is one period of a freeze. Tokens counts the tokens that it is about.
type FreezePeriod struct {
	Name     string
	From, To time.Time
	Tokens   int
}

// SinkState is one sink of a token: what it should hold, and what is wrong with it.
type SinkState struct {
	Name string `json:"name"` // such as "vault:secret/access/ci"
	// Digest and Version are of what was written last, at WrittenAt. They are empty, 0 or zero where nothing was written, or
	// where the sink has no versions.
	Digest    string    `json:"digest,omitempty"`
	Version   int       `json:"version,omitempty"`
	WrittenAt time.Time `json:"written_at,omitzero"`
}
