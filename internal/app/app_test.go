package app_test

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/event"
	"rotatord/internal/rotation"
	"rotatord/internal/vault/vaulttest"
)

// TestRotatesOnSchedule lets several tokens rotate for some slots, and compares what the daemon says with
// what Cloudflare and Vault have.
func TestRotatesOnSchedule(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	w := newWorld(t)
	specs := []tokenSpec{w.token("a", "@every 1s", "0s"), w.token("b", "@every 1s", "0s"), w.token("c", "@every 2s", "1s")}
	w.vault.Write("secret", "access/a", map[string]any{"note": "kept"})
	d := w.start(w.config())
	w.eventually("each token rotates twice", func() bool {
		for _, spec := range specs {
			if len(d.events.of(spec.Name, event.ResultSuccess)) < 2 {
				return false
			}
		}
		return true
	})
	d.searchPages()
	for _, spec := range specs {
		succeeded, ok := d.metric(fmt.Sprintf(`rotatord_rotations_total{result="success",token=%q,trigger="schedule"}`, spec.Name))
		if !ok || succeeded < 2 {
			t.Errorf("%s: %v rotations in the metrics", spec.Name, succeeded)
		}
	}
	d.stop()

	total := 0
	stats := w.sim.Stats()
	for _, spec := range specs {
		attempts := d.events.of(spec.Name, event.ResultSuccess)
		if got := stats.Rotations[spec.ID]; got != len(attempts) {
			t.Errorf("%s: Cloudflare carried out %d rotations, the daemon tells of %d", spec.Name, got, len(attempts))
		}
		total += len(attempts)
		if !w.delivered(spec) {
			t.Errorf("%s: Vault does not have the current secret", spec.Name)
		}
		// One slot, one rotation.
		for i := 1; i < len(attempts); i++ {
			before, after := attempts[i-1], attempts[i]
			if !after.Slot.After(before.Slot) || after.At.Before(before.GraceEndsAt) || after.Digest == before.Digest {
				t.Errorf("%s: the rotation of %s followed on that of %s, with grace until %s", spec.Name, after.Slot, before.Slot, before.GraceEndsAt)
			}
		}
	}
	if want := map[int]int{http.StatusOK: total}; !maps.Equal(stats.Requests["rotate"], want) {
		t.Errorf("rotate requests by status: %v, want %v", stats.Requests["rotate"], want)
	}
	if lines := d.logged("rotated"); len(lines) != total {
		t.Errorf("%d lines of audit for %d rotations", len(lines), total)
	}
	if note := w.vault.Read("secret", "access/a")["note"]; note != "kept" {
		t.Errorf("what stood beside the secret is %v", note)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestVaultSealedBefore: no rotation starts that could not be stored.
func TestVaultSealedBefore(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for back-offs")
	}
	t.Parallel()
	w := newWorld(t)
	ci := w.due("ci", "0s")
	w.vault.Seal(true)
	d := w.start(w.config())
	w.eventually("the rotation is skipped twice", func() bool { return d.status("ci").Failures >= 2 })
	d.wantMetric("rotatord_vault_session_expiry_timestamp_seconds", 0)
	if s := d.status("ci"); s.State != "idle" || s.Failures < 2 || !strings.Contains(s.LastError, "sealed") {
		t.Errorf("the status is %+v", s)
	}
	if n := len(w.seen("rotate")); n != 0 {
		t.Fatalf("%d rotate requests were sent while nothing could be stored", n)
	}
	w.vault.Seal(false)
	w.eventually("the secret is delivered", func() bool { return w.delivered(ci) && !d.status("ci").LastSuccess.IsZero() })
	if got := w.sim.Stats(); got.Rotations[ci.ID] != 1 || got.Count("rotate") != 1 {
		t.Errorf("%d rotations with %d requests, want one", got.Rotations[ci.ID], got.Count("rotate"))
	}
	if s := d.status("ci"); s.Failures != 0 || s.LastError != "" {
		t.Errorf("afterwards the status is %+v", s)
	}
}

// TestVaultSealedBetween seals Vault between the answer and the write, and restarts the daemon while the only
// copy of the secret is in its state directory.
func TestVaultSealedBetween(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for back-offs")
	}
	t.Parallel()
	w := newWorld(t)
	ci := w.due("ci", "0s")
	w.on("rotate", func() { w.vault.Seal(true) })
	d := w.start(w.config())
	w.eventually("the secret waits", func() bool { return len(d.events.of("ci", event.ResultFailed)) >= 1 })
	wantWaiting := func(d *daemon) {
		t.Helper()
		d.wantMetric("rotatord_pending_secrets", 1)
		d.wantMetric(`rotatord_token_state{state="sealed",token="ci"}`, 1)
		d.wantMetric(`rotatord_token_state{state="idle",token="ci"}`, 0)
		if oldest, ok := d.metric("rotatord_pending_secret_oldest_timestamp_seconds"); !ok || time.Since(time.Unix(int64(oldest), 0)) > time.Minute {
			t.Errorf("the oldest pending secret is of %v (%t)", oldest, ok)
		}
		if _, page := d.get("/"); !strings.Contains(page, "<b>1 sealed secret</b> not yet confirmed") {
			t.Error("the page says nothing of the secret that waits")
		}
		if len(d.logged("a new secret waits to be delivered")) == 0 {
			t.Error("the log says nothing of the secret that waits")
		}
	}
	w.eventually("the view has it", func() bool { return d.status("ci").State == "sealed" })
	wantWaiting(d)
	d.stop()

	d = w.start(w.config())
	if lines := d.logged("a rotation was left unfinished; it is continued first"); len(lines) != 1 || lines[0]["step"] != "sealed" {
		t.Errorf("the log of the next start says %v", lines)
	}
	w.eventually("the next daemon has tried", func() bool { return len(d.events.of("ci", event.ResultFailed)) >= 1 })
	wantWaiting(d)
	w.vault.Seal(false)
	w.eventually("the secret is delivered", func() bool { return w.delivered(ci) && !d.status("ci").LastSuccess.IsZero() })
	d.wantMetric("rotatord_pending_secrets", 0)
	if got := w.sim.Stats(); got.Rotations[ci.ID] != 1 || got.Count("rotate") != 1 {
		t.Errorf("%d rotations with %d requests, want one", got.Rotations[ci.ID], got.Count("rotate"))
	}
}

