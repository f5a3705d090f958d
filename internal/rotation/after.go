package rotation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/failpoint"
	"rotatord/internal/moment"
	"rotatord/internal/secret"
)

// This file keeps account of the hooks of a token: what runs after a rotation, so that consumers learn of the new
// secret. What a hook does is not known here.
//
// The record that commits a rotation says which hooks are owed. A hook is owed until the record says that it has
// succeeded, so no crash loses one. Before a hook runs, the record says that it is about to run. After a crash between
// the two it runs again, and its attempt is one higher. A newer rotation replaces what is owed for an older one. No
// rotation waits for a hook: the token is open only for the two saves, and not while the hook runs.

// Hook is something that runs after each rotation of a token.
type Hook struct {
	// Name identifies it in the ledger, in logs and in status; it does not change between runs.
	Name string
	// Batch is how long after a rotation it waits, so that one run can serve several tokens; 0 for not at all.
	Batch time.Duration
}

// After is what follows a rotation.
type After struct {
	RotationID string        `json:"rotation_id"`
	Digest     secret.Digest `json:"digest,omitempty"`
	At         time.Time     `json:"at"` // when the rotation was done, or when an operator wanted something again
	Hooks      []OwedHook    `json:"hooks"`
}

// OwedHook is one hook of a token. The zero OwedHook is not owed.
type OwedHook struct {
	Name string `json:"name"`
	// Since is since when consumers wait for it: since the first rotation for which it did not succeed.
	Since time.Time `json:"since"`
	// DoneAt is when it has succeeded; zero while it is owed.
	DoneAt time.Time `json:"done_at,omitzero"`
	// Again counts how often an operator wanted it again for this rotation.
	Again int `json:"again,omitempty"`
	// Attempts counts the runs for this rotation that were begun, and Failures those in a row that failed.
	// Replaced counts the rotations for which it did not succeed before the next one came.
	Attempts int `json:"attempts,omitempty"`
	Failures int `json:"failures,omitempty"`
	Replaced int `json:"replaced,omitempty"`
	// NotBefore is when the next run may begin, and LastError why the last one failed.
	NotBefore time.Time `json:"not_before,omitzero"`
	LastError string    `json:"last_error,omitempty"`
	// Began and Runner say when a run was begun, and by which process; zero and nil if none is in progress. It may be a
	// run for the rotation before: the next run begins after its end.
	Began  time.Time `json:"began,omitzero"`
	Runner *Hold     `json:"runner,omitempty"`
}

// Owed reports whether it is still to be done.
func (h OwedHook) Owed() bool { return h.Name != "" && h.DoneAt.IsZero() }

// isRun reports whether the run in progress is that one.
func (h OwedHook) isRun(run HookRun) bool {
	return h.Runner != nil && h.Runner.Process == run.by && h.Began.Equal(run.noted)
}

func (a *After) index(name string) int {
	if a == nil {
		return -1
	}
	return slices.IndexFunc(a.Hooks, func(h OwedHook) bool { return h.Name == name })
}

// hook returns what is known of a hook.
func (a *After) hook(name string) OwedHook {
	if i := a.index(name); i >= 0 {
		return a.Hooks[i]
	}
	return OwedHook{}
}

// OwedHooks returns the hooks that are owed for the last rotation of a token.
func (r Record) OwedHooks() (owed []OwedHook) {
	if r.After == nil {
		return nil
	}
	for _, h := range r.After.Hooks {
		if h.Owed() {
			owed = append(owed, h)
		}
	}
	return owed
}

// ID identifies what a hook is owed for: a rotation, and how often an operator wanted it again. A receiver that has
// seen it has seen the rotation.
func (a *After) ID(h OwedHook) string {
	if h.Again == 0 {
		return a.RotationID
	}
	return fmt.Sprintf("%s.%d", a.RotationID, h.Again+1)
}

// How long another replica waits for the end of a run: hookSlack longer than the timeout of the hook. A run is not begun
// later than hookStart after the note that it begins, so it has ended by then.
const (
	hookSlack = time.Minute
	hookStart = 30 * time.Second
)

// HookAt returns from when on this process may run an owed hook of a token. If the run of another replica may go on, that
// is when it must have ended.
func (r *Rotator) HookAt(token string, h OwedHook) time.Time {
	if left := r.runLeft(token, h); left > 0 {
		return moment.Max(h.NotBefore, r.now().Add(left))
	}
	return h.NotBefore
}

