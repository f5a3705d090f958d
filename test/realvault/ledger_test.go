package realvault_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"

	"rotatord/internal/kvstore"
	"rotatord/internal/kvstore/kvtest"
	"rotatord/internal/ledger"
	"rotatord/internal/ledger/ledgertest"
	"rotatord/internal/ledger/shared"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/statedir"
	"rotatord/internal/vault"
	"rotatord/test/realvault"
)

// replicasPolicy is the policy that is shipped for several replicas.
func replicasPolicy(t testing.TB) string {
	t.Helper()
	return realvault.LeastPolicy(t) + realvault.ReplicasPolicy(t)
}

// TestSharedLedger runs the suites of the store and of the ledger against a real Vault, under the policies that are
// shipped, with and without cas_required.
func TestSharedLedger(t *testing.T) {
	v := realvault.Start(t)
	v.MountKV(t, "secret", 2, false)
	v.MountKV(t, "strict", 2, true)
	roleID, secretID := v.AppRole(t, replicasPolicy(t)+strings.ReplaceAll(realvault.ReplicasPolicy(t), `"secret/`, `"strict/`), "1h", "2h")
	var prefixes atomic.Int64
	for _, mount := range []string{"secret", "strict"} {
		// A prefix below the one in the policy, whose rights to remove do not reach there, is only for the ledger.
		below := func() string { return fmt.Sprintf("rotatord/%d", prefixes.Add(1)) }
		t.Run("store in "+mount, func(t *testing.T) {
			kvtest.Run(t, func(t *testing.T) kvtest.Place {
				root := v.Root(t).Logical()
				prefix := "rotatord"
				clean(t, v, mount+"/metadata/"+prefix)
				return kvtest.Place{
					Open: func() kvstore.KV {
						return kvstore.New(startSession(t, v.Address, roleID, secretID), mount, prefix)
					},
					Delete: func(path string) {
						if _, err := root.Delete(mount + "/data/" + prefix + "/" + path); err != nil {
							t.Fatal(err)
						}
					},
					Destroy: func(path string) {
						about, err := root.Read(mount + "/metadata/" + prefix + "/" + path)
						if err == nil {
							_, err = root.Write(mount+"/destroy/"+prefix+"/"+path, map[string]any{"versions": []any{about.Data["current_version"]}})
						}
						if err != nil {
							t.Fatal(err)
						}
					},
				}
			})
		})
		t.Run("ledger in "+mount, func(t *testing.T) {
			opened := 0
			ledgertest.Run(t, ledgertest.Kind{Shared: true, New: func(t *testing.T) func() ledger.Ledger {
				prefix := below()
				return func() ledger.Ledger {
					opened++
					session := startSession(t, v.Address, roleID, secretID)
					return shared.Open(shared.Options{KV: kvstore.New(session, mount, prefix), Replica: "a", Process: fmt.Sprint(opened)})
				}
			}})
		})
	}
	t.Run("what a person does", func(t *testing.T) { testPerson(t, v, startSession(t, v.Address, roleID, secretID)) })
	t.Run("copies", func(t *testing.T) { testCopies(t, startSession(t, v.Address, roleID, secretID)) })
}

// clean removes everything below a path of metadata.
func clean(t *testing.T, v *realvault.Vault, path string) {
	t.Helper()
	root := v.Root(t).Logical()
	list, err := root.List(path)
	if err != nil {
		t.Fatal(err)
	}
	if list == nil {
		return
	}
	for _, key := range list.Data["keys"].([]any) {
		name := key.(string)
		if rest, dir := strings.CutSuffix(name, "/"); dir {
			clean(t, v, path+"/"+rest)
		} else if _, err := root.Delete(path + "/" + name); err != nil {
			t.Fatal(err)
		}
	}
}

