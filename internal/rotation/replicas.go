package rotation

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// This file holds what several replicas that share a ledger need: the hold on a token, and how long it lasts.
//
// A replica works on a token only while it holds it. The hold is in the token's record, so that taking it is the
// same check-and-set write as a claim, and every save of the work renews it. Other replicas leave the
// token alone until the hold ends. A replica that is alone, without [Options].Replica, holds nothing and needs none of
// this.

// Replica is one daemon of several that share a ledger.
type Replica struct {
	Name    string        // unique, and the same after a restart
	Process string        // another one at each start
	Claim   time.Duration // how long a hold lasts after the save that took or renewed it
}

// Hold says which replica works on a token. It ends by itself For after the save of the record that has it.
type Hold struct {
	Replica string `json:"replica"`
	Process string `json:"process"`
	For     Grace  `json:"for"`
}

// SharedLedger is a [Ledger] that several replicas share.
type SharedLedger interface {
	Ledger
	// HoldLeft returns for how long the hold in a record still lasts; 0 or less if it has ended, or if there is
	// none. The record is as Load, Save, SaveAll or All of this ledger has returned it. For a hold of this process
	// the time is counted from before the save, and is never too long. For a hold of another process it is never
	// too short.
	HoldLeft(r Record) time.Duration
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

// ErrNotHeld is in the error of an attempt whose hold has ended before it was done.
var ErrNotHeld = errors.New("the hold on the token has ended: this replica was stopped or cut off for too long")

type sendCheckKey struct{}

// WithSendCheck returns a context for a request to an [Issuer] or [Creator] that must not leave if check returns an
// error. See [MaySend].
func WithSendCheck(ctx context.Context, check func() error) context.Context {
	return context.WithValue(ctx, sendCheckKey{}, check)
}

// MaySend returns why the request of that context must not leave; nil if it may. An issuer asks it at the last moment
// before the first byte of a rotate or create request, and sends nothing after an error.
func MaySend(ctx context.Context) error {
	if check, ok := ctx.Value(sendCheckKey{}).(func() error); ok {
		return check()
	}
	return nil
}
