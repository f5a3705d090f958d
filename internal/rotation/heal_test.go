package rotation_test

import (
	"fmt"
	"rotatord/internal/event"
	"rotatord/internal/rotation"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestClockSetBack: a slot that was served is not served again when the clock shows its time again.
func TestClockSetBack(t *testing.T) {
	scheduled(t, "0 * * * *", nil, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		w.runUntil(r, token, "01 03:00:30")
		w.offset -= 2 * time.Hour
		if _, err := r.CatchUp(w.t.Context(), token); err != nil {
			t.Fatal(err)
		}
		w.runUntil(r, token, "01 03:59:59")
		w.wantRotations("schedule at 01 01:00:00 for 01 01:00:00", "schedule at 01 02:00:00 for 01 02:00:00", "schedule at 01 03:00:00 for 01 03:00:00")
		if waited := time.Since(clock("01 00:00:00")); waited != 5*time.Hour+59*time.Minute+59*time.Second {
			t.Fatalf("%s have passed", waited)
		}
		w.runUntil(r, token, "01 04:00:00")
		if last := w.rotationsBegun()[3]; last != "schedule at 01 04:00:00 for 01 04:00:00" {
			t.Errorf("the next slot: %s", last)
		}
		w.wantMissed()
	})
}

// TestClockSetForward: the slots that the clock jumps over are missed, and are caught up with one rotation.
func TestClockSetForward(t *testing.T) {
	scheduled(t, "0 * * * *", nil, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		w.runUntil(r, token, "01 01:30:00")
		w.offset += 5 * time.Hour
		record, err := r.CatchUp(w.t.Context(), token)
		if after := record.CatchUpAt.Sub(w.now()); err != nil || after < 0 || after > 10*time.Minute {
			t.Fatalf("%v, %s", err, after)
		}
		w.runUntil(r, token, "01 07:00:00")
		w.wantRotations("schedule at 01 01:00:00 for 01 01:00:00",
			"catch_up at "+record.CatchUpAt.Format("02 15:04:05")+" for 01 06:00:00", "schedule at 01 07:00:00 for 01 07:00:00")
		w.wantMissed(event.Missed{Count: 4})
	})
}

// TestClockWasAhead: a rotation on a clock that was ahead has served slots of the future. The daemon waits until
// they are over, but for a day at most: if they are further ahead, it heals the record.
func TestClockWasAhead(t *testing.T) {
	for _, ahead := range []time.Duration{20 * time.Hour, 400 * 24 * time.Hour} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprint(ahead, " restart=", restart), func(t *testing.T) {
				scheduled(t, "0 * * * *", nil, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
					w.offset = ahead
					record, err := r.CatchUp(w.t.Context(), token)
					if err != nil {
						t.Fatal(err)
					}
					time.Sleep(record.CatchUpAt.Sub(w.now()))
					if _, err := r.Advance(w.t.Context(), token); err != nil || w.rotates != 1 {
						t.Fatalf("%v, %d rotates", err, w.rotates)
					}
					consumed := w.record().Anchor
					w.offset = 0
					// Some time passes until the daemon notices.
					time.Sleep(clock("01 00:20:00").Sub(w.now()))
					if restart {
						r = w.start()
						_, err = r.Enroll(w.t.Context(), token)
					} else {
						_, err = r.CatchUp(w.t.Context(), token)
					}
					if err != nil {
						t.Fatal(err)
					}
					w.runUntil(r, token, "02 00:00:00")
					healed := slices.ContainsFunc(w.events, func(e event.Event) bool { _, ok := e.Detail.(event.Healed); return ok })
					if ahead < 24*time.Hour {
						// All slots until 20:00 count as served.
						if w.rotates != 1+4 || healed || w.rotationsBegun()[1] != "schedule at 01 21:00:00 for 01 21:00:00" {
							t.Errorf("healed: %t, %q", healed, w.rotationsBegun())
						}
						return
					}
					if w.rotates != 1+24 || !healed || w.rotationsBegun()[1] != "schedule at 01 01:00:00 for 01 01:00:00" {
						t.Errorf("served until %s, healed: %t, %q", consumed, healed, w.rotationsBegun())
					}
					reported := 0
					for _, e := range w.events {
						if e, ok := e.Detail.(event.Healed); ok {
							reported++
							if len(e.What) == 0 || !strings.HasPrefix(e.What[0], "slots were consumed until 2001-02-04T") {
								t.Errorf("%q", e.What)
							}
						}
					}
					if reported != 1 {
						t.Errorf("reported %d times, want 1", reported)
					}
				})
			})
		}
	}
}

