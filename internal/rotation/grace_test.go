package rotation_test

import (
	"errors"
	"rotatord/internal/rotation"
	"strings"
	"testing"
	"time"
)

func TestRevokePrevious(t *testing.T) {
	inBubble(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		if _, err := r.RevokePrevious(w.t.Context(), token); !errors.Is(err, rotation.ErrNoPrevious) {
			t.Error(err)
		}
		old := w.current
		w.advance(r, token)
		if !w.accepted(old) {
			t.Fatal("the old secret has no grace")
		}
		record, err := r.RevokePrevious(w.t.Context(), token)
		if err != nil || w.accepted(old) || record.Last.GraceEndsAt.After(time.Now()) || !w.accepted(w.sink.ClientSecret.Reveal()) {
			t.Error(record, err)
		}
		if record, err := r.RecordListing(w.t.Context(), token, w.facts()); err != nil || !record.Outside.IsZero() {
			t.Error("our own change is taken for a rotation by another person", err)
		}
		if due := rotation.NextDue(token, w.record(), rotation.Pause{}); due.Reason != rotation.DueSlot {
			t.Error(due.Reason)
		}
	})
	inBubble(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) { // while consumers may need the old secret
		w.failOnce("sink store", fault{before: errors.New("x")})
		w.advance(r, token)
		if _, err := r.RevokePrevious(w.t.Context(), token); !errors.Is(err, rotation.ErrNoPrevious) || !w.accepted(w.sink.ClientSecret.Reveal()) {
			t.Error(err)
		}
		if _, err := r.ExtendGrace(w.t.Context(), token, time.Hour); err != nil || time.Until(w.previousUntil) != time.Hour {
			t.Error("the grace of the old secret, which consumers use, was not extended:", err)
		}
	})
	inFresh(t, func(token *rotation.Token) { token.Replace = true }, func(w *world, token rotation.Token, r *rotation.Rotator) {
		r = w.runUntilIdle(r, token)
		w.advance(r, token)
		if record, err := r.RevokePrevious(w.t.Context(), token); err != nil || !w.gone[w.created[0].id] || len(record.Replaced) > 0 {
			t.Error(record, err)
		}
	})
}

func TestExtendGrace(t *testing.T) {
	inBubble(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		old := w.current
		w.advance(r, token)
		if _, err := r.ExtendGrace(w.t.Context(), token, 10*time.Minute); !errors.Is(err, rotation.ErrNoPrevious) || !strings.Contains(err.Error(), "earlier") {
			t.Error("the grace was shortened:", err)
		}
		record, err := r.ExtendGrace(w.t.Context(), token, 3*time.Hour)
		if err != nil || time.Until(record.Last.GraceEndsAt) != 3*time.Hour {
			t.Fatal(record, err)
		}
		if due := rotation.NextDue(token, record, rotation.Pause{}); due.Reason != rotation.DueGrace || time.Until(due.At) != 3*time.Hour {
			t.Error("the next rotation does not wait for the grace:", due)
		}
		time.Sleep(3*time.Hour - time.Second)
		if !w.accepted(old) {
			t.Error("the old secret died early")
		}
		time.Sleep(2 * time.Second)
		if _, err := r.ExtendGrace(w.t.Context(), token, time.Hour); !errors.Is(err, rotation.ErrNoPrevious) || !strings.Contains(err.Error(), "revived") {
			t.Error(err)
		}
		if _, err := r.ExtendGrace(w.t.Context(), token, 31*24*time.Hour); err == nil {
			t.Error("an extension by 31 days is accepted")
		}
	})
	inFresh(t, func(token *rotation.Token) { token.Replace = true }, func(w *world, token rotation.Token, r *rotation.Rotator) {
		r = w.runUntilIdle(r, token)
		w.advance(r, token)
		record, err := r.ExtendGrace(w.t.Context(), token, 50*time.Minute)
		if err != nil || time.Until(rotation.NextChore(token, record)) != 50*time.Minute {
			t.Error(record, err)
		}
	})
}

// TestGraceAcrossStrategies: the strategy has changed since the last rotation. Whether the previous secret belongs
// to the same service token depends on the strategy of that rotation, and not on the present configuration.
func TestGraceAcrossStrategies(t *testing.T) {
	rotated := func(w *world, token rotation.Token, r *rotation.Rotator) (rotation.Token, string) {
		w.gone = map[string]bool{}
		old := w.current
		w.advance(r, token)
		token.Replace, token.Creator = true, w
		if _, err := r.Enroll(w.t.Context(), token); err != nil {
			t.Fatal(err)
		}
		return token, old
	}
	inBubble(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		token, old := rotated(w, token, r)
		if _, err := r.ExtendGrace(w.t.Context(), token, 3*time.Hour); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		if !w.accepted(old) {
			t.Error("the old secret died before the end of its grace")
		}
	})
	inBubble(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		token, old := rotated(w, token, r)
		if _, err := r.RevokePrevious(w.t.Context(), token); err != nil || w.accepted(old) {
			t.Error("the previous secret is not revoked", err)
		}
	})
	inFresh(t, replacing, func(w *world, token rotation.Token, r *rotation.Rotator) {
		r = w.runUntilIdle(r, token)
		w.advance(r, token)
		token.Replace = false
		if _, err := r.Enroll(w.t.Context(), token); err != nil {
			t.Fatal(err)
		}
		if record, err := r.ExtendGrace(w.t.Context(), token, 50*time.Minute); err != nil || time.Until(rotation.NextChore(token, record)) != 50*time.Minute {
			t.Error("the deletion of the replaced service token is not postponed", err)
		}
		w.namedByPolicy[w.created[0].id] = true // so that it cannot be deleted, and rotations continue
		w.runFor(r, token, 2*time.Hour)
		leaked := w.created[1].previous
		if w.rotates == 0 || !w.created[1].accepted(leaked) {
			t.Fatal("the new service token was not rotated with a grace")
		}
		_, _ = r.RevokePrevious(w.t.Context(), token)
		if w.created[1].accepted(leaked) {
			t.Error("the previous secret is not revoked while a replaced service token cannot be deleted")
		}
		delete(w.namedByPolicy, w.created[0].id)
		if _, err := r.RevokePrevious(w.t.Context(), token); err != nil || !w.gone[w.created[0].id] {
			t.Error("the replaced service token is not deleted", err)
		}
	})
}
