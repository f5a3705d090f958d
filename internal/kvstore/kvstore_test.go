package kvstore_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/kvstore"
	"rotatord/internal/kvstore/kvtest"
	"rotatord/internal/vault"
	"rotatord/internal/vault/vaulttest"
)

const rootToken = "root-of-the-test"

func open(t *testing.T) (*kvstore.Store, *vaulttest.Server) {
	t.Helper()
	store, server, _ := openUntil(t)
	return store, server
}

// openUntil returns what ends the server as well.
func openUntil(t *testing.T) (*kvstore.Store, *vaulttest.Server, func()) {
	t.Helper()
	server := vaulttest.New(vaulttest.Options{RootToken: rootToken, Mounts: []vaulttest.Mount{{Path: "secret", Version: 2}}})
	s := httptest.NewServer(server)
	t.Cleanup(s.Close)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(rootToken), 0o600); err != nil {
		t.Fatal(err)
	}
	session, err := vault.New(config.Vault{Address: s.URL, Timeout: 5 * time.Second, Auth: &config.TokenAuth{Source: config.SecretSource{File: file}}}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); session.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return kvstore.New(session, "secret", "rotatord"), server, s.Close
}

type thing struct {
	Name  string `json:"name"`
	Count uint64 `json:"count"`
}

func TestStore(t *testing.T) {
	store, _ := open(t)
	ctx := t.Context()
	if e, err := store.Get(ctx, "tokens/a"); err != nil || e.Version != 0 {
		t.Fatalf("an entry that was never written: %+v, %v", e, err)
	}
	if err := store.Limit(ctx, "tokens/a", 3); err != nil {
		t.Fatal(err)
	}
	if e, err := store.Get(ctx, "tokens/a"); err != nil || e.Version != 0 {
		t.Fatalf("an entry with only a limit: %+v, %v", e, err)
	}
	in := thing{"a", 1 << 53}
	before := time.Now()
	first, err := store.Put(ctx, "tokens/a", in, 0)
	if err != nil || first.Version != 1 || first.CreatedAt.Sub(before).Abs() > time.Minute {
		t.Fatalf("%+v, %v", first, err)
	}
	e, err := store.Get(ctx, "tokens/a")
	var out thing
	if err != nil || e.Version != 1 || !e.CreatedAt.Equal(first.CreatedAt) || string(e.Data) != string(first.Data) || e.Decode("x", &out) != nil || out != in {
		t.Fatalf("%+v, %v: %+v", e, err, out)
	}
	if _, err := store.Put(ctx, "tokens/a", thing{"b", 2}, 0); !errors.Is(err, kvstore.ErrConflict) {
		t.Errorf("a write against an old version: %v", err)
	}
	if _, err := store.Put(ctx, "tokens/b", in, 0); err != nil {
		t.Fatal(err)
	}
	names, err := store.List(ctx, "tokens")
	if err != nil || !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("%v, %v", names, err)
	}
	if names, err := store.List(ctx, "replicas"); err != nil || len(names) != 0 {
		t.Errorf("nothing below it: %v, %v", names, err)
	}
	if err := errors.Join(store.Remove(ctx, "tokens/a"), store.Remove(ctx, "tokens/a")); err != nil {
		t.Error(err)
	}
	if e, err := store.Get(ctx, "tokens/a"); err != nil || e.Version != 0 {
		t.Errorf("after it was removed: %+v, %v", e, err)
	}
	if _, err := store.Put(ctx, "tokens/a", thing{Name: strings.Repeat("x", 600<<10)}, 0); err == nil || !strings.Contains(err.Error(), "bytes") {
		t.Errorf("an entry that is too large: %v", err)
	}
}

func TestSuite(t *testing.T) {
	kvtest.Run(t, func(t *testing.T) kvtest.Place {
		store, server := open(t)
		return kvtest.Place{
			Open:    func() kvstore.KV { return store },
			Delete:  func(path string) { server.Delete("secret", "rotatord/"+path) },
			Destroy: func(path string) { server.Destroy("secret", "rotatord/"+path) },
		}
	})
}

