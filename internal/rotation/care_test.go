package rotation_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/internal/rotation"
)

// expiring has the service token end in that time, and be renewed so long before.
func expiring(w *world, r *rotation.Rotator, token rotation.Token, in, before time.Duration) rotation.Token {
	w.t.Helper()
	token.Renewer, token.RenewBefore = w, before
	w.expiresAt = time.Now().Add(in).UTC()
	if _, err := r.RecordListing(w.t.Context(), token, w.facts()); err != nil {
		w.t.Fatal(err)
	}
	return token
}

// care waits until there is something to be done beside rotations, and has it done.
func (w *world) care(r *rotation.Rotator, token rotation.Token) error {
	time.Sleep(time.Until(rotation.NextChore(token, w.record())))
	_, err := r.Advance(w.t.Context(), token)
	return err
}

func TestRenewal(t *testing.T) {
	inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) {
		token = expiring(w, r, token, 100*24*time.Hour, 30*24*time.Hour)
		if at := rotation.NextChore(token, w.record()); time.Until(at) != 70*24*time.Hour {
			t.Fatal("it is renewed in", time.Until(at))
		}
		if err := w.care(r, token); err != nil || time.Until(w.record().Facts.ExpiresAt) < 364*24*time.Hour || w.rotates > 0 {
			t.Error(err, w.record())
		}
		if at := rotation.RenewsAt(token, w.record()); time.Until(at) < 334*24*time.Hour {
			t.Error("it is renewed again in", time.Until(at))
		}
		// The listing after it shows our own change, and is no alarm.
		if record, err := r.RecordListing(w.t.Context(), token, w.facts()); err != nil || !record.Outside.IsZero() {
			t.Error(record, err)
		}
	})
	inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) { // with a duration
		token.RenewFor = "2160h"
		token = expiring(w, r, token, 10*24*time.Hour, 30*24*time.Hour)
		if err := w.care(r, token); err != nil || time.Until(w.record().Facts.ExpiresAt) != 90*24*time.Hour {
			t.Error(err, w.record().Facts)
		}
	})
	inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) { // one that does not end
		w.duration = "forever"
		token = expiring(w, r, token, 10*24*time.Hour, 30*24*time.Hour)
		if at := rotation.NextChore(token, w.record()); !at.IsZero() {
			t.Error("a token without an end is renewed at", at)
		}
	})
	inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) { // never shortened
		token.RenewFor = "24h"
		token = expiring(w, r, token, 10*24*time.Hour, 30*24*time.Hour)
		if err := w.care(r, token); err == nil || !strings.Contains(err.Error(), "shorten") || w.count("renew") > 0 || w.record().Renewal.Failures != 1 {
			t.Error(err, w.record().Renewal)
		}
	})
	inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) { // somebody else was first
		token = expiring(w, r, token, 40*24*time.Hour, 30*24*time.Hour)
		w.expiresAt = w.expiresAt.AddDate(1, 0, 0)
		if err := w.care(r, token); err != nil || w.count("renew") > 0 || !w.record().Facts.ExpiresAt.Equal(w.expiresAt) {
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
			if err := w.care(r, token); err == nil {
				t.Fatal("it did not fail")
			}
		}
		if took := time.Since(start); took < time.Hour || took > 8*time.Hour || w.record().Step != rotation.StepIdle {
			t.Error("12 tries took", took)
		}
		if err := w.care(r, token); err != nil || w.count("renew") != 12 { // it looks first, and sees that it was renewed
			t.Error(err, w.count("renew"))
		}
		if record := w.record(); record.Facts.ExpiresAt.IsZero() || !record.Outside.IsZero() {
			t.Errorf("%+v", record)
		}
	})
}

// TestRenewalIsDenserTowardsTheEnd: Cloudflare is away until after the end, and every back-off has grown.
func TestRenewalIsDenserTowardsTheEnd(t *testing.T) {
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
			if err := w.care(r, token); err == nil {
				t.Fatal("it did not fail")
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
		if err := w.care(r, token); err != nil || !w.record().Facts.ExpiresAt.After(time.Now()) {
			t.Error(err, w.record().Facts)
		}
	})
	inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) { // a person has to change something
		token = expiring(w, r, token, time.Minute, 30*24*time.Hour)
		w.fault = func(_ int, c string) fault {
			if c == "renew" {
				return fault{before: &rotation.IssuerError{Class: rotation.Refused, Status: 403}}
			}
			return fault{}
		}
		for range 8 {
			if err := w.care(r, token); err == nil {
				t.Fatal("it did not fail")
			}
		}
		if wait := time.Until(rotation.NextChore(token, w.record())); wait != 10*time.Second {
			t.Error("it is tried again in", wait)
		}
	})
}

