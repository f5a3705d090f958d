//go:build linux

package app_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"rotatord/internal/admin"
	"rotatord/internal/app"
	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/config"
	"rotatord/internal/event"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// withSocket returns the world's configuration with an admin socket, and a client for the socket.
func (w *world) withSocket(extra ...string) (*config.Config, *admin.Client) {
	c := w.config(extra...)
	c.AdminSocket = filepath.Join(w.dir, "admin.sock")
	return c, admin.NewClient(c.AdminSocket)
}

// doubtful starts a daemon with a token that gets into doubt, with a grace of half an hour. The fault strikes
// before or after the rotation is carried out.
func (w *world) doubtful(when cfsim.When) (tokenSpec, *daemon, *admin.Client) {
	w.t.Helper()
	ci := w.due("ci", "30m")
	if err := w.sim.Inject(cfsim.Fault{Operation: "rotate", TokenID: ci.ID, Kind: cfsim.KindDrop, When: when}); err != nil {
		w.t.Fatal(err)
	}
	c, client := w.withSocket()
	d := w.start(c)
	w.eventually("it is in doubt", func() bool { return d.status("ci").State == status.InDoubt })
	return ci, d, client
}

// TestOperatorRotatesNow: an operator looks at a lost secret and orders the reissue. It must happen once, at
// once, and in the operator's name.
func TestOperatorRotatesNow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ci, d, client := w.doubtful(cfsim.After)
	for range 2 { // looking does not decide anything
		o, err := client.Resolve(t.Context(), "ci", rotation.ResolveLook)
		if err != nil {
			t.Fatal(err)
		}
		if o.Resolved || o.Reason != rotation.ReasonOldSecretWorks || o.Problem != "" || o.Token.State != status.InDoubt || !o.Doubt.CarriedOut ||
			o.Doubt.Reason != rotation.ReasonOutcomeUnknown || !o.Doubt.UpdatedNow.After(o.Doubt.UpdatedBefore) || o.Doubt.OldWorksUntil.IsZero() ||
			o.Token.Next.Before(o.Doubt.DecidedAt) {
			t.Errorf("the outcome of a look is %+v", o)
		}
	}
	_, err := client.Resolve(t.Context(), "ci", rotation.ResolveAssumeNotRotated)
	if refused, ok := errors.AsType[*admin.Refused](err); !ok || refused.Code != http.StatusConflict {
		t.Errorf("what Cloudflare contradicts: %v", err)
	}
	if n := len(w.seen("rotate")); n != 1 {
		t.Fatalf("%d rotate requests before the operator decided", n)
	}

	// Many commands decide at the same moment: the reissue happens once.
	var all sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for range 8 {
		all.Go(func() {
			o, err := client.Resolve(t.Context(), "ci", rotation.ResolveRotateNow)
			refused, _ := errors.AsType[*admin.Refused](err)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil && o.Resolved && o.Reason == rotation.ReasonOperatorRotateNow && o.Doubt.Reason == rotation.ReasonOutcomeUnknown:
				done++
			case refused == nil || refused.Code != http.StatusConflict || !strings.Contains(refused.Message, "not in doubt"):
				t.Errorf("%+v, %v", o, err)
			}
		})
	}
	all.Wait()
	if done != 1 {
		t.Errorf("%d operators resolved the doubt", done)
	}
	w.eventually("the new secret is delivered", func() bool {
		return len(d.events.of("ci", event.ResultSuccess)) == 1 && d.status("ci").State == "idle"
	})
	if !w.delivered(ci) {
		t.Error("Vault does not have the current secret")
	}
	if got := d.events.of("ci", event.ResultSuccess)[0].Trigger; got != string(rotation.TriggerManual) {
		t.Errorf("the trigger is %s", got)
	}
	if n := len(w.seen("rotate")); n != 2 {
		t.Errorf("%d rotate requests, want the lost one and one more", n)
	}
	outcomes := map[any]int{}
	for _, line := range d.logged("admin command") {
		if line["uid"] != float64(os.Getuid()) || line["pid"] != float64(os.Getpid()) || line["token"] != "ci" || line["verb"] != "resolve" {
			t.Errorf("the audit line %v", line)
		}
		outcomes[line["outcome"]]++
	}
	if outcomes["still in doubt: old_secret_works"] != 2 || outcomes["resolved: operator_rotate_now"] != 1 || outcomes["refused"] != 8 {
		t.Errorf("the audit log has %v", outcomes)
	}
}

