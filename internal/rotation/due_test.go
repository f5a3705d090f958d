package rotation_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
)

// clock returns a time in January 2000. A bubble begins on Saturday, 1 January 2000, at midnight UTC.
func clock(s string) time.Time {
	at, err := time.Parse("02 15:04:05", s)
	if err != nil {
		panic(err)
	}
	return at.AddDate(2000, 0, 0)
}

// scheduled runs test in a new world, with an enrolled token that has this schedule. set may change the token
// before it is enrolled.
func scheduled(t *testing.T, expression string, set func(*rotation.Token), test func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		token := w.token(0)
		token.Timetable.Schedule = mustParse(t, expression)
		if set != nil {
			set(&token)
		}
		r := w.start()
		if _, err := r.Enroll(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		test(t, w, token, r)
	})
}

func mustParse(t testing.TB, expression string) *scheduler.Schedule {
	t.Helper()
	s, err := scheduler.Parse(expression, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func freeze(from, to string, skip bool) []scheduler.Freeze {
	return []scheduler.Freeze{{Name: "move", From: clock(from), To: clock(to), Skip: skip}}
}

// runUntil does what the daemon does with a token, until its wall clock shows the time.
func (w *world) runUntil(r *rotation.Rotator, token rotation.Token, until string) {
	w.t.Helper()
	for range 10_000 {
		due := r.Due(token, w.record())
		at := due.At
		if due.Wake.After(w.now()) && (due.Unscheduled || due.Wake.Before(at)) {
			at, due.Unscheduled = due.Wake, false
		}
		if due.Unscheduled || at.After(clock(until)) {
			time.Sleep(clock(until).Sub(w.now()))
			return
		}
		time.Sleep(at.Sub(w.now()))
		if late := w.now().Sub(at) > time.Minute; late || due.At.After(w.now()) || due.Reason == rotation.DuePaused {
			if record, err := r.CatchUp(w.t.Context(), token); err != nil || r.Due(token, record).At.After(w.now()) {
				continue
			}
		}
		_, _ = r.Advance(w.t.Context(), token)
	}
	w.t.Fatal("the daemon does not reach the time")
}

// rotationsBegun returns the rotations that began so far, in the form "trigger at time for slot".
func (w *world) rotationsBegun() (all []string) {
	for _, record := range w.steps {
		if work := record.Work; record.Step == rotation.StepClaimed {
			all = append(all, fmt.Sprintf("%s at %s for %s", work.Trigger, work.Began.Format("02 15:04:05"), work.Slot.Format("02 15:04:05")))
		}
	}
	return all
}

// wantRotations compares all rotations that began so far.
func (w *world) wantRotations(want ...string) {
	w.t.Helper()
	if diff := cmp.Diff(want, w.rotationsBegun()); diff != "" {
		w.t.Errorf("rotations (-want +got):\n%s", diff)
	}
}

// tokensMissed returns the tokens of these events, in the same order as slotsMissed.
func (w *world) tokensMissed() (all []string) {
	for _, e := range w.events {
		if e.Kind == event.SlotsMissed {
			all = append(all, e.Token)
		}
	}
	return all
}

// slotsMissed returns the events about slots that no rotation served.
func (w *world) slotsMissed() (all []event.Missed) {
	for _, e := range w.events {
		if e, ok := e.Detail.(event.Missed); ok {
			all = append(all, e)
		}
	}
	return all
}

func (w *world) wantMissed(want ...event.Missed) {
	w.t.Helper()
	if diff := cmp.Diff(want, w.slotsMissed()); diff != "" {
		w.t.Errorf("slots missed (-want +got):\n%s", diff)
	}
}

// failUntil makes the calls of that name fail until a time.
func (w *world) failUntil(call, until string) {
	w.fault = func(_ int, c string) fault {
		if c == call && w.now().Before(clock(until)) {
			return fault{before: errors.New("vault is sealed")}
		}
		return fault{}
	}
}

// TestWindow: a slot that fails is tried again inside its window, one more time just before the window ends, and
// is then given up or caught up later, as catch_up says.
func TestWindow(t *testing.T) {
	const window = 30 * time.Minute
	for _, skip := range []bool{false, true} {
		t.Run(fmt.Sprint("skip=", skip), func(t *testing.T) {
			scheduled(t, "0 4 * * *", func(token *rotation.Token) {
				token.Timetable.Window, token.Timetable.SkipMissed = window, skip
			}, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
				w.failUntil("sink preflight", "01 05:00:00")
				w.runUntil(r, token, "02 04:00:00")
				var tries []time.Duration // after the slot
				for _, record := range w.steps {
					if record.Step == rotation.StepClaimed && record.Work.Slot.Equal(clock("01 04:00:00")) {
						tries = append(tries, record.Work.Began.Sub(clock("01 04:00:00")))
					}
				}
				inside := slices.DeleteFunc(slices.Clone(tries), func(d time.Duration) bool { return d > window })
				if len(inside) < 10 || inside[0] != 0 || inside[1] > time.Second {
					t.Errorf("tried after %s", tries)
				}
				if left := window - inside[len(inside)-1]; left < 5*time.Second || left > 2*time.Minute {
					t.Errorf("the last try is %s before the end of the window", left)
				}
				began := w.rotationsBegun()
				if last := began[len(began)-1]; last != "schedule at 02 04:00:00 for 02 04:00:00" {
					t.Errorf("the next day: %s", last)
				}
				if skip {
					if len(inside) != len(tries) {
						t.Errorf("tried %s after the slot, with a window of %s", tries, window)
					}
					w.wantMissed(event.Missed{Count: 1, GivenUp: true})
					if w.rotates != 1 {
						t.Errorf("%d rotates", w.rotates)
					}
					return
				}
				if last := tries[len(tries)-1]; last < time.Hour || last > time.Hour+10*time.Minute || w.rotates != 2 {
					t.Errorf("served %s after the slot, %d rotates", last, w.rotates)
				}
				w.wantMissed(event.Missed{Count: 1}) // and it was caught up
			})
		})
	}
}

// TestWindowBeginsAfterJitter: the window begins when the slot begins, which is after the jitter.
func TestWindowBeginsAfterJitter(t *testing.T) {
	scheduled(t, "0 4 * * *", func(token *rotation.Token) {
		token.Timetable.Window, token.Timetable.SkipMissed, token.Timetable.Jitter = time.Minute, true, 3*time.Hour
	}, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		begin := clock("01 04:00:00").Add(token.Timetable.Delay(clock("01 04:00:00")))
		w.runUntil(r, token, "01 12:00:00")
		w.wantRotations("schedule at " + begin.Format("02 15:04:05") + " for 01 04:00:00")
		w.wantMissed()
		if first := w.record().Last.At; !first.Equal(begin) {
			t.Errorf("it began at %s, want exactly %s", first, begin)
		}
	})
}

