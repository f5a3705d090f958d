package rotation_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
)

// expiring returns the token with a service token that expires in expiresIn, and that the daemon renews
// renewBefore ahead of its expiry.
func expiring(w *world, r *rotation.Rotator, token rotation.Token, expiresIn, renewBefore time.Duration) rotation.Token {
	w.t.Helper()
	token.Renewer, token.RenewBefore = w, renewBefore
	w.expiresAt = time.Now().Add(expiresIn).UTC()
	if _, err := r.RecordListing(w.t.Context(), token, w.facts()); err != nil {
		w.t.Fatal(err)
	}
	return token
}

// runNextChore waits until a chore is due, and runs it.
func (w *world) runNextChore(r *rotation.Rotator, token rotation.Token) error {
	time.Sleep(time.Until(rotation.NextChore(token, w.record())))
	_, err := r.Advance(w.t.Context(), token)
	return err
}

func TestRenewal(t *testing.T) {
	inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) {
		token = expiring(w, r, token, 100*24*time.Hour, 30*24*time.Hour)
		if at := rotation.NextChore(token, w.record()); time.Until(at) != 70*24*time.Hour {
			t.Fatal("the renewal comes in", time.Until(at))
		}
		if err := w.runNextChore(r, token); err != nil || time.Until(w.record().Facts.ExpiresAt) < 364*24*time.Hour || w.rotates > 0 {
			t.Error(err, w.record())
		}
		if at := rotation.RenewsAt(token, w.record()); time.Until(at) < 334*24*time.Hour {
			t.Error("the next renewal comes in", time.Until(at))
		}
		// The next listing shows our own change, and raises no alarm.
		if record, err := r.RecordListing(w.t.Context(), token, w.facts()); err != nil || !record.Outside.IsZero() {
			t.Error(record, err)
		}
	})
	inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) { // with a duration
		token.RenewFor = "2160h"
		token = expiring(w, r, token, 10*24*time.Hour, 30*24*time.Hour)
		if err := w.runNextChore(r, token); err != nil || time.Until(w.record().Facts.ExpiresAt) != 90*24*time.Hour {
			t.Error(err, w.record().Facts)
		}
	})
	inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) { // a token that never expires
		w.duration = "forever"
		token = expiring(w, r, token, 10*24*time.Hour, 30*24*time.Hour)
		if at := rotation.NextChore(token, w.record()); !at.IsZero() {
			t.Error("a token that never expires is renewed at", at)
		}
	})
	inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) { // a renewal must not shorten the lifetime
		token.RenewFor = "24h"
		token = expiring(w, r, token, 10*24*time.Hour, 30*24*time.Hour)
		if err := w.runNextChore(r, token); err == nil || !strings.Contains(err.Error(), "shorten") || w.count("renew") > 0 || w.record().Renewal.Failures != 1 {
			t.Error(err, w.record().Renewal)
		}
	})
	inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) { // another person renewed it first
		token = expiring(w, r, token, 40*24*time.Hour, 30*24*time.Hour)
		w.expiresAt = w.expiresAt.AddDate(1, 0, 0)
		if err := w.runNextChore(r, token); err != nil || w.count("renew") > 0 || !w.record().Facts.ExpiresAt.Equal(w.expiresAt) {
			t.Error(err, w.record())
		}
	})
	inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) { // failures, and a lost answer
		token = expiring(w, r, token, 40*24*time.Hour, 30*24*time.Hour)
		n := 0
		w.fault = func(_ int, c string) fault {
			if c != "renew" {
				return fault{}
			}
			if n++; n == 12 {
				return fault{after: &rotation.IssuerError{Class: rotation.Unknown}}
			}
			if n < 12 {
				return fault{before: &rotation.IssuerError{Class: rotation.Refused, Status: 403}}
			}
			return fault{}
		}
		start := time.Now().Add(10 * 24 * time.Hour)
		for n < 12 {
			if err := w.runNextChore(r, token); err == nil {
				t.Fatal("the renewal did not fail")
			}
		}
		if took := time.Since(start); took < time.Hour || took > 8*time.Hour || w.record().Step != rotation.StepIdle {
			t.Error("12 tries took", took)
		}
		if err := w.runNextChore(r, token); err != nil || w.count("renew") != 12 { // the daemon looks first, and sees that the token was renewed
			t.Error(err, w.count("renew"))
		}
		if record := w.record(); record.Facts.ExpiresAt.IsZero() || !record.Outside.IsZero() {
			t.Errorf("%+v", record)
		}
	})
}

