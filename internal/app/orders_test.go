//go:build linux

package app_test

import (
	"errors"
	"fmt"
	"net/http"
	"os/user"
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/internal/admin"
	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/config"
	"rotatord/internal/event"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
	"rotatord/internal/vault/vaulttest"
)

// refused checks that the daemon refused a command, with a text.
func (w *world) refused(err error, code int, want string) {
	w.t.Helper()
	if r, ok := errors.AsType[*admin.Refused](err); !ok || r.Code != code || !strings.Contains(r.Message, want) {
		w.t.Errorf("%v\nwant %d: %s", err, code, want)
	}
}

// TestPauseAndResume pauses one token and all tokens, across restarts, and checks what is shown.
func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ci := w.anchored("ci", time.Hour, "0s", time.Now().Add(-30*time.Minute))
	w.token("other", seldom, "1h")
	c, client := w.withSocket()
	d := w.start(c)
	next := d.status("ci").Next
	paused := func(ci, other float64) {
		t.Helper()
		d.wantMetric(`rotatord_token_paused{token="ci"}`, ci)
		d.wantMetric(`rotatord_token_paused{token="other"}`, other)
	}
	paused(0, 0)
	p, err := client.Pause(t.Context(), "ci", time.Time{}, "a migration")
	me, _ := user.Current()
	if err != nil || p.Token != "ci" || p.Pause == nil || p.Pause.Reason != "a migration" || p.Pause.By != me.Username || !p.Pause.Until.IsZero() ||
		!p.Next.IsZero() || len(p.InProgress) != 0 || !slices.Equal(p.ByName, []string{"ci"}) {
		t.Fatalf("%+v, %v", p, err)
	}
	until := time.Now().Add(200 * time.Hour).UTC().Truncate(time.Second)
	if p, err = client.Pause(t.Context(), rotation.AllTokens, until, ""); err != nil || p.Token != "" || !p.Pause.Until.Equal(until) {
		t.Fatalf("%+v, %v", p, err)
	}
	for range 2 {
		paused(1, 1)
		s := d.status("ci")
		if s.Reason != string(rotation.DuePaused) || !s.Next.IsZero() || s.Pause == nil || s.Pause.Reason != "a migration" || !s.Pause.Until.IsZero() {
			t.Errorf("%+v", s)
		}
		if s := d.status("other"); s.Reason != string(rotation.DuePaused) || s.Next.Before(until) || s.Pause == nil || !s.Pause.Until.Equal(until) {
			t.Errorf("%+v", s)
		}
		d.stop()
		w.offset.Add(int64(time.Hour)) // its slot passes meanwhile
		d = w.start(c)
	}
	if o, err := client.Resume(t.Context(), rotation.AllTokens); err != nil || o.Lifted == nil || !o.Lifted.Until.Equal(until) || !slices.Equal(o.ByName, []string{"ci"}) {
		t.Errorf("%+v, %v", o, err)
	}
	paused(1, 0)
	if s := d.status("other"); s.Reason != string(rotation.DueSlot) || s.Next.IsZero() || s.Pause != nil {
		t.Errorf("%+v", s)
	}
	if n := len(w.seen("rotate")); n != 0 {
		t.Fatalf("%d rotate requests while paused", n)
	}
	o, err := client.Resume(t.Context(), "ci")
	if err != nil || o.Lifted == nil || o.Lifted.Reason != "a migration" || o.Pause != nil {
		t.Errorf("%+v, %v", o, err)
	}
	paused(0, 0)
	// What passed meanwhile is made up for within ten minutes, at a different time for each token.
	w.eventually("its slots are looked at", func() bool { return d.status("ci").Reason == string(rotation.DueCatchUp) || w.delivered(ci) })
	if s := d.status("ci"); s.Next.Sub(w.now()) > 10*time.Minute && len(w.seen("rotate")) == 0 || s.Next.Before(next) {
		t.Errorf("%+v", s)
	}
	if o, err := client.Resume(t.Context(), "ci"); err != nil || o.Lifted != nil {
		t.Errorf("%+v, %v", o, err)
	}
	_, err = client.Pause(t.Context(), "othre", time.Time{}, "")
	w.refused(err, http.StatusNotFound, `no token "othre" is configured: did you mean other?`)
	var verbs []string
	for _, line := range d.logged("admin command") {
		verbs = append(verbs, fmt.Sprint(line["verb"], " ", line["token"], ": ", line["outcome"]))
	}
	want := []string{"resume (all): resumed", "resume ci: resumed", "resume ci: was not paused", "pause othre: refused"}
	if !slices.Equal(verbs, want) {
		t.Errorf("the audit log has %q, want %q", verbs, want)
	}
}

