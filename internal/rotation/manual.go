package rotation

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Overrides are what an operator rotates in spite of.
type Overrides struct {
	Freeze bool `json:"override_freeze,omitempty"`
	Pause  bool `json:"override_pause,omitempty"`
	// Grace lets a rotation cut off a previous secret that was promised more time.
	Grace bool `json:"override_grace,omitempty"`
	// RevokeNow revokes the previous secret with the rotation, since somebody else may have it.
	// It takes all of the above with it.
	RevokeNow bool `json:"revoke_now,omitempty"`
}

// all returns what o comes to.
func (o Overrides) all() Overrides {
	if o.RevokeNow {
		o.Freeze, o.Pause, o.Grace = true, true, true
	}
	return o
}

// with returns what o and another come to.
func (o Overrides) with(other Overrides) Overrides {
	return Overrides{
		Freeze: o.Freeze || other.Freeze, Pause: o.Pause || other.Pause, Grace: o.Grace || other.Grace,
		RevokeNow: o.RevokeNow || other.RevokeNow,
	}.all()
}

// ErrHeldUp is in the error of RotateNow when something speaks against a rotation now.
var ErrHeldUp = errors.New("not rotated")

// RotateNow rotates a token for an operator, outside of its schedule, and returns its record
// as it then stands. The error is nil if the new secret was delivered. It has ErrHeldUp in
// it if something that o does not override speaks against it; then nothing was changed.
//
// It is tried once. What fails before a request was sent is not tried again later, when
// nobody expects it any more; what was sent is finished like any other rotation, and by the
// daemon if it cannot be finished now. Slots that were due are served by it. For @every the
// period begins anew.
//
// With RevokeNow it is an [Order] of by's: what fails is tried again, for as long as it takes,
// and of a pair both are rotated, one after the other. Neither a doubt nor a rotation in hand
// stands in its way: the first is settled by it, and the second is finished before it, which
// the error says.
func (r *Rotator) RotateNow(ctx context.Context, t Token, o Overrides, by string) (Record, error) {
	defer r.lock(t.Name)()
	record, err := r.load(ctx, t)
	if err != nil {
		return record, err
	}
	o = o.all()
	a := &attempt{Rotator: r, token: t, record: record.clone(), began: r.now(), manual: !o.RevokeNow}
	if err := a.mayRotateNow(o); err != nil {
		return record, err
	}
	if o.RevokeNow {
		if err := a.order(ctx, o, by, 0); err != nil {
			return record, err
		}
		if a.record.Step != StepIdle {
			return a.record, fmt.Errorf("a rotation of %s was in hand already (%s), and is finished first", t.Name, a.record.Step)
		}
		for err == nil && a.record.Order != nil && a.record.Step == StepIdle {
			left := a.record.Order.Left
			a.claimed, a.reported = false, false
			err = a.run(ctx)
			if a.record.Order != nil && a.record.Order.Left == left {
				break // the rest is the daemon's
			}
		}
		return a.record, err
	}
	if err := a.claim(ctx); err != nil {
		return a.record, err
	}
	err = a.run(ctx)
	return a.record, err
}

// mayRotateNow returns what speaks against it.
func (a *attempt) mayRotateNow(o Overrides) error {
	now, name := a.now(), a.token.Name
	switch {
	case o.RevokeNow && a.record.Step != StepIdle:
		return nil
	case a.record.Step == StepInDoubt:
		return fmt.Errorf("%w: %s is in doubt, and rotating could cut off the secret that works: look at it with rotatord resolve %s", ErrHeldUp, name, name)
	case a.record.Step != StepIdle:
		return fmt.Errorf("%w: a rotation of %s is in hand already (%s), and is finished first: see rotatord status %s", ErrHeldUp, name, a.record.Step, name)
	case a.token.Unmade(a.record):
		return fmt.Errorf("%w: the service token of %s is not made yet: see rotatord status %s", ErrHeldUp, name, name)
	case a.record.owed():
		return nil
	}
	if pause := a.PauseOf(name); pause.On() && !o.Pause {
		return fmt.Errorf("%w: %s is paused%s: resume it, or rotate all the same with --override-pause", ErrHeldUp, name, until(pause.Until))
	}
	if end, freeze := a.token.Timetable.Frozen(now); freeze != "" && !o.Freeze {
		return fmt.Errorf("%w: the freeze %s lasts%s: wait, or rotate all the same with --override-freeze", ErrHeldUp, freeze, until(end))
	}
	if last := a.record.Last; last != nil && now.Before(last.GraceEndsAt) && !o.Grace {
		return fmt.Errorf("%w: the previous secret of %s was promised to work%s, and rotating now cuts it off: "+
			"wait, or rotate all the same with --override-grace", ErrHeldUp, name, until(last.GraceEndsAt))
	}
	return nil
}

func until(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " until " + t.UTC().Format(time.RFC3339)
}
