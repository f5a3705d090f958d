//go:build linux

package app_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"rotatord/internal/admin"
	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

// inVault returns what consumers read for a token.
func (w *world) inVault(name string) (clientID, clientSecret string) {
	fields := w.vault.Read("secret", "access/"+name)
	clientID, _ = fields["client_id"].(string)
	clientSecret, _ = fields["client_secret"].(string)
	return clientID, clientSecret
}

// accepted reports whether the application admits the credential in Vault.
func (w *world) accepted(name string) bool {
	w.t.Helper()
	id, value := w.inVault(name)
	return w.calls(id, value) == http.StatusOK
}

// calls makes a client call the application.
func (w *world) calls(clientID, clientSecret string) int {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.simURL+"/app/", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("CF-Access-Client-Id", clientID)
	req.Header.Set("CF-Access-Client-Secret", clientSecret)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	_ = res.Body.Close()
	return res.StatusCode
}

// entry adds a token to the configuration that this world did not create.
func (w *world) entry(name, which, rest string) tokenSpec {
	spec := tokenSpec{Name: name, Which: which, Schedule: seldom, Grace: "1h", Rest: rest}
	w.tokens = append(w.tokens, spec)
	return spec
}

// named returns the service tokens with this name, or whose name begins with it and a dash.
func (w *world) named(name string) (found []cfsim.Token) {
	for _, t := range w.sim.Tokens() {
		if t.Name == name || strings.HasPrefix(t.Name, name+"-") {
			found = append(found, t)
		}
	}
	return found
}

// TestCreateAndAdopt creates a service token, and no second one after a restart.
func TestCreateAndAdopt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.entry("ci", "create: {name: ci-deploy, duration: 720h}", "")
	old, _, err := w.sim.Create(cfsim.CreateParams{Name: "old"})
	if err != nil {
		t.Fatal(err)
	}
	w.entry("old", "create: {name: old, adopt: true}", "")
	if _, _, err := w.sim.Create(cfsim.CreateParams{Name: "there"}); err != nil {
		t.Fatal(err)
	}
	w.entry("taken", "create: {name: there}", "")
	c, client := w.withSocket()
	d := w.start(c)
	w.eventually("it is made and stored", func() bool { return w.accepted("ci") && d.status("ci").State == "idle" })
	w.eventually("the other is adopted", func() bool { return d.status("old").TokenID == old.ID })
	made := w.named("ci-deploy")
	if len(made) != 1 || made[0].Duration != "720h" {
		t.Fatalf("made: %+v", made)
	}
	s := d.status("ci")
	if s.TokenID != made[0].ID || s.State != "idle" {
		t.Errorf("%+v", s)
	}
	w.eventually("it is counted", func() bool { // the record says so first
		n, ok := d.metric(`rotatord_rotations_total{result="success",token="ci",trigger="create"}`)
		return ok && n == 1
	})
	w.eventually("one of that name is there already", func() bool { return strings.Contains(d.status("taken").LastError, "adopt: true") })
	if n := len(w.sim.Tokens()); n != 3 {
		t.Errorf("%d service tokens", n)
	}
	d.stop()
	d = w.start(c)
	w.eventually("it is known after a restart", func() bool { return d.status("ci").Known })
	if n := len(w.sim.Tokens()); n != 3 {
		t.Errorf("%d service tokens after a restart", n)
	}
	r, err := client.Rotate(t.Context(), "ci", rotation.Overrides{})
	if err != nil || !w.accepted("ci") || r.GraceEndsAt.IsZero() {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestReplaceInAZone: a zone's service token is replaced by a new one. The old one is deleted when its grace
// is over, or when an operator wants that.
func TestReplaceInAZone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const zone = "00000000000000000000000000000123"
	w.entry("edge", "create: {name: edge}, strategy: replace", "")
	account := fmt.Sprintf("accounts: {sim: {zone_id: %s, api_token: {file: %s/cloudflare-api-token}, base_url: %s}}", zone, w.dir, w.simURL+cfsim.BasePath)
	c, client := w.withSocket(account)
	d := w.start(c)
	w.eventually("it is made and stored", func() bool { return w.accepted("edge") && d.status("edge").State == "idle" })
	firstID, firstSecret := w.inVault("edge")
	r, err := client.Rotate(t.Context(), "edge", rotation.Overrides{})
	if err != nil || !w.accepted("edge") {
		t.Fatal(r, err)
	}
	if id, _ := w.inVault("edge"); id == firstID || w.calls(firstID, firstSecret) != http.StatusOK {
		t.Error("the client ID is the same, or the old one does not work any more")
	}
	if s := d.status("edge"); s.Strategy != "replace" || s.Replaced != 1 {
		t.Errorf("%+v", s)
	}
	d.wantMetric(`rotatord_replaced_tokens{token="edge"}`, 1)
	if left := w.named("edge"); len(left) != 2 || left[0].Owner != "zones/"+zone {
		t.Errorf("%+v", left)
	}
	if g, err := client.RevokePrevious(t.Context(), "edge"); err != nil || w.calls(firstID, firstSecret) == http.StatusOK || !w.accepted("edge") {
		t.Error(g, err)
	}
	if left := w.named("edge"); len(left) != 1 {
		t.Errorf("%+v", left)
	}
	if n := len(w.seen("rotate")); n > 0 {
		t.Errorf("%d rotate requests for a zone", n)
	}
}

