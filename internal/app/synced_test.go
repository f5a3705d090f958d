package app

import (
	"errors"
	"testing"
	"time"

	"rotatord/internal/rotation"
)

// TestSyncedIsTrue: looking for something to read, and finding nothing, is not news of the others.
func TestSyncedIsTrue(t *testing.T) {
	now := time.Date(2026, 11, 29, 4, 0, 0, 0, time.UTC)
	s := newSharing(&App{now: func() time.Time { return now }}, rotation.Replica{Name: "a"})
	heard := now
	check := func(what string, want time.Time) {
		t.Helper()
		s.mu.Lock()
		defer s.mu.Unlock()
		if got := s.synced(heard); !got.Equal(want) {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	check("before it has joined", time.Time{})
	s.joinedAt = now.Add(time.Second)
	check("just joined", s.joinedAt)
	heard = now.Add(time.Hour)
	now = now.Add(2 * time.Hour)
	s.note(nil)
	if err := s.learn(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.setErr(nil)
	check("others were not heard for an hour", heard)
	heard = now
	s.note([]string{"ci"})
	now = now.Add(time.Minute)
	check("news just came", heard)
	heard = now
	s.setErr(errors.New("Vault is away"))
	check("news was not read for a minute", now.Add(-time.Minute))
}
