// Package admin has both ends of the unix socket on which commands talk to a running daemon: the server
// in the daemon and the client in the commands. Nothing that changes state can be reached in another way.
//
// Guarantees:
//
//   - Only the daemon's user, its group and root can reach the socket: it has mode 0660, and at no moment a
//     wider one. All of them may use every verb, unless admin.allow says which user and which group may use which.
//   - Each request that would change state is one event, and so one line in the log, done or refused, with
//     the user, group and process that the kernel names for its connection. Where the
//     kernel does not name them, the request is refused.
//   - A command that has arrived is carried out, even if its sender hangs up.
//   - The socket of a daemon that died is replaced. A socket at which a process answers, and a file of
//     another kind, is never removed.
//   - Requests are bounded in size and time, and decoded strictly. No answer contains a secret: the
//     package never has one, and texts from elsewhere are scrubbed again.
//
// A new verb is a kind of package event, a type for its arguments, a method of [Daemon], a line in handler and a
// method of [Client].
package admin

import (
	"context"
	"errors"
	"strings"
	"time"

	"rotatord/internal/printable"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/status"
)

// Daemon is what the socket gives access to. It must be safe for concurrent use.
type Daemon interface {
	View
	Orders
}

// View is what commands can read.
type View interface {
	status.Fleet
	// History returns lines of the record of events, the newest last. It reads local files, within ctx.
	History(ctx context.Context, q status.HistoryQuery) (status.History, error)
	// Progress returns the progress of an account's orders, from memory. The error wraps ErrNoAccount if
	// the account is not configured.
	Progress(account string) (Progress, error)
	// LookAtVault returns what is right and wrong with Vault, as rotatord doctor does, through the
	// daemon's own session. It changes nothing, and ends with ctx.
	LookAtVault(ctx context.Context) []Finding
}

// Finding is the result of one check of package doctor.
type Finding struct {
	Level   string `json:"level"`
	Code    string `json:"code"`
	Subject string `json:"subject"`
	Message string `json:"message"`
	Advice  string `json:"advice,omitempty"`
}

// Findings is the answer of LookAtVault.
type Findings struct {
	Findings []Finding `json:"findings"`
}

// ErrUnsupported is in the error of a client whose daemon does not support the request.
var ErrUnsupported = errors.New("the daemon does not support this request; its version may differ from this command's")

// ErrNoAccount is in an error about an account that is not configured.
var ErrNoAccount = errors.New("no account")

// Orders are the commands that change something. Each waits at most a minute before it sends something to
// Cloudflare, and none is cut off after that.
type Orders interface {
	Emergency
	Hooks
	// TestNotify sends a test message to a receiver of notifications, or to all if the name is empty. The error says that
	// there is no such receiver.
	TestNotify(ctx context.Context, receiver string) ([]status.NotifyTest, error)
	// Rotate rotates a token outside of its schedule, for by. The error is nil if the new secret was
	// delivered. It wraps rotation.ErrNotRotated if something forbids the rotation that o does not override.
	Rotate(ctx context.Context, name string, o rotation.Overrides, by string) (Rotated, error)
	// Pause pauses a token, or with rotation.AllTokens all of them, including those that are configured
	// later. Resume lifts the pause. Both are durable when they return.
	Pause(ctx context.Context, name string, p rotation.Pause) (Paused, error)
	Resume(ctx context.Context, name string) (Paused, error)
	// Resolve carries out an operator's decision about a token in doubt, or about a new secret that is
	// refused or was overtaken. If that resolves it, the daemon works on the token at once. It may ask
	// Cloudflare, within ctx. The error wraps rotation.ErrNotInDoubt or rotation.ErrUnfit if the command was
	// refused. It is nil if the token is still in doubt.
	Resolve(ctx context.Context, name string, how rotation.Resolution) (Outcome, error)
}

