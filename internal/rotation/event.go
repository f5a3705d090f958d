package rotation

import "time"

// Result is how an attempt ended. It is a metric label.
type Result string

// The results.
const (
	ResultSuccess Result = "success"
	ResultFailed  Result = "failed"   // a rotate request was sent and refused, or a sink failed after it
	ResultInDoubt Result = "in_doubt" // a rotate request was sent and its outcome is unknown
	ResultSkipped Result = "skipped"  // preflight failed: no rotate request was sent
)

// Phase is a timed part of a rotation. It is a metric label.
type Phase string

// The phases, in order.
const (
	PhaseClaim     Phase = "claim"
	PhasePreflight Phase = "preflight"
	PhaseIntent    Phase = "intent"
	PhaseRotate    Phase = "rotate"
	PhaseSeal      Phase = "seal"
	PhaseStore     Phase = "store"
	PhaseVerify    Phase = "verify"
	PhaseCommit    Phase = "commit"
)

// Event is something that happened to one token. It is one of the types below.
type Event interface{ event() }

// PhaseEnded reports one phase, whether it went well (Err nil) or not.
type PhaseEnded struct {
	Token    string
	Phase    Phase
	Duration time.Duration
	Err      error
}

// SinkWritten reports one delivery to one sink.
type SinkWritten struct {
	Token string
	Sink  string
	Err   error
}

// Attempted reports the end of an attempt. Record is the token's record after it.
type Attempted struct {
	Token      string
	RotationID string
	Trigger    Trigger
	Result     Result
	Reason     string // a stable code; empty for success
	Err        error
	Duration   time.Duration
	Lag        time.Duration // from when the work could begin to when it did
	Record     Record
}

// DoubtJudged reports one verdict about a token in doubt, also one to wait. Before is the
// reason code of the verdict before it.
type DoubtJudged struct {
	Token      string
	RotationID string
	Reason     string
	Before     string
	Again      time.Time // when it is looked at again; zero if it is resolved
}

// GraceExtended reports that the old secret was given more time, because consumers have
// nothing else yet, or why not.
type GraceExtended struct {
	Token      string
	RotationID string
	Until      time.Time
	Err        error
}

// DoubtResolved reports that a token left the state in doubt, and why.
type DoubtResolved struct {
	Token      string
	RotationID string
	Reason     string
	After      time.Duration // since the doubt arose
}

// OvertakenEnded reports what became of a sealed secret that was overtaken, or that belongs to a
// service token which is gone: Reason says why it is delivered after all, or was given up.
type OvertakenEnded struct {
	Token      string
	RotationID string
	Reason     string
}

// SlotsMissed reports slots that were consumed without a rotation of their own.
type SlotsMissed struct {
	Token string
	Count int // without those that lay in a freeze
	// Frozen counts those that a freeze took away: passed over, or deferred until the next
	// one came.
	Frozen int
	// GivenUp is set if no rotation makes up for them.
	GivenUp bool
}

// ClockHealed reports times in a record that only a clock which was ahead can have put
// there, and that were taken out.
type ClockHealed struct {
	Token string
	What  []string
}

// Reached reports that a step of a rotation is durable. Record is the token's record as
// it was saved.
type Reached struct{ Record Record }

// Stuck reports an attempt that ended without an Attempted: the ledger could not be read
// or written, or the token stays in doubt.
type Stuck struct {
	Token string
	Err   error
}

// SealFailed reports the one moment in which a secret is held in memory alone.
type SealFailed struct {
	Token      string
	RotationID string
	Err        error
}

// Adopted reports that a service token which was to be created existed, and was taken over.
type Adopted struct {
	Token   string
	TokenID string
}

// Probed reports what a new secret was found to be where it was tried: not each time that it
// is tried, but when that leads to something.
type Probed struct {
	Token      string
	RotationID string
	Probe      Probe
	Err        error // nil if it is good
}

// Renewed reports a renewal, or why it failed. ExpiresAt is the service token's end after it.
type Renewed struct {
	Token     string
	TokenID   string
	ExpiresAt time.Time
	Err       error
}

// ReplacedDeleted reports that a service token whose place another took was deleted, or why not.
type ReplacedDeleted struct {
	Token   string
	TokenID string
	Err     error
}

// RotatedOutside reports that another person or program has rotated a service token: of what
// Cloudflare shows, only the time of its last change is different.
type RotatedOutside struct {
	Token        string
	TokenID      string
	At           time.Time // as Cloudflare has it
	RotatesAgain bool      // a rotation of our own makes up for it
}

// ChangedOutside reports that another person or program has changed a service token: its name, its
// life, or whether it is enabled.
type ChangedOutside struct {
	Token   string
	TokenID string
	At      time.Time
}

func (OvertakenEnded) event()  {}
func (Adopted) event()         {}
func (Probed) event()          {}
func (Renewed) event()         {}
func (ReplacedDeleted) event() {}
func (RotatedOutside) event()  {}
func (ChangedOutside) event()  {}
func (PhaseEnded) event()      {}
func (SinkWritten) event()     {}
func (Attempted) event()       {}
func (DoubtJudged) event()     {}
func (GraceExtended) event()   {}
func (DoubtResolved) event()   {}
func (SlotsMissed) event()     {}
func (ClockHealed) event()     {}
func (Reached) event()         {}
func (Stuck) event()           {}
func (SealFailed) event()      {}
