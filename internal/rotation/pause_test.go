package rotation_test

import (
	"errors"
	"testing"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
)

// pause pauses a token from now until a time; without an end if until is empty.
func (w *world) pause(r *rotation.Rotator, name, until string) {
	w.t.Helper()
	p := rotation.Pause{Since: w.now().UTC(), Reason: "a move", By: "root"}
	if until != "" {
		p.Until = clock(until)
	}
	if err := r.Pause(w.t.Context(), name, p); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) resume(r *rotation.Rotator, name string) rotation.Pause {
	w.t.Helper()
	was, err := r.Resume(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	return was
}

// TestPause: slots wait until the pause is lifted. Then one rotation catches up.
func TestPause(t *testing.T) {
	scheduled(t, "0 * * * *", nil, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		w.pause(r, "ci", "")
		if due := r.Due(token, w.record()); !due.Unscheduled || due.Reason != rotation.DuePaused || !due.Slot.Equal(clock("01 01:00:00")) {
			t.Errorf("%+v", due)
		}
		w.runUntil(r, token, "01 05:30:00")
		w.wantRotations()
		if was := w.resume(r, "ci"); was.By != "root" || was.Reason != "a move" || !was.Since.Equal(clock("01 00:00:00")) {
			t.Errorf("lifted %+v", was)
		}
		if was := w.resume(r, "ci"); was.On() {
			t.Errorf("lifted again: %+v", was)
		}
		record, err := r.CatchUp(t.Context(), token)
		if after := record.CatchUpAt.Sub(w.now()); err != nil || after < 0 || after > 10*time.Minute {
			t.Errorf("the catch-up comes after %s: %v", after, err)
		}
		w.runUntil(r, token, "01 06:00:00")
		w.wantRotations("catch_up at "+record.CatchUpAt.Format("02 15:04:05")+" for 01 05:00:00", "schedule at 01 06:00:00 for 01 06:00:00")
		w.wantMissed(event.Missed{Count: 4})
	})
}

// TestPauseEnds: a pause is over at its end, and the slots that waited do not begin at the same moment.
func TestPauseEnds(t *testing.T) {
	scheduled(t, "0 * * * *", nil, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		w.pause(r, rotation.AllTokens, "01 02:15:00")
		due := r.Due(token, w.record())
		if due.Unscheduled || due.Reason != rotation.DuePaused || !due.At.Equal(clock("01 02:15:00")) {
			t.Errorf("%+v", due)
		}
		w.runUntil(r, token, "01 02:14:59")
		if p := r.PauseOf("ci"); !p.On() || len(r.Pauses()) != 1 {
			t.Errorf("%+v", p)
		}
		time.Sleep(time.Second)
		if p := r.PauseOf("ci"); p.On() || len(r.Pauses()) != 0 {
			t.Errorf("%+v, %v", p, r.Pauses())
		}
		record, err := r.CatchUp(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		if after := record.CatchUpAt.Sub(w.now()); after <= 0 || after > 10*time.Minute {
			t.Errorf("the catch-up comes after %s", after)
		}
		w.runUntil(r, token, "01 02:59:59")
		w.wantRotations("catch_up at " + record.CatchUpAt.Format("02 15:04:05") + " for 01 02:00:00")
	})
	// A pause that ends before the slot changes nothing.
	scheduled(t, "0 * * * *", nil, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		w.pause(r, "ci", "01 00:59:00")
		if due := r.Due(token, w.record()); !due.At.Equal(clock("01 01:00:00")) || due.Reason != rotation.DueSlot {
			t.Errorf("%+v", due)
		}
		w.runUntil(r, token, "01 01:00:00")
		w.wantRotations("schedule at 01 01:00:00 for 01 01:00:00")
	})
}

// TestPauseEndsInAFreeze: the slot waits for the end of both.
func TestPauseEndsInAFreeze(t *testing.T) {
	scheduled(t, "0 * * * *", func(token *rotation.Token) {
		token.Timetable.Freezes = freeze("01 02:00:00", "01 03:30:00", false)
	}, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		w.pause(r, "ci", "01 02:15:00")
		due := r.Due(token, w.record())
		if after := due.At.Sub(clock("01 03:30:00")); after < 0 || after > 10*time.Minute || due.Reason != rotation.DueFreeze || due.Freeze != "move" {
			t.Errorf("%+v", due)
		}
		w.runUntil(r, token, "01 03:45:00")
		if began := w.rotationsBegun(); len(began) != 1 || w.rotates != 1 || w.record().Last.At.Before(clock("01 03:30:00")) {
			t.Errorf("%q", began)
		}
	})
}

