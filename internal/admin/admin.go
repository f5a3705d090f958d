// Package admin is the unix socket for commands that act on a running daemon: the server in
// the daemon and the client in the commands. Nothing that changes state is reachable by
// any other way.
//
// Guarantees:
//
//   - The daemon's user, its group and root can reach it, and nobody else: the socket has
//     mode 0660 and is not more open even for a moment. It may do whatever it knows for all
//     of them; there are no finer rights.
//   - Each request that would change state leaves one line in the log, done or refused, with
//     the user, group and process that the kernel names for its connection. Where the
//     kernel does not name them, the request is refused.
//   - A command that has arrived is carried out, also if whoever sent it hangs up.
//   - The socket of a daemon that died is replaced. One at which somebody answers, and a
//     file of any other kind, is never removed.
//   - Requests are bounded in size and time, and decoded strictly. No answer holds a secret:
//     the package never has one, and texts from elsewhere are scrubbed once more.
//
// A new verb is a type for its arguments, a method of [Daemon], a line in handler and a
// method of [Client].
package admin

import (
	"context"
	"time"

	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/status"
)

// Daemon is what the socket gives access to. It must be safe for concurrent use.
type Daemon interface {
	// Tokens returns all tokens, sorted by name, from memory.
	Tokens() []status.Token
	// Pending returns how many sealed secrets wait to be confirmed by a sink, and since
	// when the oldest does.
	Pending() (n int, oldest time.Time)
	// Resolve carries out what an operator decides about a token in doubt, and has the
	// daemon work on the token at once if the doubt is over. It may ask Cloudflare, within
	// ctx. The error has rotation.ErrNotInDoubt or rotation.ErrUnfit in it if the command
	// was refused, and is nil if the token merely stays in doubt.
	Resolve(ctx context.Context, name string, how rotation.Resolution) (Outcome, error)
}

// Overview is what status shows: all tokens, or the one that was asked for.
type Overview struct {
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
	Doubt status.Doubt `json:"doubt"`
	// Resolved is set if the doubt is over, and Delivers with it if the sealed answer is
	// delivered in the place of a rotation. Reason is the verdict's reason code.
	Resolved bool   `json:"resolved"`
	Delivers bool   `json:"delivers,omitempty"`
	Reason   string `json:"reason"`
	// Problem says what went wrong beside that: most often, why Cloudflare could not be
	// asked, so that the verdict is that of what was known before.
	Problem string `json:"problem,omitempty"`
}

// resolveArgs is the body of a resolve.
type resolveArgs struct {
	How rotation.Resolution `json:"how"`
}

func (a resolveArgs) audit() []any { return []any{"how", secret.Scrub(string(a.How))} }

// errorAnswer is the body of every answer that is not 200.
type errorAnswer struct {
	Error string `json:"error"`
}

// commandTime bounds the work for one command. It is enough to wait for an attempt in hand
// and for Cloudflare's request budget to be looked at.
const commandTime = time.Minute