// TestRotatedOutside: somebody else rotates, and nothing that is shown is different but when.
func TestRotatedOutside(t *testing.T) {
	outside := func(w *world) (n int) {
		for _, e := range w.events {
			if _, ok := e.(rotation.RotatedOutside); ok {
				n++
			}
		}
		return n
	}
	learn := func(w *world, r *rotation.Rotator, token rotation.Token) rotation.Record {
		record, err := r.RecordListing(w.t.Context(), token, w.facts())
		if err != nil {
			t.Fatal(err)
		}
		return record
	}
	byHand := func(w *world) {
		time.Sleep(10 * time.Minute)
		w.previous, w.previousUntil = w.current, time.Now().Add(time.Hour)
		w.current, w.updatedAt = "by hand", time.Now().UTC()
		time.Sleep(10 * time.Minute)
	}
	inBubble(t, 20*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.advance(r, token)
		learn(w, r, token)
		byHand(w)
		if record := learn(w, r, token); !record.Outside.Equal(w.updatedAt) || outside(w) != 1 || record.Order != nil {
			t.Fatalf("%+v, %d alarms", record, outside(w))
		}
		learn(w, r, token)
		if outside(w) != 1 {
			t.Error("the alarm is told twice")
		}
		w.ordered = true
		if err, _ := w.advance(r, token); err != nil || !w.record().Outside.IsZero() {
			t.Error("our own rotation does not end it", err)
		}
	})
	inBubble(t, 20*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) { // healed, once a day
		token.RotateAfterOutside, w.ordered = true, true
		w.advance(r, token)
		byHand(w)
		record := learn(w, r, token)
		due := rotation.NextDue(token, record, rotation.Pause{})
		if record.Order == nil || due.Reason != rotation.DueOrdered || due.Trigger != rotation.TriggerRecovery || due.At.After(time.Now()) {
			t.Fatalf("%+v", record)
		}
		if due := rotation.NextDue(token, record, rotation.Pause{Since: time.Now()}); !due.Unscheduled {
			t.Error("a pause does not hold it up:", due)
		}
		if err, _ := w.advance(r, token); err != nil || w.sink.ClientSecret.Reveal() != w.current {
			t.Error(err)
		}
		byHand(w)
		if record := learn(w, r, token); record.Order != nil || record.Outside.IsZero() {
			t.Errorf("it chases the other one: %+v", record)
		}
	})
	for name, edit := range map[string]func(w *world){
		"a change of the name":     func(w *world) { w.name = "another" },
		"a renewal":                func(w *world) { w.expiresAt = time.Now().AddDate(1, 0, 0).UTC() },
		"a change of the duration": func(w *world) { w.duration = "24h" },
	} {
		inBubble(t, 20*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
			w.duration = "8760h"
			learn(w, r, token)
			time.Sleep(time.Hour)
			edit(w)
			w.updatedAt = time.Now().UTC()
			if record := learn(w, r, token); outside(w) > 0 || !record.Outside.IsZero() {
				t.Errorf("%s is taken for a rotation", name)
			}
		})
	}
	inBubble(t, 20*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) { // a listing that was under way
		before := w.facts()
		w.advance(r, token)
		if record, err := r.RecordListing(w.t.Context(), token, before); err != nil || !record.Facts.UpdatedAt.Equal(w.updatedAt) || outside(w) > 0 {
			t.Error(record, err)
		}
		if learn(w, r, token); outside(w) > 0 {
			t.Error("our own rotation is taken for another's")
		}
	})
	inBubble(t, 20*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) { // where updated_at stays
		w.frozenUpdatedAt = true
		w.advance(r, token)
		byHand(w)
		if learn(w, r, token); outside(w) > 0 {
			t.Error("where a rotation leaves updated_at alone its moving says nothing")
		}
	})
}

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
	inMaking(t, func(token *rotation.Token) { token.Replace = true }, func(w *world, token rotation.Token, r *rotation.Rotator) {
		r = w.settle(r, token)
		w.advance(r, token)
		if record, err := r.RevokePrevious(w.t.Context(), token); err != nil || !w.gone[w.made[0].id] || len(record.Replaced) > 0 {
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
	inMaking(t, func(token *rotation.Token) { token.Replace = true }, func(w *world, token rotation.Token, r *rotation.Rotator) {
		r = w.settle(r, token)
		w.advance(r, token)
		record, err := r.ExtendGrace(w.t.Context(), token, 50*time.Minute)
		if err != nil || time.Until(rotation.NextChore(token, record)) != 50*time.Minute {
			t.Error(record, err)
		}
	})
}

// TestInventoryIsAWitness: an inventory that began when the request could no longer be under way
// settles a doubt, and nobody is asked for the token by itself.
func TestInventoryIsAWitness(t *testing.T) {
	doubt := func(w *world, token rotation.Token, r *rotation.Rotator, f fault) (before rotation.TokenFacts) {
		w.advance(r, token) // which shows that updated_at moves
		time.Sleep(time.Until(w.record().Last.GraceEndsAt))
		before = w.facts()
		w.failOnce("rotate", f)
		w.advance(r, token)
		if w.record().Step != rotation.StepInDoubt {
			t.Fatal(w.record().Step)
		}
		w.calls = nil
		return before
	}
	inBubble(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) { // it was carried out
		doubt(w, token, r, fault{after: &rotation.IssuerError{Class: rotation.Unknown}})
		time.Sleep(30 * time.Second)
		if record, err := r.RecordListingOfDoubt(w.t.Context(), token, w.facts(), time.Now()); err != nil || record.Doubt.CarriedOut {
			t.Error("a listing that is too early counts", err)
		}
		time.Sleep(time.Minute)
		record, err := r.RecordListingOfDoubt(w.t.Context(), token, w.facts(), time.Now())
		if err != nil || !record.Doubt.CarriedOut || record.NotBefore.After(time.Now()) {
			t.Fatal(record, err)
		}
		if _, err := r.Advance(w.t.Context(), token); err == nil || w.count("inspect") > 0 || w.record().Doubt.Decision != rotation.ReasonOldSecretWorks {
			t.Error(err, w.calls, w.record().Doubt)
		}
		if again, err := r.RecordListingOfDoubt(w.t.Context(), token, w.facts(), record.Doubt.ListedAt); err != nil || again.Revision != w.record().Revision {
			t.Error("the same listing counts twice", err)
		}
		if _, _, err := r.Resolve(w.t.Context(), token, rotation.ResolveLook); err != nil || w.count("inspect") != 1 {
			t.Error("an operator's look asks nobody", err)
		}
		time.Sleep(11 * time.Minute)
		if w.advance(r, token); w.count("inspect") != 2 {
			t.Error("an old listing counts")
		}
	})
	inBubble(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) { // it was not
		before := doubt(w, token, r, fault{before: &rotation.IssuerError{Class: rotation.Unknown}})
		time.Sleep(2 * time.Minute)
		if _, err := r.RecordListingOfDoubt(w.t.Context(), token, before, time.Now()); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Advance(w.t.Context(), token); err != nil || w.count("inspect") > 0 || w.record().Step != rotation.StepIdle {
			t.Error(err, w.calls, w.record())
		}
	})
}

