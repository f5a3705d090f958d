// Package admin is the unix socket for commands that act on a running daemon: the server in
// the daemon and the client in the commands. Nothing that changes state is reachable by
// any other way.
//
// Guarantees:
//
//   - The daemon's user, its group and root can reach it, and nobody else: the socket has
//     mode 0660 and is not more open even for a moment. It may do whatever it knows for all
//     of them; there are no finer rights.
//   - Each request that would change state is one event, and so one line in the log, done or refused, with
//     the user, group and process that the kernel names for its connection. Where the
//     kernel does not name them, the request is refused.
//   - A command that has arrived is carried out, also if whoever sent it hangs up.
//   - The socket of a daemon that died is replaced. One at which somebody answers, and a
//     file of any other kind, is never removed.
//   - Requests are bounded in size and time, and decoded strictly. No answer holds a secret:
//     the package never has one, and texts from elsewhere are scrubbed once more.
//
// A new verb is a kind of package event, a type for its arguments, a method of [Daemon], a line in handler and a
// method of [Client].
package admin

import (
	"context"
	"errors"
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

// View is what can be looked at.
type View interface {
	// Tokens returns all tokens, sorted by name, from memory.
	Tokens() []status.Token
	// Checks returns what was last found of what rotations need, from memory.
	Checks() []status.Check
	// Pending returns how many sealed secrets wait to be confirmed by a sink, and since
	// when the oldest does.
	Pending() (n int, oldest time.Time)
	// Progress says how far an account's orders are carried out, from memory. The error has
	// ErrNoAccount in it if there is no such account.
	Progress(account string) (Progress, error)
	// LookAtVault says what is right and wrong with Vault, as rotatord doctor does, through the
	// daemon's own session. It changes nothing, and ends with ctx.
	LookAtVault(ctx context.Context) []Finding
}

// Finding is one thing that was looked at, as package doctor has it.
type Finding struct {
	Level   string `json:"level"`
	Code    string `json:"code"`
	Subject string `json:"subject"`
	Message string `json:"message"`
	Advice  string `json:"advice,omitempty"`
}

// Findings are the answer to a look at Vault.
type Findings struct {
	Findings []Finding `json:"findings"`
}

// ErrUnsupported is in the error of a client whose daemon does not know the request.
var ErrUnsupported = errors.New("the daemon does not support this request; its version may differ from this command's")

// ErrNoAccount is in an error about an account that is not configured.
var ErrNoAccount = errors.New("no account")

// Orders are what an operator can have done. None of them waits for more than a minute
// before something is sent to Cloudflare, and none is cut short after that.
type Orders interface {
	Emergency
	// Rotate rotates a token outside of its schedule, for by. The error is nil if the new secret
	// was delivered; it has rotation.ErrHeldUp in it if something speaks against it that o does
	// not override.
	Rotate(ctx context.Context, name string, o rotation.Overrides, by string) (Rotated, error)
	// Pause pauses a token, or with rotation.AllTokens all of them, also those that are
	// configured later. Resume lifts that. They are durable when they return.
	Pause(ctx context.Context, name string, p rotation.Pause) (Paused, error)
	Resume(ctx context.Context, name string) (Paused, error)
	// Resolve carries out what an operator decides about a token in doubt, or whose new secret is
	// refused or was overtaken, and has the daemon work on the token at once if that is over. It may ask Cloudflare, within
	// ctx. The error has rotation.ErrNotInDoubt or rotation.ErrUnfit in it if the command
	// was refused, and is nil if the token merely stays in doubt.
	Resolve(ctx context.Context, name string, how rotation.Resolution) (Outcome, error)
}

// Emergency is what an operator can have done about secrets that others may have.
type Emergency interface {
	// RotateAll orders all tokens of an account to be rotated, for by, and returns as soon as
	// the orders are durable. CancelAll takes back those that are not carried out.
	RotateAll(ctx context.Context, account string, o rotation.Overrides, by string) (Progress, error)
	CancelAll(ctx context.Context, account string) (Progress, error)
	// Cancel takes back the order of one token. The error has rotation.ErrNoOrder in it if there is
	// none.
	Cancel(ctx context.Context, name string) (Cancelled, error)
	// RevokePrevious revokes a token's previous secret, and ExtendGrace keeps it for this long
	// from now. With inUse the secret is revoked even if consumers may have no other yet. Their
	// errors have rotation.ErrNoPrevious in them if nothing was changed for that reason.
	RevokePrevious(ctx context.Context, name string, inUse bool) (Grace, error)
	ExtendGrace(ctx context.Context, name string, grace time.Duration) (Grace, error)
}

// Overview is what status shows: all tokens, or the one that was asked for.
type Overview struct {
	// Troubles is what is wrong, the worst first: with the tokens, and with what rotations need.
	Troubles []status.Trouble `json:"troubles"`
	// Checks is what was last found of what rotations need.
	Checks []status.Check `json:"checks"`
	Tokens []status.Token `json:"tokens"`
	// PendingSecrets counts, of all tokens, the secrets that were received and not yet
	// confirmed by every sink; PendingSince is when the oldest of them was.
	PendingSecrets int       `json:"pending_secrets"`
	PendingSince   time.Time `json:"pending_since,omitzero"`
}

// Outcome is what came of a resolve.
type Outcome struct {
	// Token is the token as it stands now.
	Token status.Token `json:"token"`
	// Doubt is what is known of the doubt, whether it is over or not.
	Doubt status.Doubt `json:"doubt,omitzero"`
	// Resolved is set if the doubt is over, and Delivers with it if the sealed answer is
	// delivered in the place of a rotation. Reason is the verdict's reason code.
	Resolved bool   `json:"resolved"`
	Delivers bool   `json:"delivers,omitempty"`
	Reason   string `json:"reason"`
	// Problem says what went wrong beside that: most often, why Cloudflare could not be
	// asked, so that the verdict is that of what was known before.
	Problem string `json:"problem,omitempty"`
}

// Rotated is what came of a rotate.
type Rotated struct {
	// Token is the token as it stands now.
	Token status.Token `json:"token"`
	// RotationID, Digest (of the new secret) and GraceEndsAt are those of the rotation;
	// GraceEndsAt is zero if the previous secret was revoked at once.
	RotationID  string        `json:"rotation_id"`
	Digest      secret.Digest `json:"digest"`
	GraceEndsAt time.Time     `json:"grace_ends_at,omitzero"`
	// Verifying is set if the secret is in every sink, and not yet accepted where it is tried.
	Verifying bool `json:"verifying,omitempty"`
	// Unverified says why it could not be tried; empty if it was accepted, or was not to be.
	Unverified string `json:"unverified,omitempty"`
	// Ordered is set if the order stands: another rotation follows.
	Ordered bool `json:"ordered,omitempty"`
}

// Progress is how far the orders of an account are carried out.
type Progress struct {
	Account string `json:"account"`
	// Tokens counts all that are configured in the account.
	Tokens int `json:"tokens"`
	// Left are those that are still to be rotated, sorted by name. Since is when the oldest of
	// their orders was given; zero if there is none.
	Left  []Left    `json:"left"`
	Since time.Time `json:"since,omitzero"`
	// Cancelled counts the orders that were taken back.
	Cancelled int `json:"cancelled"`
	// Problems are tokens that could not be ordered, and why.
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

// Grace is what came of revoke-previous and extend-grace.
type Grace struct {
	Token  status.Token `json:"token"`
	EndsAt time.Time    `json:"ends_at,omitzero"` // when the previous secret stops working, or did
}

// Paused is what came of a pause or a resume.
type Paused struct {
	// Token is the one that was named; empty if it was all of them.
	Token string `json:"token,omitempty"`
	// Pause is what the token is under now, or all tokens are; nil if nothing holds it up.
	Pause *status.Pause `json:"pause,omitempty"`
	// Lifted is what a resume lifted; nil if there was nothing.
	Lifted *status.Pause `json:"lifted,omitempty"`
	// Next is when the token rotates next; zero if that is not known, or it was all of them.
	Next time.Time `json:"next,omitzero"`
	// InHand are the tokens, of those named, whose rotation in hand goes on.
	InHand []string `json:"in_hand,omitempty"`
	// ByName are the tokens that are paused by their own names.
	ByName []string `json:"by_name,omitempty"`
}

// Cancelled is what came of taking an order back.
type Cancelled struct {
	Token status.Token `json:"token"` // as it stands now
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

// noArgs is the body of a command that says all with its path.
type noArgs struct{}

func (noArgs) audit() []any { return nil }

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

// commandTime bounds the work for one command. It is enough to wait for an attempt in hand
// and for Cloudflare's request budget to be looked at.
const commandTime = time.Minute
