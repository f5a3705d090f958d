package rotation_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
)

var overrideAll = rotation.Overrides{Freeze: true, Pause: true, Grace: true}

// TestRotateNow rotates outside the schedule. Later slots stay where they are.
func TestRotateNow(t *testing.T) {
	scheduled(t, "0 * * * *", func(token *rotation.Token) { token.Grace = 10 * time.Minute }, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		time.Sleep(20*time.Minute + 500*time.Millisecond)
		record, err := r.RotateNow(w.t.Context(), token, rotation.Overrides{}, "ops")
		if err != nil || record.Last.Digest != w.sink.ClientSecret.Digest() || w.sink.ClientSecret.Reveal() != w.current {
			t.Fatalf("%v, %+v", err, record)
		}
		if !record.Last.GraceEndsAt.Equal(w.now().Add(10*time.Minute)) || record.Last.Trigger != rotation.TriggerManual {
			t.Errorf("%+v", record.Last)
		}
		w.runUntil(r, token, "01 02:00:00")
		w.wantRotations("manual at 01 00:20:00 for 01 00:20:00", "schedule at 01 01:00:00 for 01 01:00:00", "schedule at 01 02:00:00 for 01 02:00:00")
		w.wantMissed()
	})
}

// TestRotateNowRestartsThePeriod: the next period of @every begins at the manual rotation.
func TestRotateNowRestartsThePeriod(t *testing.T) {
	scheduled(t, "@every 1h", nil, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		time.Sleep(20 * time.Minute)
		if _, err := r.RotateNow(w.t.Context(), token, rotation.Overrides{}, "ops"); err != nil {
			t.Fatal(err)
		}
		w.runUntil(r, token, "01 02:30:00")
		w.wantRotations("manual at 01 00:20:00 for 01 00:20:00", "schedule at 01 01:20:00 for 01 01:20:00", "schedule at 01 02:20:00 for 01 02:20:00")
	})
}

// TestRotateNowServesDueSlots: the manual rotation also serves the slots that waited, so they are not caught up.
func TestRotateNowServesDueSlots(t *testing.T) {
	scheduled(t, "0 * * * *", func(token *rotation.Token) {
		token.Timetable.Freezes = freeze("01 02:30:00", "01 03:30:00", true)
	}, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		w.pause(r, "ci", "")
		w.runUntil(r, token, "01 03:15:00") // two slots are due, and the freeze skipped one
		if _, err := r.RotateNow(w.t.Context(), token, overrideAll, "ops"); err != nil {
			t.Fatal(err)
		}
		w.resume(r, "ci")
		w.runUntil(r, token, "01 04:00:00")
		w.wantRotations("manual at 01 03:15:00 for 01 03:15:00", "schedule at 01 04:00:00 for 01 04:00:00")
		w.wantMissed(event.Missed{Count: 1, Frozen: 1})
	})
}

// TestRotateNowIsRefused: the error says why the rotation is refused, and what to do. Only the flag for that
// reason overrides it.
func TestRotateNowIsRefused(t *testing.T) {
	for _, test := range []struct {
		name    string
		prepare func(w *world, token *rotation.Token, r *rotation.Rotator)
		want    string
		by      rotation.Overrides
	}{
		{"paused", func(w *world, _ *rotation.Token, r *rotation.Rotator) { w.pause(r, "ci", "") },
			"not rotated: ci is paused: resume it, or rotate anyway with --override-pause", rotation.Overrides{Pause: true}},
		{"paused for a time", func(w *world, _ *rotation.Token, r *rotation.Rotator) { w.pause(r, rotation.AllTokens, "01 06:00:00") },
			"not rotated: ci is paused until 2000-01-01T06:00:00Z: resume it, or rotate anyway with --override-pause", rotation.Overrides{Pause: true}},
		{"frozen", func(_ *world, token *rotation.Token, _ *rotation.Rotator) {
			token.Timetable.Freezes = append(freeze("01 00:00:00", "01 04:00:00", true), freeze("01 03:00:00", "01 05:00:00", false)...)
		}, "not rotated: the freeze move lasts until 2000-01-01T05:00:00Z: wait, or rotate anyway with --override-freeze", rotation.Overrides{Freeze: true}},
		{"grace", func(w *world, token *rotation.Token, r *rotation.Rotator) {
			token.Grace = 10 * time.Minute
			if _, err := r.RotateNow(w.t.Context(), *token, rotation.Overrides{}, "ops"); err != nil {
				w.t.Fatal(err)
			}
			time.Sleep(9 * time.Minute)
		}, "not rotated: the previous secret of ci was promised to work until 2000-01-01T00:30:00Z, and rotating now cuts it off: " +
			"wait, or rotate anyway with --override-grace", rotation.Overrides{Grace: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			scheduled(t, "0 9 * * *", nil, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
				time.Sleep(20 * time.Minute)
				test.prepare(w, &token, r)
				before, rotates := w.record(), w.rotates
				others := rotation.Overrides{Freeze: !test.by.Freeze, Pause: !test.by.Pause, Grace: !test.by.Grace}
				for _, o := range []rotation.Overrides{{}, others} {
					record, err := r.RotateNow(w.t.Context(), token, o, "ops")
					if !errors.Is(err, rotation.ErrNotRotated) || err.Error() != test.want {
						t.Errorf("%+v: %v\nwant %s", o, err, test.want)
					}
					if diff := cmp.Diff(before, record); diff != "" || w.rotates != rotates || w.record().Revision != before.Revision {
						t.Errorf("the refusal changed something: %s", diff)
					}
				}
				w.mayCutOff = true // the operator knows that this cuts off the old secret
				if _, err := r.RotateNow(w.t.Context(), token, test.by, "ops"); err != nil || w.rotates != rotates+1 {
					t.Errorf("%+v: %v", test.by, err)
				}
			})
		})
	}
}