// TestPauseLetsARotationFinish pauses in the middle of a rotation.
func TestPauseLetsARotationFinish(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ci := w.due("ci", "0s")
	open := w.gate("rotate")
	c, client := w.withSocket()
	d := w.start(c)
	w.eventually("the request is under way", func() bool { return len(w.seen("rotate")) == 1 })
	p, err := client.Pause(t.Context(), "ci", time.Time{}, "")
	if err != nil || !slices.Equal(p.InProgress, []string{"ci"}) {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := client.Pause(t.Context(), rotation.AllTokens, time.Time{}, ""); err != nil {
		t.Error(err)
	}
	open()
	w.eventually("it is finished", func() bool { return len(d.events.of("ci", event.ResultSuccess)) == 1 && w.delivered(ci) })
	w.eventually("and paused", func() bool { s := d.status("ci"); return s.State == "idle" && s.Reason == string(rotation.DuePaused) })
}

// TestRotateOverSocket: an operator rotates, and is refused.
func TestRotateOverSocket(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ci := w.token("ci", seldom, "1h")
	c, client := w.withSocket()
	d := w.start(c)
	next := d.status("ci").Next
	r, err := client.Rotate(t.Context(), "ci", rotation.Overrides{})
	if err != nil || r.Digest != w.truth(ci).Digest() || !w.delivered(ci) || r.Token.Name != "ci" || !r.Token.Next.Equal(next) {
		t.Fatalf("%+v, %v", r, err)
	}
	if left := time.Until(r.GraceEndsAt); left < 59*time.Minute || left > time.Hour+5*time.Second {
		t.Errorf("the previous secret works for %s", left)
	}
	done := d.events.of("ci", event.ResultSuccess)
	if len(done) != 1 || done[0].Trigger != string(rotation.TriggerManual) || done[0].RotationID != r.RotationID {
		t.Errorf("%+v", done)
	}
	d.wantMetric(`rotatord_rotations_total{result="success",token="ci",trigger="manual"}`, 1)

	_, err = client.Rotate(t.Context(), "ci", rotation.Overrides{Freeze: true, Pause: true})
	w.refused(err, http.StatusConflict, "not rotated: the previous secret of ci was promised to work until")
	if _, err := client.Pause(t.Context(), "ci", time.Time{}, ""); err != nil {
		t.Fatal(err)
	}
	_, err = client.Rotate(t.Context(), "ci", rotation.Overrides{Freeze: true, Grace: true})
	w.refused(err, http.StatusConflict, "not rotated: ci is paused: resume it, or rotate anyway with --override-pause")
	if n := len(w.seen("rotate")); n != 1 {
		t.Fatalf("%d rotate requests", n)
	}
	if r, err = client.Rotate(t.Context(), "ci", rotation.Overrides{Pause: true, Grace: true}); err != nil || r.Digest != w.truth(ci).Digest() || !w.delivered(ci) {
		t.Errorf("%+v, %v", r, err)
	}
	_, err = client.Rotate(t.Context(), "cj", rotation.Overrides{})
	w.refused(err, http.StatusNotFound, `no token "cj" is configured: did you mean ci?`)

	var lines []string
	for _, line := range d.logged("admin command") {
		if line["verb"] == "rotate" {
			outcome, _, _ := strings.Cut(fmt.Sprint(line["outcome"]), ":")
			lines = append(lines, fmt.Sprint(outcome, " ", line["override_freeze"], " ", line["override_pause"], " ", line["override_grace"]))
		}
	}
	if want := []string{"rotated false false false", "refused true true false", "refused true false true", "rotated false true true", "refused false false false"}; !slices.Equal(lines, want) {
		t.Errorf("the audit log has %q, want %q", lines, want)
	}
}

// TestRotateOverSocketFails: the operator is told what is known about the outcome.
func TestRotateOverSocketFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ci := w.token("ci", seldom, "1h")
	late := w.token("late", seldom, "0s")
	c, client := w.withSocket()
	d := w.start(c)
	w.eventually("the inventory is done", func() bool { code, _ := d.get("/readyz"); return code == http.StatusOK })
	next := d.status("ci").Next

	w.vault.ReadOnly(true)
	_, err := client.Rotate(t.Context(), "ci", rotation.Overrides{})
	if err == nil || !strings.Contains(err.Error(), "nothing was rotated: sink vault:secret/access/ci") {
		t.Errorf("nothing was sent: %v", err)
	}
	w.vault.ReadOnly(false)
	if s := d.status("ci"); s.State != "idle" || s.Failures != 0 || !s.Next.Equal(next) || len(w.seen("rotate")) != 0 {
		t.Errorf("%+v", s)
	}

	w.vault.Inject(vaulttest.Fault{Status: http.StatusInternalServerError})
	_, err = client.Rotate(t.Context(), "late", rotation.Overrides{})
	if err == nil || !strings.Contains(err.Error(), "the new secret is not in every sink yet") {
		t.Errorf("not delivered: %v", err)
	}
	w.eventually("the daemon delivers it", func() bool { return w.delivered(late) && d.status("late").State == "idle" })

	if err := w.sim.Inject(cfsim.Fault{Operation: "rotate", TokenID: ci.ID, Kind: cfsim.KindDrop, When: cfsim.After}); err != nil {
		t.Fatal(err)
	}
	_, err = client.Rotate(t.Context(), "ci", rotation.Overrides{})
	if err == nil || !strings.Contains(err.Error(), "it is not known whether Cloudflare carried it out") || !strings.Contains(err.Error(), "see rotatord resolve ci") {
		t.Errorf("no answer: %v", err)
	}
	if s := d.status("ci"); s.State != status.InDoubt {
		t.Errorf("%+v", s)
	}
	_, err = client.Rotate(t.Context(), "ci", rotation.Overrides{Freeze: true, Pause: true, Grace: true})
	w.refused(err, http.StatusConflict, "not rotated: ci is in doubt")
}

