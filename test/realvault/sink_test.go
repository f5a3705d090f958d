package realvault_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/sink"
	"rotatord/internal/sink/sinktest"
	"rotatord/internal/vault"
	"rotatord/internal/vault/vaulttest"
	"rotatord/test/realvault"
)

// unreliable stands between a client and Vault, and makes single requests fail.
type unreliable struct {
	proxy *httputil.ReverseProxy

	mu     sync.Mutex
	next   func(w http.ResponseWriter, r *http.Request) bool // true: dealt with
	reads  int                                               // reads to let pass, then failing
	fails  int
	writes int
	stale  func(w http.ResponseWriter, r *http.Request) bool // true: it has answered a read
	answer *sinktest.Replaced
}

func newUnreliable(t *testing.T, target string) (*unreliable, string) {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	p := &unreliable{proxy: httputil.NewSingleHostReverseProxy(u)}
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	return p, s.URL
}

func isSecret(r *http.Request) bool {
	return !strings.HasPrefix(r.URL.Path, "/v1/sys/") && !strings.HasPrefix(r.URL.Path, "/v1/auth/") &&
		!strings.HasSuffix(r.URL.Path, "/config") && !strings.Contains(r.URL.Path, "/metadata/")
}

// kindOf returns the kind of a request for a secret, whose body can still be read after it.
func kindOf(r *http.Request) string {
	if r.Method == http.MethodGet {
		return sinktest.Read
	}
	if vaulttest.IsProbe(r) {
		return sinktest.Probe
	}
	return sinktest.Write
}

// replaced answers a request as the test wants it, and reports whether it did.
func (p *unreliable) replaced(w http.ResponseWriter, r *http.Request, kind string) bool {
	p.mu.Lock()
	a := p.answer
	if a == nil || a.To != kind {
		p.mu.Unlock()
		return false
	}
	if a.Skip > 0 {
		a.Skip--
		p.mu.Unlock()
		return false
	}
	if a.Count--; a.Count <= 0 {
		p.answer = nil
	}
	p.mu.Unlock()
	if a.CarryOut {
		p.forward(httptest.NewRecorder(), r)
	}
	w.Header()["Content-Type"] = nil
	if a.ContentType != "" {
		w.Header().Set("Content-Type", a.ContentType)
	}
	w.WriteHeader(a.Status)
	_, _ = io.WriteString(w, a.Body) // the client went away
	return true
}

func (p *unreliable) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !isSecret(r) {
		p.proxy.ServeHTTP(w, r)
		return
	}
	kind := kindOf(r)
	if p.replaced(w, r, kind) {
		return
	}
	p.mu.Lock()
	if kind == sinktest.Probe { // neither counted nor hit by what is meant for writes
		p.mu.Unlock()
		p.proxy.ServeHTTP(w, r)
		return
	}
	if r.Method == http.MethodGet {
		if stale := p.stale; stale != nil {
			p.mu.Unlock()
			if !stale(w, r) {
				p.proxy.ServeHTTP(w, r)
			}
			return
		}
		switch {
		case p.fails > 0 && p.reads == 0:
			p.fails--
			p.mu.Unlock()
			http.Error(w, `{"errors":["injected"]}`, http.StatusInternalServerError)
			return
		case p.fails > 0:
			p.reads--
		}
		p.mu.Unlock()
		p.proxy.ServeHTTP(w, r)
		return
	}
	next := p.next
	p.next = nil
	p.mu.Unlock()
	if next == nil || !next(w, r) {
		p.forward(w, r)
	}
}

// forward passes a write on, and counts it.
func (p *unreliable) forward(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.writes++
	p.mu.Unlock()
	p.proxy.ServeHTTP(w, r)
}

// hold keeps the next write until the returned function is called, as a network may: its
// sender does not wait for it any more when it arrives.
func (p *unreliable) hold(t *testing.T) (arrive func()) {
	held, served := make(chan struct{}), make(chan int, 1)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = func(_ http.ResponseWriter, r *http.Request) bool {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		late := r.Clone(context.WithoutCancel(r.Context()))
		late.Body = io.NopCloser(bytes.NewReader(body))
		go func() {
			<-held
			answer := httptest.NewRecorder()
			p.forward(answer, late)
			served <- answer.Code
		}()
		<-r.Context().Done()
		return true
	}
	return func() {
		close(held)
		// Anything else would mean that Vault did not check it.
		if code := <-served; code != http.StatusBadRequest {
			t.Errorf("the late write was answered with %d, want a check-and-set conflict", code)
		}
	}
}

func (p *unreliable) written() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.writes
}

func secretFile(t testing.TB, content string) config.SecretSource {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return config.SecretSource{File: path}
}

