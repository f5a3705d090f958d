package rotation_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"rotatord/internal/rotation"
)

// This file holds that a service token which consumers may use is not deleted, whatever the
// ledger takes it for.

// live does what is due for that long.
func (w *world) live(r *rotation.Rotator, token rotation.Token, d time.Duration) {
	for end := time.Now().Add(d); ; {
		at := rotation.NextDue(token, w.record(), rotation.Pause{}).At
		if chore := rotation.NextChore(token, w.record()); !chore.IsZero() && chore.Before(at) {
			at = chore
		}
		if at.After(end) {
			time.Sleep(time.Until(end))
			return
		}
		time.Sleep(max(time.Until(at), time.Millisecond))
		_, _ = r.Advance(w.t.Context(), token)
	}
}

func replacing(token *rotation.Token) { token.Replace = true }

// TestUnsealedAndDelivered: the disk refuses the seal, so the new credential is delivered from
// memory, and the process dies with what it held. The next one finds it in the sink, and ends the
// rotation with it. Where the ledger could not be written either, the token is in doubt, but the
// service token in the sink is not among those whose secret nobody has.
func TestUnsealedAndDelivered(t *testing.T) {
	for _, noted := range []bool{true, false} {
		t.Run(fmt.Sprint("noted=", noted), func(t *testing.T) {
			inMaking(t, replacing, func(w *world, token rotation.Token, r *rotation.Rotator) {
				r = w.settle(r, token)
				w.fault = func(_ int, call string) fault {
					if call == "seal" || !noted && len(w.made) > 1 && strings.HasPrefix(call, "save") {
						return fault{before: errors.New("no space left on device")}
					}
					return fault{}
				}
				w.advance(r, token)
				unsealed := w.made[1]
				if w.sink.ClientID != unsealed.clientID {
					t.Fatal("it was not delivered from memory")
				}
				w.fault = nil
				r = w.start()
				if _, err := r.Enroll(w.t.Context(), token); err != nil {
					t.Fatal(err)
				}
				if noted {
					w.advance(r, token)
					if record := w.record(); record.Step != rotation.StepIdle || record.TokenID != unsealed.id || len(w.made) != 2 || len(w.pending) != 0 {
						t.Fatalf("%d made, %d sealed, %+v", len(w.made), len(w.pending), record)
					}
				}
				for !noted && w.sink.ClientID == unsealed.clientID && !w.gone[unsealed.id] { // Delete watches the sink
					if record := w.record(); record.Step == rotation.StepIdle && rotation.NextDue(token, record, rotation.Pause{}).Reason == rotation.DueSlot {
						t.Fatalf("it rests: %+v", record)
					}
					w.advance(r, token)
				}
				w.live(r, token, 20*time.Minute-time.Second)
				if w.gone[unsealed.id] {
					t.Fatal("who had read it was cut off early")
				}
				w.live(r, token, time.Minute)
				if left := w.left(); len(left) != 1 || left[0].clientID != w.sink.ClientID {
					t.Errorf("%d are left", len(left))
				}
			})
		})
	}
}

// TestPutBack: somebody puts an earlier credential back into the sink, in a rollback of its own.
func TestPutBack(t *testing.T) {
	inMaking(t, replacing, func(w *world, token rotation.Token, r *rotation.Rotator) {
		r = w.settle(r, token)
		before := w.sink
		w.advance(r, token)
		w.sink = before
		if err := w.care(r, token); err == nil || w.gone[w.made[0].id] {
			t.Fatal("what the sink holds was deleted", err)
		}
		w.live(r, token, 90*time.Minute)
		if len(w.left()) != 1 {
			t.Error(len(w.left()), "are left")
		}
	})
}

// TestConfiguredBack: an operator gives up strategy replace within the grace, and names the first
// service token again: it is in use from then on, and not one that was replaced.
func TestConfiguredBack(t *testing.T) {
	for _, partner := range []string{"", partnerID} {
		inBubble(t, 20*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
			w.gone, w.inUse = map[string]bool{}, map[string]bool{}
			token.Creator = w
			replace := token
			replace.Replace = true
			if _, err := r.Enroll(w.t.Context(), replace); err != nil {
				t.Fatal(err)
			}
			w.advance(r, replace)
			token.Partner = partner
			if record, err := r.Enroll(w.t.Context(), token); err != nil || record.TokenID != tokenID {
				t.Fatal(record, err)
			}
			w.live(r, token, 3*time.Hour)
			if w.gone[tokenID] || w.sink.ClientID == w.made[0].clientID {
				t.Error("the service token that is configured was deleted; the sink has", w.sink.ClientID)
			}
		})
	}
}

// clockSet is what is done when the wall clock was set.
func clockSet(w *world, token rotation.Token, r *rotation.Rotator) {
	if _, err := r.CatchUp(w.t.Context(), token); err != nil {
		w.t.Fatal(err)
	}
}

// TestClockAhead: a grace that is over on a clock which is known to be wrong is not over. What was
// to be deleted at a time that a wrong clock gave is deleted once the clock is right.
func TestClockAhead(t *testing.T) {
	inMaking(t, replacing, func(w *world, token rotation.Token, r *rotation.Rotator) {
		r = w.settle(r, token)
		w.advance(r, token)
		w.offset = 2 * time.Hour
		w.failAll("ready", fault{before: &rotation.IssuerError{Class: rotation.NotCarriedOut, Err: rotation.ErrClock}})
		if _, err := r.Advance(w.t.Context(), token); !errors.Is(err, rotation.ErrClock) || w.gone[w.made[0].id] {
			t.Fatalf("deleted: %t, %v", w.gone[w.made[0].id], err)
		}
		w.offset, w.fault = 0, nil
		clockSet(w, token, r)
		w.live(r, token, 50*time.Minute)
		if len(w.left()) != 1 {
			t.Errorf("%d are left: %+v", len(w.left()), w.record().Replaced)
		}
	})
	inMaking(t, replacing, func(w *world, token rotation.Token, r *rotation.Rotator) {
		r = w.settle(r, token)
		w.offset = 100 * 24 * time.Hour
		if _, err := r.RotateNow(w.t.Context(), token, rotation.Overrides{}, "ops"); err != nil {
			t.Fatal(err)
		}
		w.offset = 0
		clockSet(w, token, r)
		w.live(r, token, 50*time.Minute)
		if !w.gone[w.made[0].id] {
			t.Errorf("%+v", w.record().Replaced)
		}
	})
	// What is to be revoked does not wait for a clock.
	inMaking(t, replacing, func(w *world, token rotation.Token, r *rotation.Rotator) {
		r = w.settle(r, token)
		w.advance(r, token)
		w.offset = 2 * time.Hour
		w.failAll("ready", fault{before: &rotation.IssuerError{Class: rotation.NotCarriedOut, Err: rotation.ErrClock}})
		if _, err := r.RevokePrevious(w.t.Context(), token); err != nil || !w.gone[w.made[0].id] {
			t.Error(err)
		}
	})
}
