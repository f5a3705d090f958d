package rotation_test

import (
	"errors"
	"testing"
	"time"

	"rotatord/internal/rotation"
)

// This file holds that an operator's word about a service token in the making leaves none behind
// that nobody knows of.

// createInDoubt brings a token of strategy replace to where nobody knows whether one was made.
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

// TestOperatorResolvesACreateInDoubt: an operator has it reissued while Cloudflare cannot be asked what was made,
// or while the request may still be under way.
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
			if left := w.notDeleted(); len(left) != 1 || left[0].clientID != w.sink.ClientID || name == "order" && !w.gone[leaked.id] {
				t.Errorf("%s: %d are left: %+v", name, len(left), w.record())
			}
		})
		createInDoubt(t, fault{before: unknown, late: 30 * time.Second}, func(w *world, token rotation.Token, r *rotation.Rotator) {
			if err := verb(w, token, r); name != "order" && !errors.Is(err, rotation.ErrUnfit) {
				t.Error(name, err)
			}
			w.runFor(r, token, 30*time.Minute)
			if left := w.notDeleted(); len(left) != 1 || left[0].clientID != w.sink.ClientID {
				t.Errorf("%s on a late request: %d are left: %+v", name, len(left), w.record())
			}
		})
	}
}

// TestCreatedWhileTheClockIsWrong: what was made is found whatever the local clock showed.
func TestCreatedWhileTheClockIsWrong(t *testing.T) {
	inFresh(t, replacing, func(w *world, token rotation.Token, r *rotation.Rotator) {
		r = w.runUntilIdle(r, token)
		w.offset = time.Hour
		w.failOnce("create", fault{after: &rotation.IssuerError{Class: rotation.Unknown}})
		_, _ = r.RotateNow(w.t.Context(), token, rotation.Overrides{Grace: true}, "ops")
		w.offset = 0
		w.runFor(r, token, 90*time.Minute)
		if left := w.notDeleted(); len(left) != 1 {
			t.Errorf("%d are left", len(left))
		}
	})
}