// TestStopIsNoFailure: a deletion or a renewal that the daemon's stop cuts short is tried again
// at the next start, at once, and nobody is told that it failed.
func TestStopIsNoFailure(t *testing.T) {
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
		for _, event := range w.events[before:] {
			switch event.(type) {
			case rotation.ReplacedDeleted, rotation.Renewed:
				w.t.Errorf("somebody was told of %+v", event)
			}
		}
		record := w.record()
		if record.Renewal.Failures != 0 || slices.ContainsFunc(record.Replaced, func(o rotation.Replaced) bool { return o.Failures > 0 }) ||
			rotation.NextChore(token, record).After(time.Now()) {
			w.t.Errorf("it counts as a failure: %+v, %+v", record.Replaced, record.Renewal)
		}
		if err := w.care(r, token); err != nil || !rotation.NextChore(token, w.record()).IsZero() && time.Until(rotation.NextChore(token, w.record())) < time.Hour {
			w.t.Error("it is not done by the next start", err)
		}
	}
	inMaking(t, func(token *rotation.Token) { token.Replace = true }, func(w *world, token rotation.Token, r *rotation.Rotator) {
		for range 2 {
			if err, _ := w.advance(r, token); err != nil {
				t.Fatal(err)
			}
		}
		if stopped(w, r, token, "delete"); len(w.left()) != 1 {
			t.Errorf("%d service tokens are left", len(w.left()))
		}
	})
	inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) {
		token = expiring(w, r, token, 100*24*time.Hour, 30*24*time.Hour)
		stopped(w, r, token, "renew")
	})
}
