package rotation_test

import (
	"errors"
	"testing"
	"time"

	"rotatord/internal/rotation"
)

// This file tests that no unknown service token is left behind if an operator resolves a create in doubt.

// createInDoubt runs test with a token of strategy replace whose create request is in doubt.
func createInDoubt(t *testing.T, f fault, test func(w *world, token rotation.Token, r *rotation.Rotator)) {
	t.Helper()
	inFresh(t, replacing, func(w *world, token rotation.Token, r *rotation.Rotator) {
		r = w.runUntilIdle(r, token)
		w.failOnce("create", f)
		w.advance(r, token)
		if w.record().Step != rotation.StepInDoubt {
			t.Fatal(w.record().Step)
		}
		test(w, token, r)
	})
}

// TestOperatorResolvesACreateInDoubt: an operator wants a reissue while Cloudflare does not answer what was
// created, or while the request may still be under way.
func TestOperatorResolvesACreateInDoubt(t *testing.T) {
	unknown := &rotation.IssuerError{Class: rotation.Unknown}
	verbs := map[string]func(w *world, token rotation.Token, r *rotation.Rotator) error{
		"rotate now": func(w *world, token rotation.Token, r *rotation.Rotator) error {
			_, _, err := r.Resolve(w.t.Context(), token, rotation.ResolveRotateNow)
			return err
		},
		"assume not rotated": func(w *world, token rotation.Token, r *rotation.Rotator) error {
			_, _, err := r.Resolve(w.t.Context(), token, rotation.ResolveAssumeNotRotated)
			return err
		},
		"order": func(w *world, token rotation.Token, r *rotation.Rotator) error {
			return r.OrderAll(w.t.Context(), []rotation.Token{token}, rotation.Overrides{RevokeNow: true}, "ops")[0].Err
		},
	}
	for name, verb := range verbs {
		createInDoubt(t, fault{after: unknown}, func(w *world, token rotation.Token, r *rotation.Rotator) {
			leaked := w.created[0]
			time.Sleep(2 * time.Minute)
			w.failOnce("find", fault{before: unknown})
			if err := verb(w, token, r); name != "order" && !errors.Is(err, rotation.ErrUnfit) {
				t.Error(name, err)
			}
			w.runFor(r, token, 30*time.Minute)
			if remaining := w.notDeleted(); len(remaining) != 1 || remaining[0].clientID != w.sink.ClientID || name == "order" && !w.gone[leaked.id] {
				t.Errorf("%s: %d are not deleted: %+v", name, len(remaining), w.record())
			}
		})
		createInDoubt(t, fault{before: unknown, late: 30 * time.Second}, func(w *world, token rotation.Token, r *rotation.Rotator) {
			if err := verb(w, token, r); name != "order" && !errors.Is(err, rotation.ErrUnfit) {
				t.Error(name, err)
			}
			w.runFor(r, token, 30*time.Minute)
			if remaining := w.notDeleted(); len(remaining) != 1 || remaining[0].clientID != w.sink.ClientID {
				t.Errorf("%s on a late request: %d are not deleted: %+v", name, len(remaining), w.record())
			}
		})
	}
}

// TestCreatedWhileTheClockIsWrong: a service token whose answer was lost is found, although the local clock was
// wrong when it was created.
func TestCreatedWhileTheClockIsWrong(t *testing.T) {
	inFresh(t, replacing, func(w *world, token rotation.Token, r *rotation.Rotator) {
		r = w.runUntilIdle(r, token)
		w.offset = time.Hour
		w.failOnce("create", fault{after: &rotation.IssuerError{Class: rotation.Unknown}})
		_, _ = r.RotateNow(w.t.Context(), token, rotation.Overrides{Grace: true}, "ops")
		w.offset = 0
		w.runFor(r, token, 90*time.Minute)
		if remaining := w.notDeleted(); len(remaining) != 1 {
			t.Errorf("%d are not deleted", len(remaining))
		}
	})
}