// TestRenewalIsTriedMoreOftenNearTheExpiry: Cloudflare is away until after the expiry, and the back-off has grown.
func TestRenewalIsTriedMoreOftenNearTheExpiry(t *testing.T) {
	inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) {
		token = expiring(w, r, token, 31*24*time.Hour, 30*24*time.Hour)
		end := w.record().Facts.ExpiresAt
		w.fault = func(_ int, c string) fault {
			if c == "renew" {
				return fault{before: &rotation.IssuerError{Class: rotation.NotCarriedOut, Status: 503}}
			}
			return fault{}
		}
		for time.Since(end) < 20*time.Minute {
			if err := w.runNextChore(r, token); err == nil {
				t.Fatal("the renewal did not fail")
			}
			left, wait := time.Until(end), time.Until(rotation.NextChore(token, w.record()))
			want := time.Hour
			switch {
			case left < -10*time.Minute:
				want = 30 * time.Second
			case left <= 2*time.Minute:
				want = 3 * time.Second
			default:
				want = min(want, left/8+time.Second)
			}
			if wait <= 0 || wait > want {
				t.Fatalf("with %s left the next try comes in %s, want %s at most", left, wait, want)
			}
		}
		w.fault = nil
		if err := w.runNextChore(r, token); err != nil || !w.record().Facts.ExpiresAt.After(time.Now()) {
			t.Error(err, w.record().Facts)
		}
	})
	inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) { // Cloudflare refuses until a person changes something
		token = expiring(w, r, token, time.Minute, 30*24*time.Hour)
		w.fault = func(_ int, c string) fault {
			if c == "renew" {
				return fault{before: &rotation.IssuerError{Class: rotation.Refused, Status: 403}}
			}
			return fault{}
		}
		for range 8 {
			if err := w.runNextChore(r, token); err == nil {
				t.Fatal("the renewal did not fail")
			}
		}
		if wait := time.Until(rotation.NextChore(token, w.record())); wait != 10*time.Second {
			t.Error("the next try comes in", wait)
		}
	})
}

// TestStopIsNotAFailure: the daemon stops during a deletion or a renewal. The next process tries again at once,
// and no event reports a failure.
func TestStopIsNotAFailure(t *testing.T) {
	stopped := func(w *world, r *rotation.Rotator, token rotation.Token, call string) {
		w.t.Helper()
		time.Sleep(time.Until(rotation.NextChore(token, w.record())))
		ctx, stop := context.WithCancel(w.t.Context())
		w.fault = func(_ int, name string) fault {
			if name != call {
				return fault{}
			}
			stop()
			return fault{before: &rotation.IssuerError{Class: rotation.NotCarriedOut, Err: context.Canceled}}
		}
		before := len(w.events)
		if _, err := r.Advance(ctx, token); !errors.Is(err, context.Canceled) {
			w.t.Error("a stop:", err)
		}
		w.fault = nil
		for _, e := range w.events[before:] {
			switch e.Detail.(type) {
			case event.Deletion, event.Renewal:
				w.t.Errorf("a failure was reported: %+v", e)
			}
		}
		record := w.record()
		if record.Renewal.Failures != 0 || slices.ContainsFunc(record.Replaced, func(o rotation.Replaced) bool { return o.Failures > 0 }) ||
			rotation.NextChore(token, record).After(time.Now()) {
			w.t.Errorf("it counts as a failure: %+v, %+v", record.Replaced, record.Renewal)
		}
		if err := w.runNextChore(r, token); err != nil || !rotation.NextChore(token, w.record()).IsZero() && time.Until(rotation.NextChore(token, w.record())) < time.Hour {
			w.t.Error("the next process does not do it", err)
		}
	}
	inFresh(t, func(token *rotation.Token) { token.Replace = true }, func(w *world, token rotation.Token, r *rotation.Rotator) {
		for range 2 {
			if err, _ := w.advance(r, token); err != nil {
				t.Fatal(err)
			}
		}
		if stopped(w, r, token, "delete"); len(w.notDeleted()) != 1 {
			t.Errorf("%d service tokens are not deleted", len(w.notDeleted()))
		}
	})
	inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) {
		token = expiring(w, r, token, 100*24*time.Hour, 30*24*time.Hour)
		stopped(w, r, token, "renew")
	})
}

// TestRenewalThatIsTooShort: the expiry is still near after each renewal. The daemon does not renew again at
// once, and it continues to rotate.
func TestRenewalThatIsTooShort(t *testing.T) {
	inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) {
		token.RenewFor = "3h"
		token = expiring(w, r, token, 2*time.Hour, 100*time.Hour)
		w.runFor(r, token, 24*time.Hour)
		if n := w.count("renew"); n > 60 || w.rotates < 20 {
			t.Errorf("%d renewals, %d rotations in a day", n, w.rotates)
		}
	})
}
