package vault

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
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
			if _, err := s.ReadyFor(t.Context(), 0, 1000); err != nil {
				t.Fatal(err)
			}
		}
		if server.Logins() != 1 {
			t.Errorf("%d logins", server.Logins())
		}
	})
	t.Run("too few even after a login", func(t *testing.T) {
		_, s := start(t, 5)
		_, err := s.ReadyFor(t.Context(), 0, 12)
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
					if _, err := s.ReadyFor(t.Context(), 0, 12); err == nil {
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
			if _, err := s.ReadyFor(t.Context(), 0, 12); err != nil {
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
		if _, err := s.ReadyFor(ctx, 0, 1); err == nil {
			t.Error("it did not wait")
		}
	})
}

// TestReleaseIsExact: a caller whose reservation has ended does not give back that of another caller, although both are
// for the same number of requests.
func TestReleaseIsExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := idleSession(t, "http://127.0.0.1:1", false)
		ended := &Reservation{12, time.Now().Add(time.Second)}
		s.uses.reservations = append(s.uses.reservations, ended)
		time.Sleep(time.Second)
		if n := s.reserved(); n != 0 {
			t.Fatalf("%d requests are reserved after the end", n)
		}
		other := &Reservation{12, time.Now().Add(time.Minute)}
		s.uses.reservations = append(s.uses.reservations, other)
		s.Release(ended)
		s.Release(nil)
		if n := s.reserved(); n != 12 {
			t.Errorf("%d requests are reserved, want those of the other caller", n)
		}
		if s.Release(other); s.reserved() != 0 {
			t.Error("what was given back is still reserved")
		}
	})
}