// TestFreezeDefers: the slots that a freeze defers begin after its end, and not all at the same moment.
func TestFreezeDefers(t *testing.T) {
	scheduled(t, "0 4 * * *", func(token *rotation.Token) {
		token.Timetable.Freezes = freeze("01 03:00:00", "01 06:00:00", false)
	}, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		due := r.Due(token, w.record())
		if due.Reason != rotation.DueFreeze || due.Freeze != "move" || !due.Slot.Equal(clock("01 04:00:00")) {
			t.Fatalf("%+v", due)
		}
		begin := token.Timetable.Firing(due.Slot).Begin
		w.runUntil(r, token, "02 04:00:00")
		w.wantRotations("schedule at "+begin.Format("02 15:04:05")+" for 01 04:00:00", "schedule at 02 04:00:00 for 02 04:00:00")
		w.wantMissed()

		minutes := map[int]int{}
		for i := range 500 {
			token.Timetable.Key = fmt.Sprint("token-", i)
			due := rotation.NextDue(token, rotation.Record{Anchor: clock("01 00:00:00")}, rotation.Pause{})
			after := due.At.Sub(clock("01 06:00:00"))
			if after < 0 || after >= 10*time.Minute || !due.At.Equal(due.Begin) {
				t.Fatalf("%s after the freeze: %+v", after, due)
			}
			minutes[int(after/time.Minute)]++
		}
		for minute := range 10 {
			if n := minutes[minute]; n < 20 || n > 90 {
				t.Errorf("%d of 500 begin in minute %d after the freeze", n, minute)
			}
		}
	})
}