// TestOperatorKnows: an operator says that nothing was carried out, which is true.
func TestOperatorKnows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ci, d, client := w.doubtful(cfsim.Before)
	o, err := client.Resolve(t.Context(), "ci", rotation.ResolveAssumeNotRotated)
	if err != nil || !o.Resolved || o.Reason != rotation.ReasonOperatorNotRotated {
		t.Fatalf("%+v, %v", o, err)
	}
	w.eventually("it is rotated", func() bool { return len(d.events.of("ci", event.ResultSuccess)) == 1 })
	if got := w.sim.Stats().Rotations[ci.ID]; got != 1 || !w.delivered(ci) {
		t.Errorf("%d rotations, delivered: %t", got, w.delivered(ci))
	}
}

// TestLookInVain: Cloudflare does not answer when the operator looks. That decides nothing, and the operator
// is told.
func TestLookInVain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, d, client := w.doubtful(cfsim.After)
	if err := w.sim.Inject(cfsim.Fault{Operation: "get", Status: http.StatusForbidden}); err != nil {
		t.Fatal(err)
	}
	o, err := client.Resolve(t.Context(), "ci", rotation.ResolveLook)
	if err != nil || o.Resolved || !strings.Contains(o.Problem, "403") || o.Doubt.Reason != rotation.ReasonOutcomeUnknown {
		t.Errorf("%+v, %v", o, err)
	}
	if s := d.status("ci"); s.State != status.InDoubt || s.Doubt == nil {
		t.Errorf("the status is %+v", s)
	}
}

// TestStatusOverSocket compares what the socket shows with what the API of the page shows, and searches it
// for secrets.
func TestStatusOverSocket(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, d, client := w.doubtful(cfsim.After)
	overview, err := client.Tokens(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	answer, err := json.Marshal(overview)
	if err != nil {
		t.Fatal(err)
	}
	w.search("the socket", string(answer))
	if len(overview.Tokens) != 1 || overview.Tokens[0].Doubt == nil || overview.Tokens[0].Doubt.RotationID != d.status("ci").Doubt.RotationID {
		t.Errorf("the socket shows %s", answer)
	}
	if _, err := client.Resolve(t.Context(), "cj", rotation.ResolveLook); err == nil || !strings.Contains(err.Error(), `no token "cj" is configured: did you mean ci?`) {
		t.Errorf("a wrong name: %v", err)
	}
}

// TestSocketIsTaken starts a second daemon, with its own state, on the socket of the first one; and then the
// first one again.
func TestSocketIsTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.token("ci", seldom, "1h")
	c, client := w.withSocket()
	first := w.start(c)
	second := w.config()
	second.AdminSocket, second.State.Dir, second.Audit.File = c.AdminSocket, filepath.Join(w.dir, "other"), filepath.Join(w.dir, "other", "audit", "audit.jsonl")
	if _, err := app.New(app.Options{Config: second}); err == nil || !strings.Contains(err.Error(), "another process listens at "+c.AdminSocket) {
		t.Fatalf("the second daemon: %v", err)
	}
	if _, err := client.Tokens(t.Context()); err != nil {
		t.Errorf("the first one cannot be reached any more: %v", err)
	}
	first.stop()
	if _, err := os.Lstat(c.AdminSocket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a daemon that stopped left its socket behind: %v", err)
	}
	w.start(c)
	if _, err := client.Tokens(t.Context()); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}
