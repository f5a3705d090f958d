package vault

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/event"
	"rotatord/internal/vault/vaulttest"
)

// lockingVault is the lock-out of Vault: it counts refused logins until 15 minutes have passed without one, and at 5 it
// refuses every login for 15 minutes.
type lockingVault struct {
	right string // the secret ID

	mu     sync.Mutex
	logins int
	locked bool // it was locked out at some time
	count  int
	last   time.Time
}

func (v *lockingVault) serve(r *http.Request) (int, string) {
	if !strings.HasSuffix(r.URL.Path, "/login") {
		return 200, leaseBody(time.Hour, true)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.logins++
	quiet := time.Since(v.last)
	if v.count >= 5 && quiet < lockoutReset {
		v.locked = true
		return 403, `{"errors":["permission denied"]}`
	}
	var body struct {
		SecretID string `json:"secret_id"`
	}
	content, _ := io.ReadAll(r.Body)
	if _ = json.Unmarshal(content, &body); body.SecretID == v.right {
		v.count = 0
		return 200, leaseBody(time.Hour, true)
	}
	if quiet > lockoutReset {
		v.count = 0
	}
	v.count, v.last = v.count+1, time.Now()
	return 400, `{"errors":["invalid role or secret ID"]}`
}

// TestRefusedLoginsDoNotLockOut: a wrong secret ID that stays for a day does not lock the role ID out, and the right one is
// used at once, also after two other wrong ones.
func TestRefusedLoginsDoNotLockOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &lockingVault{right: "another"}
		keepFor(t, 24*time.Hour, v.serve)
		if v.locked || v.logins < 80 || v.logins > 180 {
			t.Errorf("%d logins in a day, locked out: %t", v.logins, v.locked)
		}
	})
	for _, delivered := range []time.Duration{20 * time.Second, 10 * time.Minute, 40 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			v := &lockingVault{right: "the right one"}
			c := config.AppRole{Mount: "approle", RoleID: file(t, roleID), SecretID: file(t, "wrong 0")}
			s, err := New(config.Vault{Address: "http://127.0.0.1:1", Timeout: 5 * time.Second, Auth: &c}, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			s.client.transport.next = inMemory(v.serve)
			go s.Run(t.Context())
			time.Sleep(delivered)
			for _, id := range []string{"wrong 1", "wrong 2", v.right} {
				replace(t, c.SecretID.File, id)
				time.Sleep(pause + time.Second)
			}
			synctest.Wait()
			if err := s.Ready(t.Context(), 0); err != nil || v.locked {
				t.Errorf("delivered after %s: %v, locked out: %t", delivered, err, v.locked)
			}
		})
	}
}

// TestLockedOut: while other programs have locked the role ID out, the message keeps the first reason and says what to
// type; and the session is there within about a minute after the lock-out.
func TestLockedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &lockingVault{right: "the right one"}
		c := config.AppRole{Mount: "approle", RoleID: file(t, roleID), SecretID: file(t, "wrong")}
		var told []event.VaultLogin
		s, err := New(config.Vault{Address: "http://127.0.0.1:1", Timeout: 5 * time.Second, Auth: &c}, func(d event.Detail) {
			if login, ok := d.(event.VaultLogin); ok {
				told = append(told, login)
			}
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		s.client.transport.next = inMemory(v.serve)
		go s.Run(t.Context())
		time.Sleep(20 * time.Second)
		v.mu.Lock()
		v.count, v.last = 5, time.Now()
		v.mu.Unlock()
		replace(t, c.SecretID.File, v.right)
		time.Sleep(time.Minute)
		synctest.Wait()
		err = s.Ready(t.Context(), 0)
		for _, part := range []string{"permission denied", "The first refusal: Vault refused the request (HTTP 400: invalid role or secret ID) at ", "vault write -f sys/locked-users/MOUNT_ACCESSOR/unlock/ROLE_ID", "until about "} {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("no %q in: %v", part, err)
			}
		}
		time.Sleep(lockoutReset + maxRefusedWait - time.Minute)
		synctest.Wait()
		if err := s.Ready(t.Context(), 0); err != nil || told[len(told)-1].Err != nil {
			t.Errorf("after the lock-out: %v", err)
		}
	})
}

// TestOtherMethodsAreNotKeptBack: Vault locks nobody out for them, so a role that is corrected is used within a minute.
func TestOtherMethodsAreNotKeptBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logins := 0
		s, err := New(config.Vault{Address: "http://127.0.0.1:1", Timeout: 5 * time.Second, Auth: &config.JWTAuth{Role: "rotatord", Mount: "jwt", JWT: file(t, vaulttest.JWT(map[string]any{"sub": "rotatord"}))}}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		s.client.transport.next = inMemory(func(*http.Request) (int, string) {
			logins++
			return 400, `{"errors":["role \"rotatord\" could not be found"]}`
		})
		go s.Run(t.Context())
		time.Sleep(time.Hour)
		synctest.Wait()
		if logins < 55 {
			t.Errorf("%d logins in an hour", logins)
		}
	})
}
