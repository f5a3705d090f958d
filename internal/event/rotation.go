package event

import (
	"cmp"
	"fmt"
	"time"
)

// This file has the details of what happens to one service token in its rotations.

// Result is how an attempt ended. It is a label of metrics.
type Result string

// The results.
const (
	ResultSuccess Result = "success"
	ResultFailed  Result = "failed"   // a rotate request was sent and refused, or a sink failed after it
	ResultInDoubt Result = "in_doubt" // a rotate request was sent and its outcome is unknown
	ResultSkipped Result = "skipped"  // preflight failed: no rotate request was sent
)

// Results are all of them.
var Results = []Result{ResultSuccess, ResultFailed, ResultInDoubt, ResultSkipped}

// Phase is a timed part of a rotation. It is a label of metrics.
type Phase string

// The phases, in order.
const (
	PhaseClaim     Phase = "claim"
	PhasePreflight Phase = "preflight"
	PhaseIntent    Phase = "intent"
	PhaseRecord    Phase = "record" // the request is written into the record of events
	PhaseRotate    Phase = "rotate"
	PhaseSeal      Phase = "seal"
	PhaseSealed    Phase = "sealed" // the ledger is told that the answer is sealed
	PhaseStore     Phase = "store"
	PhaseStored    Phase = "stored" // the ledger is told that every sink has the secret
	PhaseVerify    Phase = "verify"
	PhaseCommit    Phase = "commit"
)

// Phases are all of them, in order.
var Phases = []Phase{PhaseClaim, PhasePreflight, PhaseIntent, PhaseRecord, PhaseRotate, PhaseSeal, PhaseSealed, PhaseStore, PhaseStored, PhaseVerify, PhaseCommit}

// PhaseEnded tells of one phase, whether it went well (Err nil) or not.
type PhaseEnded struct {
	Phase    Phase
	Duration time.Duration
	Err      error
}

func (d PhaseEnded) kind() Kind        { return StepEnded }
func (d PhaseEnded) failure() error    { return d.Err }
func (d PhaseEnded) more(Event) string { return string(d.Phase) }
func (d PhaseEnded) attrs(Event) []any {
	return []any{"step", d.Phase, "duration", d.Duration.String(), "error", d.Err}
}

// SinkWrite tells of one delivery to one sink, confirmed by read-back or failed.
type SinkWrite struct {
	Sink string
	Err  error
}

func (d SinkWrite) kind() Kind        { return either(d.Err, SinkWritten, SinkFailed) }
func (d SinkWrite) failure() error    { return d.Err }
func (d SinkWrite) more(Event) string { return d.Sink }
func (d SinkWrite) attrs(Event) []any { return withError([]any{"sink", d.Sink}, d.Err) }

// RotationEnded tells of the end of an attempt, and of how the token is after it.
type RotationEnded struct {
	RotationID string
	Trigger    string
	Result     Result
	Reason     string // a stable code; empty for success
	Err        error
	Cause      string // Err in stable words, the same for what need not be told twice; empty if only its text says that
	Sink       string // that Err is about; empty if it is about none
	Duration   time.Duration
	Lag        time.Duration // from when the work could begin to when it did

	Awaited bool // a command waits for this attempt

	// Creates is set if a service token is created, and MakesUp if a lost secret is made up for.
	Creates, MakesUp bool

	// Slot, Digest (of the new secret) and GraceEndsAt (of the previous one) are those of a success.
	Slot        time.Time
	Digest      string
	GraceEndsAt time.Time

	// Step is the step that was reached, if the rotation is not over; empty if it is. NextTry is when
	// it is tried again; zero if it is not by itself.
	Step      string
	NextTry   time.Time
	Failures  int  // in a row, as the ledger counts them
	Overtaken bool // a sink holds a later secret

	// OwedSince is since when a lost secret is owed a reissue; zero if none is. Then CutOffAt is when
	// consumers have, or had, the last secret that works, and KeptAlive is set if the daemon extends it.
	OwedSince time.Time
	CutOff    bool // CutOffAt is over
	CutOffAt  time.Time
	KeptAlive bool
}