// TestVerifyOverHTTP tries new secrets at an application behind Access.
func TestVerifyOverHTTP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.token("good", seldom, "1h")
	w.token("bad", seldom, "1h")
	for i := range w.tokens {
		w.tokens[i].Rest = fmt.Sprintf("verify: {url: %s/app/, within: 0s}", w.simURL)
	}
	bad := w.tokens[1]
	c, client := w.withSocket()
	d := w.start(c)
	r, err := client.Rotate(t.Context(), "good", rotation.Overrides{})
	if err != nil || r.Unverified != "" || r.Verifying {
		t.Fatal(r, err)
	}
	d.wantMetric(`rotatord_verifications_total{result="good",token="good"}`, 1)
	d.wantMetric(`rotatord_token_verify_failing{token="good"}`, 0)

	if err := w.sim.Inject(cfsim.Fault{Operation: cfsim.OpApp, TokenID: bad.ID, Kind: cfsim.KindStatus, Status: 401, Count: -1}); err != nil {
		t.Fatal(err)
	}
	_, err = client.Rotate(t.Context(), "bad", rotation.Overrides{})
	w.refused(err, http.StatusInternalServerError, "refused where it was tried")
	s := d.status("bad")
	if s.State != "stored" || s.Verification == nil || !s.Verification.Refused || !strings.Contains(s.Verification.Error, "401") {
		t.Errorf("%+v %+v", s, s.Verification)
	}
	d.wantMetric(`rotatord_token_verify_failing{token="bad"}`, 1)
	o, err := client.Resolve(t.Context(), "bad", rotation.ResolveAccept)
	if err != nil || !o.Resolved || o.Reason != rotation.ReasonOperatorAccept {
		t.Error(o, err)
	}
	w.eventually("it is done", func() bool {
		s := d.status("bad")
		return s.State == "idle" && strings.Contains(s.Unverified, "operator")
	})
	d.wantMetric(`rotatord_token_verify_failing{token="bad"}`, 0)
}