// TestFreezeIsShown: a token waits for the end of a freeze, and an operator needs a flag to rotate it.
func TestFreezeIsShown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ci := w.due("ci", "0s")
	from, to := time.Now().Add(-time.Hour), time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	c, client := w.withSocket(fmt.Sprintf("freezes: {move: {from: %s, to: %s}}", from.UTC().Format(time.RFC3339), to.Format(time.RFC3339)))
	d := w.start(c)
	if s := d.status("ci"); s.Freeze != "move" || s.Reason != string(rotation.DueFreeze) || s.Next.Before(to) || s.Next.After(to.Add(10*time.Minute)) {
		t.Errorf("%+v", s)
	}
	_, err := client.Rotate(t.Context(), "ci", rotation.Overrides{Pause: true, Grace: true})
	w.refused(err, http.StatusConflict, "not rotated: the freeze move lasts until "+to.Format(time.RFC3339)+": wait, or rotate anyway with --override-freeze")
	if _, err := client.Rotate(t.Context(), "ci", rotation.Overrides{Freeze: true}); err != nil || !w.delivered(ci) {
		t.Error(err)
	}
}

// TestLivenessSeesTheClock: a clock that was set by more than a little makes liveness fail until it is right
// again.
func TestLivenessSeesTheClock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.token("ci", seldom, "1h")
	d := w.start(w.config())
	for _, test := range []struct {
		offset time.Duration
		code   int
		want   string
	}{
		{0, http.StatusOK, "[+] clock: ok"},
		{4 * time.Minute, http.StatusOK, "[+] clock: ok"},
		{-4 * time.Minute, http.StatusOK, "[+] clock: ok"},
		{6 * time.Minute, http.StatusServiceUnavailable, "since the start the wall clock went ahead by 6m0s against the monotonic one: " +
			"it was set, or the machine slept. Restart the daemon once the clock is right"},
		{-6 * time.Minute, http.StatusServiceUnavailable, "since the start the wall clock went back by 6m0s against the monotonic one"},
		{0, http.StatusOK, "[+] clock: ok"},
	} {
		w.offset.Store(int64(test.offset))
		code, body := d.get("/livez?verbose")
		if code != test.code || !strings.Contains(body, test.want) || !strings.Contains(body, "[+] scheduler: ok") {
			t.Errorf("%s: %d %s", test.offset, code, body)
		}
		if drift, ok := d.metric("rotatord_clock_drift_seconds"); !ok || drift-test.offset.Seconds() > 1 || drift-test.offset.Seconds() < -1 {
			t.Errorf("%s: the metric says %vs", test.offset, drift)
		}
	}
	if code, _ := d.get("/readyz"); code == http.StatusServiceUnavailable {
		w.eventually("the clock has nothing to do with readiness", func() bool { code, _ := d.get("/readyz"); return code == http.StatusOK })
	}
}