// TestLostWriteAnswer loses Vault's answer to a write that was carried out: it must not be written twice.
func TestLostWriteAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ci := w.due("ci", "0s")
	w.vault.Inject(vaulttest.Fault{After: true})
	d := w.start(w.config())
	w.eventually("the rotation ends", func() bool { return len(d.events.of("ci", event.ResultSuccess)) == 1 })
	if !w.delivered(ci) || w.vault.Writes() != 1 {
		t.Errorf("delivered: %t, with %d writes", w.delivered(ci), w.vault.Writes())
	}
}

// TestThrottled: Cloudflare refuses one token's request and asks to be left alone. The whole account must
// obey, and after that every token must continue by itself.
func TestThrottled(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for Retry-After")
	}
	t.Parallel()
	const retryAfter = 8 * time.Second // the others become due before that is over, and well after the refusal
	w := newWorld(t)
	// The account is listed first, so that the listing is not what is refused.
	first := w.anchored("first", time.Hour, "0s", time.Now().Add(-time.Hour+500*time.Millisecond))
	later := []tokenSpec{
		w.anchored("second", time.Hour, "0s", time.Now().Add(-time.Hour+6*time.Second)),
		w.anchored("third", time.Hour, "0s", time.Now().Add(-time.Hour+6*time.Second)),
	}
	if err := w.sim.Inject(cfsim.Fault{Operation: "rotate", TokenID: first.ID, Status: http.StatusTooManyRequests, RetryAfter: int(retryAfter / time.Second)}); err != nil {
		t.Fatal(err)
	}
	d := w.start(w.config())
	w.eventually("all tokens have rotated", func() bool {
		return w.delivered(first) && w.delivered(later[0]) && w.delivered(later[1])
	})
	requests := w.seen("rotate")
	if len(requests) != 4 {
		t.Fatalf("%d rotate requests, want the one that was refused and one for each token", len(requests))
	}
	for i, at := range requests[1:] {
		if waited := at.Sub(requests[0]); waited < retryAfter {
			t.Errorf("request %d came %s after the refusal, which asked for %s", i+2, waited, retryAfter)
		}
	}
	// The others did not even try: they had no turn.
	for _, spec := range later {
		if n := len(d.events.of(spec.Name, event.ResultSkipped)); n != 0 {
			t.Errorf("%s: skipped %d times", spec.Name, n)
		}
	}
	w.eventually("the subscribers are told", func() bool { return !d.status("first").LastSuccess.IsZero() })
	if failed := d.events.of("first", event.ResultFailed); len(failed) != 1 || failed[0].Reason != "throttled" || failed[0].Failures != 0 {
		t.Errorf("the refused attempt: %+v", failed)
	}
	d.wantMetric(`rotatord_cloudflare_throttled_seconds_total{account="sim"}`, retryAfter.Seconds())
	d.wantMetric(`rotatord_cloudflare_requests_total{code="429",operation="rotate"}`, 1)
	d.wantMetric(`rotatord_cloudflare_requests_total{code="200",operation="rotate"}`, 3)
}

