package rotation_test

import (
	"errors"
	"testing"
	"time"

	"rotatord/internal/rotation"
)

// This file holds that a service token which consumers may use is not deleted, whatever the
// ledger takes it for.

// TestReplacedCredentialIsPutBackIntoTheSink: somebody puts an earlier credential back into the sink, in a rollback of its own.
func TestReplacedCredentialIsPutBackIntoTheSink(t *testing.T) {
	inFresh(t, replacing, func(w *world, token rotation.Token, r *rotation.Rotator) {
		r = w.runUntilIdle(r, token)
		before := w.sink
		w.advance(r, token)
		w.sink = before
		if err := w.runNextChore(r, token); err == nil || w.gone[w.created[0].id] {
			t.Fatal("what the sink holds was deleted", err)
		}
		w.runFor(r, token, 90*time.Minute)
		if len(w.notDeleted()) != 1 {
			t.Error(len(w.notDeleted()), "are left")
		}
	})
}

// TestReplacedTokenIsConfiguredAgain: an operator gives up strategy replace within the grace, and names the first
// service token again: it is in use from then on, and not one that was replaced.
func TestReplacedTokenIsConfiguredAgain(t *testing.T) {
	for _, partner := range []string{"", partnerID} {
		inBubble(t, 20*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
			w.gone, w.namedByPolicy = map[string]bool{}, map[string]bool{}
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
			w.runFor(r, token, 3*time.Hour)
			if w.gone[tokenID] || w.sink.ClientID == w.created[0].clientID {
				t.Error("the service token that is configured was deleted; the sink has", w.sink.ClientID)
			}
		})
	}
}

// noticeClockChange is what is done when the wall clock was set.
func noticeClockChange(w *world, token rotation.Token, r *rotation.Rotator) {
	if _, err := r.CatchUp(w.t.Context(), token); err != nil {
		w.t.Fatal(err)
	}
}

// TestNothingIsDeletedWhileTheClockIsAhead: a grace that is over on a clock which is known to be wrong is not over. What was
// to be deleted at a time that a wrong clock gave is deleted once the clock is right.
func TestNothingIsDeletedWhileTheClockIsAhead(t *testing.T) {
	inFresh(t, replacing, func(w *world, token rotation.Token, r *rotation.Rotator) {
		r = w.runUntilIdle(r, token)
		w.advance(r, token)
		w.offset = 2 * time.Hour
		w.failAll("ready", fault{before: &rotation.IssuerError{Class: rotation.NotCarriedOut, Err: rotation.ErrClock}})
		if _, err := r.Advance(w.t.Context(), token); !errors.Is(err, rotation.ErrClock) || w.gone[w.created[0].id] {
			t.Fatalf("deleted: %t, %v", w.gone[w.created[0].id], err)
		}
		w.offset, w.fault = 0, nil
		noticeClockChange(w, token, r)
		w.runFor(r, token, 50*time.Minute)
		if len(w.notDeleted()) != 1 {
			t.Errorf("%d are left: %+v", len(w.notDeleted()), w.record().Replaced)
		}
	})
	inFresh(t, replacing, func(w *world, token rotation.Token, r *rotation.Rotator) {
		r = w.runUntilIdle(r, token)
		w.offset = 100 * 24 * time.Hour
		if _, err := r.RotateNow(w.t.Context(), token, rotation.Overrides{}, "ops"); err != nil {
			t.Fatal(err)
		}
		w.offset = 0
		noticeClockChange(w, token, r)
		w.runFor(r, token, 50*time.Minute)
		if !w.gone[w.created[0].id] {
			t.Errorf("%+v", w.record().Replaced)
		}
	})
	// What is to be revoked does not wait for a clock.
	inFresh(t, replacing, func(w *world, token rotation.Token, r *rotation.Rotator) {
		r = w.runUntilIdle(r, token)
		w.advance(r, token)
		w.offset = 2 * time.Hour
		w.failAll("ready", fault{before: &rotation.IssuerError{Class: rotation.NotCarriedOut, Err: rotation.ErrClock}})
		if _, err := r.RevokePrevious(w.t.Context(), token); err != nil || !w.gone[w.created[0].id] {
			t.Error(err)
		}
	})
}
