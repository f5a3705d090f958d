package app_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"

	"rotatord/internal/app"
	"rotatord/internal/rotation"
)

// This file runs several Apps in one process, as replicas on one Vault and one Cloudflare.

// replicas is a world in which several daemons share the ledger.
type replicas struct {
	*world
	claim time.Duration
	away  atomic.Bool // Vault does not answer
}

func newReplicas(t *testing.T) *replicas {
	w := &replicas{world: newWorld(t), claim: 5 * time.Second}
	front := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if w.away.Load() {
			panic(http.ErrAbortHandler)
		}
		w.vault.ServeHTTP(rw, r)
	}))
	t.Cleanup(front.Close)
	w.vaultURL = front.URL
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	w.write("age-identity", identity.String())
	return w
}

// stateOf returns the state directory of a replica.
func (w *replicas) stateOf(name string) string { return filepath.Join(w.dir, "state-"+name) }

// section returns the section state of a replica's configuration.
func (w *replicas) section(name string) string {
	return fmt.Sprintf("state: {dir: %s, identity: {file: %s}, shared: {vault: {mount: secret, prefix: rotatord}, claim: %s, replica: %s}}",
		w.stateOf(name), filepath.Join(w.dir, "age-identity"), w.claim, name)
}

// replica starts a replica.
func (w *replicas) replica(name string) *daemon {
	w.t.Helper()
	d := w.run(w.config(w.section(name)))
	w.t.Cleanup(func() {
		d.leave()
		if w.t.Failed() {
			w.t.Logf("the log of replica %s:\n%s", name, d.log)
		}
	})
	return d
}

// leave stops a replica in an orderly way.
func (d *daemon) leave() {
	d.w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := d.Stop(ctx); err != nil {
		d.w.t.Errorf("stopping: %v", err)
	}
	d.w.search("the log", d.log.String())
}

// ready reports whether /readyz is good.
func (d *daemon) ready() bool { return len(d.unready()) == 0 }

// unready returns what is not good in /readyz.
func (d *daemon) unready() (bad []string) {
	for _, c := range d.Ready() {
		if !c.OK {
			bad = append(bad, c.Name+": "+c.Detail)
		}
	}
	return bad
}

// rotated returns how many rotations of a token all these daemons have completed.
func rotated(token string, all ...*daemon) (n int) {
	for _, d := range all {
		n += len(d.events.of(token, "success"))
	}
	return n
}

// TestReplicas: three replicas serve each slot once. Vault is away when they start: they live, say what they wait for, and
// then work. Each of them shows all tokens.
func TestReplicas(t *testing.T) {
	w := newReplicas(t)
	var specs []tokenSpec
	for i := range 6 {
		specs = append(specs, w.token(fmt.Sprint("ci-", i), "@every 4s", "1s"))
	}
	w.away.Store(true)
	a, b, c := w.replica("a"), w.replica("b"), w.replica("c")
	all := []*daemon{a, b, c}
	for _, d := range all {
		if code, body := d.get("/livez"); code != http.StatusOK {
			t.Errorf("not alive without Vault: %s", body)
		}
		if code, body := d.get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "shared ledger") || !strings.Contains(body, "replica") {
			t.Errorf("ready without Vault: %s", body)
		}
		if shown := d.status("ci-1"); !strings.Contains(shown.LastError, "ledger") {
			t.Errorf("what is shown without Vault: %+v", shown)
		}
	}
	w.away.Store(false)
	for _, d := range all {
		w.eventually("ready", d.ready)
	}
	// Each may list before it has found the others: once for the inventory, and once to look ahead.
	if n := len(w.seen("list")); n > 2*len(all) {
		t.Errorf("%d listings", n)
	}
	rotations := 1
	if !testing.Short() {
		rotations = 3
	}
	for _, spec := range specs {
		w.eventually("rotations of "+spec.Name, func() bool { return rotated(spec.Name, all...) >= rotations })
	}
	paused, err := b.Pause(t.Context(), rotation.AllTokens, rotation.Pause{Since: time.Now(), Reason: "a test"})
	if err != nil {
		t.Fatal(err, paused)
	}
	for _, spec := range specs {
		w.eventually("each replica shows that nothing happens any more", func() bool {
			return !slices.ContainsFunc(all, func(d *daemon) bool {
				s := d.status(spec.Name)
				return s.Pause == nil || s.State != "idle" || !s.LastSuccess.Equal(a.status(spec.Name).LastSuccess)
			})
		})
	}
	if shown := a.Replicas(); shown.Living() != 3 || shown.StandsAside != "" || shown.LedgerError != "" || time.Since(shown.SyncedAt) > time.Minute {
		t.Errorf("%+v", shown)
	}
	for _, d := range all {
		d.searchPages()
		d.leave()
	}
	for _, spec := range specs {
		if n := rotated(spec.Name, all...); !w.delivered(spec) || n > len(w.sim.Secrets(spec.ID))-1 { // one that was taken over ends without a success here
			t.Errorf("%s: %d rotations, %d secrets", spec.Name, n, len(w.sim.Secrets(spec.ID)))
		}
	}
}

// TestTwoKindsOfLedger: a daemon does not begin another ledger for tokens that have one.
func TestTwoKindsOfLedger(t *testing.T) {
	w := newReplicas(t)
	w.due("ci", "1s")
	local, here := w.config(), strings.Replace(w.section("a"), w.stateOf("a"), w.stateDir(), 1)
	_, err := app.New(app.Options{Config: w.config(here)})
	if err == nil || !strings.Contains(err.Error(), "rotatord ledger export --state-dir "+w.stateDir()) || !strings.Contains(err.Error(), "rotatord ledger import") {
		t.Errorf("a shared ledger beside a local one: %v", err)
	}
	if err := os.Rename(filepath.Join(w.stateDir(), "journal.db"), filepath.Join(w.dir, "moved")); err != nil {
		t.Fatal(err)
	}
	a, err := app.New(app.Options{Config: w.config(here)})
	if err == nil {
		err = a.Stop(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := app.New(app.Options{Config: local}); err == nil || !strings.Contains(err.Error(), "belongs to a replica") {
		t.Errorf("a local ledger in the directory of a replica: %v", err)
	}
}
