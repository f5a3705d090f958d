package cloudflare

import (
	"math"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/config"
)

// TestReadyReadsOnce: while Cloudflare's clock is known, the preflight of a rotation reads the file of the credential once.
func TestReadyReadsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the budget spreads the requests
		path := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(path, []byte("cfat_0123456789"), 0o600); err != nil {
			t.Fatal(err)
		}
		c := New(config.Account{Name: "prod", AccountID: "a", APIToken: config.SecretSource{File: path}, RequestsPer5m: math.MaxInt32}, Options{})
		for now := time.Now(); c.clock.missing() > 0; {
			c.clock.observe(now, now, now)
		}
		read := testing.AllocsPerRun(20, func() {
			if _, err := c.readLogin(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
		ready := testing.AllocsPerRun(20, func() {
			if err := c.Ready(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
		if ready >= 2*read {
			t.Errorf("to be ready takes %.0f allocations, and to read the file %.0f", ready, read)
		}
	})
}