// TestInventoryAlarms: gone, disabled, about to expire, and rotated by another writer.
func TestInventoryAlarms(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	gone, off, ending, ours := w.token("gone", seldom, "1h"), w.token("off", seldom, "1h"), w.token("ending", seldom, "1h"), w.token("ours", seldom, "1h")
	w.tokens[2].Rest = "renew_before: 8000h, renew_for: 8760h"
	w.tokens[3].Rest = "outside_rotation: rotate"
	other := w.token("other", seldom, "1h")
	c, _ := w.withSocket()
	acc := c.Accounts["sim"]
	acc.InventoryEvery = 100 * time.Millisecond
	c.Accounts["sim"] = acc
	if _, err := w.sim.Edit(ending.ID, cfsim.Edit{ExpiresAt: new(time.Now().Add(1000 * time.Hour))}); err != nil {
		t.Fatal(err)
	}
	before, _ := w.sim.Token(ending.ID)
	d := w.start(c)
	w.eventually("all is known", func() bool { return d.status("other").Known && d.status("gone").Known })
	d.wantMetric(`rotatord_token_gone{token="gone"}`, 0)
	w.eventually("one that is about to end is renewed", func() bool {
		after, _ := w.sim.Token(ending.ID)
		return after.ExpiresAt.After(before.ExpiresAt.Add(7000 * time.Hour))
	})
	w.eventually("and that is counted", func() bool {
		v, _ := d.metric(`rotatord_renewals_total{result="success",token="ending"}`)
		return v == 1
	})
	if err := w.sim.Delete(gone.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := w.sim.Edit(off.ID, cfsim.Edit{Enabled: new(false)}); err != nil {
		t.Fatal(err)
	}
	for _, spec := range []tokenSpec{ours, other} {
		if _, _, err := w.sim.Rotate(spec.ID, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	w.eventually("one is gone", func() bool { v, _ := d.metric(`rotatord_token_gone{token="gone"}`); return v == 1 })
	w.eventually("one is disabled", func() bool { v, ok := d.metric(`rotatord_token_enabled{token="off"}`); return ok && v == 0 })
	w.eventually("one was rotated by another writer", func() bool {
		v, _ := d.metric(`rotatord_token_out_of_band_rotations_total{token="other"}`)
		return v == 1 && !d.status("other").Outside.IsZero()
	})
	w.eventually("and another one too, which is made up for", func() bool { return w.delivered(ours) && d.status("ours").Outside.IsZero() })
	if w.delivered(other) {
		t.Error("the one was healed that must not be")
	}
	if _, ok := d.metric(`rotatord_inventory_success_timestamp_seconds{account="sim"}`); !ok {
		t.Error("there is no time of the inventory")
	}
}

// TestRotateAllResumes orders the rotation of all tokens of an account. The daemon is stopped in the middle,
// and the next one continues. Afterwards a leaked secret works nowhere.
func TestRotateAllResumes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n = 30
	var before []secret.Value
	for i := range n {
		spec := w.token(fmt.Sprintf("t%02d", i), seldom, fmt.Sprintf("%dm", 10+i))
		before = append(before, w.truth(spec))
	}
	c, client := w.withSocket()
	d := w.start(c)
	w.eventually("it is ready", func() bool { code, _ := d.get("/readyz"); return code == http.StatusOK })
	halt := make(chan struct{})
	w.on("rotate", func() {
		if len(w.seen("rotate")) > n/2 {
			select {
			case <-halt:
			case <-w.released:
			}
		}
	})
	p, err := client.RotateAll(t.Context(), "sim", rotation.Overrides{RevokeNow: true})
	if err != nil || p.Tokens != n || p.Since.IsZero() || len(p.Problems) > 0 {
		t.Fatal(p, err)
	}
	w.eventually("half of it is done", func() bool { p, err = client.Progress(t.Context(), "sim"); return err == nil && len(p.Left) <= n/2 })
	d.wantMetric(`rotatord_orders_pending{account="sim"}`, float64(len(p.Left)))
	w.on("rotate", nil)
	close(halt)
	d.stop()
	d = w.start(c)
	again, err := client.RotateAll(t.Context(), "sim", rotation.Overrides{RevokeNow: true})
	if err != nil {
		t.Fatal(err)
	}
	var left admin.Progress
	w.eventually("all of it is done", func() bool { left, err = client.Progress(t.Context(), "sim"); return err == nil && len(left.Left) == 0 })
	for i, spec := range w.tokens {
		if !w.delivered(spec) {
			t.Errorf("%s is not delivered", spec.Name)
		}
		for _, s := range w.sim.Secrets(spec.ID) {
			if s.Value.Equal(before[i]) && s.Status != cfsim.StatusDead {
				t.Errorf("the leaked secret of %s is %s", spec.Name, s.Status)
			}
		}
	}
	t.Logf("left after the restart: %d", len(again.Left))
	d.wantMetric(`rotatord_orders_pending{account="sim"}`, 0)
	_, err = client.RotateAll(t.Context(), "nope", rotation.Overrides{})
	w.refused(err, http.StatusNotFound, `no account "nope" is configured`)
}

// TestGraceAfterTheFact revokes and extends previous secrets.
func TestGraceAfterTheFact(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ci := w.token("ci", seldom, "1h")
	old := w.truth(ci)
	c, client := w.withSocket()
	d := w.start(c)
	if _, err := client.RevokePrevious(t.Context(), "ci"); err == nil {
		t.Error("there is no previous secret")
	}
	if _, err := client.Rotate(t.Context(), "ci", rotation.Overrides{}); err != nil {
		t.Fatal(err)
	}
	id, _ := w.inVault("ci")
	if g, err := client.ExtendGrace(t.Context(), "ci", 5*time.Hour); err != nil || time.Until(g.EndsAt) < 299*time.Minute || time.Until(d.status("ci").GraceEnd) < 299*time.Minute {
		t.Error(g, err)
	}
	if code := w.calls(id, old.Reveal()); code != http.StatusOK {
		t.Error(code)
	}
	if _, err := client.RevokePrevious(t.Context(), "ci"); err != nil || w.calls(id, old.Reveal()) == http.StatusOK || !w.accepted("ci") {
		t.Error("the previous secret works on:", err)
	}
	_, err := client.ExtendGrace(t.Context(), "ci", time.Hour)
	w.refused(err, http.StatusConflict, "cannot be revived")
}
