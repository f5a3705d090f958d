package rotation_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

// This file extends the world: its Cloudflare creates, deletes and renews service tokens.

func (w *world) Find(_ context.Context, name string) (found []rotation.TokenFacts, err error) {
	err = w.do("find", func() error {
		for _, c := range w.created {
			if c.name == name && !w.gone[c.id] {
				found = append(found, c.facts())
			}
		}
		return nil
	})
	return found, err
}

func (w *world) Create(_ context.Context, req rotation.CreateRequest) (issued rotation.Issued, err error) {
	w.leaves("create", req.Name)
	err = w.do("create", func() error {
		w.creates++
		now := time.Now().UTC()
		c := &cfToken{
			id: fmt.Sprintf("00000000-0000-4000-8000-%012d", w.creates), clientID: fmt.Sprintf("created%d.access", w.creates),
			name: req.Name, duration: req.Duration, createdAt: now, updatedAt: now, current: w.secretOf(len(w.issued)),
		}
		w.issued = append(w.issued, c.current)
		w.created = append(w.created, c)
		issued = rotation.Issued{Credential: rotation.Credential{ClientID: c.clientID, ClientSecret: secret.New(c.current)}, Facts: c.facts()}
		return nil
	})
	if err != nil {
		return rotation.Issued{}, err
	}
	return issued, nil
}

func (w *world) Delete(_ context.Context, id string) error {
	w.leaves("delete", id)
	return w.do("delete", func() error {
		if w.namedByPolicy[id] {
			return &rotation.IssuerError{Class: rotation.Refused, Operation: "delete", Status: 409, Code: 12139, Err: rotation.ErrInUse}
		}
		c := w.tokenByID(id)
		if c.current == w.sink.ClientSecret.Reveal() {
			w.t.Error("the service token that consumers use was deleted")
		}
		w.gone[id] = true
		return nil
	})
}

func (w *world) Renew(_ context.Context, id, duration string) (facts rotation.TokenFacts, err error) {
	err = w.do("renew", func() error {
		c, now := w.tokenByID(id), time.Now().UTC()
		c.expiresAt = now.AddDate(1, 0, 0)
		if duration != "" {
			d, err := time.ParseDuration(duration)
			if err != nil {
				return err
			}
			c.expiresAt = now.Add(d)
		}
		c.updatedAt = now
		facts = c.facts()
		return nil
	})
	return facts, err
}

// Probe answers like an application behind Access.
func (w *world) Probe(_ context.Context, c rotation.Credential) (probe rotation.Probe, err error) {
	probe = rotation.ProbeBad
	err = w.do("probe", func() error {
		for _, token := range append([]*cfToken{&w.cfToken, &w.partner}, w.created...) {
			if token.clientID == c.ClientID && !w.gone[token.id] && token.accepted(c.ClientSecret.Reveal()) {
				probe = rotation.ProbeGood
				return nil
			}
		}
		return fmt.Errorf("401")
	})
	return probe, err
}

// notDeleted returns the service tokens that the daemon created and that are not deleted.
func (w *world) notDeleted() (kept []*cfToken) {
	for _, c := range w.created {
		if !w.gone[c.id] {
			kept = append(kept, c)
		}
	}
	return kept
}

// inFresh runs test with a token whose service token does not exist yet, in a world whose sink is empty.
// change may change the token before it is enrolled.
func inFresh(t *testing.T, change func(*rotation.Token), test func(w *world, token rotation.Token, r *rotation.Rotator)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.gone, w.namedByPolicy, w.sink = map[string]bool{}, map[string]bool{}, rotation.Credential{}
		token := w.token(20 * time.Minute)
		token.ID, token.Create, token.Creator, token.Renewer = "", &rotation.Creation{Name: "ci", Duration: "8760h"}, w, w
		if change != nil {
			change(&token)
		}
		r := w.start()
		if _, err := r.Enroll(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		w.calls = nil
		test(w, token, r)
	})
}

// runUntilIdle advances the token, and restarts after crashes, until it waits for a slot and no chore is due.
func (w *world) runUntilIdle(r *rotation.Rotator, token rotation.Token) *rotation.Rotator {
	w.t.Helper()
	for range 40 {
		record := w.record()
		due := rotation.NextDue(token, record, rotation.Pause{})
		chore := rotation.NextChore(token, record)
		switch {
		case !chore.IsZero() && !chore.After(due.At):
			w.sleep(time.Until(chore))
		case record.Step == rotation.StepIdle && (due.Reason == rotation.DueSlot || due.Reason == rotation.DueGrace):
			return r
		default:
			w.sleep(time.Until(due.At))
		}
		if _, died := w.advanceNow(r, token); died {
			r = w.start()
			if _, err := r.Enroll(w.t.Context(), token); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	w.t.Errorf("the token does not become idle: %+v", w.record())
	return r
}

// advanceNow advances the token once without waiting. died reports that the process crashed.
func (w *world) advanceNow(r *rotation.Rotator, token rotation.Token) (err error, died bool) {
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(crashed); !ok {
				panic(p)
			}
			died = true
		}
	}()
	_, err = r.Advance(w.t.Context(), token)
	return err, false
}

// runFor does everything that is due in the time d.
func (w *world) runFor(r *rotation.Rotator, token rotation.Token, d time.Duration) {
	for end := time.Now().Add(d); ; {
		at := rotation.NextDue(token, w.record(), rotation.Pause{}).At
		if chore := rotation.NextChore(token, w.record()); !chore.IsZero() && chore.Before(at) {
			at = chore
		}
		if at.After(end) {
			w.sleep(time.Until(end))
			return
		}
		w.sleep(max(time.Until(at), time.Millisecond))
		_, _ = r.Advance(w.t.Context(), token)
	}
}

func replacing(token *rotation.Token) { token.Replace = true }

// runUntilStep advances the token until it is at that step.
func (w *world) runUntilStep(r *rotation.Rotator, token rotation.Token, step rotation.Step) *rotation.Rotator {
	w.t.Helper()
	for range 20 {
		if w.record().Step == step {
			return r
		}
		w.advance(r, token)
	}
	w.t.Fatal("the token does not reach the step " + string(step))
	return r
}