// triggerManual is the trigger of a rotation that an operator asked for.
const triggerManual = "manual"

// stepStored is the step of the ledger at which every sink has the new secret.
const stepStored = "stored"

func (d RotationEnded) kind() Kind {
	owed := !d.OwedSince.IsZero() && d.Step == ""
	switch {
	case d.Result == ResultSuccess:
		return Rotated
	case owed && d.CutOff:
		return ReissueCutOff
	case owed && d.KeptAlive:
		return ReissueProtected
	case owed:
		return ReissueUnprotected
	case d.Result == ResultInDoubt:
		return RotationInDoubt
	case d.Result == ResultSkipped:
		return RotationSkipped
	case d.Overtaken:
		return RotationOvertaken
	case d.Step == stepStored:
		return RotationNotEnded
	case d.Step != "":
		return RotationUndelivered
	default:
		return RotationFailed
	}
}

func (d RotationEnded) failure() error { return d.Err }
func (d RotationEnded) asBefore() Kind { return SkippedAsBefore }

// same is about skips alone: of all others a request has left, or consumers depend on what comes next. The first skip of
// an operator's order is told even if the schedule's was.
func (d RotationEnded) same() string {
	if d.kind() != RotationSkipped || d.Awaited {
		return ""
	}
	return fmt.Sprint(d.Trigger == triggerManual, d.Reason, d.Sink, cmp.Or(d.Cause, text(d.Err)))
}

func (d RotationEnded) attrs(e Event) []any {
	attrs := []any{"rotation_id", d.RotationID, "trigger", d.Trigger, "result", d.Result, "duration", d.Duration.Round(time.Millisecond).String()}
	if d.Result == ResultSuccess {
		attrs = append(attrs, "slot", d.Slot, "digest", d.Digest)
		return withTime(attrs, "grace_ends_at", d.GraceEndsAt)
	}
	attrs = append(attrs, "reason", d.Reason, "error", d.Err)
	attrs = withTime(attrs, "next_try", d.NextTry) // an operator's rotation is not tried again by itself
	step := d.Step
	if step == "" {
		step = "idle"
	}
	attrs = withTime(append(attrs, "step", step), "owed_since", d.OwedSince)
	switch e.Kind {
	case ReissueCutOff:
		attrs = append(attrs, "since", d.CutOffAt)
	case ReissueProtected, ReissueUnprotected:
		attrs = append(attrs, "old_works_until", d.CutOffAt)
	case RotationSkipped:
		attrs = withTime(attrs, "told_again", toldAgain(e))
	}
	return attrs
}

func (d RotationEnded) more(e Event) string {
	switch {
	case d.Result == ResultSuccess:
	case d.Creates && (e.Kind == RotationInDoubt || e.Kind == RotationUndelivered):
		return "it is about a service token that is created"
	default:
		return ""
	}
	what := "every sink has confirmed the new secret"
	switch {
	case d.Creates:
		what = "a service token was created, and every sink has confirmed its secret"
	case d.MakesUp:
		what = "this makes up for a secret that is or may be lost, and every sink has confirmed the new one"
	}
	if d.GraceEndsAt.After(e.At) {
		what += ". The previous secret works for another " + e.left(d.GraceEndsAt)
	}
	return what
}

// RotationStuck tells of an attempt that ended without a [RotationEnded]: the ledger could not be read
// or written, or the token stays in doubt.
type RotationStuck struct {
	Err   error
	Cause string // as in [RotationEnded]
}

func (d RotationStuck) kind() Kind        { return Stuck }
func (d RotationStuck) failure() error    { return d.Err }
func (d RotationStuck) same() string      { return "stuck " + cmp.Or(d.Cause, text(d.Err)) }
func (d RotationStuck) asBefore() Kind    { return StuckAsBefore }
func (d RotationStuck) more(Event) string { return "" }
func (d RotationStuck) attrs(e Event) []any {
	return withTime([]any{"error", d.Err}, "told_again", toldAgain(e))
}

// SealFailure tells that a new secret is only in memory, because the disk refused it.
type SealFailure struct {
	RotationID string
	Err        error
}

