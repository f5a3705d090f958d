package rotation_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

// deliveries is a sink that notes what it gets.
type deliveries struct {
	memorySink
	got []rotation.Delivery
}

func (s *deliveries) Store(ctx context.Context, d rotation.Delivery) (rotation.Stored, error) {
	s.got = append(s.got, d)
	return s.memorySink.Store(ctx, d)
}

func (s *deliveries) last() rotation.Delivery { return s.got[len(s.got)-1] }

// TestDeliverySaysWhatItReplaces: a sink learns which of its secrets still works, and until when.
func TestDeliverySaysWhatItReplaces(t *testing.T) {
	const grace = 30 * time.Minute
	digest := func(value string) secret.Digest { return secret.New(value).Digest() }
	inBubble(t, grace, func(w *world, token rotation.Token, r *rotation.Rotator) {
		s := &deliveries{memorySink: memorySink{w}}
		token.Sinks = []rotation.Sink{s}
		for range 3 {
			old, began := w.current, time.Now()
			for w.current == old {
				w.advance(r, token)
			}
			if d := s.last(); d.Replaces != digest(old) || !d.GraceEndsAt.Equal(w.previousUntil) || d.RotationID != w.record().Last.RotationID || d.At.Before(began) {
				t.Errorf("%+v: the secret before it works until %s", d, w.previousUntil)
			}
		}

		// What another program put there is never called the replaced secret.
		w.sink.ClientSecret = secret.New("cfast_of another program")
		for n := len(s.got); len(s.got) == n; {
			w.advance(r, token)
		}
		if d := s.last(); d.Replaces != "" || d.GraceEndsAt.IsZero() {
			t.Errorf("%+v: the sink held the secret of another program", d)
		}

		// A late delivery: the old secret is extended until then.
		old := w.current
		w.failAll("sink store", fault{before: errors.New(errPolicy)})
		for w.current == old {
			w.advance(r, token)
		}
		for late := time.Now().Add(2 * grace); time.Now().Before(late); {
			w.advance(r, token)
		}
		w.fault = nil
		for w.record().Step != rotation.StepIdle {
			w.advance(r, token)
		}
		if d := s.last(); d.Replaces != digest(old) || !d.GraceEndsAt.After(time.Now()) || d.At.After(time.Now().Add(-grace)) {
			t.Errorf("%+v at %s: the old secret was extended until %s", d, time.Now(), w.previousUntil)
		}
	})
	inBubble(t, 0, func(w *world, token rotation.Token, r *rotation.Rotator) {
		s := &deliveries{memorySink: memorySink{w}}
		token.Sinks = []rotation.Sink{s}
		w.advance(r, token)
		if d := s.last(); d.Replaces != "" || !d.GraceEndsAt.IsZero() {
			t.Errorf("%+v: grace 0", d)
		}
	})
	inBubble(t, grace, func(w *world, token rotation.Token, r *rotation.Rotator) { // the answer of the first request is lost
		s := &deliveries{memorySink: memorySink{w}}
		token.Sinks = []rotation.Sink{s}
		w.fault = func(_ int, c string) fault {
			if c == "rotate" && w.rotates == 0 {
				return fault{after: &rotation.IssuerError{Class: rotation.Unknown, Operation: "rotate"}}
			}
			return fault{}
		}
		for len(s.got) == 0 {
			w.advance(r, token)
		}
		if d := s.last(); d.Replaces != "" || !d.GraceEndsAt.IsZero() {
			t.Errorf("%+v: a reissue ends the secret that consumers have", d)
		}
	})
	inPair(t, grace, func(w *world, token rotation.Token, r *rotation.Rotator) {
		s := &deliveries{memorySink: memorySink{w}}
		token.Sinks = []rotation.Sink{s}
		for range 3 {
			used := w.sink.ClientSecret.Reveal()
			n := len(s.got)
			for len(s.got) == n {
				w.advance(r, token)
			}
			if d := s.last(); d.Replaces != digest(used) || d.GraceEndsAt.Sub(d.At) != grace {
				t.Errorf("%+v: the other service token of the pair works for a grace", d)
			}
		}
	})
}
