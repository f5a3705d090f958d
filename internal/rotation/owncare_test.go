package rotation_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"rotatord/internal/rotation"
)

// TestMadeIsEnabled: what was just made is enabled, although the answer does not say so: nobody is
// to be woken until the next listing.
func TestMadeIsEnabled(t *testing.T) {
	inMaking(t, replacing, func(w *world, token rotation.Token, r *rotation.Rotator) {
		r = w.settle(r, token)
		if !w.record().Facts.Enabled {
			t.Error("the first one is shown as disabled")
		}
		w.advance(r, token)
		if !w.record().Facts.Enabled {
			t.Error("the one that took its place is shown as disabled")
		}
	})
}

// TestOwnLostRotation: a listing between a doubt whose old secret does not matter and the rotation
// that makes up for it shows our own request, and nobody else's.
func TestOwnLostRotation(t *testing.T) {
	lost := func(w *world, token rotation.Token, r *rotation.Rotator) {
		time.Sleep(5 * time.Hour)
		w.fault = func(_ int, c string) fault {
			switch {
			case c == "rotate" && w.rotates == 0:
				return fault{after: &rotation.IssuerError{Class: rotation.Unknown}}
			case c == "sink preflight" && w.rotates == 1:
				return fault{before: errors.New("vault is sealed")}
			}
			return fault{}
		}
		for range 40 {
			w.advance(r, token)
			if record := w.record(); record.Step == rotation.StepIdle && w.rotates == 1 {
				break
			}
		}
		c := &w.cfToken
		if token.Partner != "" {
			c = &w.partner
		}
		time.Sleep(5 * time.Minute)
		record, err := r.RecordListing(w.t.Context(), token, c.facts())
		if err != nil || w.rotates != 1 || !record.Outside.IsZero() {
			t.Errorf("%d rotates, rotated by somebody else: %s, %v", w.rotates, record.Outside, err)
		}
	}
	inBubble(t, 0, lost)
	inPair(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		for _, c := range []*cfToken{&w.cfToken, &w.partner} {
			if _, err := r.RecordListing(w.t.Context(), token, c.facts()); err != nil {
				t.Fatal(err)
			}
		}
		lost(w, token, r)
	})
}

// TestLearnOfAnother: what a listing says of a service token that was replaced meanwhile is not
// taken for what the one in its place is like.
func TestLearnOfAnother(t *testing.T) {
	inMaking(t, replacing, func(w *world, token rotation.Token, r *rotation.Rotator) {
		r = w.settle(r, token)
		before := w.made[0].facts()
		w.advance(r, token)
		if record, err := r.RecordListing(w.t.Context(), token, before); err != nil || record.Facts.ID != w.made[1].id {
			t.Error(record.Facts, err)
		}
	})
}

// TestNameOfItsOwn: only a suffix that rotatord has given is taken off a name.
func TestNameOfItsOwn(t *testing.T) {
	inBubble(t, 20*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.gone, w.name = map[string]bool{}, "edge-production"
		token.Replace, token.Creator = true, w
		if _, err := r.Enroll(w.t.Context(), token); err != nil {
			t.Fatal(err)
		}
		if _, err := r.RecordListing(w.t.Context(), token, w.facts()); err != nil {
			t.Fatal(err)
		}
		w.live(r, token, 3*time.Hour)
		for _, c := range w.made {
			if !strings.HasPrefix(c.name, "edge-production-") || strings.Count(c.name, "-") != 2 {
				t.Error(c.name)
			}
		}
	})
}

// TestRenewalThatDoesNotHelp: a renewal after which the end is still near is not repeated at once,
// and rotations go on.
func TestRenewalThatDoesNotHelp(t *testing.T) {
	inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) {
		token.RenewFor = "3h"
		token = expiring(w, r, token, 2*time.Hour, 100*time.Hour)
		w.live(r, token, 24*time.Hour)
		if n := w.count("renew"); n > 60 || w.rotates < 20 {
			t.Errorf("%d renewals, %d rotations in a day", n, w.rotates)
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
	inMaking(t, replacing, func(w *world, token rotation.Token, r *rotation.Rotator) {
		r = w.settle(r, token)
		w.advance(r, token)
		token.Replace = false
		if _, err := r.Enroll(w.t.Context(), token); err != nil {
			t.Fatal(err)
		}
		if record, err := r.ExtendGrace(w.t.Context(), token, 50*time.Minute); err != nil || time.Until(rotation.NextChore(token, record)) != 50*time.Minute {
			t.Error("the one that was replaced is not kept", err)
		}
		w.inUse[w.made[0].id] = true // so that it is left, and rotations go on beside it
		w.live(r, token, 2*time.Hour)
		leaked := w.made[1].previous
		if w.rotates == 0 || !w.made[1].accepted(leaked) {
			t.Fatal("it was not rotated with a grace")
		}
		_, _ = r.RevokePrevious(w.t.Context(), token)
		if w.made[1].accepted(leaked) {
			t.Error("the previous secret is not revoked, since one that was replaced is left")
		}
		delete(w.inUse, w.made[0].id)
		if _, err := r.RevokePrevious(w.t.Context(), token); err != nil || !w.gone[w.made[0].id] {
			t.Error("the one that was replaced is not revoked", err)
		}
	})
}
