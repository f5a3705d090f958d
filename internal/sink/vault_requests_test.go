package sink_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/sink"
	"rotatord/internal/vault"
	"rotatord/internal/vault/vaulttest"
)

// requests has each request to Vault, in order. Those that write custom metadata are apart: no rotation waits
// for them. It implements [vault.Observer].
type requests struct {
	mu            sync.Mutex
	all, metadata []string
}

func (r *requests) VaultRequest(operation, code string, _ time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if operation == "metadata" {
		r.metadata = append(r.metadata, code)
		return
	}
	if !strings.HasPrefix(code, "2") && operation != "probe" {
		operation += " " + code
	}
	r.all = append(r.all, operation)
}

// taken returns what was noted since the last call.
func (r *requests) taken() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := strings.Join(r.all, ", ")
	r.all = nil
	return all
}

// counted is a sink at a mount, whose requests are counted.
type counted struct {
	*sink.Vault
	*requests
	session *vault.Session
	server  *vaulttest.Server
	n       int
}

// newCounted returns a sink whose place holds a secret, and whose session knows the settings of the mount.
func newCounted(t *testing.T, version int, c config.VaultSink, policy func(path string) []string) *counted {
	t.Helper()
	server := vaulttest.New(vaulttest.Options{RootToken: rootToken, Mounts: []vaulttest.Mount{{Path: "kv", Version: version}}})
	server.SetPolicy(policy)
	r := &requests{}
	c.Mount, c.Path, c.ClientIDField, c.ClientSecretField = "kv", "access/ci", "id", "secret"
	session := observedSession(t, server, r)
	for end := time.Now().Add(time.Minute); r.taken() == ""; time.Sleep(time.Millisecond) { // it logs in by itself
		if time.Now().After(end) {
			t.Fatal("the session did not log in")
		}
	}
	return &counted{Vault: sink.NewVault(session, c), requests: r, session: session, server: server}
}

// rotate does for a sink what a rotation does, and returns the requests.
func (c *counted) rotate(t *testing.T, between func()) string {
	t.Helper()
	c.taken()
	base, err := c.Preflight(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	between()
	c.n++
	_, err = c.Store(t.Context(), rotation.Delivery{Credential: rotation.Credential{ClientID: "id", ClientSecret: secret.New(fmt.Sprintf("cfast_CANARY%d", c.n))},
		Base: base, RotationID: fmt.Sprint("R", c.n), At: time.Now(), By: "host:1"})
	if err != nil {
		t.Fatal(err)
	}
	return c.taken()
}

// leastPolicy is what the shipped policy allows, without and with more.
func leastPolicy(more map[string][]string) func(path string) []string {
	return func(path string) []string {
		for part, capabilities := range more {
			if strings.HasPrefix(path, part) {
				return capabilities
			}
		}
		if strings.HasPrefix(path, "kv/metadata/") {
			return nil
		}
		return []string{"create", "read", "update"}
	}
}

// TestVaultRequests counts what docs/vault.md promises.
func TestVaultRequests(t *testing.T) {
	nothing := func() {}
	t.Run("version 2", func(t *testing.T) {
		c := newCounted(t, 2, config.VaultSink{Metadata: true}, leastPolicy(nil))
		// The first one also learns the KV version, the settings of the mount, and what is not allowed.
		if got, want := c.rotate(t, nothing), "lookup, mounts, read 404, lifetime, lifetime 403, probe, write, read"; got != want {
			t.Errorf("the first rotation: %s, want %s", got, want)
		}
		c.wait(t, "403")
		for c.session.MayAnnotate("kv") { // an answer is counted before it is read
			time.Sleep(time.Millisecond)
		}
		const steady = "read, probe, write, read"
		for range 3 {
			if got := c.rotate(t, nothing); got != steady {
				t.Errorf("a rotation: %s, want %s", got, steady)
			}
		}
		if _, err := c.Look(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := c.taken(); got != "read" {
			t.Errorf("a look: %s", got)
		}
		if err := c.LookAhead(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := c.taken(); got != "seal_status, read, probe" {
			t.Errorf("a look-ahead check: %s", got)
		}
		got := c.rotate(t, func() { c.server.Write("kv", "access/ci", map[string]any{"note": "mine"}) })
		if want := "read, probe, write 400, read, write, read"; got != want || c.server.Read("kv", "access/ci")["note"] != "mine" {
			t.Errorf("a rotation with another writer: %s, want %s", got, want)
		}
		if got := c.rotate(t, nothing); got != steady {
			t.Errorf("the rotation after that: %s", got)
		}
		c.wait(t, "403")
	})
	t.Run("version 1", func(t *testing.T) {
		c := newCounted(t, 1, config.VaultSink{Metadata: true}, nil)
		c.rotate(t, nothing)
		for range 2 {
			if got, want := c.rotate(t, nothing), "read, capabilities, read, write, read"; got != want {
				t.Errorf("a rotation: %s, want %s", got, want)
			}
		}
		if _, err := c.Look(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := c.taken(); got != "read" {
			t.Errorf("a look: %s", got)
		}
	})
	t.Run("an empty place", func(t *testing.T) {
		c := newCounted(t, 2, config.VaultSink{}, leastPolicy(nil))
		c.rotate(t, nothing)
		c.server.RemoveMetadata("kv", "access/ci")
		if got, want := c.rotate(t, nothing), "read 404, mounts, probe, write, read"; got != want {
			t.Errorf("a rotation: %s, want %s", got, want)
		}
	})
	t.Run("with metadata", func(t *testing.T) {
		c := newCounted(t, 2, config.VaultSink{Metadata: true}, leastPolicy(map[string][]string{"kv/metadata/": {"patch"}}))
		c.rotate(t, nothing)
		c.wait(t, "204")
		c.rotate(t, nothing)
		c.wait(t, "204", "204")
	})
}

// wait waits until so many requests for custom metadata were answered, and compares the answers.
func (c *counted) wait(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline) && len(got) < len(want); time.Sleep(time.Millisecond) {
		c.mu.Lock()
		got = slices.Clone(c.metadata)
		c.mu.Unlock()
	}
	if !slices.Equal(got, want) {
		t.Errorf("answers about custom metadata: %v, want %v", got, want)
	}
}
