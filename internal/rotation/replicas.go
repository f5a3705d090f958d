package rotation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/failpoint"
)

// This file holds what several replicas that share a ledger need: the hold on a token, and how long it lasts.
//
// A replica works on a token only while it holds it. The hold is in the token's record, so that taking it is the
// same check-and-set write as a claim, and every save of the work renews it. Other replicas leave the
// token alone until the hold ends. A replica that is alone, without [Options].Replica, holds nothing and needs none of
// this.

// Replica is one daemon of several that share a ledger.
type Replica struct {
	Name    string // unique, and the same after a restart
	Process string // another one at each start
	// Home identifies the state directory, which only one process at a time can have open. So a hold of another process
	// with the same home is one of a process that has ended. Empty if there is none.
	Home  string
	Claim time.Duration // how long a hold lasts after the save that took or renewed it
}

// Hold says which replica works on a token. It ends by itself For after the save of the record that has it.
type Hold struct {
	Replica string `json:"replica"`
	Process string `json:"process"`
	Home    string `json:"home,omitempty"`
	For     Grace  `json:"for"`
}

// isOurs reports whether a hold is of this process.
func (p *Replica) isOurs(h *Hold) bool { return h != nil && h.Process == p.Process }

// hold returns a hold of this process.
func (p *Replica) hold(lasts time.Duration) *Hold {
	return &Hold{Replica: p.Name, Process: p.Process, Home: p.Home, For: Grace(lasts)}
}

// isForeign reports whether a hold is of a process that may still run.
func (p *Replica) isForeign(h *Hold) bool {
	return h != nil && h.Process != p.Process && (p.Home == "" || h.Home != p.Home)
}

// SharedLedger is a [Ledger] that several replicas share.
type SharedLedger interface {
	Ledger
	// HoldLeft returns for how long the hold in a record still lasts; 0 or less if it has ended, or if there is
	// none. The record is as Load, Save, SaveAll or All of this ledger has returned it. For a hold of this process
	// the time is counted from before the save, and is never too long. For a hold of another process it is never
	// too short.
	HoldLeft(r Record) time.Duration
	// RunLeft returns for how long the run of a hook that another process has begun may go on; 0 or less if it has ended.
	// The time begins with the version of the record that this ledger has seen first with that run, as for a hold, and is
	// never too short.
	RunLeft(token string, h OwedHook) time.Duration
}

// Copies keeps copies of sealed answers where every replica finds them. Implementations are safe for concurrent use.
type Copies interface {
	// Copy copies the sealed answer that this replica has on its disk. It may be repeated.
	Copy(ctx context.Context, key PendingKey) error
	// Open returns the answer in a copy, and false if there is none. ErrUnreadable is in the error if the copy is
	// damaged, or sealed to other identities.
	Open(ctx context.Context, rotationID string) (Issued, bool, error)
	// Erase removes a copy. Erasing nothing returns nil.
	Erase(ctx context.Context, rotationID string) error
}

// ErrHeld is in the error of a call for a token that another replica works on: see [HeldError].
var ErrHeld = errors.New("another replica works on the token")

// HeldError says which replica works on a token, and until when at most if it does not go on.
type HeldError struct {
	Token, Replica string
	Left           time.Duration
}

// Error implements error.
func (e *HeldError) Error() string {
	return fmt.Sprintf("replica %s works on %s: it is done in a moment, and if it has died another replica may take over in %s. Try again then, or ask that replica",
		e.Replica, e.Token, e.Left.Round(time.Second))
}

// Unwrap returns ErrHeld.
func (e *HeldError) Unwrap() error { return ErrHeld }

// errOutpaced is in the error of work whose first save has found that another replica was faster. Nothing has failed.
var errOutpaced = fmt.Errorf("%w: it was faster, and nothing was changed here. Try again in a moment", ErrHeld)

// outpaced returns the error of the first save of some work. It says so if another replica was faster.
func (r *Rotator) outpaced(err error) error {
	if r.replica == nil || !errors.Is(err, ErrConflict) {
		return err
	}
	return fmt.Errorf("%w (%w)", errOutpaced, err)
}