// TestRotateNowDuringARotation: a rotation in progress must finish first, and a token in doubt is not rotated,
// even with all overrides.
func TestRotateNowDuringARotation(t *testing.T) {
	scheduled(t, "0 * * * *", nil, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		w.failUntil("sink store", "01 01:20:00")
		w.runUntil(r, token, "01 01:05:00")
		_, err := r.RotateNow(w.t.Context(), token, overrideAll, "ops")
		if want := "not rotated: a rotation of ci is in progress (sealed since 2000-01-01T01:00:00Z: sink memory:sink: vault is sealed): rotatord status ci"; err == nil || err.Error() != want {
			t.Errorf("%v\nwant %s", err, want)
		}
		w.runUntil(r, token, "01 01:30:00")
		w.wantRotations("schedule at 01 01:00:00 for 01 01:00:00")
	})
	scheduled(t, "0 * * * *", func(token *rotation.Token) { token.Grace = 40 * time.Minute }, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		w.failAll("rotate", fault{after: &rotation.IssuerError{Class: rotation.Unknown, Operation: "rotate"}})
		w.runUntil(r, token, "01 01:05:00")
		_, err := r.RotateNow(w.t.Context(), token, overrideAll, "ops")
		if want := "not rotated: ci is in doubt since 2000-01-01T01:00:00Z, and rotating could cut off the secret that works: rotatord resolve ci"; err == nil || err.Error() != want {
			t.Errorf("%v\nwant %s", err, want)
		}
		if w.rotates != 1 {
			t.Errorf("%d rotates", w.rotates)
		}
	})
}

// TestRotateNowFails: a manual rotation that fails is not tried again, and does not change the schedule.
func TestRotateNowFails(t *testing.T) {
	for _, backOff := range []bool{false, true} {
		scheduled(t, "0 * * * *", nil, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
			w.failUntil("sink preflight", "01 01:50:00")
			want := []string{"manual/skipped/preflight"}
			if backOff { // a slot has failed, and waits for its next try
				w.runUntil(r, token, "01 01:30:00")
				want = append(w.attempts(), want...)
			} else {
				time.Sleep(20 * time.Minute)
			}
			before, due := w.record(), r.Due(token, w.record())
			record, err := r.RotateNow(w.t.Context(), token, rotation.Overrides{}, "ops")
			if err == nil || !strings.Contains(err.Error(), "vault is sealed") || errors.Is(err, rotation.ErrNotRotated) {
				t.Errorf("%v", err)
			}
			if record.Step != rotation.StepIdle || record.Failures != before.Failures || !record.Anchor.Equal(before.Anchor) || record.LastError == "" {
				t.Errorf("%+v", record)
			}
			if diff := cmp.Diff(due, r.Due(token, record)); diff != "" {
				t.Errorf("the next due time changed:\n%s", diff)
			}
			if diff := cmp.Diff(want, w.attempts()); diff != "" {
				t.Error(diff)
			}
			if len(w.reserved) != 0 {
				t.Error("a reservation was left behind")
			}
			w.runUntil(r, token, "01 02:00:00")
			if w.rotates != 2 { // the slots of one and of two o'clock
				t.Errorf("%d rotates: %q", w.rotates, w.rotationsBegun())
			}
		})
	}
}

