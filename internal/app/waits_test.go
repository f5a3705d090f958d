package app

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/statedir"
)

// TestStatusSaysWhatIsWaitedFor: Cloudflare refuses one request. Tokens that are due then, and the token of
// that request, wait for the end of the penalty, and their status says so.
func TestStatusSaysWhatIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 80
		l := newLimited(n)
		at := time.Now().Truncate(time.Minute).Add(30 * time.Minute)
		a, stop := l.start(t, n, limitQuota, parsed(fmt.Sprintf("%d %d * * *", at.Minute(), at.Hour()), "UTC"), 0)
		time.Sleep(time.Until(at) - time.Minute)
		for range limitQuota {
			req, err := http.NewRequest(http.MethodGet, "http://sim/client/v4/user/tokens/verify", nil)
			must(err)
			req.Header.Set("Authorization", "Bearer "+limitToken)
			_, err = l.sim.RoundTripper().RoundTrip(req)
			must(err)
		}
		time.Sleep(time.Until(at) + 20*time.Second)
		explained := 0
		for _, token := range a.config.Tokens {
			s := a.show(token)
			if s.WaitsFor == "Cloudflare's request limit (Cloudflare asked to be left alone: 429)" && s.WaitsUntil.After(time.Now()) &&
				s.WaitsUntil.Before(at.Add(limitWindow+10*time.Second)) {
				explained++
			} else if len(l.failed) == 0 || s.LastError == "" {
				t.Errorf("%s, %s, %q: waits for %q until %s", s.Name, s.State, s.LastError, s.WaitsFor, s.WaitsUntil)
			}
		}
		if explained < n-32 { // those that had begun
			t.Errorf("of %d tokens, %d are explained", n, explained)
		}
		time.Sleep(10 * time.Minute)
		for _, token := range a.config.Tokens {
			if s := a.show(token); s.WaitsFor != "" || !s.WaitsUntil.IsZero() {
				t.Errorf("afterwards %s waits for %q", s.Name, s.WaitsFor)
			}
		}
		stop()
	})
}

// TestEarlierRequestsCount: a daemon that starts tells its budgets what the ledger knows about the one
// before.
func TestEarlierRequestsCount(t *testing.T) {
	dir := t.TempDir()
	must(os.WriteFile(filepath.Join(dir, "token"), []byte("a-token"), 0o600))
	source := config.SecretSource{File: filepath.Join(dir, "token")}
	c := &config.Config{
		Listen: "127.0.0.1:0", State: config.State{Dir: filepath.Join(dir, "state")}, Audit: config.Audit{File: filepath.Join(dir, "audit", "audit.jsonl")},
		Accounts: map[string]config.Account{"prod": {Name: "prod", APIToken: source, RequestsPer5m: 50}},
		Vault:    &config.Vault{Address: "http://127.0.0.1:1", Auth: &config.TokenAuth{Source: source}},
		Tokens:   []config.Token{{Name: "ci", Account: "prod", ID: "5eed0000-0000-4000-8000-000000000001", Schedule: parsed("@weekly", "UTC")}},
	}
	j, err := statedir.Open(statedir.Options{Dir: c.State.Dir})
	must(err)
	at := time.Now().UTC().Add(-time.Minute)
	_, err = j.Ledger.Save(t.Context(), rotation.Record{Format: rotation.RecordFormat, Token: "ci", Account: "prod", TokenID: c.Tokens[0].ID,
		Last: &rotation.Done{RotationID: "R1", AskedAt: at, At: at.Add(time.Second)}})
	must(err)
	must(j.Close())
	a, err := New(Options{Config: c})
	must(err)
	defer func() { must(a.Stop(t.Context())) }()
	watched := make(chan struct{}) // WatchCredential reads the credential, and Capacity does not
	watching, stop := context.WithCancel(t.Context())
	defer func() { stop(); <-watched }()
	go func() { defer close(watched); a.accounts["prod"].client.WatchCredential(watching) }()
	for begun := time.Now(); ; time.Sleep(time.Millisecond) {
		if requests, _ := a.accounts["prod"].client.Capacity(time.Second, rotation.UrgencyEmergency); requests < math.MaxInt {
			break
		}
		if time.Since(begun) > 2*time.Minute {
			t.Fatal("the credential is not read")
		}
	}
	for within, want := range map[time.Duration]int{time.Second: 49, 5 * time.Minute: 50} {
		if requests, _ := a.accounts["prod"].client.Capacity(within, rotation.UrgencyEmergency); requests != want {
			t.Errorf("capacity for %d requests within %s, want %d", requests, within, want)
		}
	}
}
