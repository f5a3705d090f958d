package rotation

import "context"

// Urgency says in which order requests share a budget that is short: a larger one goes first.
type Urgency int

// The urgencies. Without an urgency a request is routine.
const (
	UrgencyRoutine   Urgency = iota // listings and renewals, which can wait for days
	UrgencySlot                     // a slot of the schedule
	UrgencyCatchUp                  // slots that passed are made up for
	UrgencyClosing                  // the window of the slot is nearly over
	UrgencyManual                   // an operator waits for it
	UrgencyDoubt                    // consumers may be cut off some day
	UrgencyEmergency                // consumers are cut off, or will be before the next try
)

type urgencyKey struct{}

// WithUrgency returns a context whose requests to an issuer are that urgent.
func WithUrgency(ctx context.Context, u Urgency) context.Context {
	return context.WithValue(ctx, urgencyKey{}, u)
}

// UrgencyOf returns how urgent the requests of ctx are.
func UrgencyOf(ctx context.Context) Urgency {
	u, _ := ctx.Value(urgencyKey{}).(Urgency)
	return u
}

type withoutBackOffKey struct{}

// WithoutBackOff returns a context in which Advance does not wait for the back-off of a token whose secret
// is pending: the cause of the failure may be over.
func WithoutBackOff(ctx context.Context) context.Context {
	return context.WithValue(ctx, withoutBackOffKey{}, true)
}

func withoutBackOff(ctx context.Context) bool {
	return ctx.Value(withoutBackOffKey{}) != nil
}
