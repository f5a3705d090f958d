package vault

import (
	"context"
	"errors"
	"strings"
	"sync"
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
	t.Run("callers at once", func(t *testing.T) {
		server, s := start(t, 20)
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				if err := s.ReadyFor(t.Context(), 0, 12); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if server.Logins() != 3 {
			t.Errorf("%d logins for three times 12 uses of tokens that have 20", server.Logins())
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
