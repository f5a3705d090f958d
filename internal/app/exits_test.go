//go:build linux

package app_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"rotatord/internal/admin"
	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/statedir"
	"rotatord/internal/status"
)

// refusingOnce makes Vault refuse writes from the first rotate request on.
func (w *world) refusingOnce() {
	w.on("rotate", sync.OnceFunc(func() { w.vault.ReadOnly(true) }))
}

// overtaken starts a daemon whose new secret is overtaken: Vault refuses the write, another person rotates
// the token and stores that secret, and Vault works again.
func (w *world) overtaken(extra ...string) (tokenSpec, *daemon, *admin.Client) {
	w.t.Helper()
	ci := w.due("ci", "30m")
	w.refusingOnce()
	c, client := w.withSocket(extra...)
	d := w.start(c)
	w.eventually("the secret waits", func() bool { return d.status("ci").State == "sealed" && d.status("ci").Failures > 0 })
	ours := w.truth(ci)
	if _, err := client.Rotate(w.t.Context(), "ci", rotation.Overrides{}); err == nil || !strings.Contains(err.Error(), "in progress (sealed since") ||
		!strings.Contains(err.Error(), "access/ci") || !strings.Contains(err.Error(), "rotatord status ci") {
		w.t.Errorf("the refusal does not say what is in progress, why, and what to type: %v", err)
	}
	facts, theirs, err := w.sim.Rotate(ci.ID, time.Hour)
	if err != nil || theirs.Equal(ours) {
		w.t.Fatal(err)
	}
	w.vault.Write("secret", "access/ci", map[string]any{"client_id": facts.ClientID, "client_secret": theirs.Reveal()})
	w.vault.ReadOnly(false)
	if o, err := client.Resolve(w.t.Context(), "ci", rotation.ResolveLook); err != nil || o.Resolved { // it does not wait for its back-off
		w.t.Fatal(o, err)
	}
	w.eventually("it is overtaken", func() bool { return d.status("ci").State == status.Overtook })
	return ci, d, client
}

// TestOvertakenIsShownAndEnded: status, log and metrics show it, and each command that status offers ends it.
func TestOvertakenIsShownAndEnded(t *testing.T) {
	type exit struct {
		resolve rotation.Resolution
		leaked  bool
		theirs  bool // Vault has their secret at the end; otherwise the current one or ours
	}
	for name, exit := range map[string]exit{
		"drop":       {resolve: rotation.ResolveDrop, theirs: true},
		"deliver":    {resolve: rotation.ResolveDeliver},
		"rotate now": {resolve: rotation.ResolveRotateNow},
		"leak order": {leaked: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			ci, d, client := w.overtaken()
			theirs := w.vault.Read("secret", "access/ci")["client_secret"]
			d.wantMetric(`rotatord_token_state{state="overtaken",token="ci"}`, 1)
			d.wantMetric(`rotatord_token_state{state="sealed",token="ci"}`, 0)
			o, err := client.Token(t.Context(), "ci")
			if err != nil || o.Tokens[0].Overtaken == nil || o.Tokens[0].Overtaken.Sinks[0] != "vault:secret/access/ci" {
				t.Fatal(o, err)
			}
			var offered []string
			for _, do := range o.Tokens[0].ToDo {
				offered = append(offered, do.Command)
			}
			for _, want := range []string{"rotatord resolve ci --drop", "rotatord resolve ci --deliver", "rotatord resolve ci --rotate-now", "rotatord rotate ci --revoke-now"} {
				if !strings.Contains(strings.Join(offered, "\n"), want) {
					t.Errorf("status does not offer %q: %q", want, offered)
				}
			}
			if _, err := client.Rotate(t.Context(), "ci", rotation.Overrides{}); err == nil || !strings.Contains(err.Error(), "rotatord resolve ci, and --drop, --deliver or --rotate-now") {
				t.Errorf("rotate names no exit: %v", err)
			}
			if _, err := client.RevokePrevious(t.Context(), "ci"); err == nil || !strings.Contains(err.Error(), "rotatord resolve ci") {
				t.Errorf("revoke-previous names no exit: %v", err)
			}
			for range 2 { // looking does not decide anything, and is not reported again
				if o, err := client.Resolve(t.Context(), "ci", rotation.ResolveLook); err != nil || o.Resolved || o.Reason != rotation.ReasonOvertaken {
					t.Fatal(o, err)
				}
			}
			if exit.leaked {
				if r, err := client.Rotate(t.Context(), "ci", rotation.Overrides{RevokeNow: true}); err != nil || !r.GraceEndsAt.IsZero() {
					t.Fatal(r, err)
				}
			} else if o, err := client.Resolve(t.Context(), "ci", exit.resolve); err != nil || !o.Resolved {
				t.Fatal(o, err)
			}
			w.eventually("it has ended", func() bool {
				s := d.status("ci")
				return s.State == "idle" && s.Order == nil && (exit.theirs || !s.LastSuccess.IsZero())
			})
			d.wantMetric("rotatord_pending_secrets", 0)
			now := w.vault.Read("secret", "access/ci")["client_secret"]
			if (now == theirs) != exit.theirs {
				t.Error("Vault has the wrong secret")
			}
			if exit.theirs || exit.leaked || exit.resolve == rotation.ResolveRotateNow {
				if !w.delivered(ci) {
					t.Error("Vault does not have the current secret")
				}
			}
			if n := len(d.logged("a new secret was overtaken and is not delivered: another one is in the sinks, and an operator has to decide: rotatord status ci")); n != 1 {
				t.Errorf("it is in the log %d times", n)
			}
		})
	}
}

