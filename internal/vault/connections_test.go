package vault

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"rotatord/internal/vault/vaulttest"
)

// TestConnectionsAreReused counts new connections. Sixteen accounts work on sixteen tokens each, and each of them sends its
// requests one after the other: there are as many connections as tokens that are worked on, and not as many as requests.
func TestConnectionsAreReused(t *testing.T) {
	const atOnce, rounds = 256, 4
	var made atomic.Int64
	answers := vaulttest.New(vaulttest.Options{RootToken: rootToken, Mounts: []vaulttest.Mount{{Path: "kv", Version: 2}}})
	var arrived, left sync.WaitGroup
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived.Done()
		arrived.Wait() // all of them are under way at the same time
		answers.ServeHTTP(w, r)
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			made.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	s := idleSession(t, server.URL, false)
	for range rounds {
		arrived.Add(atOnce)
		for range atOnce {
			left.Go(func() {
				if _, err := s.Read(context.Background(), "kv/data/ci"); err != nil {
					t.Error(err)
				}
			})
		}
		left.Wait()
	}
	// A connection that becomes free in the moment in which another is dialed is one more.
	if n := made.Load(); n > atOnce+atOnce/2 {
		t.Errorf("%d connections for %d requests, %d at once", n, atOnce*rounds, atOnce)
	}
}
