package rotation_test

import (
	"errors"
	"testing"
	"time"

	"rotatord/internal/rotation"
)

// This file tests that a service token which consumers may use is not deleted, even if the ledger says that it
// was replaced.

// TestReplacedCredentialIsPutBackIntoTheSink: another writer rolls the sink back to an earlier credential.
func TestReplacedCredentialIsPutBackIntoTheSink(t *testing.T) {
	inFresh(t, replacing, func(w *world, token rotation.Token, r *rotation.Rotator) {
		r = w.runUntilIdle(r, token)
		before := w.sink
		w.advance(r, token)
		w.sink = before
		if err := w.runNextChore(r, token); err == nil || w.gone[w.created[0].id] {
			t.Fatal("the service token in the sink was deleted", err)
		}
		w.runFor(r, token, 90*time.Minute)
		if len(w.notDeleted()) != 1 {
			t.Error(len(w.notDeleted()), "are not deleted")
		}
	})
}

// TestReplacedTokenIsConfiguredAgain: during the grace an operator ends strategy replace, and configures the first
// service token again. From then on it is in use, and does not count as replaced.
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
				t.Error("the configured service token was deleted; the sink has", w.sink.ClientID)
			}
		})
	}
}

// noticeClockChange does what the daemon does when the wall clock was set.
func noticeClockChange(w *world, token rotation.Token, r *rotation.Rotator) {
	if _, err := r.CatchUp(w.t.Context(), token); err != nil {
		w.t.Fatal(err)
	}
}

// TestNothingIsDeletedWhileTheClockIsAhead: the daemon does not delete at the end of a grace while it knows that
// its clock is wrong. A deletion that was scheduled on a wrong clock happens after the clock is corrected.
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
			t.Errorf("%d are not deleted: %+v", len(w.notDeleted()), w.record().Replaced)
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
	// A revocation does not wait for the right clock.
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