func (d SealFailure) kind() Kind        { return SealFailed }
func (d SealFailure) failure() error    { return d.Err }
func (d SealFailure) more(Event) string { return "" }
func (d SealFailure) attrs(Event) []any { return []any{"rotation_id", d.RotationID, "error", d.Err} }

// Verdict tells of one decision about a token in doubt, also one to wait.
type Verdict struct {
	RotationID string
	Reason     string
	Before     string    // the reason code of the verdict before it
	Again      time.Time // when it is looked at again; zero if the doubt is over
}

func (d Verdict) kind() Kind {
	if d.Reason == d.Before {
		return DoubtUnchanged
	}
	return DoubtJudged
}

func (d Verdict) more(Event) string { return ReasonText(d.Reason) }
func (d Verdict) attrs(Event) []any {
	return withTime([]any{"rotation_id", d.RotationID, "reason", d.Reason}, "looking_again", d.Again)
}

// Resolution tells that a token left the state in doubt, and why.
type Resolution struct {
	RotationID string
	Reason     string
	After      time.Duration // since the doubt arose
}

func (d Resolution) kind() Kind        { return DoubtResolved }
func (d Resolution) more(Event) string { return ReasonText(d.Reason) }
func (d Resolution) attrs(Event) []any {
	return []any{"rotation_id", d.RotationID, "reason", d.Reason, "after", d.After.Round(time.Millisecond).String()}
}

// GraceExtension tells that the old secret was given more time, because consumers have
// nothing else yet, or why not.
type GraceExtension struct {
	RotationID string
	Until      time.Time
	Err        error
}

func (d GraceExtension) kind() Kind     { return either(d.Err, GraceExtended, GraceExtensionFailed) }
func (d GraceExtension) failure() error { return d.Err }
func (d GraceExtension) more(e Event) string {
	if d.Err != nil {
		return ""
	}
	return "it works for another " + e.left(d.Until)
}

func (d GraceExtension) attrs(Event) []any {
	if d.Err != nil {
		return []any{"rotation_id", d.RotationID, "error", d.Err}
	}
	return []any{"rotation_id", d.RotationID, "until", d.Until}
}

// OvertakenEnd tells what became of a sealed secret that was overtaken, or that belongs to a
// service token which is gone: Reason says why it is delivered after all, or was given up.
type OvertakenEnd struct {
	RotationID string
	Reason     string
}

func (d OvertakenEnd) kind() Kind        { return OvertakenEnded }
func (d OvertakenEnd) more(Event) string { return ReasonText(d.Reason) }
func (d OvertakenEnd) attrs(Event) []any {
	return []any{"rotation_id", d.RotationID, "reason", d.Reason}
}

// Missed tells of slots that were consumed without a rotation of their own.
type Missed struct {
	Count   int  // without those in a freeze
	Frozen  int  // those that a freeze took away: passed over, or deferred until the next one came
	GivenUp bool // no rotation makes up for them
}

func (d Missed) kind() Kind        { return SlotsMissed }
func (d Missed) more(Event) string { return fmt.Sprint(d.Count) }
func (d Missed) attrs(Event) []any {
	return []any{"missed", d.Count, "frozen", d.Frozen, "made_up_for", !d.GivenUp}
}

// Healed tells of times in a ledger record that only a clock which was ahead can have written, and
// that were taken out.
type Healed struct{ What []string }

func (d Healed) kind() Kind        { return ClockHealed }
func (d Healed) more(Event) string { return "" }
func (d Healed) attrs(Event) []any { return []any{"what", d.What} }

// Adoption tells that a service token which was to be created was there, and was adopted.
type Adoption struct{ TokenID string }

func (d Adoption) kind() Kind        { return Adopted }
func (d Adoption) more(Event) string { return "" }
func (d Adoption) attrs(Event) []any { return []any{"token_id", d.TokenID} }

// Probe tells what a new secret was found to be where it was tried: not each time that it is tried, but
// when that leads to something.
type Probe struct {
	RotationID string
	Result     ProbeResult
	Err        error // nil if it is good
}