func startSession(t testing.TB, address, roleID, secretID string) *vault.Session {
	t.Helper()
	s, err := vault.New(config.Vault{Address: address, Timeout: 10 * time.Second, Auth: &config.AppRole{
		Mount: "approle", RoleID: secretFile(t, roleID), SecretID: secretFile(t, secretID),
	}}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return s
}

// TestVaultSink runs the suite that the double passes against the real thing, under the
// least policy that is shipped.
func TestVaultSink(t *testing.T) {
	v := realvault.Start(t)
	for _, mount := range []struct {
		path    string
		version int
		cas     bool
	}{{"kv1", 1, false}, {"kv2", 2, false}, {"team/cas", 2, true}} {
		t.Run(mount.path, func(t *testing.T) {
			v.MountKV(t, mount.path, mount.version, mount.cas)
			policy := strings.ReplaceAll(realvault.LeastPolicy(t), "secret/data/access/", mount.path+"/data/access/")
			readOnly := strings.Replace(policy, `"create", "read", "update"`, `"read"`, 1)
			if mount.version == 1 {
				policy = strings.ReplaceAll(policy, mount.path+"/data/access/", mount.path+"/access/")
				readOnly = strings.ReplaceAll(readOnly, mount.path+"/data/access/", mount.path+"/access/")
			}
			roleID, secretID := v.AppRole(t, policy, "1h", "2h")
			proxy, address := newUnreliable(t, v.Address)
			session := startSession(t, address, roleID, secretID)
			n := 0
			sinktest.Run(t, func(t *testing.T) sinktest.Harness {
				n++
				at := place{v: v, mount: mount.path, path: fmt.Sprintf("access/token-%d", n), version: mount.version, cas: mount.cas}
				h := at.harness(proxy)
				h.Sink = sink.NewVault(session, config.VaultSink{Mount: at.mount, Path: at.path,
					SinkFields: config.SinkFields{ClientIDField: sinktest.ClientIDField, ClientSecretField: sinktest.ClientSecretField}})
				h.WithPrevious = func(*testing.T) rotation.Sink {
					return sink.NewVault(session, config.VaultSink{Mount: at.mount, Path: at.path, SinkFields: config.SinkFields{
						ClientIDField: sinktest.ClientIDField, ClientSecretField: sinktest.ClientSecretField,
						PreviousIDField: sinktest.PreviousIDField, PreviousSecretField: sinktest.PreviousSecretField, PreviousEndsField: sinktest.PreviousEndsField,
					}})
				}
				if mount.version == 2 {
					h.DenyParameters = func(t *testing.T) {
						put := func(policy string) {
							if err := v.Root(t).Sys().PutPolicy("rotatord", policy); err != nil {
								t.Error(err)
							}
						}
						put(strings.Replace(policy, `"create", "read", "update"]`, `"create", "read", "update"]
  denied_parameters = { "options" = [] }`, 1))
						t.Cleanup(func() { put(policy) })
					}
				}
				h.DeniedSays = "capabilities"
				h.Deny = func(t *testing.T) {
					if err := v.Root(t).Sys().PutPolicy("rotatord", readOnly); err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() {
						if err := v.Root(t).Sys().PutPolicy("rotatord", policy); err != nil {
							t.Error(err)
						}
					})
				}
				return h
			})
		})
	}
}

// place is one secret in the real Vault, seen by a human with the root token.
type place struct {
	v           *realvault.Vault
	mount, path string
	version     int
	cas         bool
}

func (p place) data() string {
	if p.version == 2 {
		return p.mount + "/data/" + p.path
	}
	return p.mount + "/" + p.path
}

