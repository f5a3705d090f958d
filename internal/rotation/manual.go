package rotation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rotatord/internal/event"
)

// Overrides say what must not delay a rotation that an operator asks for.
type Overrides struct {
	Freeze bool `json:"override_freeze,omitempty"`
	Pause  bool `json:"override_pause,omitempty"`
	// Grace lets a rotation cut off a previous secret that was promised more time.
	Grace bool `json:"override_grace,omitempty"`
	// RevokeNow revokes the previous secret with the rotation, because it may have leaked. It
	// includes all of the above.
	RevokeNow bool `json:"revoke_now,omitempty"`
}

// all returns o with the overrides that RevokeNow includes.
func (o Overrides) all() Overrides {
	if o.RevokeNow {
		o.Freeze, o.Pause, o.Grace = true, true, true
	}
	return o
}

// with returns the overrides of both.
func (o Overrides) with(other Overrides) Overrides {
	return Overrides{
		Freeze: o.Freeze || other.Freeze, Pause: o.Pause || other.Pause, Grace: o.Grace || other.Grace,
		RevokeNow: o.RevokeNow || other.RevokeNow,
	}.all()
}

// ErrNotRotated is in the error of RotateNow if a rotation is not allowed now.
var ErrNotRotated = errors.New("not rotated")

// RotateNow rotates a token for an operator, outside of its schedule, and returns the record after that.
// The error is nil if the new secret was delivered. ErrNotRotated is in the error if the rotation is not
// allowed and o does not override the reason; then nothing was changed.
//
// It is tried once. A rotation that fails before its request was sent is not tried again later,
// when the operator no longer expects it. One whose request was sent is finished like any other
// rotation, by the daemon if it cannot be finished now. It serves the slots that were due. For
// @every the period starts again.
//
// With RevokeNow it is an [Order], given by that operator: it is tried until it has succeeded, and
// both service tokens of a pair are rotated, one after the other. It resolves a doubt, accepts a
// secret that is refused where it is tried, and gives up a secret that was overtaken. Only a rotation
// whose new secret can still be delivered is finished before it: then ErrFinishedFirst is in the error.
func (r *Rotator) RotateNow(ctx context.Context, t Token, o Overrides, by string) (Record, error) {
	e, err := r.openPatiently(ctx, t)
	defer e.close()
	if err != nil {
		return e.record, err
	}
	if e.actor.Cause == "" {
		e.actor = event.Operator(by)
	}
	o, before := o.all(), e.record
	a := &attempt{entry: e, began: r.now(), order: e.record.Order, manual: !o.RevokeNow}
	if err := e.mayRotateNow(o); err != nil {
		return before, err
	}
	if !o.RevokeNow {
		if err := a.claim(ctx); err != nil {
			return a.record, err
		}
		err = a.run(ctx)
		return a.record, err
	}
	if err := e.order(ctx, o, by, 0); err != nil {
		return before, err
	}
	if a.record.Step != StepIdle {
		return a.record, a.finishedFirst()
	}
	for err == nil && a.record.Order != nil && a.record.Step == StepIdle {
		left := a.record.Order.Left
		a.claimed, a.reported = false, false
		err = a.run(ctx)
		if a.record.Order != nil && a.record.Order.Left == left {
			break // the daemon does the rest
		}
	}
	return a.record, err
}

// mayRotateNow returns an error that says why a rotation is not allowed now; nil if it is allowed.
func (e *entry) mayRotateNow(o Overrides) error {
	now, name := e.now(), e.token.Name
	switch {
	case o.RevokeNow && e.record.Step != StepIdle:
		return nil
	case e.record.Step != StepIdle:
		return e.inProgress()
	case e.token.Uncreated(e.record):
		if pause := e.PauseOf(name); pause.On() {
			return fmt.Errorf("%w: the service token of %s is not created yet, and the token is paused%s: rotatord status %s says how to resume it", ErrNotRotated, name, until(pause.Until), name)
		}
		return fmt.Errorf("%w: the service token of %s is not created yet; the daemon will create it%s: rotatord status %s", ErrNotRotated, name, because(e.record), name)
	case e.record.owed():
		return nil
	}
	if pause := e.PauseOf(name); pause.On() && !o.Pause {
		return fmt.Errorf("%w: %s is paused%s: resume it, or rotate anyway with --override-pause", ErrNotRotated, name, until(pause.Until))
	}
	if end, freeze := e.token.Timetable.FrozenUntil(now); freeze != "" && !o.Freeze {
		return fmt.Errorf("%w: the freeze %s lasts%s: wait, or rotate anyway with --override-freeze", ErrNotRotated, freeze, until(end))
	}
	if last := e.record.Last; last != nil && now.Before(last.GraceEndsAt) && !o.Grace {
		return fmt.Errorf("%w: the previous secret of %s was promised to work%s, and rotating now cuts it off: "+
			"wait, or rotate anyway with --override-grace", ErrNotRotated, name, until(last.GraceEndsAt))
	}
	return nil
}

// ErrFinishedFirst is in the error of RotateNow if the order is stored, and is carried out after the
// rotation in progress.
var ErrFinishedFirst = errors.New("it is ordered, and is done after the rotation in progress")

// finishedFirst returns an error for an order that revokes. It says what the order waits for, and what the
// operator can do until then.
func (e *entry) finishedFirst() error {
	name := e.token.Name
	how := fmt.Sprintf("see rotatord status %s", name)
	if end := e.record.movableEnd(); end != nil && e.now().Before(*end) {
		how = fmt.Sprintf("to revoke the old secret before that, although consumers cannot read the new one yet: rotatord revoke-previous %s --override-in-use", name)
	}
	return fmt.Errorf("%w (%s since %s%s): %s", ErrFinishedFirst, e.StateOf(e.token, e.record), e.record.inProgressSince(), because(e.record), how)
}

// inProgressSince returns when the state of a rotation in progress began, as far as that is known.
func (r Record) inProgressSince() string {
	work, at := r.Work, time.Time{}
	switch {
	case r.Doubt != nil:
		at = r.Doubt.Since
	case work.Overtaken != nil:
		at = work.Overtaken.Since
	case r.Step == StepStored && !work.Verification.Since.IsZero():
		at = work.Verification.Since
	case !work.SealedAt.IsZero():
		at = work.SealedAt
	default:
		at = work.Began
	}
	return at.UTC().Format(time.RFC3339)
}

// inProgress returns an error that says why no rotation can start during another one, and what to type.
func (e *entry) inProgress() error {
	name, state := e.token.Name, e.StateOf(e.token, e.record)
	text := ""
	switch state {
	case StateDoubt:
		text = fmt.Sprintf("%s is in doubt since %s, and rotating could cut off the secret that works: rotatord resolve %s", name, e.record.inProgressSince(), name)
	case StateOvertaken:
		text = fmt.Sprintf("the new secret of %s was overtaken (since %s%s): rotatord resolve %s, and --drop, --deliver or --rotate-now", name, e.record.inProgressSince(), because(e.record), name)
	case StateUnverified:
		text = fmt.Sprintf("the new secret of %s is in every sink and not accepted where it is tried (since %s%s): rotatord resolve %s, and --accept or --rotate-now",
			name, e.record.inProgressSince(), because(e.record), name)
	default:
		text = fmt.Sprintf("a rotation of %s is in progress (%s since %s%s): rotatord status %s", name, state, e.record.inProgressSince(), because(e.record), name)
	}
	return fmt.Errorf("%w: %s", ErrNotRotated, text)
}

func until(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " until " + t.UTC().Format(time.RFC3339)
}
