package rotation_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
)

// manyTokens returns n tokens with different names, which set may change.
func (w *world) manyTokens(n int, set func(*rotation.Token)) []rotation.Token {
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

// TestCatchUpAfterTwoWeeksDown: the daemon was down for two weeks. With catch_up: once each of a thousand tokens
// is rotated once, spread over ten minutes. With catch_up: skip none is rotated.
func TestCatchUpAfterTwoWeeksDown(t *testing.T) {
	const n, down = 1000, 14 * 24 * time.Hour
	for _, skip := range []bool{false, true} {
		t.Run(fmt.Sprint("skip=", skip), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				daily := mustParse(t, "0 4 * * *")
				tokens := w.manyTokens(n, func(token *rotation.Token) {
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
					missed, told := w.slotsMissed(), w.tokensMissed()
					for i, token := range tokens {
						if due := r.Due(token, records[i]); !due.At.Equal(clock("16 04:00:00")) || due.Reason != rotation.DueSlot {
							t.Fatalf("%+v", due)
						}
						if missed[i] != (event.Missed{Count: 15, GivenUp: true}) || told[i] != token.Name {
							t.Fatalf("%+v", missed[i])
						}
					}
					if again, err := w.start().EnrollAll(w.t.Context(), tokens); err != nil || len(w.slotsMissed()) != n || again[0].Revision != records[0].Revision {
						t.Errorf("a second start: %v, %d events", err, len(w.slotsMissed()))
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
				time.Sleep(20 * time.Second) // a second start does not change the times
				r = w.start()
				if records, err = r.EnrollAll(w.t.Context(), tokens); err != nil {
					t.Fatal(err)
				}
				for i, token := range tokens {
					if due := r.Due(token, records[i]); !due.At.Equal(begin[i]) {
						t.Fatalf("%s was due to begin at %s, and after a second start at %s", token.Name, begin[i], due.At)
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
				for i, line := range w.rotationsBegun() {
					if want := "catch_up at " + w.decoded[order[i].Name].Last.At.Format("02 15:04:05") + " for 15 04:00:00"; line != want {
						t.Fatalf("%s; want %s", line, want)
					}
				}
				told := w.tokensMissed()
				for i, missed := range w.slotsMissed() { // the last slot counts too, since its window is over
					if missed != (event.Missed{Count: 15}) || told[i] != order[i].Name {
						t.Fatalf("%+v", missed)
					}
				}
				if w.rotates != n || len(w.slotsMissed()) != n {
					t.Errorf("%d rotates, %d events", w.rotates, len(w.slotsMissed()))
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

// TestCrashingDaemonCatchesUp: a daemon that dies again and again still rotates the token, at the time that was
// chosen at the first start.
func TestCrashingDaemonCatchesUp(t *testing.T) {
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
				t.Fatalf("start %d: due at %s, but before at %s", start, due.At, first)
			}
			if !due.At.After(time.Now()) {
				if _, err := r.Advance(w.t.Context(), token); err != nil || w.rotates != 1 {
					t.Fatal("the token is not rotated")
				}
				return
			}
			time.Sleep(time.Minute)
		}
		t.Error("the token is never rotated")
	})
	// After a long time a new time is chosen.
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

// TestChangedScheduleDoesNotRotateAtOnce: slots that the new schedule would have had in the past do not count.
func TestChangedScheduleDoesNotRotateAtOnce(t *testing.T) {
	for _, test := range []struct {
		before, after string
		want          string // the next slot, at 10:00
	}{
		{"0 4 2 * *", "0 6 * * *", "02 06:00:00"},
		{"0 4 * * *", "@every 48h", "03 04:00:00"}, // counted from the last slot
		{"@every 48h", "0 * * * *", "01 11:00:00"},
		{"@every 48h", "@every 12h", "01 12:00:00"},
		{"@every 48h", "@every 8h", "01 08:00:00"}, // this slot is in the past, and is caught up
		{"0 4 * * *", "0 4 * * *", "02 04:00:00"},
	} {
		t.Run(test.before+" to "+test.after, func(t *testing.T) {
			scheduled(t, test.before, nil, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
				w.runUntil(r, token, "01 10:00:00")
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

// TestChangedScheduleClearsTheBackOff: the slot that failed does not belong to the new schedule.
func TestChangedScheduleClearsTheBackOff(t *testing.T) {
	scheduled(t, "0 4 * * *", nil, func(t *testing.T, w *world, token rotation.Token, r *rotation.Rotator) {
		w.failUntil("sink preflight", "01 04:10:00")
		w.runUntil(r, token, "01 04:09:00")
		token.Timetable.Schedule = mustParse(t, "0 6 * * *")
		if _, err := r.Enroll(w.t.Context(), token); err != nil {
			t.Fatal(err)
		}
		if due := r.Due(token, w.record()); !due.At.Equal(clock("01 06:00:00")) || due.Reason != rotation.DueSlot {
			t.Errorf("%+v", due)
		}
		w.runUntil(r, token, "01 06:00:00")
		if w.rotates != 1 || !w.record().Last.Slot.Equal(clock("01 06:00:00")) {
			t.Errorf("%q", w.rotationsBegun())
		}
	})
}
