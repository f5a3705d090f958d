package sink_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/sink"
	"rotatord/internal/sink/sinktest"
	"rotatord/internal/vault"
	"rotatord/internal/vault/vaulttest"
)

const rootToken = "hvs.root-CANARY"

// previousFields are the names of a sink that also keeps the previous secret.
var previousFields = config.SinkFields{ClientIDField: sinktest.ClientIDField, ClientSecretField: sinktest.ClientSecretField,
	PreviousIDField: sinktest.PreviousIDField, PreviousSecretField: sinktest.PreviousSecretField, PreviousEndsField: sinktest.PreviousEndsField}

// session is logged in at a server with one mount.
func session(t *testing.T, server *vaulttest.Server) *vault.Session {
	t.Helper()
	return observedSession(t, server, nil)
}

func observedSession(t *testing.T, server http.Handler, observer vault.Observer) *vault.Session {
	t.Helper()
	s := httptest.NewServer(server)
	t.Cleanup(s.Close)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(rootToken), 0o600); err != nil {
		t.Fatal(err)
	}
	v, err := vault.New(config.Vault{Address: s.URL, Timeout: 5 * time.Second,
		Auth: &config.TokenAuth{Source: config.SecretSource{File: file}}}, nil, observer)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); v.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return v
}

func TestVaultSink(t *testing.T) {
	for _, mount := range []vaulttest.Mount{
		{Path: "kv1", Version: 1},
		{Path: "kv2", Version: 2},
		{Path: "team/kv2", Version: 2, CASRequired: true},
	} {
		t.Run(fmt.Sprintf("%s version %d cas_required %t", mount.Path, mount.Version, mount.CASRequired), func(t *testing.T) {
			server := vaulttest.New(vaulttest.Options{RootToken: rootToken, Mounts: []vaulttest.Mount{mount}})
			v := session(t, server)
			n := 0
			sinktest.Run(t, func(t *testing.T) sinktest.Harness {
				n++
				path := fmt.Sprintf("access/token-%d", n)
				return harness(t, server, v, mount, path)
			})
		})
	}
}

func harness(t *testing.T, server *vaulttest.Server, v *vault.Session, mount vaulttest.Mount, path string) sinktest.Harness {
	written := server.Writes()
	outside := 0
	t.Cleanup(func() { server.ReadOnly(false); server.SetRefusal(nil); server.ClearFaults() })
	h := sinktest.Harness{
		KV: mount.Version, Typed: true,
		AnswerNext: func(_ *testing.T, r sinktest.Replaced) {
			server.ClearFaults()
			reads, probes := r.To == sinktest.Read, r.To == sinktest.Probe
			if r.Skip > 0 {
				server.Inject(vaulttest.Fault{Reads: reads, Probes: probes, Count: r.Skip, Do: func() {}})
			}
			server.Inject(vaulttest.Fault{Reads: reads, Probes: probes, Count: r.Count, After: r.CarryOut,
				Status: r.Status, Body: r.Body, ContentType: r.ContentType, Verbatim: true})
		},
		Sink: sink.NewVault(v, config.VaultSink{Mount: mount.Path, Path: path,
			SinkFields: config.SinkFields{ClientIDField: sinktest.ClientIDField, ClientSecretField: sinktest.ClientSecretField}}),
		WithPrevious: func(*testing.T) rotation.Sink {
			return sink.NewVault(v, config.VaultSink{Mount: mount.Path, Path: path, SinkFields: previousFields})
		},
		Fields:       func(*testing.T) map[string]any { return server.Read(mount.Path, path) },
		OutsideWrite: func(_ *testing.T, fields map[string]any) { outside++; server.Write(mount.Path, path, fields) },
		Versions:     func(*testing.T) int { return server.Writes() - written - outside },
		LoseNextAnswer: func(_ *testing.T, carryOut bool) {
			server.Inject(vaulttest.Fault{After: carryOut})
		},
		FailNextAnswer: func(_ *testing.T, carryOut bool) {
			server.Inject(vaulttest.Fault{After: carryOut, Status: 500})
		},
		Deny: func(*testing.T) { server.ReadOnly(true) }, DeniedSays: "capabilities",
		// The first read of a store is good and the second, the reading back, is not.
		FailReads: func(_ *testing.T, n int) {
			server.Inject(vaulttest.Fault{Reads: true, Do: func() {}})
			server.Inject(vaulttest.Fault{Reads: true, Status: 500, Count: n})
		},
	}
	if mount.Version == 2 {
		h.DenyParameters = func(*testing.T) {
			server.SetRefusal(func(_, _ string, body map[string]any) bool { return body["options"] != nil })
		}
		h.Stale = func(_ *testing.T, skip, n int) {
			server.ClearFaults()
			if skip > 0 {
				server.Inject(vaulttest.Fault{Reads: true, Count: skip, Do: func() {}})
			}
			if n > 0 {
				server.Inject(vaulttest.Fault{Reads: true, Count: n, Back: 1})
			}
		}
		h.Destroy = func(*testing.T) { server.Destroy(mount.Path, path) }
		h.RemoveMetadata = func(*testing.T) { server.RemoveMetadata(mount.Path, path) }
		h.RequireCAS = func(*testing.T) { server.RequireCAS(mount.Path, path) }
		h.KeepVersions = func(_ *testing.T, n int) { server.KeepVersions(mount.Path, path, n) }
		h.AfterNextWrite = func(_ *testing.T, do func()) { server.Inject(vaulttest.Fault{AfterDo: do}) }
		h.ShortLife = time.Millisecond
		h.DeleteAfter = func(_ *testing.T, after time.Duration) { server.DeleteVersionAfter(mount.Path, path, after) }
		h.Delete = func(*testing.T) { server.Delete(mount.Path, path) }
		h.DuringNextWrite = func(_ *testing.T, do func()) { server.Inject(vaulttest.Fault{Do: do}) }
		// Version 1 has nothing against a late write.
		h.HoldNextWrite = func(*testing.T) func() {
			held, served := make(chan struct{}), make(chan struct{})
			server.Inject(vaulttest.Fault{Do: func() { <-held }, Done: func() { close(served) }})
			return func() { close(held); <-served }
		}
	}
	return h
}