// ProbeResult is what trying a secret proves. It is a label of metrics.
type ProbeResult string

// The results of a probe.
const (
	ProbeGood    ProbeResult = "good"
	ProbeBad     ProbeResult = "bad"
	ProbeUnknown ProbeResult = "unknown"
)

func (d Probe) kind() Kind {
	switch d.Result {
	case ProbeGood:
		return SecretAccepted
	case ProbeBad:
		return SecretRefused
	default:
		return SecretUntried
	}
}

func (d Probe) failure() error    { return d.Err }
func (d Probe) more(Event) string { return "" }
func (d Probe) attrs(Event) []any {
	if d.Result == ProbeGood {
		return []any{"rotation_id", d.RotationID}
	}
	return []any{"rotation_id", d.RotationID, "error", d.Err}
}

// Renewal tells that a service token was renewed, or why not. ExpiresAt is its end after it.
type Renewal struct {
	TokenID   string
	ExpiresAt time.Time
	Err       error
}

func (d Renewal) kind() Kind     { return either(d.Err, Renewed, RenewalFailed) }
func (d Renewal) failure() error { return d.Err }
func (d Renewal) more(e Event) string {
	if d.Err != nil {
		return ""
	}
	return "it lasts for another " + e.left(d.ExpiresAt)
}

func (d Renewal) attrs(Event) []any {
	return withError([]any{"token_id", d.TokenID, "expires", d.ExpiresAt}, d.Err)
}

// Deletion tells that a service token which another one replaced was deleted, or why not.
type Deletion struct {
	TokenID string
	Err     error
}

func (d Deletion) kind() Kind        { return either(d.Err, ReplacedDeleted, ReplacedNotDeleted) }
func (d Deletion) failure() error    { return d.Err }
func (d Deletion) more(Event) string { return "" }
func (d Deletion) attrs(Event) []any { return withError([]any{"token_id", d.TokenID}, d.Err) }

// OutsideRotation tells that another person or program has rotated a service token: nothing that
// Cloudflare shows of it is different but when it was changed.
type OutsideRotation struct {
	TokenID   string
	ChangedAt time.Time // as Cloudflare has it
	Heals     bool      // a rotation of our own makes up for it
}

func (d OutsideRotation) kind() Kind { return RotatedOutside }
func (d OutsideRotation) more(Event) string {
	if d.Heals {
		return "the daemon rotates it again to make up for it"
	}
	return ""
}

func (d OutsideRotation) attrs(Event) []any {
	return []any{"token_id", d.TokenID, "at", d.ChangedAt, "made_up_for", d.Heals}
}

// OutsideChange tells that another person or program has changed a service token: its name, its
// life, or whether it is enabled.
type OutsideChange struct {
	TokenID   string
	ChangedAt time.Time
}

func (d OutsideChange) kind() Kind        { return ChangedOutside }
func (d OutsideChange) more(Event) string { return "" }
func (d OutsideChange) attrs(Event) []any { return []any{"token_id", d.TokenID, "at", d.ChangedAt} }

// VersionDeletion tells that a sink will delete the version that was just stored before the next
// rotation can have replaced it. NeededUntil is zero if no rotation is to come.
type VersionDeletion struct {
	Sink        string
	DeletesAt   time.Time
	NeededUntil time.Time
}

func (d VersionDeletion) kind() Kind        { return VersionDeletes }
func (d VersionDeletion) more(Event) string { return d.Sink }
func (d VersionDeletion) attrs(Event) []any {
	return withTime([]any{"sink", d.Sink, "deleted_at", d.DeletesAt}, "needed_until", d.NeededUntil)
}

// either returns the kind for a success or for a failure.
func either(err error, good, bad Kind) Kind {
	if err != nil {
		return bad
	}
	return good
}

func withError(attrs []any, err error) []any {
	if err == nil {
		return attrs
	}
	return append(attrs, "error", err)
}

func withTime(attrs []any, name string, t time.Time) []any {
	if t.IsZero() {
		return attrs
	}
	return append(attrs, name, t)
}
