package rotation_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
)

// TestRotatedOutside: another person rotates the token. The listing shows it only by a new updated_at.
func TestRotatedOutside(t *testing.T) {
	outside := func(w *world) (n int) {
		for _, e := range w.events {
			if _, ok := e.Detail.(event.OutsideRotation); ok {
				n++
			}
		}
		return n
	}
	recordListing := func(w *world, r *rotation.Rotator, token rotation.Token) rotation.Record {
		record, err := r.RecordListing(w.t.Context(), token, w.facts())
		if err != nil {
			t.Fatal(err)
		}
		return record
	}
	rotateByHand := func(w *world) {
		time.Sleep(10 * time.Minute)
		w.previous, w.previousUntil = w.current, time.Now().Add(time.Hour)
		w.current, w.updatedAt = "by hand", time.Now().UTC()
		time.Sleep(10 * time.Minute)
	}
	inBubble(t, 20*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.advance(r, token)
		recordListing(w, r, token)
		rotateByHand(w)
		if record := recordListing(w, r, token); !record.Outside.Equal(w.updatedAt) || outside(w) != 1 || record.Order != nil {
			t.Fatalf("%+v, %d alarms", record, outside(w))
		}
		recordListing(w, r, token)
		if outside(w) != 1 {
			t.Error("the alarm is raised twice")
		}
		w.mayCutOff = true
		if err, _ := w.advance(r, token); err != nil || !w.record().Outside.IsZero() {
			t.Error("our own rotation does not end the alarm:", err)
		}
	})
	inBubble(t, 20*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) { // outside_rotation: rotate, at most once a day
		token.RotateAfterOutside, w.mayCutOff = true, true
		w.advance(r, token)
		rotateByHand(w)
		record := recordListing(w, r, token)
		due := rotation.NextDue(token, record, rotation.Pause{})
		if record.Order == nil || due.Reason != rotation.DueOrdered || due.Trigger != rotation.TriggerRecovery || due.At.After(time.Now()) {
			t.Fatalf("%+v", record)
		}
		if due := rotation.NextDue(token, record, rotation.Pause{Since: time.Now()}); !due.Unscheduled {
			t.Error("a pause does not delay the order:", due)
		}
		if err, _ := w.advance(r, token); err != nil || w.sink.ClientSecret.Reveal() != w.current {
			t.Error(err)
		}
		rotateByHand(w)
		if record := recordListing(w, r, token); record.Order != nil || record.Outside.IsZero() {
			t.Errorf("it rotates again within a day: %+v", record)
		}
	})
	for name, edit := range map[string]func(w *world){
		"a change of the name":     func(w *world) { w.name = "another" },
		"a renewal":                func(w *world) { w.expiresAt = time.Now().AddDate(1, 0, 0).UTC() },
		"a change of the duration": func(w *world) { w.duration = "24h" },
	} {
		inBubble(t, 20*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) {
			w.duration = "8760h"
			recordListing(w, r, token)
			time.Sleep(time.Hour)
			edit(w)
			w.updatedAt = time.Now().UTC()
			if record := recordListing(w, r, token); outside(w) > 0 || !record.Outside.IsZero() {
				t.Errorf("%s is taken for a rotation by another person", name)
			}
		})
	}
	inBubble(t, 20*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) { // a listing that began before our rotation
		before := w.facts()
		w.advance(r, token)
		if record, err := r.RecordListing(w.t.Context(), token, before); err != nil || !record.Facts.UpdatedAt.Equal(w.updatedAt) || outside(w) > 0 {
			t.Error(record, err)
		}
		if recordListing(w, r, token); outside(w) > 0 {
			t.Error("our own rotation is taken for a rotation by another person")
		}
	})
	inBubble(t, 20*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) { // updated_at does not move on a rotation
		w.frozenUpdatedAt = true
		w.advance(r, token)
		rotateByHand(w)
		if recordListing(w, r, token); outside(w) > 0 {
			t.Error("updated_at does not move on our rotations, so it proves nothing when it moves")
		}
	})
}