// TestPausesAreIndependent: a pause of all tokens and a pause of one token do not replace each other. Both stay in
// force after a restart.
func TestPausesAreIndependent(t *testing.T) {
	scheduled(t, "0 * * * *", nil, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		w.pause(r, "ci", "")
		w.pause(r, rotation.AllTokens, "01 04:00:00")
		other := token
		other.Name = "other"
		for range 2 {
			if p := r.PauseOf("ci"); !p.On() || !p.Until.IsZero() {
				t.Errorf("of ci: %+v, want the longer one", p)
			}
			if p := r.PauseOf("other"); !p.Until.Equal(clock("01 04:00:00")) || p.By != "root" {
				t.Errorf("of another: %+v", p)
			}
			if due := r.Due(other, w.record()); due.Reason != rotation.DuePaused || !due.At.Equal(clock("01 04:00:00")) {
				t.Errorf("of another: %+v", due)
			}
			if p := r.PauseOf(rotation.AllTokens); !p.Until.Equal(clock("01 04:00:00")) {
				t.Errorf("of all: %+v", p)
			}
			r = w.start()
		}
		w.resume(r, "ci")
		if p := r.PauseOf("ci"); !p.Until.Equal(clock("01 04:00:00")) {
			t.Errorf("after its own pause was lifted: %+v", p)
		}
		w.pause(r, "ci", "01 06:00:00")
		if p := r.PauseOf("ci"); !p.Until.Equal(clock("01 06:00:00")) {
			t.Errorf("the longer one: %+v", p)
		}
		w.pause(r, "ci", "01 03:00:00") // replaces its pause from before
		if p := r.PauseOf("ci"); !p.Until.Equal(clock("01 04:00:00")) {
			t.Errorf("the longer one: %+v", p)
		}
		w.resume(r, rotation.AllTokens)
		if p := r.PauseOf("ci"); !p.Until.Equal(clock("01 03:00:00")) || r.PauseOf("other").On() {
			t.Errorf("want its own pause: %+v", p)
		}
		w.runUntil(w.start(), token, "01 03:10:00")
		if w.rotates != 1 || w.record().Last.At.Before(clock("01 03:00:00")) {
			t.Errorf("%q", w.rotationsBegun())
		}
	})
}

// TestPauseThatCannotBeSaved: such a pause fails, because a restart would end it without notice.
func TestPauseThatCannotBeSaved(t *testing.T) {
	scheduled(t, "0 * * * *", nil, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		broken := func(_ int, c string) fault {
			if c == "save pauses" {
				return fault{before: errors.New("no space left on device")}
			}
			return fault{}
		}
		w.fault = broken
		if err := r.Pause(t.Context(), "ci", rotation.Pause{Since: w.now()}); !errors.Is(err, rotation.ErrLedger) || r.PauseOf("ci").On() {
			t.Errorf("%v, %+v", err, r.PauseOf("ci"))
		}
		w.fault = nil
		w.pause(r, "ci", "")
		w.fault = broken
		if _, err := r.Resume(t.Context(), "ci"); !errors.Is(err, rotation.ErrLedger) || !r.PauseOf("ci").On() {
			t.Errorf("%v, %+v", err, r.PauseOf("ci"))
		}
	})
}

// TestPauseLetsARotationFinish: a rotation in progress is finished although its token is paused.
func TestPauseLetsARotationFinish(t *testing.T) {
	scheduled(t, "0 * * * *", nil, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		w.failUntil("sink store", "01 01:20:00")
		w.runUntil(r, token, "01 01:05:00")
		if w.record().Step != rotation.StepSealed {
			t.Fatalf("%+v", w.record())
		}
		w.pause(r, "ci", "")
		w.runUntil(r, token, "01 09:00:00")
		w.wantRotations("schedule at 01 01:00:00 for 01 01:00:00")
		if w.record().Step != rotation.StepIdle || w.sink.ClientSecret.Reveal() != w.current {
			t.Errorf("%+v", w.record())
		}
	})
}
