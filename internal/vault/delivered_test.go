package vault

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"rotatord/internal/config"
)

// otherRole is where the wrapping tokens of another role of the same mount are created.
const otherRole = "auth/approle/role/other/secret-id"

// TestTokenOfAnotherRole: once Vault has named the role of the daemon, a wrapping token of another role is not unwrapped.
func TestTokenOfAnotherRole(t *testing.T) {
	w := newWrappedWorld(t)
	s, stop, err := w.start()
	if err != nil {
		t.Fatal(err)
	}
	w.deliver(w.vault.Wrap(otherRole, map[string]any{"secret_id": "other-CANARY", "secret_id_ttl": 0}, time.Hour))
	eventually(t, "an alarm", func() bool { return w.alarms() == 1 })
	if fault := s.Health().Unwrap; !strings.Contains(fault, `created for the role "other"`) || !strings.Contains(fault, `logs in as the role "rotatord"`) || w.vault.Unwraps() != 1 {
		t.Errorf("%s, %d unwrapped", fault, w.vault.Unwraps())
	}
	stop()
	if s, stop, err = w.start(); err != nil || s.Health().Unwrap == "" || w.vault.Unwraps() != 1 {
		t.Errorf("after a restart: %v, %d unwrapped", err, w.vault.Unwraps())
	}
	stop()

	// Another role ID may be of that role.
	replace(t, w.config.Auth.(*config.AppRole).RoleID.File, "another role ID")
	s, _, _ = w.start()
	if w.vault.Unwraps() != 2 {
		t.Errorf("%d unwrapped with another role ID", w.vault.Unwraps())
	}
	replace(t, w.config.Auth.(*config.AppRole).RoleID.File, roleID)
	eventually(t, "a session with the secret ID of before", func() bool { return s.Ready(t.Context(), 0) == nil })
}

// TestRefusedDelivery: a secret ID that was delivered and that Vault refuses does not take the place of the one that works,
// also not after restarts, and the alarm says so until another one is delivered.
func TestRefusedDelivery(t *testing.T) {
	w := newWrappedWorld(t)
	s, stop, err := w.start()
	if err != nil {
		t.Fatal(err)
	}
	w.deliver(w.vault.Wrap("auth/approle/role/rotatord/secret-id", map[string]any{"secret_id": "destroyed-CANARY", "secret_id_ttl": 0}, time.Hour))
	eventually(t, "an alarm", func() bool { return w.alarms() == 1 })
	check := func(when string) {
		t.Helper()
		fault := s.Health().Unwrap
		for _, part := range []string{"Vault refused the request (HTTP 400: invalid role or secret ID)", `created for the role "rotatord"`, "deliver another one: vault write"} {
			if !strings.Contains(fault, part) {
				t.Errorf("%s: no %q in %q", when, part, fault)
			}
		}
		if err := s.Ready(t.Context(), 0); err != nil || w.vault.Unwraps() != 2 || strings.Contains(fault, "CANARY") {
			t.Errorf("%s: %v, %d unwrapped: %s", when, err, w.vault.Unwraps(), fault)
		}
	}
	check("at once")
	stop()
	s, stop, _ = w.start()
	check("after a restart")
	stop()
	if err := os.Remove(w.config.Auth.(*config.AppRole).SecretID.File); err != nil {
		t.Fatal(err)
	}
	s, _, _ = w.start()
	check("without the file")
	w.deliver(w.vault.WrapSecretID(time.Hour))
	eventually(t, "no alarm", func() bool { return s.Health().Unwrap == "" })
	eventually(t, "only the one that works", func() bool {
		content, _ := w.box.Kept()
		return strings.Contains(content.Reveal(), secretID) && !strings.Contains(content.Reveal(), "destroyed-CANARY") && !strings.Contains(content.Reveal(), `"next"`)
	})
}

// TestCrashAfterADelivery: at each write of what is kept the daemon is stopped, as a kill does. The next start can log in.
func TestCrashAfterADelivery(t *testing.T) {
	for _, id := range []string{secretID, "destroyed"} {
		for crash := 1; crash <= 3; crash++ {
			w := newWrappedWorld(t)
			_, stop, err := w.start()
			if err != nil {
				t.Fatal(err)
			}
			stop()
			w.deliver(w.vault.Wrap("auth/approle/role/rotatord/secret-id", map[string]any{"secret_id": id, "secret_id_ttl": 0}, time.Hour))
			w.box.dieAfter(crash)
			_, stop, _ = w.start()
			stop()
			w.box.dieAfter(0)
			if _, stop, err = w.start(); err != nil {
				t.Errorf("%q, killed at write %d: %v", id, crash, err)
			}
			stop()
			_ = os.Remove(w.config.Auth.(*config.AppRole).SecretID.File)
			if _, _, err = w.start(); err != nil {
				t.Errorf("%q, killed at write %d, without the file: %v", id, crash, err)
			}
		}
	}
}

// TestEchoedWrappingToken: a server that answers with the wrapping token does not bring it into the alarm.
func TestEchoedWrappingToken(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		rw.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(rw).Encode(map[string]any{"errors": []string{r.Header.Get("X-Vault-Token"), string(body)}})
	}))
	t.Cleanup(server.Close)
	w := newWrappedWorld(t)
	w.config.Address = server.URL
	w.deliver("hvs.wrapping-CANARY")
	s, _, err := w.start()
	if fault := s.Health().Unwrap; err == nil || fault == "" || strings.Contains(err.Error()+fault, "CANARY") {
		t.Errorf("%v; %s", err, fault)
	}
}

// TestFailingReplacement: while a session goes on and the next login would fail, the health says so.
func TestFailingReplacement(t *testing.T) {
	_, c := approleServer(t, time.Hour, 0)
	source := c.Auth.(*config.AppRole).SecretID
	s, _, _ := startSession(t, c)
	if err := s.Ready(t.Context(), 0); err != nil || s.Health().Login != "" {
		t.Fatalf("%v, %+v", err, s.Health())
	}
	replace(t, source.File, "wrong-CANARY")
	eventually(t, "a fault of the login", func() bool { return strings.Contains(s.Health().Login, "invalid role or secret ID") })
	if err := s.Ready(t.Context(), 0); err != nil || s.Health().LoginSince.IsZero() {
		t.Errorf("%v, %+v", err, s.Health())
	}
	replace(t, source.File, secretID)
	eventually(t, "no fault", func() bool { return s.Health().Login == "" })
}