// runLeft returns for how long the run of another replica may go on; 0 if none does. The run of a process before this one
// has ended with it.
func (r *Rotator) runLeft(token string, h OwedHook) time.Duration {
	if r.replica == nil || !r.replica.isForeign(h.Runner) {
		return 0
	}
	return max(0, r.shared.RunLeft(token, h))
}

// HookRun is a run of a hook that the ledger knows to have begun.
type HookRun struct {
	Token      string
	Hook       string // its name
	ID         string // see [After.ID]
	RotationID string
	Digest     secret.Digest
	Attempt    int // 1 for the first

	noting time.Time // before the note that it begins
	noted  time.Time // what the note says
	by     string    // the process
}

// MayRunHook returns why a run must not be begun any more, although the ledger says that it is: this process was stopped
// since then for so long that another replica may have taken it over. It is asked at the last moment before a program is
// started or a request leaves: see [WithSendCheck].
func (r *Rotator) MayRunHook(run HookRun) error {
	if r.replica == nil || passed(run.noting, r.now()) <= hookStart || failpoint.Off("hook.start") {
		return nil
	}
	return fmt.Errorf("%w: its hook was not begun within %s", ErrNotHeld, hookStart)
}

// passed returns the longer of the times that the monotonic clock and the wall clock show between two moments: the
// monotonic clock stands still while a machine is suspended, and the wall clock can be set back.
func passed(from, to time.Time) time.Duration {
	return max(to.Sub(from), to.Round(0).Sub(from.Round(0)))
}

// ErrBusy is in the error of a call that does not wait for the work on a token.
var ErrBusy = errors.New("the token is being worked on")

// BeginHook notes that a hook which is due, or with early also one that is only owed, runs now, with that timeout. It
// returns the run, with the token's record after that; nil if it is not due any more. It does not wait for a token that
// is being worked on: see [ErrBusy].
func (r *Rotator) BeginHook(ctx context.Context, t Token, name string, timeout time.Duration, early bool) (*HookRun, Record, error) {
	e, err := r.tryOpen(ctx, t)
	if e == nil {
		return nil, Record{}, ErrBusy
	}
	defer e.close()
	if err != nil {
		return nil, e.record, err
	}
	after, noting := e.record.After, e.now()
	owed, now := after.hook(name), noting.UTC()
	if !owed.Owed() || owed.NotBefore.After(now) && !early || r.runLeft(t.Name, owed) > 0 {
		return nil, e.record, nil
	}
	by := &Hold{Replica: r.owner, Process: r.owner, For: Grace(timeout + hookSlack)}
	if r.replica != nil {
		by = r.replica.hold(timeout + hookSlack)
	}
	failpoint.Reach("hook.begin.before")
	err = e.save(ctx, e.record.hookBegun(name, by, now))
	failpoint.Reach("hook.begin.after")
	if err != nil {
		return nil, e.record, fmt.Errorf("%w: noting that a hook runs: %w", ErrLedger, err)
	}
	return &HookRun{Token: t.Name, Hook: name, ID: after.ID(owed), RotationID: after.RotationID, Digest: after.Digest,
		Attempt: owed.Attempts + 1, noting: noting, noted: now, by: by.Process}, e.record, nil
}

// HookEnd is how a run of a hook has ended.
type HookEnd struct {
	// Err is why it failed; nil if it succeeded. CutOff is set if the daemon ended it because it stops.
	Err    error
	CutOff bool
	Took   time.Duration
	// Tokens is how many tokens the run has served.
	Tokens int
}

// EndHook notes how a run has ended. It waits for the token. It may be repeated if it fails: until it succeeds, the
// hook counts as not run.
func (r *Rotator) EndHook(ctx context.Context, t Token, run HookRun, end HookEnd) (Record, error) {
	e, err := r.open(ctx, t)
	defer e.close()
	if err != nil {
		return e.record, err
	}
	now := e.now().UTC()
	owed := e.record.After.hook(run.Hook)
	current := e.record.After != nil && e.record.After.ID(owed) == run.ID && owed.Owed()
	next, tryAt := e.record, time.Time{}
	switch {
	case end.CutOff:
		next = next.hookCutOff(run.Hook, now)
	case end.Err != nil:
		tryAt = now.Add(choreBackOff(owed.Failures + 1))
		next = next.hookFailed(run.Hook, end.Err.Error(), tryAt)
	default:
		next = next.hookDone(run.Hook, now)
	}
	takenOver := owed.Attempts > run.Attempt // by a later run, which may go on
	if !current {                            // a newer rotation has replaced it, and the hook runs again for that one
		next = e.record.hookRunEnded(run)
	}
	if current && (end.Err == nil || !takenOver) || !current && owed.isRun(run) {
		failpoint.Reach("hook.end.before")
		err := e.save(ctx, next)
		failpoint.Reach("hook.end.after")
		if err != nil {
			return e.record, fmt.Errorf("%w: noting how a hook has ended: %w", ErrLedger, err)
		}
	}
	if !end.CutOff {
		e.tell(event.HookEnded{Hook: run.Hook, RotationID: run.RotationID, Digest: string(run.Digest), Attempt: run.Attempt, Err: end.Err, Duration: end.Took,
			Tokens: end.Tokens, Replaced: !current, Failures: e.record.After.hook(run.Hook).Failures, OwedSince: owed.Since, NextTry: tryAt})
	}
	return e.record, nil
}