// ErrNotHeld is in the error of an attempt whose hold has ended before it was done.
var ErrNotHeld = errors.New("the hold on the token has ended: this replica was stopped or cut off for too long")

type sendCheckKey struct{}

// WithSendCheck returns a context for a request to an [Issuer], a [Creator] or a [Sink] that must not leave if check
// returns an error. See [MaySend].
func WithSendCheck(ctx context.Context, check func() error) context.Context {
	return context.WithValue(ctx, sendCheckKey{}, check)
}

// MaySend returns why the request of that context must not leave; nil if it may. An issuer asks it at the last moment
// before the first byte of a request, and sends nothing after an error. A sink asks it before each write: after a
// conflict, the secret that it finds may be newer than the one that it delivers.
func MaySend(ctx context.Context) error {
	if check, ok := ctx.Value(sendCheckKey{}).(func() error); ok {
		return check()
	}
	return nil
}

// HeldFor returns for how long another replica still has the right to work on the token of a record; 0 if none has. The
// record is as the ledger has returned it.
func (r *Rotator) HeldFor(record Record) time.Duration {
	if r.replica == nil || !r.replica.isForeign(record.Hold) || failpoint.Off("hold") {
		return 0
	}
	return max(0, r.shared.HoldLeft(record))
}

// heldByOther returns a [HeldError] if another replica may work on the token now.
func (r *Rotator) heldByOther(t Token, record Record) error {
	if left := r.HeldFor(record); left > 0 {
		return &HeldError{Token: t.Name, Replica: record.Hold.Replica, Left: left}
	}
	return nil
}

// holder returns the hold that a record is saved with: ours while the token is worked on, else none.
func (e *entry) holder(next Record) *Hold {
	if e.replica == nil || !e.beside && (!e.working || next.Step == StepIdle) {
		return nil
	}
	return e.replica.hold(e.replica.Claim)
}

// holdLeft returns for how long this process may still work on the token; 0 or less if it may not.
func (e *entry) holdLeft() time.Duration {
	if !e.replica.isOurs(e.record.Hold) {
		return 0
	}
	return e.shared.HoldLeft(e.record)
}

// take takes the hold for work that begins with something else than a claim. If the hold of another replica has
// ended, that replica has died, or was stopped or cut off for too long.
func (e *entry) take(ctx context.Context) error {
	if e.replica == nil {
		return nil
	}
	e.working, e.beside = true, e.record.Step == StepIdle
	before := e.record
	if err := e.save(ctx, e.record); err != nil {
		if !e.replica.isOurs(before.Hold) { // else it was lost in the middle of the work
			err = e.outpaced(err)
		}
		return fmt.Errorf("%w: taking the hold on %s: %w", ErrLedger, e.token.Name, err)
	}
	e.tellTakenOver(before)
	return nil
}

// tellTakenOver tells that a token was taken over from another replica, if the record says so.
func (e *entry) tellTakenOver(before Record) {
	if e.replica != nil && e.replica.isForeign(before.Hold) {
		e.tell(event.ClaimTakenOver{From: before.Hold.Replica, Step: string(before.Step)})
	}
}

// mustHold makes sure that no other replica works on the token while this one changes something outside of the
// ledger. It renews a hold of which little is left.
func (e *entry) mustHold(ctx context.Context) error {
	if e.replica == nil || failpoint.Off("hold") || e.holdLeft() > e.replica.Claim/4 {
		return nil
	}
	return e.take(ctx)
}

// maySend returns why a rotate request must not leave: its hold has ended, or is about to end.
func (e *entry) maySend() error {
	if e.replica == nil || failpoint.Off("hold") || e.holdLeft() > e.replica.Claim/10 {
		return nil
	}
	return ErrNotHeld
}

// claimTime returns how long after the claim a rotate request may leave.
func (r *Rotator) claimTime() time.Duration {
	if r.replica == nil {
		return claimTime
	}
	return min(claimTime, r.replica.Claim)
}