// TestOvertakenSurvivesARestart: the next daemon reports it again, and the command ends it there.
func TestOvertakenSurvivesARestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, d, _ := w.overtaken()
	d.stop()
	in, err := statedir.Inspect(w.stateDir())
	if err != nil || len(in.Sealed) != 1 || in.InHand[in.Sealed[0].RotationID].Work.Overtaken == nil {
		t.Fatalf("%+v, %v", in, err)
	}
	id := in.Sealed[0].RotationID
	if err := statedir.Drop(w.stateDir(), id); err == nil || !strings.Contains(err.Error(), "rotatord resolve ci --drop, --deliver or --rotate-now") {
		t.Errorf("recover --drop names no way out: %v", err)
	}
	c, client := w.withSocket()
	d = w.start(c)
	w.eventually("the next daemon knows", func() bool { return d.status("ci").State == status.Overtook })
	if len(d.logged("the new secret of the token was overtaken, and has been since before this start: an operator has to decide: rotatord status ci")) != 1 {
		t.Error("the next daemon says nothing")
	}
	if _, err := client.Resolve(t.Context(), "ci", rotation.ResolveDrop); err != nil {
		t.Fatal(err)
	}
	if in, _ := d.Pending(); in != 0 {
		t.Errorf("%d pending", in)
	}
	d.stop()
	if in, err = statedir.Inspect(w.stateDir()); err != nil || len(in.Sealed) != 1 || in.Abandoned[id] != "ci" {
		t.Errorf("the secret that was given up is no longer there: %+v, %v", in, err)
	}
}

// TestServiceTokenIsDeletedInTheMiddle: its secret waits for Vault, a reload cannot give the entry another
// service token, and an operator ends the rotation.
func TestServiceTokenIsDeletedInTheMiddle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ci := w.due("ci", "30m")
	other := w.token("other", seldom, "1h")
	w.refusingOnce()
	c, client := w.withSocket()
	d := w.start(c)
	w.eventually("the secret waits", func() bool { return d.status("ci").State == "sealed" && d.status("ci").Failures > 0 })
	if _, err := client.Resolve(t.Context(), "ci", rotation.ResolveDrop); err == nil || !strings.Contains(err.Error(), "is not given up") {
		t.Errorf("a good secret was given up: %v", err)
	}
	if err := w.sim.Delete(ci.ID); err != nil {
		t.Fatal(err)
	}
	w.tokens = []tokenSpec{{Name: "ci", ID: other.ID, Schedule: seldom, Grace: "1h"}}
	socket := func(reloaded *config.Config) { reloaded.AdminSocket = c.AdminSocket }
	if err := d.reload(socket); err == nil || !strings.Contains(err.Error(), "end the rotation with rotatord resolve ci --drop") {
		t.Errorf("the reload: %v", err)
	}
	if o, err := client.Resolve(t.Context(), "ci", rotation.ResolveDrop); err != nil || o.Reason != rotation.ReasonOperatorDrop {
		t.Fatal(o, err)
	}
	w.vault.ReadOnly(false)
	if err := d.reload(socket); err != nil {
		t.Fatal(err)
	}
	w.eventually("the entry has another one", func() bool { return d.status("ci").TokenID == other.ID })
	if _, err := client.Rotate(t.Context(), "ci", rotation.Overrides{}); err != nil {
		t.Error(err)
	}
}