// RunHooks has hooks of a token run again for its last rotation, or now if they are owed, for an operator. Without
// names it is all hooks that the token has.
func (r *Rotator) RunHooks(ctx context.Context, t Token, names []string) (Record, error) {
	e, err := r.openPatiently(ctx, t)
	defer e.close()
	if err != nil {
		return e.record, err
	}
	switch {
	case len(t.Hooks) == 0:
		return e.record, fmt.Errorf("%w: %s has no hooks: it has no section after", ErrUnfit, t.Name)
	case e.record.Last == nil:
		return e.record, fmt.Errorf("%w: %s was not rotated yet, so there is nothing that its hooks could follow", ErrUnfit, t.Name)
	}
	if names, err = t.hooksNamed(names); err != nil {
		return e.record, err
	}
	if err := e.save(ctx, e.record.hooksOrdered(names, e.now().UTC())); err != nil {
		return e.record, fmt.Errorf("%w: %w", ErrLedger, err)
	}
	return e.record, nil
}

// hooksNamed returns the names of the hooks that names are about: the whole name, or the kind, such as exec.
func (t Token) hooksNamed(names []string) (all []string, err error) {
	for _, h := range t.Hooks {
		fits := len(names) == 0
		for _, name := range names {
			fits = fits || h.Name == name || strings.HasPrefix(h.Name, name+":")
		}
		if fits {
			all = append(all, h.Name)
		}
	}
	if len(all) == 0 {
		var have []string
		for _, h := range t.Hooks {
			have = append(have, h.Name)
		}
		return nil, fmt.Errorf("%w: %s has no such hook: it has %s", ErrUnfit, t.Name, strings.Join(have, ", "))
	}
	return all, nil
}

// DropHooks gives up the hooks of a token that are owed, for an operator. They run again after the next rotation.
func (r *Rotator) DropHooks(ctx context.Context, t Token) (Record, error) {
	e, err := r.openPatiently(ctx, t)
	defer e.close()
	if err != nil {
		return e.record, err
	}
	owed := e.record.OwedHooks()
	if len(owed) == 0 {
		return e.record, fmt.Errorf("%w: no hook of %s is owed", ErrUnfit, t.Name)
	}
	return e.record, e.dropHooks(ctx, owed)
}

// DropUnknownHooks gives up the hooks that are owed and that the configuration does not have any more. It does not wait
// for a token that is being worked on.
func (r *Rotator) DropUnknownHooks(ctx context.Context, t Token) (Record, error) {
	e, err := r.tryOpen(ctx, t)
	if e == nil {
		return Record{}, ErrBusy
	}
	defer e.close()
	if err != nil {
		return e.record, err
	}
	unknown := t.unknownHooks(e.record)
	if len(unknown) == 0 {
		return e.record, nil
	}
	return e.record, e.dropHooks(ctx, unknown)
}

// unknownHooks returns the hooks that are owed and that the token does not have.
func (t Token) unknownHooks(r Record) (unknown []OwedHook) {
	for _, h := range r.OwedHooks() {
		if !t.HasHook(h.Name) {
			unknown = append(unknown, h)
		}
	}
	return unknown
}

// HasHook reports whether the token has a hook of that name.
func (t Token) HasHook(name string) bool {
	return slices.ContainsFunc(t.Hooks, func(h Hook) bool { return h.Name == name })
}

func (e *entry) dropHooks(ctx context.Context, hooks []OwedHook) error {
	var names []string
	for _, h := range hooks {
		names = append(names, h.Name)
	}
	id := e.record.After.RotationID
	if err := e.save(ctx, e.record.hooksDropped(names)); err != nil {
		return fmt.Errorf("%w: %w", ErrLedger, err)
	}
	for _, h := range hooks {
		e.tell(event.HookDrop{Hook: h.Name, RotationID: id, Since: h.Since})
	}
	return nil
}