// TestInventoryWarns about a service token that does not exist and about one that is disabled.
func TestInventoryWarns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good := w.token("good", seldom, "1h")
	missing := tokenSpec{Name: "missing", ID: "00000000-0000-4000-8000-00000000dead", Schedule: seldom, Grace: "1h"}
	made, _, err := w.sim.Create(cfsim.CreateParams{Name: "disabled", Disabled: true})
	if err != nil {
		t.Fatal(err)
	}
	disabled := tokenSpec{Name: "disabled", ID: made.ID, Schedule: seldom, Grace: "1h"}
	w.tokens = append(w.tokens, missing, disabled)
	d := w.start(w.config())
	w.eventually("the inventory is done", func() bool { code, _ := d.get("/readyz"); return code == http.StatusOK })
	for message, want := range map[string]tokenSpec{
		"the account has no service token with this id any more, or never had: its secret works nowhere, and its rotations fail until the configuration is corrected": missing,
		"the service token is disabled at Cloudflare, which refuses its secrets":                                                                                      disabled,
	} {
		lines := d.logged(message)
		if len(lines) != 1 || lines[0]["token"] != want.Name || lines[0]["token_id"] != want.ID || lines[0]["account"] != "sim" {
			t.Errorf("%s: %v", message, lines)
		}
	}
	if strings.Contains(d.log.String(), good.ID) {
		t.Error("the log has something to say of the token that is good")
	}
	d.wantMetric(`rotatord_token_enabled{token="good"}`, 1)
	d.wantMetric(`rotatord_token_enabled{token="disabled"}`, 0)
	if v, ok := d.metric(`rotatord_token_enabled{token="missing"}`); ok {
		t.Errorf("the missing token is enabled: %v", v)
	}
	for _, name := range []string{"good", "disabled"} {
		if expiry, ok := d.metric(fmt.Sprintf(`rotatord_token_expiry_timestamp_seconds{token=%q}`, name)); !ok || time.Until(time.Unix(int64(expiry), 0)) < 364*24*time.Hour {
			t.Errorf("%s expires at %v (%t), want in a year", name, expiry, ok)
		}
	}
}

// TestInventoryIsTriedAgain after a failure, and the daemon is not ready until then.
func TestInventoryIsTriedAgain(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the second try")
	}
	t.Parallel()
	w := newWorld(t)
	w.token("ci", seldom, "1h")
	if err := w.sim.Inject(cfsim.Fault{Operation: "list", Status: http.StatusInternalServerError}); err != nil {
		t.Fatal(err)
	}
	d := w.start(w.config())
	w.eventually("it fails", func() bool { return len(d.logged("the account's service tokens could not be listed")) == 1 })
	if code, _ := d.get("/readyz"); code != http.StatusServiceUnavailable {
		t.Errorf("readiness after the failure: %d", code)
	}
	w.eventually("it becomes ready", func() bool { code, _ := d.get("/readyz"); return code == http.StatusOK })
}

