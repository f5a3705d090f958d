package alerts

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rotatord/internal/durable/disktest"
	"rotatord/test/realvault"
)

// scenario is a failure. Its name is that of its job, its account and its token.
type scenario struct {
	name     string
	what     string
	disk     string // the state directory is on a small disk of this kind
	schedule string // of the token; empty for one that is due in 30 days
	ownVault bool
	alone    bool // with a Prometheus of its own: it is the only rotatord there is
	provoke  func(t *testing.T, s *site)
	// then is done once the alert of that name fires.
	thenAt string
	then   func(t *testing.T, s *site)
}

var scenarios = []scenario{
	{name: "disk-full", what: "the state directory's disk is full", disk: disktest.Ext4, provoke: fillDisk},
	{name: "disk-full-restart", what: "the same, and the daemon restarted", disk: disktest.Ext4, provoke: fillDiskAndRestart},
	{name: "read-only", what: "the state directory's disk turns read-only", disk: disktest.Ext4,
		provoke: func(_ *testing.T, s *site) { s.disk.Break() }},
	{name: "vault-sealed", what: "Vault is sealed", ownVault: true,
		provoke: func(t *testing.T, s *site) { s.vault.Seal(t) }},
	{name: "vault-sealed-due", what: "Vault is sealed four hours before a rotation; the daemon killed at RotatordCannotRotate", ownVault: true,
		schedule: "@every 4h", provoke: func(t *testing.T, s *site) { s.vault.Seal(t) },
		thenAt: "RotatordCannotRotate", then: func(_ *testing.T, s *site) { s.daemon.end(syscall.SIGKILL) }},
	{name: "vault-gone", what: "Vault is gone (its process is killed)", ownVault: true,
		provoke: func(_ *testing.T, s *site) { s.vault.Kill() }},
	{name: "api-token-revoked", what: "the API token is revoked", provoke: func(t *testing.T, s *site) {
		s.control(t, "PUT", "behaviour", `{"api_token_status": "revoked"}`)
	}},
	{name: "cloudflare-gone", what: "Cloudflare cannot be reached", provoke: func(_ *testing.T, s *site) {
		s.sim.end(syscall.SIGKILL)
	}},
	{name: "token-disabled", what: "the service token is disabled", provoke: func(t *testing.T, s *site) {
		s.control(t, "PUT", "tokens/"+tokenID, `{"enabled": false}`)
	}},
	{name: "token-deleted", what: "the service token is deleted", provoke: func(t *testing.T, s *site) {
		s.control(t, "DELETE", "tokens/"+tokenID, "")
	}},
	{name: "token-expires", what: "the service token ends in 47 hours", provoke: func(t *testing.T, s *site) {
		end, _ := json.Marshal(time.Now().Add(47 * time.Hour).UTC())
		s.control(t, "PUT", "tokens/"+tokenID, fmt.Sprintf(`{"expires_at": %s}`, end))
	}},
	{name: "doubt-then-killed", what: "in doubt; the daemon killed at the first critical alert, and not started again", alone: true,
		provoke: loseAnswer, thenAt: "RotatordTokenInDoubt",
		then: func(_ *testing.T, s *site) { s.daemon.end(syscall.SIGKILL) }},
	{name: "credential-removed", what: "the file of the API token is gone", provoke: func(t *testing.T, s *site) {
		if err := os.Remove(filepath.Join(s.dir, "api-token")); err != nil {
			t.Fatal(err)
		}
	}},
	{name: "credential-damaged", what: "the file of the API token holds JSON", provoke: func(t *testing.T, s *site) {
		s.write(t, "api-token", `{"token": "`+apiToken+`"}`)
	}},
	{name: "policy-taken", what: "Vault's policy allows no write any more", ownVault: true, provoke: takePolicy},
	{name: "session-revoked", what: "the Vault session is revoked, and the secret_id is not valid any more", ownVault: true,
		provoke: revokeSession},
}

func fillDisk(_ *testing.T, s *site) { s.disk.Fill() }

func fillDiskAndRestart(t *testing.T, s *site) {
	s.disk.Fill()
	s.daemon.end(syscall.SIGTERM)
	s.launch(t)
	go s.supervise(t.Context(), t)
}

// loseAnswer has a rotation carried out, and its answer lost.
func loseAnswer(t *testing.T, s *site) {
	s.control(t, "POST", "faults", `{"operation": "rotate", "kind": "drop", "when": "after"}`)
	progress("%s: rotate: %s", s.name, firstLines(s.rotatord("rotate", s.name), 3))
}

func takePolicy(t *testing.T, s *site) {
	policy := realvault.LeastPolicy(t)
	readOnly := strings.Replace(policy, `["create", "read", "update"]`, `["read"]`, 1)
	if readOnly == policy {
		t.Fatal("the policy that is shipped has changed: nothing was taken away")
	}
	if err := s.vault.Root(t).Sys().PutPolicy("rotatord", readOnly); err != nil {
		t.Fatal(err)
	}
}

func revokeSession(t *testing.T, s *site) {
	root := s.vault.Root(t)
	if _, err := root.Logical().Write("auth/approle/role/rotatord/secret-id/destroy", map[string]any{"secret_id": s.secret}); err != nil {
		t.Fatal(err)
	}
	if err := root.Sys().RevokePrefix("auth/approle/login"); err != nil {
		t.Fatal(err)
	}
}
