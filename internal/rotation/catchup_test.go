package rotation_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/rotation"
)

// many are tokens that are due at one time each day.
func (w *world) many(n int, set func(*rotation.Token)) []rotation.Token {
	tokens := make([]rotation.Token, n)
	for i := range tokens {
		token := w.token(0)
		token.Name = fmt.Sprint("token-", i)
		token.Timetable.Key = token.Name
		set(&token)
		tokens[i] = token
	}
	return tokens
}

// TestTwoWeeksDown: a thousand tokens that nobody rotated for two weeks are rotated once each,
// and not all together, or not at all, as catch_up says.
func TestTwoWeeksDown(t *testing.T) {
	const n, down = 1000, 14 * 24 * time.Hour
	for _, skip := range []bool{false, true} {
		t.Run(fmt.Sprint("skip=", skip), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				daily := mustParse(t, "0 4 * * *")
				tokens := w.many(n, func(token *rotation.Token) {
					token.Timetable.Schedule, token.Timetable.Window, token.Timetable.SkipMissed = daily, time.Hour, skip
				})
				if _, err := w.start().EnrollAll(w.t.Context(), tokens); err != nil {
					t.Fatal(err)
				}
				time.Sleep(down + 6*time.Hour)
				started := time.Now()
				r := w.start()
				records, err := r.EnrollAll(w.t.Context(), tokens)
				if err != nil {
					t.Fatal(err)
				}
				if skip {
					missed := w.slotsMissed()
					for i, token := range tokens {
						if due := r.Due(token, records[i]); !due.At.Equal(clock("16 04:00:00")) || due.Reason != rotation.DueSlot {
							t.Fatalf("%+v", due)
						}
						if missed[i] != (rotation.SlotsMissed{Token: token.Name, Count: 15, GivenUp: true}) {
							t.Fatalf("%+v", missed[i])
						}
					}
					if again, err := w.start().EnrollAll(w.t.Context(), tokens); err != nil || len(w.slotsMissed()) != n || again[0].Revision != records[0].Revision {
						t.Errorf("a second start: %v, %d told of", err, len(w.slotsMissed()))
					}
					return
				}
				minutes := map[int]int{}
				begin := make([]time.Time, n)
				for i, token := range tokens {
					due := r.Due(token, records[i])
					after := due.At.Sub(started)
					if after < 0 || after >= 10*time.Minute || due.Reason != rotation.DueCatchUp || due.Trigger != rotation.TriggerCatchUp {
						t.Fatalf("%s after the start: %+v", after, due)
					}
					begin[i] = due.At
					minutes[int(after/time.Minute)]++
				}
				for minute := range 10 {
					if n := minutes[minute]; n < 60 || n > 140 {
						t.Errorf("%d of 1000 begin in minute %d", n, minute)
					}
				}
				time.Sleep(20 * time.Second) // a second start changes nothing of it
				r = w.start()
				if records, err = r.EnrollAll(w.t.Context(), tokens); err != nil {
					t.Fatal(err)
				}
				for i, token := range tokens {
					if due := r.Due(token, records[i]); !due.At.Equal(begin[i]) {
						t.Fatalf("%s was to begin at %s, and after a second start at %s", token.Name, begin[i], due.At)
					}
				}
				order := slices.SortedFunc(slices.Values(tokens), func(a, b rotation.Token) int {
					return w.decoded[a.Name].CatchUpAt.Compare(w.decoded[b.Name].CatchUpAt)
				})
				for _, token := range order {
					time.Sleep(time.Until(w.decoded[token.Name].CatchUpAt))
					if _, err := r.Advance(w.t.Context(), token); err != nil {
						t.Fatal(err)
					}
				}
				for i, line := range w.began() {
					if want := "catch_up at " + w.decoded[order[i].Name].Last.At.Format("02 15:04:05") + " for 15 04:00:00"; line != want {
						t.Fatalf("%s; want %s", line, want)
					}
				}
				for i, missed := range w.slotsMissed() { // its window was over, too
					if missed != (rotation.SlotsMissed{Token: order[i].Name, Count: 15}) {
						t.Fatalf("%+v", missed)
					}
				}
				if w.rotates != n || len(w.slotsMissed()) != n {
					t.Errorf("%d rotates, %d told of", w.rotates, len(w.slotsMissed()))
				}
				for _, token := range tokens {
					if due := r.Due(token, w.decoded[token.Name]); !due.At.Equal(clock("16 04:00:00")) {
						t.Fatalf("next: %+v", due)
					}
				}
			})
		})
	}
}

