package event

import (
	"cmp"
	"context"
	"fmt"
)

// Actor is who or what caused an event.
type Actor struct {
	Cause Cause
	// User is the name that the system knows an operator by, or "uid N"; Command is what the operator
	// typed, such as "rotate". UID, GID and PID are what the kernel says of the operator's process, if
	// Peer is set.
	User     string
	Command  string
	Peer     bool
	UID, GID uint32
	PID      int32
}

// Cause is why something is done.
type Cause string

// The causes.
const (
	BySchedule Cause = "schedule" // a slot, also one that is caught up
	ByRetry    Cause = "retry"    // an attempt before it failed
	ByRecovery Cause = "recovery" // a crash, a doubt or a lost secret before it
	ByOperator Cause = "operator" // a person, by a command or a signal
	ByDaemon   Cause = "daemon"   // the daemon itself, as it looks at the world
	ByOutside  Cause = "outside"  // another person or program, at Cloudflare
)

// Causes are all of them.
var Causes = []Cause{BySchedule, ByRetry, ByRecovery, ByOperator, ByDaemon, ByOutside}

// Daemon is the daemon as an actor.
var Daemon = Actor{Cause: ByDaemon}

// Operator returns a person of whom only the name is known. It may be empty.
func Operator(user string) Actor { return Actor{Cause: ByOperator, User: user} }

// String returns who it was in a few words.
func (a Actor) String() string {
	if a.Cause != ByOperator {
		return string(a.Cause)
	}
	return cmp.Or(a.User, "an operator")
}

// name returns the user's name; empty if only the number is known.
func (a Actor) name() string {
	if a.Peer && a.User == UserOf(a.UID, "") {
		return ""
	}
	return a.User
}

// UserOf returns the name of a user for [Actor.User]: the given one, or the number where the system knows no name.
func UserOf(uid uint32, name string) string { return cmp.Or(name, fmt.Sprintf("uid %d", uid)) }

type actorKey struct{}

// WithActor returns a context for what is done in the name of a.
func WithActor(ctx context.Context, a Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

// ActorFrom returns in whose name something is done, and false if the context does not say.
func ActorFrom(ctx context.Context) (Actor, bool) {
	a, ok := ctx.Value(actorKey{}).(Actor)
	return a, ok
}