// TestListingResolvesADoubt: a listing that began after the request could no longer be under way resolves a doubt,
// without another request to Cloudflare.
func TestListingResolvesADoubt(t *testing.T) {
	doubt := func(w *world, token rotation.Token, r *rotation.Rotator, f fault) (before rotation.TokenFacts) {
		w.advance(r, token) // shows the daemon that updated_at moves
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
	inBubble(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) { // the request was carried out
		doubt(w, token, r, fault{after: &rotation.IssuerError{Class: rotation.Unknown}})
		time.Sleep(30 * time.Second)
		if record, err := r.RecordListingOfDoubt(w.t.Context(), token, w.facts(), time.Now()); err != nil || record.Doubt.CarriedOut {
			t.Error("a listing counts that began too early", err)
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
			t.Error("an operator's look does not ask Cloudflare", err)
		}
		time.Sleep(11 * time.Minute)
		if w.advance(r, token); w.count("inspect") != 2 {
			t.Error("an old listing counts")
		}
	})
	inBubble(t, 30*time.Minute, func(w *world, token rotation.Token, r *rotation.Rotator) { // the request was not carried out
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

// TestCreatedTokenIsEnabled: the record says that a new service token is enabled, although the answer does not say
// so. Otherwise there would be an alarm until the next listing.
func TestCreatedTokenIsEnabled(t *testing.T) {
	inFresh(t, replacing, func(w *world, token rotation.Token, r *rotation.Rotator) {
		r = w.runUntilIdle(r, token)
		if !w.record().Facts.Enabled {
			t.Error("the first one is shown as disabled")
		}
		w.advance(r, token)
		if !w.record().Facts.Enabled {
			t.Error("the one that replaced it is shown as disabled")
		}
	})
}

// TestListingShowsOurOwnLostRotation: an answer is lost, and a listing comes before the reissue. The change that it
// shows is our own request, and not a rotation by another person.
func TestListingShowsOurOwnLostRotation(t *testing.T) {
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
			t.Errorf("%d rotates, taken for a rotation by another person at %s, %v", w.rotates, record.Outside, err)
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

// TestListingOfAReplacedToken: a listing shows a service token that was replaced since. The record does not take
// these facts for those of the new service token.
func TestListingOfAReplacedToken(t *testing.T) {
	inFresh(t, replacing, func(w *world, token rotation.Token, r *rotation.Rotator) {
		r = w.runUntilIdle(r, token)
		before := w.created[0].facts()
		w.advance(r, token)
		if record, err := r.RecordListing(w.t.Context(), token, before); err != nil || record.Facts.ID != w.created[1].id {
			t.Error(record.Facts, err)
		}
	})
}

// TestListingsAreRecordedAsTheyCome: a large listing is not in memory as a whole. A batch is saved, and the caller learns of it,
// before the next one is asked for.
func TestListingsAreRecordedAsTheyCome(t *testing.T) {
	const n = 2500
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		tokens := w.manyTokens(n, func(token *rotation.Token) { token.ID = "uuid-of-" + token.Name })
		r := w.start()
		if _, err := r.EnrollAll(t.Context(), tokens); err != nil {
			t.Fatal(err)
		}
		asked, changed, most := 0, 0, 0
		err := r.RecordListings(t.Context(), func(yield func(rotation.Listed) bool) {
			for _, token := range tokens {
				asked++
				most = max(most, asked-changed)
				if !yield(rotation.Listed{Token: token, Facts: []rotation.TokenFacts{{ID: token.ID, Name: "x", Enabled: true}}}) {
					return
				}
			}
		}, func(rotation.Record) { changed++ })
		if err != nil || asked != n || changed != n || most > 1000 {
			t.Errorf("%v: %d of %d asked for, %d changed, %d in memory at once", err, asked, n, changed, most)
		}
	})
}