// TestDyingDaemonCatchesUp: a daemon that keeps dying does not put a token off for ever, nor
// does it forget the spread.
func TestDyingDaemonCatchesUp(t *testing.T) {
	scheduled(t, "0 4 * * *", nil, func(t *testing.T, w *world, token rotation.Token, _ *rotation.Rotator) {
		time.Sleep(28 * time.Hour)
		var first time.Time
		for start := range 20 {
			r := w.start()
			record, err := r.Enroll(w.t.Context(), token)
			if err != nil {
				t.Fatal(err)
			}
			if first.IsZero() {
				first = record.CatchUpAt
			}
			due := r.Due(token, record)
			if !due.At.Equal(first) {
				t.Fatalf("start %d: due at %s, and before at %s", start, due.At, first)
			}
			if !due.At.After(time.Now()) {
				if _, err := r.Advance(w.t.Context(), token); err != nil || w.rotates != 1 {
					t.Fatal("it is not rotated")
				}
				return
			}
			time.Sleep(time.Minute)
		}
		t.Error("it is never rotated")
	})
	// After a long time it is spread anew.
	scheduled(t, "0 4 * * *", nil, func(t *testing.T, w *world, token rotation.Token, _ *rotation.Rotator) {
		time.Sleep(28 * time.Hour)
		for range 2 {
			record, err := w.start().Enroll(w.t.Context(), token)
			if after := time.Until(record.CatchUpAt); err != nil || after < 0 || after > 10*time.Minute {
				t.Fatalf("%v, %s", err, after)
			}
			time.Sleep(2 * time.Hour)
		}
	})
}

// TestClockPutBack: a slot that was served does not come again when the clock shows it again.
func TestClockPutBack(t *testing.T) {
	scheduled(t, "0 * * * *", nil, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		w.serve(r, token, "01 03:00:30")
		w.offset -= 2 * time.Hour
		if _, err := r.CatchUp(w.t.Context(), token); err != nil {
			t.Fatal(err)
		}
		w.serve(r, token, "01 03:59:59")
		w.wantBegan("schedule at 01 01:00:00 for 01 01:00:00", "schedule at 01 02:00:00 for 01 02:00:00", "schedule at 01 03:00:00 for 01 03:00:00")
		if waited := time.Since(clock("01 00:00:00")); waited != 5*time.Hour+59*time.Minute+59*time.Second {
			t.Fatalf("%s passed", waited)
		}
		w.serve(r, token, "01 04:00:00")
		if last := w.began()[3]; last != "schedule at 01 04:00:00 for 01 04:00:00" {
			t.Errorf("the next slot: %s", last)
		}
		w.wantMissed()
	})
}

// TestClockPutForward: what a clock steps over is missed, and made up for once.
func TestClockPutForward(t *testing.T) {
	scheduled(t, "0 * * * *", nil, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		w.serve(r, token, "01 01:30:00")
		w.offset += 5 * time.Hour
		record, err := r.CatchUp(w.t.Context(), token)
		if after := record.CatchUpAt.Sub(w.now()); err != nil || after < 0 || after > 10*time.Minute {
			t.Fatalf("%v, %s", err, after)
		}
		w.serve(r, token, "01 07:00:00")
		w.wantBegan("schedule at 01 01:00:00 for 01 01:00:00",
			"catch_up at "+record.CatchUpAt.Format("02 15:04:05")+" for 01 06:00:00", "schedule at 01 07:00:00 for 01 07:00:00")
		w.wantMissed(rotation.SlotsMissed{Token: "ci", Count: 4})
	})
}

// TestClockWasAhead: slots that were consumed by a clock that was ahead are waited for, but not
// for more than a day.
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
					// Some time passes until somebody looks.
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
					w.serve(r, token, "02 00:00:00")
					healed := slices.ContainsFunc(w.events, func(e rotation.Event) bool { _, ok := e.(rotation.ClockHealed); return ok })
					if ahead < 24*time.Hour {
						// Until 20:00 all slots were consumed.
						if w.rotates != 1+4 || healed || w.began()[1] != "schedule at 01 21:00:00 for 01 21:00:00" {
							t.Errorf("healed: %t, %q", healed, w.began())
						}
						return
					}
					if w.rotates != 1+24 || !healed || w.began()[1] != "schedule at 01 01:00:00 for 01 01:00:00" {
						t.Errorf("consumed until %s, healed: %t, %q", consumed, healed, w.began())
					}
					told := 0
					for _, e := range w.events {
						if e, ok := e.(rotation.ClockHealed); ok {
							told++
							if len(e.What) == 0 || !strings.HasPrefix(e.What[0], "slots were consumed until 2001-02-04T") {
								t.Errorf("%q", e.What)
							}
						}
					}
					if told != 1 {
						t.Errorf("told of %d times", told)
					}
				})
			})
		}
	}
}

// TestHealing takes out of a record what only a clock that was ahead can have put there, and
// nothing else.
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
					t.Errorf("what is healed is not kept:\n%s", diff)
				}
			})
		})
	}
}