// TestLostAnswers: after a write whose answer did not come, what is stored decides.
func TestLostAnswers(t *testing.T) {
	for name, test := range map[string]struct {
		fault    vaulttest.Fault
		during   func(*vaulttest.Server)
		written  bool
		conflict bool
	}{
		"not carried out":             {fault: vaulttest.Fault{}},
		"carried out, no answer":      {fault: vaulttest.Fault{After: true}, written: true},
		"carried out, 502 of a proxy": {fault: vaulttest.Fault{After: true, Status: 502, Verbatim: true, Body: "<html>", ContentType: "text/html"}, written: true},
		"503, not carried out":        {fault: vaulttest.Fault{Status: 503}},
		"carried out, empty 200":      {fault: vaulttest.Fault{After: true, Status: 200, Verbatim: true}, written: true},
		"a conflict":                  {fault: vaulttest.Fault{After: true}, during: func(s *vaulttest.Server) { s.Write("secret", "rotatord/x", map[string]any{"name": "theirs"}) }, conflict: true},
		"a proxy had sent it before": {during: func(s *vaulttest.Server) {
			s.Write("secret", "rotatord/x", map[string]any{"name": "ours", "count": 1})
		}, written: true, fault: vaulttest.Fault{Status: 502}},
	} {
		t.Run(name, func(t *testing.T) {
			store, server := open(t)
			first, err := store.Put(t.Context(), "x", thing{"first", 1}, 0)
			if err != nil {
				t.Fatal(err)
			}
			if test.during != nil {
				test.during(server)
			}
			server.Inject(test.fault)
			e, err := store.Put(t.Context(), "x", thing{"ours", 1}, first.Version)
			if (err == nil) != test.written || errors.Is(err, kvstore.ErrConflict) != test.conflict {
				t.Fatalf("%+v, %v", e, err)
			}
			if test.written && e.Version != 2 {
				t.Errorf("version %d", e.Version)
			}
		})
	}
}

// TestNeverMissing: an entry that is not readable is never taken for one that was not written.
func TestNeverMissing(t *testing.T) {
	for name, test := range map[string]struct {
		do   func(*vaulttest.Server)
		want string
	}{
		"deleted":   {func(s *vaulttest.Server) { s.Delete("secret", "rotatord/x") }, "undelete -versions=1 -mount=secret rotatord/x"},
		"destroyed": {func(s *vaulttest.Server) { s.Destroy("secret", "rotatord/x") }, "destroyed"},
		"a login page": {func(s *vaulttest.Server) {
			s.Inject(vaulttest.Fault{Reads: true, Status: 200, Verbatim: true, Body: "<html>", ContentType: "text/html"})
		}, "not one of Vault's"},
		"a proxy's 404": {func(s *vaulttest.Server) {
			s.Inject(vaulttest.Fault{Reads: true, Status: 404, Verbatim: true, Body: "not found"})
		}, "did a proxy answer"},
		"no right to read":  {func(s *vaulttest.Server) { s.SetPolicy(func(string) []string { return []string{"create"} }) }, "permission denied"},
		"a KV of version 1": {func(s *vaulttest.Server) { s.SetVersion("secret", 1) }, "version 2"},
	} {
		t.Run(name, func(t *testing.T) {
			store, server := open(t)
			if _, err := store.Put(t.Context(), "x", thing{"x", 1}, 0); err != nil {
				t.Fatal(err)
			}
			if name == "a KV of version 1" {
				server.Write("secret", "data/rotatord/x", map[string]any{"name": "x"})
				server.SetVersion("secret", 1)
				server.Write("secret", "data/rotatord/x", map[string]any{"name": "x"})
			} else {
				test.do(server)
			}
			e, err := store.Get(t.Context(), "x")
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%+v, %v", e, err)
			}
		})
	}
}

// TestAway: a write that was never sent, or that cannot match, is not read back, so an outage costs no further time.
func TestAway(t *testing.T) {
	began := time.Now()
	store, server, end := openUntil(t)
	server.Inject(vaulttest.Fault{Probes: true, Status: 503})
	if _, err := store.Put(t.Context(), "x", thing{}, kvstore.Never); err == nil || errors.Is(err, kvstore.ErrConflict) {
		t.Errorf("a proof that failed: %v", err)
	}
	server.ReadOnly(true)
	if _, err := store.Put(t.Context(), "x", thing{}, 0); err == nil || errors.Is(err, kvstore.ErrConflict) || strings.Contains(err.Error(), "not known") {
		t.Errorf("a write that the policy does not allow: %v", err)
	}
	end()
	for range 2 { // the first one may use a connection that was open
		if _, err := store.Get(t.Context(), "x"); err == nil {
			t.Error("a read of a server that is gone")
		}
	}
	if _, err := store.Put(t.Context(), "x", thing{}, 0); err == nil || strings.Contains(err.Error(), "not known") {
		t.Errorf("a write to a server that is gone: %v", err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("they took %s", took)
	}
}

// TestReadBackWaits: while Vault does not answer, a lost write is read back until it does.
func TestReadBackWaits(t *testing.T) {
	store, server := open(t)
	server.Inject(vaulttest.Fault{After: true})
	server.Inject(vaulttest.Fault{Reads: true, Count: 3, Status: 503})
	if e, err := store.Put(t.Context(), "x", thing{"x", 1}, 0); err != nil || e.Version != 1 {
		t.Errorf("%+v, %v", e, err)
	}
	// Also if the caller does not wait any longer.
	ctx, cancel := context.WithCancel(t.Context())
	server.Inject(vaulttest.Fault{After: true, Done: cancel})
	server.Inject(vaulttest.Fault{Reads: true, Status: 503})
	if e, err := store.Put(ctx, "x", thing{"x", 2}, 1); err != nil || e.Version != 2 {
		t.Errorf("%+v, %v", e, err)
	}
}
