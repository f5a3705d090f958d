package sink_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/sink"
	"rotatord/internal/vault"
	"rotatord/internal/vault/vaulttest"
)

// noting is a sink that notes rotations, in a place of a double whose PATCH requests a test can replace.
type noting struct {
	*sink.Vault
	server  *vaulttest.Server
	session *vault.Session
	patched atomic.Int32
}

var notingConfig = config.VaultSink{Mount: "kv", Path: "access/ci", Metadata: true, SinkFields: config.DefaultFields()}

func newNoting(t *testing.T, version int, patch http.HandlerFunc) *noting {
	t.Helper()
	n := &noting{server: vaulttest.New(vaulttest.Options{RootToken: rootToken, Mounts: []vaulttest.Mount{{Path: "kv", Version: version}}})}
	n.session = observedSession(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPatch {
			n.server.ServeHTTP(w, r)
			return
		}
		defer n.patched.Add(1)
		if patch != nil {
			patch(w, r)
			return
		}
		n.server.ServeHTTP(w, r)
	}), nil)
	n.Vault = sink.NewVault(n.session, notingConfig)
	return n
}

func (n *noting) deliver(t *testing.T, to *sink.Vault, id string, ends time.Time) {
	t.Helper()
	_, err := to.Store(t.Context(), rotation.Delivery{Credential: rotation.Credential{ClientID: "id", ClientSecret: secret.New("cfast_CANARY" + id)},
		RotationID: id, At: time.Date(2026, 12, 24, 18, 0, 0, 5, time.UTC), By: "host\n:1" + strings.Repeat("é", 600), GraceEndsAt: ends})
	if err != nil {
		t.Fatal(err)
	}
}

// wait waits until so many requests were answered, and returns the custom metadata. No further one may come.
func (n *noting) wait(t *testing.T, patched int32) map[string]any {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); n.patched.Load() < patched && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if got := n.patched.Load(); got != patched {
		t.Errorf("%d requests for custom metadata, want %d", got, patched)
	}
	return n.server.CustomMetadata("kv", "access/ci")
}

func TestVaultMetadata(t *testing.T) {
	ends := time.Date(2026, 12, 25, 18, 0, 0, 9, time.FixedZone("", 3600))
	t.Run("is noted beside the keys of others", func(t *testing.T) {
		n := newNoting(t, 2, nil)
		n.server.SetCustomMetadata("kv", "access/ci", map[string]any{"owner": "team a", "rotated_at": "never"})
		n.deliver(t, n.Vault, "R1", ends)
		custom := n.wait(t, 1)
		by, _ := custom["rotatord_rotated_by"].(string)
		if !strings.HasPrefix(by, "host:1") || len(by) > 512 {
			t.Errorf("rotated by %q, %d bytes", by, len(by))
		}
		delete(custom, "rotatord_rotated_by")
		want := map[string]any{"owner": "team a", "rotated_at": "never", "rotatord_rotation_id": "R1",
			"rotatord_rotated_at": "2026-12-24T18:00:00Z", "rotatord_grace_end": "2026-12-25T17:00:00Z"}
		if fmt.Sprint(custom) != fmt.Sprint(want) {
			t.Errorf("%v, want %v", custom, want)
		}

		// The same delivery again, also after a restart, and then one that ends the grace at once.
		n.deliver(t, n.Vault, "R1", ends)
		n.deliver(t, sink.NewVault(n.session, notingConfig), "R1", ends)
		n.wait(t, 1)
		n.deliver(t, n.Vault, "R2", time.Time{})
		if custom := n.wait(t, 2); custom["rotatord_grace_end"] != "none" || custom["rotatord_rotation_id"] != "R2" || custom["owner"] != "team a" {
			t.Errorf("%v", custom)
		}
	})
	t.Run("is noted by the attempt that finds the secret stored", func(t *testing.T) {
		n := newNoting(t, 2, nil)
		n.server.Write("kv", "access/ci", map[string]any{"client_id": "id", "client_secret": "cfast_CANARYR1"})
		n.deliver(t, n.Vault, "R1", ends)
		if custom := n.wait(t, 1); custom["rotatord_rotation_id"] != "R1" {
			t.Errorf("%v", custom)
		}
	})
	t.Run("is not noted", func(t *testing.T) {
		full := make(map[string]any)
		for i := range 62 { // with ours they would be 66
			full[fmt.Sprint("key", i)] = "x"
		}
		off := notingConfig
		off.Metadata = false
		for name, test := range map[string]struct {
			version int
			custom  map[string]any
			config  config.VaultSink
			id      string
		}{
			"with metadata: false":      {2, nil, off, "R1"},
			"in version 1":              {1, nil, notingConfig, "R1"},
			"outside of a rotation":     {2, nil, notingConfig, ""},
			"beside the keys of others": {2, full, notingConfig, "R1"},
		} {
			n := newNoting(t, test.version, nil)
			if test.custom != nil {
				n.server.SetCustomMetadata("kv", "access/ci", test.custom)
			}
			n.deliver(t, sink.NewVault(n.session, test.config), test.id, ends)
			time.Sleep(20 * time.Millisecond) // a request that should not be sent would come in this time
			if custom := n.wait(t, 0); len(custom) != len(test.custom) {
				t.Errorf("%s: %v", name, custom)
			}
		}
	})
	for _, status := range []int{http.StatusForbidden, http.StatusMethodNotAllowed} {
		t.Run(fmt.Sprint("is not asked for again after ", status), func(t *testing.T) {
			n := newNoting(t, 2, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(status)
				_, _ = w.Write([]byte(`{"errors":["no"]}`)) // the client went away
			})
			n.deliver(t, n.Vault, "R1", ends)
			n.wait(t, 1)
			for deadline := time.Now().Add(5 * time.Second); n.session.MayAnnotate("kv") && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			n.deliver(t, n.Vault, "R2", ends)
			n.deliver(t, sink.NewVault(n.session, notingConfig), "R3", ends)
			time.Sleep(20 * time.Millisecond)
			n.wait(t, 1)
		})
	}
	t.Run("delays nothing", func(t *testing.T) {
		held := make(chan struct{})
		n := newNoting(t, 2, func(http.ResponseWriter, *http.Request) { <-held })
		defer close(held)
		began := time.Now()
		n.deliver(t, n.Vault, "R1", ends)
		n.deliver(t, n.Vault, "R2", ends)
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("two deliveries took %s while the metadata could not be written", took)
		}
	})
}