// A mount that is upgraded while the daemon runs must not be taken for an empty one: a
// rotation would begin whose secret could not be stored.
func TestUpgradedMount(t *testing.T) {
	mount := vaulttest.Mount{Path: "kv", Version: 1}
	server := vaulttest.New(vaulttest.Options{RootToken: rootToken, Mounts: []vaulttest.Mount{mount}})
	s := sink.NewVault(session(t, server), config.VaultSink{Mount: "kv", Path: "access/ci", SinkFields: config.SinkFields{ClientIDField: "id", ClientSecretField: "secret"}})
	c := rotation.Credential{ClientID: "id", ClientSecret: secret.New("cfast_CANARY1")}
	before, err := s.Preflight(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Store(t.Context(), rotation.Delivery{Credential: c, Base: before}); err != nil {
		t.Fatal(err)
	}
	server.SetVersion("kv", 2)
	before, err = s.Preflight(t.Context())
	if err != nil || before.Digest != c.ClientSecret.Digest() || before.Version != 1 {
		t.Fatalf("after the upgrade Preflight sees %+v, %v", before, err)
	}
	// And again, between the preflight and the delivery.
	server.SetVersion("kv", 1)
	c.ClientSecret = secret.New("cfast_CANARY2")
	if _, err := s.Preflight(t.Context()); err != nil {
		t.Fatal(err)
	}
	server.SetVersion("kv", 2)
	after, err := s.Store(t.Context(), rotation.Delivery{Credential: c, Base: before})
	if err != nil || after.Digest != c.ClientSecret.Digest() || after.Version != 2 {
		t.Errorf("after the upgrade Store returned %+v, %v", after, err)
	}
}

// A mount that was replaced by one of another version must not be taken for an empty place, whatever was known of
// it before.
func TestReplacedMount(t *testing.T) {
	for _, path := range []string{"access/ci", "config", "metadata/x"} {
		mount := vaulttest.Mount{Path: "kv", Version: 2}
		server := vaulttest.New(vaulttest.Options{RootToken: rootToken, Mounts: []vaulttest.Mount{mount}})
		s := sink.NewVault(session(t, server), config.VaultSink{Mount: "kv", Path: path, SinkFields: config.DefaultFields()})
		c := rotation.Credential{ClientID: "id", ClientSecret: secret.New("cfast_CANARY1")}
		before, err := s.Preflight(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Store(t.Context(), rotation.Delivery{Credential: c, Base: before}); err != nil {
			t.Fatal(err)
		}
		for _, version := range []int{1, 2} {
			server.SetVersion("kv", version)
			for what, look := range map[string]func(context.Context) (rotation.Stored, error){"Preflight": s.Preflight, "Look": s.Look} {
				if now, err := look(t.Context()); err != nil || now.Digest != c.ClientSecret.Digest() || (now.Version == 0) != (version == 1) {
					t.Errorf("%s: in version %d %s sees %+v, %v", path, version, what, now, err)
				}
			}
		}
	}
}

func TestVaultSinkSaysWhatIsWrong(t *testing.T) {
	server := vaulttest.New(vaulttest.Options{RootToken: rootToken, Mounts: []vaulttest.Mount{{Path: "kv", Version: 2}}})
	v := session(t, server)
	at := func(mount string) *sink.Vault {
		return sink.NewVault(v, config.VaultSink{Mount: mount, Path: "access/ci", SinkFields: config.SinkFields{ClientIDField: "client_id", ClientSecretField: "client_secret"}})
	}
	if name := at("kv").Name(); name != "vault:kv/access/ci" {
		t.Error(name)
	}
	if err := v.Ready(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		set   func()
		mount string
		want  string
	}{
		{func() { server.Seal(true) }, "kv", "Vault is sealed"},
		{func() { server.Seal(false) }, "nope", "does the mount exist"},
		{func() { server.ReadOnly(true) }, "kv", `path "kv/data/access/ci" { capabilities = ["create", "read", "update"] }`},
		{func() { server.Inject(vaulttest.Fault{Reads: true, Status: 403}) }, "kv", "reading kv/data/access/ci: Vault denied permission"},
	} {
		test.set()
		_, err := at(test.mount).Preflight(t.Context())
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v, want %q", err, test.want)
		}
	}
}

// TestOpenWithoutVault: a sink that needs a Vault is refused where none is configured.
func TestOpenWithoutVault(t *testing.T) {
	c := &config.VaultSink{Mount: "kv", Path: "access/ci"}
	if _, err := sink.Open(c, sink.Deps{}); err == nil || !strings.Contains(err.Error(), "vault:kv/access/ci needs a Vault") {
		t.Error(err)
	}
}
