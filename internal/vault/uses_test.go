package vault

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rotatord/internal/vault/vaulttest"
)

// A token with few uses left is replaced before it is relied on, and refused if that does not
// help; callers do not count on the same uses twice.
func TestUses(t *testing.T) {
	start := func(t *testing.T, uses int) (*vaulttest.Server, *Session) {
		server, c := approleServer(t, time.Hour, 0)
		server.SetNumUses(uses)
		s, _, _ := startSession(t, c)
		return server, s
	}
	t.Run("without a limit", func(t *testing.T) {
		server, s := start(t, 0)
		for range 5 {
			if err := s.ReadyFor(t.Context(), 0, 1000); err != nil {
				t.Fatal(err)
			}
		}
		if server.Logins() != 1 {
			t.Errorf("%d logins", server.Logins())
		}
	})
	t.Run("too few even after a login", func(t *testing.T) {
		_, s := start(t, 5)
		err := s.ReadyFor(t.Context(), 0, 12)
		if !errors.Is(err, errFewUses) || !strings.Contains(err.Error(), "token_num_uses") {
			t.Errorf("%v", err)
		}
	})
	// All rotations use the same session, so what one has reserved is reserved in the next session too.
	t.Run("callers at once", func(t *testing.T) {
		for uses, want := range map[int]int32{20: 1, 30: 2, 60: 3} {
			server, s := start(t, uses)
			var all sync.WaitGroup
			var ready atomic.Int32
			for range 3 {
				all.Go(func() {
					if err := s.ReadyFor(t.Context(), 0, 12); err == nil {
						ready.Add(1)
					} else if !errors.Is(err, errFewUses) {
						t.Error(err)
					}
				})
			}
			all.Wait()
			if ready.Load() != want || server.Logins() > 2 {
				t.Errorf("%d uses: %d callers of 12 were ready after %d logins, want %d after two at most", uses, ready.Load(), server.Logins(), want)
			}
		}
	})
	t.Run("used up by then", func(t *testing.T) {
		server, s := start(t, 30)
		if err := s.Ready(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if _, err := s.Read(t.Context(), "kv/data/x"); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 { // the second one after the first has ended
			if err := s.ReadyFor(t.Context(), 0, 12); err != nil {
				t.Error(err)
			}
			s.uses.reservations = nil
		}
		if server.Logins() != 2 {
			t.Errorf("%d logins", server.Logins())
		}
	})
	t.Run("a caller that gives up", func(t *testing.T) {
		_, s := start(t, 20)
		s.uses.semaphore <- struct{}{}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Ready(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		if err := s.ReadyFor(ctx, 0, 1); err == nil {
			t.Error("it did not wait")
		}
	})
}