// TestFutureCame: a clock was put back by days, and is put right again. What was consumed
// before that is not made up for.
func TestFutureCame(t *testing.T) {
	scheduled(t, "0 * * * *", nil, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		w.serve(r, token, "01 03:10:00")
		w.offset -= 48 * time.Hour
		record, err := r.CatchUp(w.t.Context(), token)
		if err != nil || !record.Anchor.Equal(w.now()) {
			t.Fatalf("%v, counted from %s", err, record.Anchor)
		}
		time.Sleep(10 * time.Second)
		w.offset += 48 * time.Hour
		w.serve(r, token, "01 04:30:00")
		w.wantBegan("schedule at 01 01:00:00 for 01 01:00:00", "schedule at 01 02:00:00 for 01 02:00:00",
			"schedule at 01 03:00:00 for 01 03:00:00", "schedule at 01 04:00:00 for 01 04:00:00")
		w.wantMissed()
	})
}

// TestServedInTheFuture: after healing slots are counted from now on, but the one that was
// served last is not served again when it comes.
func TestServedInTheFuture(t *testing.T) {
	scheduled(t, "0 4 * * *", nil, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		w.offset = 48 * time.Hour
		w.serve(r, token, "03 04:20:00") // at first what the clock stepped over, and then 3 January
		if !w.record().Last.Slot.Equal(clock("03 04:00:00")) {
			t.Fatalf("%q", w.began())
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
			t.Errorf("due again: %+v", due)
		}
		if err := r.Pause(w.t.Context(), "ci", rotation.Pause{Since: w.now(), Until: clock("03 05:00:00")}); err != nil {
			t.Fatal(err)
		}
		w.serve(r, token, "04 03:00:00")
		if w.rotates != rotates {
			t.Errorf("rotated again: %q", w.began())
		}
		w.serve(r, token, "04 04:00:00")
		if w.rotates != rotates+1 {
			t.Errorf("%d rotates more", w.rotates-rotates)
		}
	})
}

// TestClockIsFarFromCloudflares: while nobody knows which slots have come no scheduled rotation
// begins; one that an operator asks for does, and so does what a doubt needs.
func TestClockIsFarFromCloudflares(t *testing.T) {
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
		w.serve(r, token, "01 01:30:00")
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

// TestChangedSchedule: that a new schedule would have had slots is no reason to rotate at
// once.
func TestChangedSchedule(t *testing.T) {
	for _, test := range []struct {
		before, after string
		want          string // the next slot, at 10:00
	}{
		{"0 4 2 * *", "0 6 * * *", "02 06:00:00"},
		{"0 4 * * *", "@every 48h", "03 04:00:00"}, // counted from the last slot
		{"@every 48h", "0 * * * *", "01 11:00:00"},
		{"@every 48h", "@every 12h", "01 12:00:00"},
		{"@every 48h", "@every 8h", "01 08:00:00"}, // it has come, and is made up for
		{"0 4 * * *", "0 4 * * *", "02 04:00:00"},
	} {
		t.Run(test.before+" to "+test.after, func(t *testing.T) {
			scheduled(t, test.before, nil, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
				w.serve(r, token, "01 10:00:00")
				before := w.rotates
				token.Timetable.Schedule = mustParse(t, test.after)
				r = w.start()
				if _, err := r.Enroll(w.t.Context(), token); err != nil {
					t.Fatal(err)
				}
				due := r.Due(token, w.record())
				if !due.Slot.Equal(clock(test.want)) {
					t.Errorf("the next slot is %s, want %s", due.Slot, test.want)
				}
				if late := due.Slot.Before(w.now()); late != (due.Reason == rotation.DueCatchUp) {
					t.Errorf("%+v", due)
				}
				if _, err := r.Advance(w.t.Context(), token); err != nil || w.rotates != before {
					t.Errorf("rotated at once: %v", err)
				}
				revision := w.record().Revision
				if _, err := w.start().Enroll(w.t.Context(), token); err != nil || w.record().Revision != revision {
					t.Errorf("a second start changes it again: %v", err)
				}
			})
		})
	}
}

// TestChangedScheduleForgetsTheBackOff: the slot that failed is none of the new schedule.
func TestChangedScheduleForgetsTheBackOff(t *testing.T) {
	scheduled(t, "0 4 * * *", nil, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		w.failing("sink preflight", "01 04:10:00")
		w.serve(r, token, "01 04:09:00")
		token.Timetable.Schedule = mustParse(t, "0 6 * * *")
		if _, err := r.Enroll(w.t.Context(), token); err != nil {
			t.Fatal(err)
		}
		if due := r.Due(token, w.record()); !due.At.Equal(clock("01 06:00:00")) || due.Reason != rotation.DueSlot {
			t.Errorf("%+v", due)
		}
		w.serve(r, token, "01 06:00:00")
		if w.rotates != 1 || !w.record().Last.Slot.Equal(clock("01 06:00:00")) {
			t.Errorf("%q", w.began())
		}
	})
}