// Emergency are the commands for secrets that may have leaked.
type Emergency interface {
	// RotateAll orders the rotation of all tokens of an account, for by, and returns when the orders are
	// durable. CancelAll cancels those that are pending.
	RotateAll(ctx context.Context, account string, o rotation.Overrides, by string) (Progress, error)
	CancelAll(ctx context.Context, account string) (Progress, error)
	// Cancel cancels the order of one token. The error wraps rotation.ErrNoOrder if there is none.
	Cancel(ctx context.Context, name string) (Cancelled, error)
	// RevokePrevious revokes a token's previous secret. With inUse it does so even if consumers may not have
	// another one yet. ExtendGrace extends its grace to this time from now. Their errors wrap
	// rotation.ErrNoPrevious if there was nothing to change.
	RevokePrevious(ctx context.Context, name string, inUse bool) (Grace, error)
	ExtendGrace(ctx context.Context, name string, grace time.Duration) (Grace, error)
}

// Hooks are the commands for hooks, which run after a rotation.
type Hooks interface {
	// RunHooks has hooks of a token run again for its last rotation, or now if they are owed, and returns when that is
	// durable. hooks are names or kinds; empty for all. The error wraps rotation.ErrUnfit if there is nothing to run.
	RunHooks(ctx context.Context, name string, hooks []string) (Hooked, error)
	// DropHooks gives up the hooks of a token that are owed.
	DropHooks(ctx context.Context, name string) (Hooked, error)
}

// Hooked is the result of a command for hooks.
type Hooked struct {
	// Token is the token as it is now; its Hooks say what is owed.
	Token status.Token `json:"token"`
}

// Overview is what rotatord status shows: all tokens, or the one that was asked for.
type Overview = status.Overview

// Name is a token by its name, with what a person who completes it needs to know.
type Name struct {
	Name  string `json:"name"`
	State string `json:"state"`
	// Trouble is the kind of its worst trouble; empty if nothing is wrong.
	Trouble string `json:"trouble,omitempty"`
	Paused  bool   `json:"paused,omitempty"`
}

// Names is the answer of [Client.Names].
type Names struct {
	Names []Name `json:"names"`
}

// Outcome is the result of a resolve.
type Outcome struct {
	// Token is the token as it is now.
	Token status.Token `json:"token"`
	// Doubt is what is known about the doubt, resolved or not.
	Doubt status.Doubt `json:"doubt,omitzero"`
	// Resolved is set if the doubt is resolved. Delivers is also set if the sealed answer is delivered
	// and nothing is rotated. Reason is the reason code of the decision.
	Resolved bool   `json:"resolved"`
	Delivers bool   `json:"delivers,omitempty"`
	Reason   string `json:"reason"`
	// Problem says what failed. Most often that is the request to Cloudflare, so the decision is based
	// on what was known before.
	Problem string `json:"problem,omitempty"`
}

// Rotated is the result of a rotate.
type Rotated struct {
	// Token is the token as it is now.
	Token status.Token `json:"token"`
	// RotationID, Digest (of the new secret) and GraceEndsAt are those of the rotation;
	// GraceEndsAt is zero if the previous secret was revoked at once.
	RotationID  string        `json:"rotation_id"`
	Digest      secret.Digest `json:"digest"`
	GraceEndsAt time.Time     `json:"grace_ends_at,omitzero"`
	// Verifying is set if the secret is in every sink, but verify.url does not accept it yet.
	Verifying bool `json:"verifying,omitempty"`
	// Unverified says why it could not be tried; empty if it was accepted, or if it is not tried.
	Unverified string `json:"unverified,omitempty"`
	// Ordered is set if an order is still pending: another rotation follows.
	Ordered bool `json:"ordered,omitempty"`
}

// Progress is the progress of the orders of an account.
type Progress struct {
	Account string `json:"account"`
	// Tokens counts the configured tokens of the account.
	Tokens int `json:"tokens"`
	// Left are the tokens that are still to be rotated, sorted by name. Since is when the oldest of their
	// orders was given; zero if there is none.
	Left  []Left    `json:"left"`
	Since time.Time `json:"since,omitzero"`
	// Cancelled counts the orders that were cancelled.
	Cancelled int `json:"cancelled"`
	// Problems says which tokens could not be ordered, and why.
	Problems []string `json:"problems,omitempty"`
}