// minTimeLeft returns how much of that time must be left to send a request at all.
func (r *Rotator) minTimeLeft() time.Duration { return min(minTimeLeft, r.claimTime()/4) }

// giveBackTime bounds how long giving back a hold may take. A hold that is not given back ends by itself.
const giveBackTime = 5 * time.Second

// giveBack gives back a hold that the work has left in the record.
func (e *entry) giveBack() {
	if e.replica == nil || !e.replica.isOurs(e.record.Hold) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), giveBackTime)
	defer cancel()
	e.working, e.beside = false, false
	if e.save(ctx, e.record) == nil {
		e.saved(e.record)
	}
}

// openAnswer returns the sealed answer of a rotation: from this disk, or from the copy that another replica may have
// left. A copy that this replica cannot open counts as none: the replica that made it may still deliver.
func (e *entry) openAnswer(ctx context.Context, rotationID string) (Issued, bool, error) {
	issued, ok, err := e.pending.Open(ctx, rotationID)
	if ok || e.copies == nil {
		return issued, ok, err
	}
	copied, ok, copyErr := e.copies.Open(ctx, rotationID)
	if ok || err == nil && !errors.Is(copyErr, ErrUnreadable) {
		return copied, ok, copyErr
	}
	return issued, false, err
}

// copyAnswer copies the sealed answer to where every replica finds it, because it could not be delivered at once. The
// ledger says so first: whoever ends the rotation erases the copy.
func (a *attempt) copyAnswer(ctx context.Context) {
	if a.copies == nil || a.record.Work.Copied {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	err := a.become(ctx, a.record.copied())
	if err == nil {
		err = a.copies.Copy(ctx, a.pendingKey())
	}
	a.tell(event.AnswerCopied{RotationID: a.record.Work.RotationID, Err: err})
}

// answerReturned continues a doubt whose answer is there after all: on the disk of this replica, which was away when
// another one took over, or in a copy. It reports whether there is one.
func (a *attempt) answerReturned(ctx context.Context) (bool, error) {
	if a.replica == nil || a.record.Doubt.Sealed {
		return false, nil
	}
	issued, ok, err := a.openAnswer(ctx, a.record.Work.RotationID)
	if (err != nil || !ok) && a.record.Work.Digest != "" { // the other replica may have delivered it to a sink
		issued, ok, err = a.readBack(ctx)
	}
	if err != nil || !ok { // what cannot be opened changes nothing about the doubt
		return false, nil
	}
	doubt, id := a.record.Doubt, a.record.Work.RotationID
	a.observe(a.record.answerFound())
	if err := a.sealed(ctx, issued); err != nil {
		return true, err
	}
	if a.record.Step != StepInDoubt { // else the answer did not pass validation
		a.tell(event.Resolution{RotationID: id, Reason: ReasonAnswerReturned, After: a.now().Sub(doubt.Since)})
	}
	return true, nil
}

// hasAnswer reports whether the answer of a doubt may be sealed on this disk although the doubt does not say so: the
// doubt was raised by another replica. JudgeLate erases the answer once nothing can need it.
func (e *entry) hasAnswer(ctx context.Context, rotationID string) bool {
	if e.replica == nil {
		return false
	}
	_, ok, err := e.pending.Open(ctx, rotationID)
	return ok || err != nil
}

// replicaName returns the name of this replica; empty if it is alone.
func (r *Rotator) replicaName() string {
	if r.replica == nil {
		return ""
	}
	return r.replica.Name
}

// isElsewhere reports whether the sealed answer of the rotation in progress is on the disk of another replica.
func (a *attempt) isElsewhere() bool {
	return a.replica != nil && a.record.Work.Replica != "" && a.record.Work.Replica != a.replica.Name
}

// outrun ends an attempt whose answer is sealed, but which another replica may have taken over meanwhile. Nothing is
// delivered: the next attempt loads the record and decides.
func (a *attempt) outrun(work *Work, cause error) error {
	a.report(work, event.ResultFailed, "taken_over", cause)
	return cause
}