// TestHealing: the daemon corrects the times in a record that only a clock that was ahead can have set, and no
// others.
func TestHealing(t *testing.T) {
	for _, test := range []struct {
		name  string
		spoil func(r *rotation.Record, now time.Time)
		want  time.Duration // from now to when it is due
	}{
		{"anchor", func(r *rotation.Record, now time.Time) { r.Anchor = now.Add(24*time.Hour + time.Second) }, time.Hour},
		{"anchor within a day", func(r *rotation.Record, now time.Time) { r.Anchor = now.Add(24 * time.Hour) }, 25 * time.Hour},
		{"back-off", func(r *rotation.Record, now time.Time) { r.Failures, r.NotBefore = 1, now.Add(2*time.Hour+time.Second) }, time.Hour},
		{"back-off within two hours", func(r *rotation.Record, now time.Time) { r.Failures, r.NotBefore = 1, now.Add(2*time.Hour) }, 2 * time.Hour},
		{"catching up", func(r *rotation.Record, now time.Time) { r.CatchUpAt = now.Add(62 * time.Minute) }, time.Hour},
		{"catching up within an hour", func(r *rotation.Record, now time.Time) { r.CatchUpAt = now.Add(61 * time.Minute) }, 61 * time.Minute},
		{"grace", func(r *rotation.Record, now time.Time) {
			r.Last = &rotation.Done{GraceEndsAt: now.Add(32 * 24 * time.Hour)}
		}, 5 * time.Hour},
		{"grace within a month", func(r *rotation.Record, now time.Time) {
			r.Last = &rotation.Done{GraceEndsAt: now.Add(31 * 24 * time.Hour)}
		}, 31 * 24 * time.Hour},
	} {
		t.Run(test.name, func(t *testing.T) {
			scheduled(t, "@every 1h", func(token *rotation.Token) { token.Grace = 5 * time.Hour }, func(t *testing.T, w *world, token rotation.Token, _ *rotation.Rotator) {
				time.Sleep(10 * time.Minute)
				now := w.now().UTC()
				record := w.record()
				record.Anchor = now
				test.spoil(&record, now)
				if _, err := w.Save(w.t.Context(), record); err != nil {
					t.Fatal(err)
				}
				r := w.start()
				enrolled, err := r.Enroll(w.t.Context(), token)
				if err != nil {
					t.Fatal(err)
				}
				if due := r.Due(token, enrolled); due.At.Sub(now) != test.want {
					t.Errorf("due in %s, want %s", due.At.Sub(now), test.want)
				}
				if diff := cmp.Diff(w.record(), enrolled); diff != "" {
					t.Errorf("the healed record is not saved:\n%s", diff)
				}
			})
		})
	}
}

// TestClockSetBackAndCorrected: the clock was set back by days, and then corrected. Slots that were served before
// are not served again.
func TestClockSetBackAndCorrected(t *testing.T) {
	scheduled(t, "0 * * * *", nil, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		w.runUntil(r, token, "01 03:10:00")
		w.offset -= 48 * time.Hour
		record, err := r.CatchUp(w.t.Context(), token)
		if err != nil || !record.Anchor.Equal(w.now()) {
			t.Fatalf("%v, counted from %s", err, record.Anchor)
		}
		time.Sleep(10 * time.Second)
		w.offset += 48 * time.Hour
		w.runUntil(r, token, "01 04:30:00")
		w.wantRotations("schedule at 01 01:00:00 for 01 01:00:00", "schedule at 01 02:00:00 for 01 02:00:00",
			"schedule at 01 03:00:00 for 01 03:00:00", "schedule at 01 04:00:00 for 01 04:00:00")
		w.wantMissed()
	})
}