// TestInDoubt loses the answer to a rotate request that was carried out. The token must be left alone, also
// by the next daemon.
func TestInDoubt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ci, other := w.due("ci", "30m"), w.due("other", "30m")
	if err := w.sim.Inject(cfsim.Fault{Operation: "rotate", TokenID: ci.ID, Kind: cfsim.KindDrop, When: cfsim.After}); err != nil {
		t.Fatal(err)
	}
	d := w.start(w.config())
	w.eventually("one is in doubt and the other one rotates", func() bool {
		return d.status("ci").State == "in_doubt" && len(d.events.of("other", event.ResultSuccess)) == 1
	})
	d.wantMetric(`rotatord_rotations_total{result="in_doubt",token="ci",trigger="catch_up"}`, 1)
	d.wantMetric(`rotatord_cloudflare_requests_total{code="error",operation="rotate"}`, 1)
	lines := d.logged("nobody knows whether the secret was rotated: the token is in doubt, and the old secret is left alone")
	if len(lines) != 1 || lines[0]["level"] != "ERROR" || lines[0]["token"] != "ci" || lines[0]["reason"] != rotation.ReasonOutcomeUnknown {
		t.Errorf("the log says %v", lines)
	}
	for range 2 {
		d.wantMetric(`rotatord_token_state{state="in_doubt",token="ci"}`, 1)
		d.wantMetric(`rotatord_token_state{state="idle",token="ci"}`, 0)
		d.wantMetric(`rotatord_token_state{state="in_doubt",token="other"}`, 0)
		if s := d.status("ci"); s.Doubt == nil || s.Doubt.Reason != rotation.ReasonOutcomeUnknown || s.Reason != string(rotation.DueInDoubt) || s.Failures != 1 {
			t.Errorf("the status is %+v", s)
		}
		d.stop()
		d = w.start(w.config())
		w.eventually("the next daemon has looked at it", func() bool { code, _ := d.get("/readyz"); return code == http.StatusOK })
	}
	if got := w.sim.Stats(); got.Rotations[ci.ID] != 1 || got.Count("rotate") != 2 {
		t.Errorf("%d rotations of the token, %d requests in all, want 1 and 2", got.Rotations[ci.ID], got.Count("rotate"))
	}
	issued := w.sim.Secrets(ci.ID)
	if len(issued) != 2 || issued[0].Status != cfsim.StatusPrevious {
		t.Errorf("the old secret was not left alone: %v", issued)
	}
	if !w.delivered(other) {
		t.Error("the other token was not delivered")
	}
}

// TestCanaryIsFound checks that the search for secrets, which ends the other tests, finds what it has to
// find.
func TestCanaryIsFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ci := w.due("ci", "0s")
	d := w.start(w.config())
	w.eventually("the token rotates", func() bool { return w.delivered(ci) })
	secrets := w.secrets()
	for _, issued := range w.sim.Secrets(ci.ID) {
		if _, ok := secrets[issued.Value.Reveal()]; !ok {
			t.Error("a secret that was issued is not searched for")
		}
	}
	if n := len(w.sim.Secrets(ci.ID)); n != 2 {
		t.Errorf("%d secrets were issued, want the first one and the new one", n)
	}
	values := slices.Collect(maps.Values(secrets))
	for _, what := range []string{"the API token", "the Vault token", "secret 1 of ci", "secret 2 of ci"} {
		n := 0
		for _, v := range values {
			if v == what {
				n++
			}
		}
		if n != 5 { // as it is, in hex, and in base64 at three offsets
			t.Errorf("%s is searched for in %d forms, want 5", what, n)
		}
	}
	if info, err := os.Stat(w.stateDir()); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the state directory: %v, %v", info, err)
	}
	d.stop()
}
