package rotation_test

import (
	"errors"
	"rotatord/internal/rotation"
	"testing"
	"time"
)

func TestBackOffGrowsAndIsCapped(t *testing.T) {
	for n, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 11: 10 * time.Minute, 1000: 10 * time.Minute} {
		for range 100 {
			if got := rotation.BackOff(n); got > want || got < want*3/4 {
				t.Fatalf("BackOff(%d) = %s, want within a quarter below %s", n, got, want)
			}
		}
	}
}

// TestRestartDoesNotWaitForABackOff: the next process delivers a sealed secret at once.
func TestRestartDoesNotWaitForABackOff(t *testing.T) {
	inBubble(t, 24*time.Hour, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.failAll("sink store", fault{before: errors.New("sealed")})
		for range 6 {
			w.advance(r, token)
		}
		w.fault = nil
		if due := rotation.NextDue(token, w.record(), rotation.Pause{}); time.Until(due.At) < 10*time.Second {
			t.Fatalf("the back-off is only %s: this proves little", time.Until(due.At))
		}
		r = w.start()
		record, err := r.Enroll(w.t.Context(), token)
		if err != nil || rotation.NextDue(token, record, rotation.Pause{}).At.After(time.Now()) {
			t.Fatalf("due at %s, %v", rotation.NextDue(token, record, rotation.Pause{}).At, err)
		}
		if _, err := r.Advance(w.t.Context(), token); err != nil || w.sink.ClientSecret.Reveal() != w.current {
			t.Errorf("%v", err)
		}
	})
}

// TestWithoutBackOffFinishesPendingWork: when the engine knows that an outage is over, it can finish a rotation
// in progress without waiting for its back-off. An idle token does not begin earlier.
func TestWithoutBackOffFinishesPendingWork(t *testing.T) {
	inBubble(t, 24*time.Hour, func(w *world, token rotation.Token, r *rotation.Rotator) {
		w.failAll("sink store", fault{before: errors.New("sealed")})
		for range 8 {
			w.advance(r, token)
		}
		w.fault = nil
		if wait := time.Until(w.record().NotBefore); wait < 10*time.Second {
			t.Fatalf("it waits for only %s: this proves little", wait)
		}
		if _, err := r.Advance(rotation.WithoutBackOff(w.t.Context()), token); err != nil || w.sink.ClientSecret.Reveal() != w.current {
			t.Errorf("%v", err)
		}
		if _, err := r.Advance(rotation.WithoutBackOff(w.t.Context()), token); err != nil || w.rotates != 1 {
			t.Errorf("%v, %d rotates", err, w.rotates)
		}
	})
}