// TestSlotServedWhileTheClockWasAhead: after healing, slots are counted from now on. But the slot that was served
// last is not served again when its time comes.
func TestSlotServedWhileTheClockWasAhead(t *testing.T) {
	scheduled(t, "0 4 * * *", nil, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		w.offset = 48 * time.Hour
		w.runUntil(r, token, "03 04:20:00") // first the slots that the clock jumped over, and then 3 January
		if !w.record().Last.Slot.Equal(clock("03 04:00:00")) {
			t.Fatalf("%q", w.rotationsBegun())
		}
		rotates := w.rotates
		w.offset = 0 // 1 January again
		if _, err := r.CatchUp(w.t.Context(), token); err != nil {
			t.Fatal(err)
		}
		if err := r.Pause(w.t.Context(), "ci", rotation.Pause{Since: w.now(), Until: clock("03 03:00:00")}); err != nil {
			t.Fatal(err)
		}
		record := w.record()
		if due := r.Due(token, record); due.Slot.Equal(record.Last.Slot) {
			t.Errorf("the slot is due again: %+v", due)
		}
		if err := r.Pause(w.t.Context(), "ci", rotation.Pause{Since: w.now(), Until: clock("03 05:00:00")}); err != nil {
			t.Fatal(err)
		}
		w.runUntil(r, token, "04 03:00:00")
		if w.rotates != rotates {
			t.Errorf("rotated again: %q", w.rotationsBegun())
		}
		w.runUntil(r, token, "04 04:00:00")
		if w.rotates != rotates+1 {
			t.Errorf("%d more rotates", w.rotates-rotates)
		}
	})
}

// TestClockIsFarFromCloudflareClock: the daemon does not know the right time, so no scheduled rotation begins.
// Rotations that an operator orders and reissues still begin.
func TestClockIsFarFromCloudflareClock(t *testing.T) {
	far := &rotation.IssuerError{Class: rotation.NotCarriedOut, Operation: "rotate", Err: rotation.ErrClock}
	scheduled(t, "0 * * * *", func(token *rotation.Token) { token.Grace = 40 * time.Minute }, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		lose := false
		w.frozenUpdatedAt = true
		w.fault = func(_ int, c string) fault {
			switch {
			case c == "ready":
				return fault{before: far}
			case c == "rotate" && lose:
				return fault{after: &rotation.IssuerError{Class: rotation.Unknown, Operation: "rotate"}}
			}
			return fault{}
		}
		w.runUntil(r, token, "01 01:30:00")
		attempts := w.attempts()
		if w.rotates != 0 || len(attempts) < 5 || attempts[0] != "schedule/skipped/preflight" || w.record().Failures != len(attempts) {
			t.Fatalf("%d rotates: %q", w.rotates, attempts)
		}
		if _, err := r.RotateNow(w.t.Context(), token, rotation.Overrides{}, "ops"); err != nil || w.rotates != 1 {
			t.Fatalf("an operator: %v, %d rotates", err, w.rotates)
		}
		time.Sleep(40 * time.Minute)
		lose = true
		if _, err := r.RotateNow(w.t.Context(), token, rotation.Overrides{}, "ops"); err == nil || w.record().Step != rotation.StepInDoubt {
			t.Fatalf("%v, %+v", err, w.record())
		}
		lose = false
		doubted := time.Now()
		for w.record().Step == rotation.StepInDoubt {
			w.advance(r, token)
		}
		if waited := time.Since(doubted); w.rotates != 3 || waited != 20*time.Minute {
			t.Errorf("reissued after %s, %d rotates", waited, w.rotates)
		}
		if attempts := w.attempts(); attempts[len(attempts)-1] != "recovery/success/" {
			t.Errorf("%q", attempts)
		}
	})
}
