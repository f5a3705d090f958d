package app_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"

	"rotatord/internal/app"
	"rotatord/internal/httpapi"
)

// This file runs several Apps in one process, as replicas on one Vault and one Cloudflare.

// replicas is a world in which several daemons share the ledger.
type replicas struct {
	*world
	claim time.Duration
}

func newReplicas(t *testing.T) *replicas {
	w := &replicas{world: newWorld(t), claim: 5 * time.Second}
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
func (w *replicas) replica(name string, extra ...string) *daemon {
	w.t.Helper()
	c := w.config(append([]string{w.section(name)}, extra...)...)
	d := &daemon{w: w.world, log: &buffer{}, events: &events{}}
	var err error
	d.App, err = app.New(app.Options{
		Config: c, Logger: slog.New(slog.NewJSONHandler(d.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Build: httpapi.Build{Version: "test"}, Subscriber: d.events.subscriber(), Now: w.now,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	d.url = "http://" + d.Addr().String()
	d.Start()
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

// TestReplicas: three replicas serve each slot once, and each of them shows all of it.
func TestReplicas(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for slots in real time")
	}
	w := newReplicas(t)
	var specs []tokenSpec
	for i := range 6 {
		specs = append(specs, w.token(fmt.Sprint("ci-", i), "@every 4s", "1s"))
	}
	a, b, c := w.replica("a"), w.replica("b"), w.replica("c")
	all := []*daemon{a, b, c}
	for _, d := range all {
		w.eventually("ready", d.ready)
	}
	time.Sleep(15 * time.Second)
	for _, d := range all {
		d.leave()
	}
	for _, spec := range specs {
		n := rotated(spec.Name, all...)
		if !w.delivered(spec) || n < 2 || n != len(w.sim.Secrets(spec.ID))-1 {
			t.Errorf("%s: %d rotations, %d secrets", spec.Name, n, len(w.sim.Secrets(spec.ID)))
		}
	}
}
