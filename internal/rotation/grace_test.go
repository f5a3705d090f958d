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
			t.Fatal("no grace")
		}
		record, err := r.RevokePrevious(w.t.Context(), token)
		if err != nil || w.accepted(old) || record.Last.GraceEndsAt.After(time.Now()) || !w.accepted(w.sink.ClientSecret.Reveal()) {
			t.Error(record, err)
		}
		if record, err := r.RecordListing(w.t.Context(), token, w.facts()); err != nil || !record.Outside.IsZero() {
			t.Error("our own change is taken for another's", err)
		}
		if due := rotation.NextDue(token, w.record(), rotation.Pause{}); due.Reason != rotation.DueSlot {
			t.Error(due.Reason)
		}
	})
	inBubble(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) { // while consumers may need it
		w.failOnce("sink store", fault{before: errors.New("x")})
		w.advance(r, token)
		if _, err := r.RevokePrevious(w.t.Context(), token); !errors.Is(err, rotation.ErrNoPrevious) || !w.accepted(w.sink.ClientSecret.Reveal()) {
			t.Error(err)
		}
		if _, err := r.ExtendGrace(w.t.Context(), token, time.Hour); err != nil || time.Until(w.previousUntil) != time.Hour {
			t.Error("the old secret, which consumers use, was not kept for longer:", err)
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
			t.Error("a grace is shortened:", err)
		}
		record, err := r.ExtendGrace(w.t.Context(), token, 3*time.Hour)
		if err != nil || time.Until(record.Last.GraceEndsAt) != 3*time.Hour {
			t.Fatal(record, err)
		}
		if due := rotation.NextDue(token, record, rotation.Pause{}); due.Reason != rotation.DueGrace || time.Until(due.At) != 3*time.Hour {
			t.Error("the next rotation does not wait for it:", due)
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
			t.Error("31 days are granted")
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

// TestGraceAcrossStrategies: whether the previous secret is one of the same service token or of
// another one depends on how it was replaced, and not on what is configured since.
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
			t.Error("the grace that was promised is not kept")
		}
	})
	inBubble(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		token, old := rotated(w, token, r)
		if _, err := r.RevokePrevious(w.t.Context(), token); err != nil || w.accepted(old) {
			t.Error("it is not revoked", err)
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
			t.Error("the one that was replaced is not kept", err)
		}
		w.namedByPolicy[w.created[0].id] = true // so that it is left, and rotations go on beside it
		w.runFor(r, token, 2*time.Hour)
		leaked := w.created[1].previous
		if w.rotates == 0 || !w.created[1].accepted(leaked) {
			t.Fatal("it was not rotated with a grace")
		}
		_, _ = r.RevokePrevious(w.t.Context(), token)
		if w.created[1].accepted(leaked) {
			t.Error("the previous secret is not revoked, since one that was replaced is left")
		}
		delete(w.namedByPolicy, w.created[0].id)
		if _, err := r.RevokePrevious(w.t.Context(), token); err != nil || !w.gone[w.created[0].id] {
			t.Error("the one that was replaced is not revoked", err)
		}
	})
}