// TestOrderForOneIsCancelled: it cannot be carried out, because the service token is gone.
func TestOrderForOneIsCancelled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ci := w.token("ci", seldom, "1h")
	c, client := w.withSocket()
	d := w.start(c)
	w.eventually("it is known", func() bool { return d.status("ci").Known })
	_, err := client.Cancel(t.Context(), "ci")
	w.refused(err, http.StatusConflict, "no rotation was ordered for ci, so there is nothing to take back: rotatord status ci")
	if err := w.sim.Delete(ci.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Rotate(t.Context(), "ci", rotation.Overrides{RevokeNow: true}); err == nil || !strings.Contains(err.Error(), "rotatord rotate ci --cancel") ||
		!strings.Contains(err.Error(), "give the entry the id of another service token") {
		t.Errorf("%v", err)
	}
	if o, err := client.Cancel(t.Context(), "ci"); err != nil || o.Token.Order != nil || d.status("ci").Order != nil {
		t.Error(o, err)
	}
}

// TestLeakedSecretIsRevokedOverTheSocket: the new secret waits for Vault, and the old one has leaked.
func TestLeakedSecretIsRevokedOverTheSocket(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ci := w.due("ci", "30m")
	leaked := w.truth(ci)
	w.refusingOnce()
	c, client := w.withSocket()
	d := w.start(c)
	w.eventually("the secret waits", func() bool { return d.status("ci").State == "sealed" && d.status("ci").Failures > 0 })
	works := func() bool {
		for _, s := range w.sim.Secrets(ci.ID) {
			if s.Value.Equal(leaked) && s.Status != cfsim.StatusDead {
				return true
			}
		}
		return false
	}
	if _, err := client.Rotate(t.Context(), "ci", rotation.Overrides{RevokeNow: true}); err == nil || !strings.Contains(err.Error(), "rotatord revoke-previous ci --override-in-use") {
		t.Errorf("%v", err)
	}
	_, err := client.RevokePrevious(t.Context(), "ci")
	if err == nil || !strings.Contains(err.Error(), "--override-in-use") || !works() {
		t.Errorf("%v, works %t", err, works())
	}
	if g, err := client.RevokeInUse(t.Context(), "ci"); err != nil || g.EndsAt.After(time.Now().Add(time.Second)) {
		t.Error(g, err)
	}
	w.vault.ReadOnly(false)
	// By itself: an order that waits for this rotation has it tried at once, and then every few seconds.
	w.eventually("the order is carried out", func() bool { return d.status("ci").State == "idle" && d.status("ci").Order == nil && w.delivered(ci) })
	if works() {
		t.Error("the leaked secret works")
	}
}

// TestIdentityIsLostForGood: a secret waits that nothing can open. The daemon refuses to start and names the
// way out. After that, the token is in doubt and gets another secret.
func TestIdentityIsLostForGood(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for back-offs")
	}
	t.Parallel()
	w := newWorld(t)
	ci := w.due("ci", "0s")
	w.refusingOnce()
	c := w.config()
	d := w.start(c)
	w.eventually("the secret waits", func() bool { return d.status("ci").State == "sealed" })
	d.stop()
	in, err := statedir.Inspect(w.stateDir())
	if err != nil || len(in.Sealed) != 1 {
		t.Fatal(in, err)
	}
	other := secret.New("AGE-SECRET-KEY-184JMZMVQH3E6U0PSL869004Y3U2NYV7R30EU99CSEDNPH02YUVFSZW44VU")
	w.write("state/identity.age", other.Reveal()+"\n")
	if j, err := statedir.Open(statedir.Options{Dir: w.stateDir()}); err == nil {
		j.Close()
		t.Fatal("the daemon starts without the identity")
	} else if !strings.Contains(err.Error(), "rotatord recover --drop ID --unfinished") {
		t.Errorf("no way out is named: %v", err)
	}
	if err := statedir.Drop(w.stateDir(), in.Sealed[0].RotationID); err == nil || !strings.Contains(err.Error(), "--unfinished") {
		t.Errorf("no way out is named: %v", err)
	}
	if err := statedir.DropUnfinished(w.stateDir(), in.Sealed[0].RotationID); err != nil {
		t.Fatal(err)
	}
	w.vault.ReadOnly(false)
	d = w.start(w.config())
	w.eventually("it has another secret", func() bool { return d.status("ci").State == "idle" && w.delivered(ci) })
}