// TestRetryWaitsForTheFreeze: a slot that failed before a freeze is not tried again during the freeze.
func TestRetryWaitsForTheFreeze(t *testing.T) {
	scheduled(t, "0 4 * * *", func(token *rotation.Token) {
		token.Timetable.Freezes = freeze("01 04:00:05", "01 06:00:00", false)
	}, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		w.failUntil("sink preflight", "01 05:00:00")
		w.runUntil(r, token, "01 12:00:00")
		tried := w.rotationsBegun()
		if len(tried) < 3 || len(tried) > 5 {
			t.Errorf("%q", tried)
		}
		thaw, _ := token.Timetable.Thaw(clock("01 04:00:00"), clock("01 05:00:00"))
		for i, line := range tried[1:] {
			in := strings.HasPrefix(line, "retry at 01 04:00:0")
			if want := fmt.Sprintf("retry at %s for 01 04:00:00", thaw.Format("02 15:04:05")); !in && line != want || in == (i == len(tried)-2) {
				t.Errorf("tried again: %s; want %s", line, want)
			}
		}
		if w.rotates != 1 {
			t.Errorf("%d rotates", w.rotates)
		}
	})
}

// TestFreezeBeganAfterTheTokenWasDue: the daemon handles a due token a little late, and a freeze has begun in
// the meantime. The token is not rotated during the freeze.
func TestFreezeBeganAfterTheTokenWasDue(t *testing.T) {
	for name, served := range map[string]string{"due": "01 04:00:00", "catching up": "01 16:00:00"} {
		t.Run(name, func(t *testing.T) {
			scheduled(t, "0 4 * * *", nil, func(t *testing.T, w *world, token rotation.Token, _ *rotation.Rotator) {
				time.Sleep(clock(served).Sub(w.now()))
				if name == "catching up" { // the catch-up has a time of its own, and the daemon dies before it
					record, err := w.start().Enroll(t.Context(), token)
					if err != nil || record.CatchUpAt.IsZero() {
						t.Fatalf("%v, %+v", err, record)
					}
					time.Sleep(record.CatchUpAt.Sub(w.now()))
				}
				token.Timetable.Freezes = []scheduler.Freeze{{Name: "move", From: w.now().Add(10 * time.Second), To: w.now().Add(5 * time.Hour)}}
				time.Sleep(30 * time.Second)
				r := w.start()
				if _, err := r.Enroll(t.Context(), token); err != nil {
					t.Fatal(err)
				}
				if _, err := r.Advance(t.Context(), token); err != nil || w.rotates != 0 {
					t.Fatalf("it was rotated during a freeze: %v", err)
				}
				due := r.Due(token, w.record())
				if end := token.Timetable.Freezes[0].To; due.At.Before(end) || due.At.After(end.Add(10*time.Minute)) || due.Reason != rotation.DueFreeze {
					t.Errorf("%+v", due)
				}
				w.runUntil(r, token, "02 03:00:00")
				w.wantRotations("catch_up at " + due.At.Format("02 15:04:05") + " for 01 04:00:00")
			})
		})
	}
}