// TestRotateNowDuringBackOff: the manual rotation serves the slot that waits for its next try.
func TestRotateNowDuringBackOff(t *testing.T) {
	scheduled(t, "0 * * * *", nil, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		w.failUntil("sink preflight", "01 01:59:00")
		w.runUntil(r, token, "01 01:28:00")
		if record := w.record(); record.Failures < 8 || !record.NotBefore.After(w.now()) {
			t.Fatalf("%+v", record)
		}
		w.fault = nil // the wait is random, so it may end at any moment
		ordered := w.now().UTC().Truncate(time.Second)
		record, err := r.RotateNow(w.t.Context(), token, rotation.Overrides{}, "ops")
		if err != nil || record.Failures != 0 || !record.NotBefore.IsZero() || !record.Anchor.Equal(ordered) {
			t.Errorf("%v, %+v", err, record)
		}
		w.runUntil(r, token, "01 02:00:00")
		if w.rotates != 2 || !w.record().Last.Slot.Equal(clock("01 02:00:00")) {
			t.Errorf("%q", w.rotationsBegun())
		}
		w.wantMissed()
	})
}

// TestRotateNowLosesTheAnswer: the request may have been carried out. The doubt is resolved like after a scheduled
// rotation.
func TestRotateNowLosesTheAnswer(t *testing.T) {
	for _, carriedOut := range []bool{false, true} {
		scheduled(t, "0 9 * * *", func(token *rotation.Token) { token.Grace = 40 * time.Minute }, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
			time.Sleep(time.Hour)
			if _, err := r.RotateNow(w.t.Context(), token, rotation.Overrides{}, "ops"); err != nil { // shows the daemon that updated_at moves
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
			lost, asked := &rotation.IssuerError{Class: rotation.Unknown, Operation: "rotate"}, false
			w.fault = func(_ int, c string) fault {
				if c != "rotate" || asked {
					return fault{}
				}
				if asked = true; carriedOut {
					return fault{after: lost}
				}
				return fault{before: lost}
			}
			record, err := r.RotateNow(w.t.Context(), token, rotation.Overrides{}, "ops")
			if err == nil || record.Step != rotation.StepInDoubt || record.Work.Trigger != rotation.TriggerManual {
				t.Fatalf("%v, %+v", err, record)
			}
			w.runUntil(r, token, "01 08:00:00")
			began := w.rotationsBegun()[2:]
			if !carriedOut { // the rotation did not happen, and is not tried again
				if len(began) != 0 || w.rotates != 1 || w.record().Step != rotation.StepIdle {
					t.Errorf("%d rotates: %q, %+v", w.rotates, began, w.record())
				}
				w.runUntil(r, token, "01 09:00:00")
				if began := w.rotationsBegun()[2:]; len(began) != 1 || began[0] != "schedule at 01 09:00:00 for 01 09:00:00" {
					t.Errorf("%q", began)
				}
				return
			}
			// The grace is extended, and the reissue comes after three graces.
			if len(began) != 1 || began[0] != "recovery at 01 04:00:00 for 01 04:00:00" || w.sink.ClientSecret.Reveal() != w.current {
				t.Errorf("%q", began)
			}
		})
	}
}

// TestRotateNowCarriesOutAnOwedReissue: if a reissue is owed, nothing delays a manual rotation, since consumers need
// the new secret.
func TestRotateNowCarriesOutAnOwedReissue(t *testing.T) {
	scheduled(t, "0 * * * *", func(token *rotation.Token) { token.Grace = 40 * time.Minute }, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		w.fault = func(_ int, c string) fault {
			switch {
			case c == "rotate" && w.rotates == 0:
				return fault{after: &rotation.IssuerError{Class: rotation.Unknown, Operation: "rotate"}}
			case c == "sink preflight" && w.rotates == 1 && w.now().Before(clock("01 01:10:00")):
				return fault{before: errors.New("vault is sealed")}
			}
			return fault{}
		}
		w.runUntil(r, token, "01 01:00:00")
		w.mayCutOff = true
		if _, _, err := r.Resolve(w.t.Context(), token, rotation.ResolveRotateNow); err != nil {
			t.Fatal(err)
		}
		w.runUntil(r, token, "01 01:09:00")
		if w.rotates != 1 || w.record().NextTrigger != rotation.TriggerManual {
			t.Fatalf("%+v", w.record())
		}
		w.pause(r, rotation.AllTokens, "")
		token.Timetable.Freezes = freeze("01 01:00:00", "02 00:00:00", false)
		time.Sleep(clock("01 01:10:00").Sub(w.now()))
		if record, err := r.RotateNow(w.t.Context(), token, rotation.Overrides{}, "ops"); err != nil || record.NextTrigger != "" || w.sink.ClientSecret.Reveal() != w.current {
			t.Errorf("%v, %+v", err, record)
		}
	})
}