func (p place) harness(proxy *unreliable) sinktest.Harness {
	humans := 0
	before := proxy.written()
	h := sinktest.Harness{
		KV: p.version, Typed: true,
		AnswerNext: func(t *testing.T, r sinktest.Replaced) {
			proxy.mu.Lock()
			defer proxy.mu.Unlock()
			proxy.answer = &r
			t.Cleanup(func() { proxy.mu.Lock(); proxy.answer = nil; proxy.mu.Unlock() })
		},
		Fields:   func(t *testing.T) map[string]any { fields, _ := p.read(t); return fields },
		Versions: func(*testing.T) int { return proxy.written() - before },
		OutsideWrite: func(t *testing.T, fields map[string]any) {
			humans++
			p.write(t, fields)
		},
		LoseNextAnswer: func(_ *testing.T, carryOut bool) {
			proxy.mu.Lock()
			defer proxy.mu.Unlock()
			proxy.next = func(_ http.ResponseWriter, r *http.Request) bool {
				if carryOut {
					proxy.forward(httptest.NewRecorder(), r)
				}
				panic(http.ErrAbortHandler)
			}
		},
		FailNextAnswer: func(_ *testing.T, carryOut bool) {
			proxy.mu.Lock()
			defer proxy.mu.Unlock()
			proxy.next = func(w http.ResponseWriter, r *http.Request) bool {
				if carryOut {
					proxy.forward(httptest.NewRecorder(), r)
				}
				http.Error(w, `{"errors":["injected"]}`, http.StatusInternalServerError)
				return true
			}
		},
		FailReads: func(_ *testing.T, n int) {
			proxy.mu.Lock()
			defer proxy.mu.Unlock()
			proxy.reads, proxy.fails = 1, n
		},
	}
	if p.version == 2 {
		h.Stale = func(t *testing.T, skip, n int) {
			stale := func(w http.ResponseWriter, r *http.Request) bool {
				proxy.mu.Lock()
				skipped := skip > 0
				if skipped {
					skip--
				} else {
					n--
				}
				done := n < 0
				proxy.mu.Unlock()
				if skipped || done {
					return false
				}
				_, version := p.read(t)
				if version < 2 {
					w.WriteHeader(http.StatusNotFound)
					_, _ = io.WriteString(w, `{"errors":[]}`)
					return true
				}
				r.URL.RawQuery = fmt.Sprintf("version=%d", version-1)
				return false
			}
			proxy.mu.Lock()
			defer proxy.mu.Unlock()
			proxy.stale = stale
			t.Cleanup(func() { proxy.mu.Lock(); proxy.stale = nil; proxy.mu.Unlock() })
		}
		h.ShortLife = time.Second // Vault's own unit
		h.DeleteAfter = func(t *testing.T, after time.Duration) {
			if _, err := p.v.Root(t).Logical().Write(p.mount+"/metadata/"+p.path, map[string]any{"delete_version_after": after.String()}); err != nil {
				t.Fatal(err)
			}
		}
		h.Versions = func(t *testing.T) int { _, version := p.read(t); return version - humans }
		h.Delete = func(t *testing.T) {
			if _, err := p.v.Root(t).Logical().Delete(p.data()); err != nil {
				t.Fatal(err)
			}
		}
		h.DuringNextWrite = func(_ *testing.T, do func()) {
			proxy.mu.Lock()
			defer proxy.mu.Unlock()
			proxy.next = func(http.ResponseWriter, *http.Request) bool { do(); return false }
		}
		h.AfterNextWrite = func(_ *testing.T, do func()) {
			proxy.mu.Lock()
			defer proxy.mu.Unlock()
			proxy.next = func(w http.ResponseWriter, r *http.Request) bool {
				answer := httptest.NewRecorder()
				proxy.forward(answer, r)
				do()
				maps.Copy(w.Header(), answer.Header())
				w.WriteHeader(answer.Code)
				_, _ = w.Write(answer.Body.Bytes())
				return true
			}
		}
		h.Destroy = func(t *testing.T) {
			_, version := p.read(t)
			p.root(t, http.MethodPut, p.mount+"/destroy/"+p.path, map[string]any{"versions": []int{version}})
		}
		h.RemoveMetadata = func(t *testing.T) { p.root(t, http.MethodDelete, p.mount+"/metadata/"+p.path, nil) }
		h.RequireCAS = func(t *testing.T) {
			p.root(t, http.MethodPut, p.mount+"/metadata/"+p.path, map[string]any{"cas_required": true})
		}
		h.KeepVersions = func(t *testing.T, n int) {
			p.root(t, http.MethodPut, p.mount+"/metadata/"+p.path, map[string]any{"max_versions": n})
		}
		h.HoldNextWrite = func(t *testing.T) func() { return proxy.hold(t) }
	}
	return h
}

// root sends a request that a human may send.
func (p place) root(t *testing.T, method, path string, body map[string]any) {
	t.Helper()
	var err error
	if method == http.MethodDelete {
		_, err = p.v.Root(t).Logical().Delete(path)
	} else {
		_, err = p.v.Root(t).Logical().Write(path, body)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (p place) read(t *testing.T) (fields map[string]any, version int) {
	t.Helper()
	s, err := p.v.Root(t).Logical().Read(p.data())
	if err != nil {
		t.Fatal(err)
	}
	if s == nil {
		return nil, 0
	}
	if p.version == 1 {
		return s.Data, 0
	}
	fields, _ = s.Data["data"].(map[string]any)
	_, err = fmt.Sscan(fmt.Sprint(s.Data["metadata"].(map[string]any)["version"]), &version)
	if err != nil {
		t.Fatal(err)
	}
	return fields, version
}

func (p place) write(t *testing.T, fields map[string]any) {
	t.Helper()
	body := fields
	if p.version == 2 {
		_, version := p.read(t)
		body = map[string]any{"data": fields, "options": map[string]any{"cas": version}}
	}
	if _, err := p.v.Root(t).Logical().Write(p.data(), body); err != nil {
		t.Fatal(err)
	}
}