// reload reads the configuration again, and reloads what change makes of it.
func (d *daemon) reload(change func(*config.Config)) error {
	c := d.w.config()
	if change != nil {
		change(c)
	}
	return d.Reload(d.w.t.Context(), c)
}

// TestReload adds, removes and changes tokens while others continue to rotate.
func TestReload(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	w := newWorld(t)
	going := w.token("going", "@every 1s", "0s")
	w.token("gone", seldom, "1h")
	changed := w.anchored("changed", time.Hour, "10m", time.Now().Add(-30*time.Minute))
	d := w.start(w.config())
	rotatesOn := func(name string) {
		t.Helper()
		before := len(d.events.of(name, event.ResultSuccess))
		w.eventually(name+" rotates on", func() bool { return len(d.events.of(name, event.ResultSuccess)) > before })
	}
	rotatesOn("going")
	before, _ := d.metric("rotatord_config_last_reload_success_timestamp_seconds")

	w.tokens = []tokenSpec{going, changed}
	w.tokens[1].Schedule = "0 4 1 * *"
	come := w.token("come", "@every 1s", "0s")
	if err := d.reload(nil); err != nil {
		t.Fatal(err)
	}
	rotatesOn("going")
	rotatesOn("come")
	if !slices.Equal([]string{"changed", "come", "going"}, names(d)) {
		t.Errorf("it knows %q", names(d))
	}
	if s := d.status("changed"); s.Schedule != "0 4 1 * *" || s.Next.Day() != 1 || s.Next.Hour() != 4 || !s.Next.After(w.now()) || s.Reason != string(rotation.DueSlot) {
		t.Errorf("%+v", s)
	}
	if _, ok := d.metric(`rotatord_token_paused{token="gone"}`); ok {
		t.Error("the metrics still tell of the one that is gone")
	}
	d.wantMetric("rotatord_config_last_reload_successful", 1)
	if after, _ := d.metric("rotatord_config_last_reload_success_timestamp_seconds"); after <= before {
		t.Errorf("it was loaded at %v, and before at %v", after, before)
	}
	if err := d.reload(nil); err != nil { // that changes nothing
		t.Error(err)
	}
	lines := d.logged("the configuration was reloaded")
	if len(lines) != 2 || lines[0]["tokens"] != 3.0 || lines[0]["new_or_changed"] != 2.0 || lines[0]["removed"] != 1.0 || lines[1]["new_or_changed"] != 0.0 {
		t.Errorf("the log has %v", lines)
	}
	for _, spec := range []tokenSpec{going, come} {
		for i, done := range d.events.of(spec.Name, event.ResultSuccess) {
			if i > 0 && !done.Slot.After(d.events.of(spec.Name, event.ResultSuccess)[i-1].Slot) {
				t.Errorf("%s: the slot %s was served again", spec.Name, done.Slot)
			}
		}
	}
	// The token that was removed comes back in its earlier state.
	w.tokens = append(w.tokens, tokenSpec{Name: "changed2", ID: come.ID, Schedule: seldom, Grace: "1h"})
	w.tokens = slices.DeleteFunc(w.tokens, func(s tokenSpec) bool { return s.Name == "come" })
	w.eventually("a service token gets another name", func() bool { return d.reload(nil) == nil })
	if !slices.Equal([]string{"changed", "changed2", "going"}, names(d)) {
		t.Errorf("it knows %q", names(d))
	}
}

func names(d *daemon) (all []string) {
	for _, token := range d.Tokens() {
		all = append(all, token.Name)
	}
	slices.Sort(all)
	return all
}