// testPerson has a person roll a record back and say that it is the latest state, as the errors say.
func testPerson(t *testing.T, v *realvault.Vault, session *vault.Session) {
	clean(t, v, "secret/metadata/rotatord")
	root := v.Root(t)
	store := kvstore.New(session, "secret", "rotatord")
	l := shared.Open(shared.Options{KV: store, Replica: "a", Process: "1"})
	r := rotation.Record{Format: rotation.RecordFormat, Token: "a..b", TokenID: "x", Account: "prod", Anchor: time.Now().UTC()}
	for n := range 6 {
		r.Failures = n
		var err error
		if r, err = l.Save(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	about, err := root.Logical().Read("secret/metadata/rotatord/tokens/a.~b")
	if err != nil || len(about.Data["versions"].(map[string]any)) != 3 {
		t.Fatalf("Vault keeps %v, %v", about, err)
	}
	kv := root.KVv2("secret")
	if _, err := kv.Rollback(t.Context(), "rotatord/tokens/a.~b", 5); err != nil {
		t.Fatal(err)
	}
	const advice = "vault kv patch -cas=7 -mount=secret rotatord/tokens/a.~b accept=5"
	if _, err := l.Load(t.Context(), "a..b"); err == nil || !strings.Contains(err.Error(), advice) {
		t.Fatalf("rolled back: %v", err)
	}
	if _, err := root.Logical().JSONMergePatch(t.Context(), "secret/data/rotatord/tokens/a.~b", map[string]any{
		"data": map[string]any{"accept": "5"}, "options": map[string]any{"cas": 7},
	}); err != nil {
		t.Fatal(err)
	}
	if r, err = l.Load(t.Context(), "a..b"); err != nil || r.Failures != 4 || r.Revision != 8 {
		t.Fatalf("accepted: %+v, %v", r, err)
	}
	if _, err := l.Save(t.Context(), r); err != nil {
		t.Error(err)
	}
	// A mount that deletes what is written is found before it does.
	if _, err := root.Logical().Write("secret/config", map[string]any{"delete_version_after": "720h"}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if _, err := root.Logical().Write("secret/config", map[string]any{"delete_version_after": "0s"}); err != nil {
			t.Error(err)
		}
	}()
	if err := l.Prove(t.Context()); err == nil || !strings.Contains(err.Error(), "delete_version_after 720h") {
		t.Errorf("delete_version_after: %v", err)
	}
}

// testCopies has a replica copy its sealed answer and another deliver it.
func testCopies(t *testing.T, session *vault.Session) {
	store := kvstore.New(session, "secret", "rotatord")
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	open := func(o statedir.Options) *statedir.Dir {
		t.Helper()
		o.Dir = filepath.Join(t.TempDir(), "state")
		d, err := statedir.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = d.Close() })
		return d
	}
	a := open(statedir.Options{Recipients: []string{other.Recipient().String()}})
	b := open(statedir.Options{Identity: func() (string, error) { return other.String(), nil }})
	stranger := open(statedir.Options{})
	key := rotation.PendingKey{RotationID: "01ROTATION", Token: "ci", TokenID: "uuid"}
	issued := rotation.Issued{Credential: rotation.Credential{ClientID: "id.access", ClientSecret: secret.New("cfast_CANARY")}, Facts: rotation.TokenFacts{ID: "uuid"}}
	if err := errors.Join(a.Pending.Reserve(t.Context(), key), a.Pending.Seal(t.Context(), key, issued)); err != nil {
		t.Fatal(err)
	}
	mine, theirs := shared.NewCopies(store, a.Pending, "a"), shared.NewCopies(store, b.Pending, "b")
	for range 2 {
		if err := mine.Copy(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	got, found, err := theirs.Open(t.Context(), key.RotationID)
	if err != nil || !found || got.ClientSecret.Reveal() != "cfast_CANARY" || got.Facts.ID != "uuid" {
		t.Fatalf("%+v, %t, %v", got, found, err)
	}
	if _, _, err := shared.NewCopies(store, stranger.Pending, "c").Open(t.Context(), key.RotationID); !errors.Is(err, rotation.ErrUnreadable) || !strings.Contains(err.Error(), "state.recipients") {
		t.Errorf("a replica that is not a recipient: %v", err)
	}
	if err := errors.Join(theirs.Erase(t.Context(), key.RotationID), mine.Erase(t.Context(), key.RotationID)); err != nil {
		t.Fatal(err)
	}
	if _, found, err := theirs.Open(t.Context(), key.RotationID); found || err != nil {
		t.Errorf("erased: %t, %v", found, err)
	}
}

// forwarder sends each request to the first member of a cluster that takes the connection.
func forwarder(t *testing.T, c *realvault.Cluster) string {
	t.Helper()
	client := &http.Transport{DisableKeepAlives: true, ResponseHeaderTimeout: 5 * time.Second}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		for _, v := range c.Members {
			if !v.Running() {
				continue
			}
			target, err := url.Parse(v.Address)
			if err != nil {
				panic(err)
			}
			out := r.Clone(r.Context())
			out.URL.Scheme, out.URL.Host, out.RequestURI = target.Scheme, target.Host, ""
			out.Body, out.ContentLength = io.NopCloser(strings.NewReader(string(body))), int64(len(body))
			res, err := client.RoundTrip(out)
			if err != nil {
				if strings.Contains(err.Error(), "connection refused") {
					continue
				}
				break
			}
			answer, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if err != nil {
				break
			}
			for name, values := range res.Header {
				w.Header()[name] = values
			}
			w.WriteHeader(res.StatusCode)
			_, _ = w.Write(answer)
			return
		}
		panic(http.ErrAbortHandler) // no answer comes
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// TestSharedLedgerLeaderChange saves without a pause while the leader of a cluster is killed, stopped, paused and steps
// down. Each save is done or not done, and what it returns says which, unless Vault could not be asked.
func TestSharedLedgerLeaderChange(t *testing.T) {
	t.Parallel() // it mostly waits
	c := realvault.StartCluster(t, 3)
	leader := c.Leader(t)
	leader.MountKV(t, "secret", 2, false)
	roleID, secretID := leader.AppRole(t, replicasPolicy(t), "1h", "2h")
	address := forwarder(t, c)
	const writers = 4
	stop := make(chan struct{})
	var all sync.WaitGroup
	var done, unknown, resolved, longest atomic.Int64
	for n := range writers {
		session := startSession(t, address, roleID, secretID)
		l := shared.Open(shared.Options{KV: kvstore.New(session, "secret", "rotatord"), Replica: fmt.Sprint("r", n), Process: "1"})
		all.Go(func() {
			r := rotation.Record{Format: rotation.RecordFormat, Token: fmt.Sprint("ci-", n), TokenID: "x", Account: "prod"}
			for {
				select {
				case <-stop:
					return
				default:
				}
				// Each save adds one to both numbers, so that one that was carried out twice shows.
				r.Failures++
				began := time.Now()
				saved, err := l.Save(t.Context(), r)
				if took := time.Since(began).Milliseconds(); took > longest.Load() {
					longest.Store(took)
				}
				if err == nil {
					done.Add(1)
					r = saved
					continue
				}
				if errors.Is(err, rotation.ErrConflict) {
					t.Errorf("%s: a conflict without another writer: %v", r.Token, err)
					return
				}
				unknown.Add(1)
				for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
					now, err := l.Load(t.Context(), r.Token)
					if err != nil && time.Now().Before(deadline) {
						continue
					}
					if err != nil {
						t.Errorf("%s: %v", r.Token, err)
						return
					}
					if now.Revision != r.Revision && now.Revision != r.Revision+1 || uint64(now.Failures) != now.Revision {
						t.Errorf("%s: revision %d with %d, after a save of %d against %d", r.Token, now.Revision, now.Failures, r.Failures, r.Revision)
						return
					}
					if now.Revision > r.Revision {
						resolved.Add(1)
					}
					if now.Revision == 0 {
						now = rotation.Record{Format: r.Format, Token: r.Token, TokenID: r.TokenID, Account: r.Account}
					}
					r = now
					break
				}
			}
		})
	}
	changes := []struct {
		name string
		do   func(*realvault.Vault)
	}{
		{"killed", func(v *realvault.Vault) { v.Kill() }},
		{"stepped down", func(*realvault.Vault) { c.StepDown(t) }},
		{"paused", func(v *realvault.Vault) { v.Pause(); time.Sleep(6 * time.Second); v.Continue() }},
		{"stopped", func(v *realvault.Vault) { v.Stop() }},
	}
	if testing.Short() {
		changes = changes[:2]
	}
	for _, change := range slices.Concat(changes, changes) {
		before := done.Load()
		change.do(c.Leader(t))
		for deadline := time.Now().Add(time.Minute); done.Load() < before+writers*20 && time.Now().Before(deadline); {
			time.Sleep(20 * time.Millisecond)
		}
		if done.Load() < before+writers*20 {
			t.Errorf("%s: no saves a minute later", change.name)
		}
		c.Heal(t)
	}
	close(stop)
	all.Wait()
	t.Logf("%d saves are known to be done; of %d whose outcome was not known, %d were done; the longest took %d ms", done.Load(), unknown.Load(), resolved.Load(), longest.Load())
}
