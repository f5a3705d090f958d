package event

import "time"

// This file has the details of what several replicas that share a ledger do and find.

// ClaimTakenOver tells that a token was taken over from another replica, whose hold had ended.
type ClaimTakenOver struct {
	From string // the name of that replica
	Step string // the step that its rotation had reached; empty if none was in progress
}

func (d ClaimTakenOver) kind() Kind        { return TakenOver }
func (d ClaimTakenOver) more(Event) string { return joined("from "+d.From, d.Step) }
func (d ClaimTakenOver) attrs(Event) []any { return []any{"from", d.From, "step", d.Step} }

// AnswerCopied tells that a sealed answer that could not be delivered at once was copied to where every replica finds
// it, or why not.
type AnswerCopied struct {
	RotationID string
	Err        error
}

func (d AnswerCopied) kind() Kind        { return either(d.Err, Copied, NotCopied) }
func (d AnswerCopied) failure() error    { return d.Err }
func (d AnswerCopied) more(Event) string { return "" }
func (d AnswerCopied) attrs(Event) []any {
	return withError([]any{"rotation_id", d.RotationID}, d.Err)
}

// LateAnswer tells of a sealed answer that came after the hold of its rotation had ended.
type LateAnswer struct {
	RotationID string
	// Delivered is set if Cloudflare shows that it is the latest secret, so it is delivered. Otherwise a later one took its
	// place, and it is not.
	Delivered bool
}

func (d LateAnswer) kind() Kind {
	if d.Delivered {
		return LateDelivered
	}
	return LateSuperseded
}
func (d LateAnswer) more(Event) string { return "" }
func (d LateAnswer) attrs(Event) []any { return []any{"rotation_id", d.RotationID} }

// ReplicaSeen tells that another replica lives, or that it does not any more.
type ReplicaSeen struct {
	Replica string
	Living  bool
	Leaving bool      // it stops in an orderly way
	Since   time.Time // the last sign of life, if it does not live
}

func (d ReplicaSeen) kind() Kind {
	switch {
	case d.Living:
		return ReplicaLives
	case d.Leaving:
		return ReplicaLeft
	}
	return ReplicaDied
}
func (d ReplicaSeen) more(Event) string { return d.Replica }
func (d ReplicaSeen) attrs(Event) []any {
	return withTime([]any{"replica", d.Replica}, "last_sign_of_life", d.Since)
}

// VaultClockJump tells that Vault's clock, as its answers to writes show it, has jumped.
type VaultClockJump struct{ By time.Duration }

func (d VaultClockJump) kind() Kind        { return VaultClockJumped }
func (d VaultClockJump) more(Event) string { return d.By.Round(time.Millisecond).String() }
func (d VaultClockJump) attrs(Event) []any { return []any{"by", d.By.String()} }

// StandAside tells that this replica begins nothing, and why; or, with an empty Why, that it works again.
type StandAside struct{ Why string }

func (d StandAside) kind() Kind {
	if d.Why == "" {
		return WorksAgain
	}
	return StandsAside
}
func (d StandAside) more(Event) string { return d.Why }
func (d StandAside) attrs(Event) []any {
	if d.Why == "" {
		return nil
	}
	return []any{"reason", d.Why}
}

// LedgerAway tells that the shared ledger cannot be read, or, without an error, that it can be read again.
type LedgerAway struct{ Err error }

func (d LedgerAway) kind() Kind        { return either(d.Err, LedgerRead, LedgerUnread) }
func (d LedgerAway) failure() error    { return d.Err }
func (d LedgerAway) more(Event) string { return "" }
func (d LedgerAway) attrs(Event) []any { return withError(nil, d.Err) }