// Left is a token that is still to be rotated.
type Left struct {
	Token     string    `json:"token"`
	State     string    `json:"state"`
	Next      time.Time `json:"next,omitzero"`
	Reason    string    `json:"next_reason,omitempty"`
	LastError string    `json:"last_error,omitempty"`
}

// Grace is the result of revoke-previous and extend-grace.
type Grace struct {
	Token  status.Token `json:"token"`
	EndsAt time.Time    `json:"ends_at,omitzero"` // when the previous secret stops working, or stopped
}

// Paused is the result of a pause or a resume.
type Paused struct {
	// Token is the token that was named; empty for all tokens.
	Token string `json:"token,omitempty"`
	// Pause is the pause of the token, or of all tokens, after the command; nil if there is none.
	Pause *status.Pause `json:"pause,omitempty"`
	// Lifted is the pause that a resume lifted; nil if there was none.
	Lifted *status.Pause `json:"lifted,omitempty"`
	// Next is when the token rotates next; zero if that is not known, or for all tokens.
	Next time.Time `json:"next,omitzero"`
	// InProgress names the tokens whose rotation in progress continues.
	InProgress []string `json:"in_hand,omitempty"`
	// ByName names the tokens that are paused by name.
	ByName []string `json:"by_name,omitempty"`
}

// Cancelled is the result of cancelling an order.
type Cancelled struct {
	Token status.Token `json:"token"` // as it is now
}

// revokeArgs is the body of a revoke-previous.
type revokeArgs struct {
	InUse bool `json:"override_in_use,omitempty"`
}

func (a revokeArgs) audit() []any { return []any{"override_in_use", a.InUse} }

type rotateArgs struct{ rotation.Overrides }

func (a rotateArgs) audit() []any {
	return []any{"override_freeze", a.Freeze, "override_pause", a.Pause, "override_grace", a.Grace, "revoke_now", a.RevokeNow}
}

// NotifyTests is the answer of a test of receivers.
type NotifyTests struct {
	Receivers []status.NotifyTest `json:"receivers"`
}

// notifyArgs is the body of a test of receivers. The receiver is empty for all.
type notifyArgs struct {
	Receiver string `json:"receiver,omitempty"`
}

func (a notifyArgs) audit() []any { return []any{"receiver", printable.Line(a.Receiver, maxName)} }

// noArgs is the body of a command without arguments.
type noArgs struct{}

func (noArgs) audit() []any { return nil }

type hookArgs struct {
	Hooks []string `json:"hooks,omitempty"` // names or kinds; empty for all
	Drop  bool     `json:"drop,omitempty"`  // give up what is owed
}

func (a hookArgs) audit() []any {
	args := []any{"drop", a.Drop}
	if len(a.Hooks) > 0 {
		args = append(args, "hooks", printable.Line(strings.Join(a.Hooks, ", "), maxBody))
	}
	return args
}

type extendArgs struct {
	Seconds int64 `json:"seconds"`
}

func (a extendArgs) audit() []any { return []any{"seconds", a.Seconds} }

type pauseArgs struct {
	Until  time.Time `json:"until,omitzero"` // zero: until it is resumed
	Reason string    `json:"reason,omitempty"`
}

func (a pauseArgs) audit() []any {
	attrs := []any{"reason", printable.Line(a.Reason, maxReason)}
	if !a.Until.IsZero() {
		attrs = append(attrs, "until", a.Until)
	}
	return attrs
}

// resolveArgs is the body of a resolve.
type resolveArgs struct {
	How rotation.Resolution `json:"how"`
}

func (a resolveArgs) audit() []any { return []any{"how", printable.Line(string(a.How), maxName)} }

// errorAnswer is the body of every answer that is not 200.
type errorAnswer struct {
	Error string `json:"error"`
}

// commandTime is the longest time for one command. It is enough to wait for an attempt in progress and for
// the request budget.
const commandTime = time.Minute