// TestSlotSkippedByAFreezeStaysSkipped: a slot that a freeze skips is not served later, even if the freeze is
// over and is removed from the configuration.
func TestSlotSkippedByAFreezeStaysSkipped(t *testing.T) {
	frozen := func(token *rotation.Token) { token.Timetable.Freezes = freeze("01 03:00:00", "01 05:00:00", true) }
	scheduled(t, "0 4 * * *", frozen, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		if due := r.Due(token, w.record()); !due.Wake.Equal(clock("01 04:00:00")) || !due.At.Equal(clock("02 04:00:00")) {
			t.Errorf("%+v", due)
		}
		w.runUntil(r, token, "01 04:00:00")
		w.wantMissed(event.Missed{Frozen: 1})
		w.runUntil(r, token, "01 06:00:00")
		token.Timetable.Freezes = nil
		if _, err := r.Enroll(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		w.runUntil(r, token, "02 04:00:00")
		w.wantRotations("schedule at 02 04:00:00 for 02 04:00:00")
		w.wantMissed(event.Missed{Frozen: 1})
	})
	// A freeze that is removed before its slot comes delays nothing.
	scheduled(t, "0 4 * * *", frozen, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		w.runUntil(r, token, "01 03:30:00")
		token.Timetable.Freezes = nil
		if _, err := r.Enroll(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		w.runUntil(r, token, "01 05:00:00")
		w.wantRotations("schedule at 01 04:00:00 for 01 04:00:00")
	})
	// A daemon that was down during the freeze skips the slot when it starts.
	scheduled(t, "0 4 * * *", frozen, func(t *testing.T, w *world, token rotation.Token, _ *rotation.Rotator) {
		time.Sleep(6 * time.Hour)
		if _, err := w.start().EnrollAll(t.Context(), []rotation.Token{token}); err != nil {
			t.Fatal(err)
		}
		w.wantMissed(event.Missed{Frozen: 1})
		if anchor := w.record().Anchor; !anchor.Equal(clock("01 04:00:00")) {
			t.Errorf("slots are counted from %s", anchor)
		}
	})
}

// TestLastOfTheDeferredSlotsIsServed: if a freeze defers several slots, only the last one is served.
func TestLastOfTheDeferredSlotsIsServed(t *testing.T) {
	scheduled(t, "@every 1h", func(token *rotation.Token) {
		token.Timetable.Freezes = freeze("01 00:30:00", "01 04:30:00", false)
	}, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		w.runUntil(r, token, "01 05:00:00")
		began := w.record().Last.At
		if n := len(w.rotationsBegun()); n != 2 || !began.Equal(clock("01 05:00:00")) {
			t.Errorf("%q", w.rotationsBegun())
		}
		if first := w.rotationsBegun()[0]; !strings.HasPrefix(first, "schedule at 01 04:3") || !strings.HasSuffix(first, " for 01 04:00:00") {
			t.Errorf("after the freeze: %s", first)
		}
		w.wantMissed(event.Missed{Frozen: 3})
	})
}

// TestReissueIsNotDelayed: a freeze, a pause and a window that is over do not delay a doubt or its reissue.
func TestReissueIsNotDelayed(t *testing.T) {
	const grace = 40 * time.Minute
	scheduled(t, "0 4 * * *", func(token *rotation.Token) {
		token.Grace, token.Timetable.Window, token.Timetable.SkipMissed = grace, time.Minute, true
	}, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		w.frozenUpdatedAt = true // so that the daemon does not extend the grace
		w.fault = func(_ int, c string) fault {
			if c == "rotate" && w.rotates == 0 {
				return fault{after: &rotation.IssuerError{Class: rotation.Unknown, Operation: "rotate"}}
			}
			return fault{}
		}
		w.runUntil(r, token, "01 04:00:00")
		if w.record().Step != rotation.StepInDoubt {
			t.Fatalf("%+v", w.record())
		}
		token.Timetable.Freezes = freeze("01 04:00:00", "03 00:00:00", false)
		for _, name := range []string{"ci", rotation.AllTokens} {
			if err := r.Pause(t.Context(), name, rotation.Pause{Since: w.now()}); err != nil {
				t.Fatal(err)
			}
		}
		w.runUntil(r, token, "02 12:00:00")
		w.wantRotations("schedule at 01 04:00:00 for 01 04:00:00", "recovery at 01 04:20:00 for 01 04:00:00")
		if w.rotates != 2 || w.sink.ClientSecret.Reveal() != w.current {
			t.Errorf("%d rotates", w.rotates)
		}
	})
}