// TestReloadFreezesAndAccounts: a freeze is in force from a reload on, and a new account is listed.
func TestReloadFreezesAndAccounts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.token("ci", seldom, "1h")
	d := w.start(w.config())
	next := d.status("ci").Next
	freeze := fmt.Sprintf("freezes: {move: {from: %s, to: %s}}", next.Add(-time.Hour).Format(time.RFC3339), next.Add(time.Hour).Format(time.RFC3339))
	if err := d.Reload(t.Context(), w.config(freeze)); err != nil {
		t.Fatal(err)
	}
	if s := d.status("ci"); s.Freeze != "move" || s.Next.Before(next.Add(time.Hour)) {
		t.Errorf("%+v", s)
	}
	if err := d.reload(nil); err != nil {
		t.Fatal(err)
	}
	if s := d.status("ci"); s.Freeze != "" || !s.Next.Equal(next) {
		t.Errorf("%+v", s)
	}
	other := w.token("other", "@every 1s", "0s")
	further := func(c *config.Config) {
		c.Accounts["further"] = c.Accounts["sim"]
		c.Tokens[slices.IndexFunc(c.Tokens, func(t config.Token) bool { return t.Name == "other" })].Account = "further"
	}
	if err := d.reload(further); err != nil {
		t.Fatal(err)
	}
	w.eventually("it rotates in the further account", func() bool { return len(d.events.of("other", event.ResultSuccess)) > 0 && w.delivered(other) })
	w.eventually("that was listed", func() bool {
		code, body := d.get("/readyz?verbose")
		return code == http.StatusOK && strings.Contains(body, "inventory of further")
	})
	w.tokens = w.tokens[:1]
	w.eventually("the account goes with its last token", func() bool { return d.reload(nil) == nil })
	if _, body := d.get("/readyz?verbose"); strings.Contains(body, "further") {
		t.Errorf("%s", body)
	}
}

// TestReloadIsRefused: a change that needs a restart is refused, and then nothing else is changed either.
func TestReloadIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.token("ci", seldom, "1h")
	d := w.start(w.config())
	w.tokens[0].Schedule = "@daily"
	for want, change := range map[string]func(*config.Config){
		"a change of listen asks for a restart":       func(c *config.Config) { c.Listen = "127.0.0.1:1" },
		"a change of admin_socket asks for a restart": func(c *config.Config) { c.AdminSocket = "/run/other.sock" },
		"a change of log asks for a restart":          func(c *config.Config) { c.Log.Level = "error" },
		"a change of state, vault asks for a restart": func(c *config.Config) { c.State.Dir, c.Vault.Address = "/elsewhere", "https://elsewhere" },
		"a change of accounts.sim asks for a restart": func(c *config.Config) {
			account := c.Accounts["sim"]
			account.AccountID = "00000000000000000000000000000000"
			c.Accounts["sim"] = account
		},
	} {
		err := d.reload(change)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "tokens, defaults, freezes, receivers and further accounts are what can be reloaded") {
			t.Errorf("%v\nwant %s", err, want)
		}
		d.wantMetric("rotatord_config_last_reload_successful", 0)
		if s := d.status("ci"); s.Schedule != seldom {
			t.Errorf("%s: some of it was taken", want)
		}
	}
	if err := d.reload(nil); err != nil || d.status("ci").Schedule != "@daily" {
		t.Errorf("%v, %+v", err, d.status("ci"))
	}
	d.wantMetric("rotatord_config_last_reload_successful", 1)
	d.Refused(t.Context(), event.ReloadRefusal{Faults: []string{"a fault"}}) // it could not even be read
	d.wantMetric("rotatord_config_last_reload_successful", 0)
}

// TestReloadKeepsARotationInProgress: the rotation of a token that is removed would never be finished.
func TestReloadKeepsARotationInProgress(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.due("ci", "0s")
	w.token("other", seldom, "1h")
	open := w.gate("rotate")
	d := w.start(w.config())
	w.eventually("the request is under way", func() bool { return len(w.seen("rotate")) == 1 })
	all := w.tokens
	w.tokens = all[1:]
	err := d.reload(nil)
	if want := "tokens.ci: a rotation is in progress (intent), and would never be finished: keep the entry as it is until the rotation is done. rotatord status ci says how to end it"; err == nil || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
	d.wantMetric("rotatord_config_last_reload_successful", 0)
	if !slices.Equal(names(d), []string{"ci", "other"}) {
		t.Errorf("it knows %q", names(d))
	}
	open()
	w.eventually("it is finished", func() bool { return len(d.events.of("ci", event.ResultSuccess)) == 1 })
	w.eventually("it can go", func() bool { return d.reload(nil) == nil })
	if !slices.Equal(names(d), []string{"other"}) || !w.delivered(all[0]) {
		t.Errorf("it knows %q", names(d))
	}
	d.wantMetric("rotatord_config_last_reload_successful", 1)
}
