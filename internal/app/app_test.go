package app_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/internal/app"
	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/event"
	"rotatord/internal/rotation"
	"rotatord/internal/statedir"
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

// TestTwoInOneProcess shows that nothing is global.
func TestTwoInOneProcess(t *testing.T) {
	t.Parallel()
	one, two := newWorld(t), newWorld(t)
	a, b := one.due("a", "0s"), two.due("b", "0s")
	first, second := one.start(one.config()), two.start(two.config())
	one.eventually("both rotate", func() bool {
		return len(first.events.of("a", event.ResultSuccess)) == 1 && len(second.events.of("b", event.ResultSuccess)) == 1
	})
	if !one.delivered(a) || !two.delivered(b) {
		t.Error("one of them did not deliver")
	}
	for _, c := range []struct {
		d          *daemon
		own, other string
	}{{first, "a", "b"}, {second, "b", "a"}} {
		c.d.wantMetric(fmt.Sprintf(`rotatord_rotations_total{result="success",token=%q,trigger="catch_up"}`, c.own), 1)
		if _, body := c.d.get("/metrics"); strings.Contains(body, fmt.Sprintf("token=%q", c.other)) {
			t.Errorf("the metrics of %s tell of the other one", c.own)
		}
		if strings.Contains(c.d.log.String(), fmt.Sprintf(`"token":%q`, c.other)) {
			t.Errorf("the log of %s tells of the other one", c.own)
		}
	}
	// One stops, and the other is not affected.
	first.stop()
	if code, body := second.get("/readyz"); code != http.StatusOK {
		t.Errorf("the other one: %d %s", code, body)
	}
}

// TestNewFailsCleanly lets New fail at each of its steps. Nothing may stay open: the next New must succeed at
// once.
func TestNewFailsCleanly(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() }) // after the parallel cases
	for _, c := range []struct {
		name  string
		extra func(w *world) string // a line of the configuration
		web   string
		want  string
	}{
		{name: "identity that is none", want: "the configured age identity is not an age X25519 identity", extra: func(w *world) string {
			return fmt.Sprintf("state: {dir: %s, identity: {file: %s}}", w.stateDir(), w.write("identity", "AGE-SECRET-KEY-1NONSENSE"))
		}},
		{name: "identity that is not there", want: "the configured age identity: reading ", extra: func(w *world) string {
			return fmt.Sprintf("state: {dir: %s, identity: {file: /nonexistent/identity}}", w.stateDir())
		}},
		{name: "port in use", want: "address already in use", extra: func(*world) string { return "listen: " + taken.Addr().String() }},
		{name: "CA file that is not there", want: "vault: tls.ca_file: reading /nonexistent/ca.pem", extra: func(w *world) string {
			return fmt.Sprintf("vault: {address: https://127.0.0.1:1, auth: {token: {file: %s}}, tls: {ca_file: /nonexistent/ca.pem}}", w.write("vault-token", vaultToken))
		}},
		{name: "web configuration that is not there", want: "--web.config.file", web: "/nonexistent/web.yaml"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.token("ci", "@weekly", "1h")
			var extra []string
			if c.extra != nil {
				extra = append(extra, c.extra(w))
			}
			broken := w.config(extra...)
			if broken.Listen == "127.0.0.1:0" { // a port of its own, to see that it is closed
				broken.Listen = freeAddress(t)
			}
			a, err := app.New(app.Options{Config: broken, WebConfigFile: c.web})
			if err == nil || a != nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("New returned %v and the error %v, want one about %s", a, err, c.want)
			}
			if strings.Contains(err.Error(), "NONSENSE") {
				t.Errorf("the error repeats the identity: %v", err)
			}
			good := w.config()
			if broken.Listen != taken.Addr().String() {
				good.Listen = broken.Listen
			}
			w.start(good).stop() // New would fail if the directory were still locked
		})
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

// TestSecondOnOneDirectory: the second daemon is refused, and the first is not affected.
func TestSecondOnOneDirectory(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a lock")
	}
	t.Parallel()
	w := newWorld(t)
	w.token("ci", "@weekly", "1h")
	d := w.start(w.config())
	if _, err := app.New(app.Options{Config: w.config()}); err == nil || !strings.Contains(err.Error(), "is a second rotatord running") {
		t.Errorf("a second one: %v", err)
	}
	if code, _ := d.get("/livez"); code != http.StatusOK {
		t.Errorf("the first one: %d", code)
	}
}

// TestRestart: a restart neither rotates early nor forgets a slot.
func TestRestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	fresh := w.token("fresh", "@every 2h", "1h")
	anchor := time.Now().Add(-7*time.Hour - 30*time.Minute).UTC().Truncate(time.Second)
	late := w.anchored("late", 2*time.Hour, "10m", anchor) // slots at 2, 4 and 6 hours passed

	d := w.start(w.config())
	s := d.status("late")
	if wait := s.Next.Sub(w.now()); s.Reason != string(rotation.DueCatchUp) || wait < 0 || wait > 10*time.Minute {
		t.Fatalf("it is caught up in %s because of %s, want a time within ten minutes", wait, s.Reason)
	}
	d.stop()
	w.offset.Store(int64(s.Next.Sub(w.now()))) // and then the process was stopped for that long
	d = w.start(w.config())
	w.eventually("the slots that passed are caught up", func() bool { return len(d.events.of("late", event.ResultSuccess)) == 1 })
	// An attempt is counted first, and then reported to the subscriber of the test.
	d.wantMetric(`rotatord_rotations_total{result="success",token="late",trigger="catch_up"}`, 1)
	d.wantMetric(`rotatord_slots_missed_total{token="late"}`, 2)
	if slot := d.events.of("late", event.ResultSuccess)[0].Slot; !slot.Equal(anchor.Add(6 * time.Hour)) {
		t.Errorf("it served the slot %s, want the latest, %s", slot, anchor.Add(6*time.Hour))
	}
	want := anchor.Add(8 * time.Hour)
	w.eventually("the next slot is the one after", func() bool { return d.status("late").Next.Equal(want) })
	next := d.status("fresh").Next
	if until := next.Sub(w.now()); until < time.Hour+49*time.Minute || until > 2*time.Hour {
		t.Errorf("a new token is due in %s, want its first slot, in two hours", until)
	}
	lastSuccess := d.status("late").LastSuccess
	d.stop()

	for range 2 {
		d = w.start(w.config())
		w.eventually("the inventory is done", func() bool { code, _ := d.get("/readyz"); return code == http.StatusOK })
		if got := d.status("fresh").Next; !got.Equal(next) {
			t.Errorf("after a restart the new token is due at %s, want %s", got, next)
		}
		s := d.status("late")
		if !s.Next.Equal(want) || !s.LastSuccess.Equal(lastSuccess) {
			t.Errorf("after a restart the other one was last rotated at %s and is due at %s, want %s and %s", s.LastSuccess, s.Next, lastSuccess, want)
		}
		d.stop()
	}
	if got := w.sim.Stats(); got.Rotations[late.ID] != 1 || got.Rotations[fresh.ID] != 0 || got.Count("rotate") != 1 {
		t.Errorf("rotations: %v with %d requests, want the one that was caught up", got.Rotations, got.Count("rotate"))
	}
}

// TestReadiness: a daemon is ready once its accounts were listed. TestStopFinishesWhatIsInProgress checks
// that it is no longer ready when it stops.
func TestReadiness(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ci := w.due("ci", "0s")
	openList, openRotate := w.gate("list"), w.gate("rotate")
	d := w.start(w.config())

	w.eventually("the inventory is under way", func() bool { return len(w.seen("list")) == 1 })
	if code, body := d.get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "[-] inventory of sim: ") {
		t.Errorf("before the inventory: %d %s", code, body)
	}
	if code, body := d.get("/livez?verbose"); code != http.StatusOK || body != "[+] scheduler: ok\n[+] clock: ok\nok\n" {
		t.Errorf("liveness before the inventory: %d %s", code, body)
	}
	if code, body := d.get("/"); code != http.StatusOK || !strings.Contains(body, "inventory of sim") {
		t.Errorf("the page before the inventory: %d %s", code, body)
	}

	// A rotation in progress does not change that.
	w.eventually("the rotation is under way", func() bool { return len(w.seen("rotate")) == 1 })
	openList()
	w.eventually("it becomes ready", func() bool { code, _ := d.get("/readyz"); return code == http.StatusOK })
	w.eventually("all was looked at", func() bool {
		_, body := d.get("/readyz?verbose")
		return body == "[+] running: ok\n[+] recovery: ok\n[+] ledger: ok\n[+] journal: ok\n[+] Cloudflare account sim: ok\n[+] sink vault:secret: ok\n[+] Vault: ok\n"+
			"[+] credential of sim: ok\n[+] inventory of sim: ok\nok\n"
	})
	openRotate()
	w.eventually("the rotation is done", func() bool { return w.delivered(ci) && !d.status("ci").LastSuccess.IsZero() })
}

// TestRecoveryBeforeReady: a daemon is ready once it has continued each unfinished rotation.
func TestRecoveryBeforeReady(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ci := w.token("ci", "@every 2h", "30m")
	since := time.Now().Add(-2 * time.Minute).UTC()
	j, err := statedir.Open(statedir.Options{Dir: w.stateDir()})
	if err != nil {
		t.Fatal(err)
	}
	_, err = j.Ledger.Save(t.Context(), rotation.Record{
		Format: rotation.RecordFormat, Token: "ci", TokenID: ci.ID, Account: "sim", Anchor: since.Add(-2 * time.Hour),
		Step: rotation.StepInDoubt, NotBefore: since,
		Work:  &rotation.Work{RotationID: "R1", TokenID: ci.ID, Slot: since, Grace: rotation.Grace(30 * time.Minute), IntentAt: since},
		Doubt: &rotation.Doubt{Since: since, Reason: rotation.ReasonOutcomeUnknown, OldWorksUntil: since.Add(30 * time.Minute)},
	})
	if err := errors.Join(err, j.Close()); err != nil {
		t.Fatal(err)
	}
	open, list := w.gate("get"), w.gate("list") // the listing would make the request unnecessary
	d := w.start(w.config())
	w.eventually("the token is being looked at", func() bool { return len(w.seen("get")) == 1 })
	list()
	w.eventually("the account is listed", func() bool {
		_, body := d.get("/readyz?verbose")
		return strings.Contains(body, "[+] inventory of sim: ok\n")
	})
	if code, body := d.get("/readyz"); code != http.StatusServiceUnavailable || body != "[-] recovery: 1 unfinished rotations have yet to be looked at\n" {
		t.Errorf("before it was looked at: %d %s", code, body)
	}
	open()
	w.eventually("it becomes ready", func() bool { code, _ := d.get("/readyz"); return code == http.StatusOK })
	w.eventually("the next look is planned", func() bool { return time.Until(d.status("ci").Next) > time.Minute })
	if s := d.status("ci"); s.State != "in_doubt" {
		t.Errorf("the status is %+v", s)
	}
	if n := len(w.seen("rotate")); n != 0 {
		t.Errorf("%d rotate requests", n)
	}
}

// TestStopFinishesWhatIsInProgress stops during a rotate request.
func TestStopFinishesWhatIsInProgress(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ci := w.due("ci", "0s")
	open := w.gate("rotate")
	d := w.start(w.config())
	w.eventually("the rotation is under way", func() bool { return len(w.seen("rotate")) == 1 })

	stopped := make(chan error, 3)
	for range cap(stopped) {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			stopped <- d.Stop(ctx)
		}()
	}
	w.eventually("it is not ready any more", func() bool {
		code, body := d.get("/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(body, "[-] running: the daemon is stopping\n")
	})
	if code, _ := d.get("/livez"); code != http.StatusOK {
		t.Errorf("it is alive while it stops, and says %d", code)
	}
	select {
	case err := <-stopped:
		t.Errorf("Stop returned (%v) while the rotation was in hand", err)
	default:
	}
	open()
	for range cap(stopped) {
		if err := <-stopped; err != nil {
			t.Errorf("Stop: %v", err)
		}
	}
	if err := d.Stop(context.Background()); err != nil {
		t.Errorf("Stop once more: %v", err)
	}
	if !w.delivered(ci) || len(d.events.of("ci", event.ResultSuccess)) != 1 {
		t.Error("the rotation in hand was not finished")
	}
	if !d.stopped() {
		t.Error("it still listens")
	}
	d.searchFiles()
}

// TestStopIsBounded stops while a rotate request gets no answer. The next start must treat it as in doubt.
func TestStopIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.due("ci", "30m")
	w.gate("rotate")
	d := w.start(w.config())
	w.eventually("the rotation is under way", func() bool { return len(w.seen("rotate")) == 1 })
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- d.Stop(ctx) }()
	select {
	case err := <-stopped:
		if err != nil {
			t.Errorf("Stop: %v", err)
		}
	case <-time.After(patience):
		t.Fatalf("Stop with a bound of 100 ms still runs after %s", patience)
	}
	lines := d.logged("rotations were still in hand at the shutdown timeout; they are continued at the next start")
	if len(lines) != 1 || fmt.Sprint(lines[0]["tokens"]) != "[ci]" {
		t.Errorf("the log says %v", lines)
	}

	next := w.start(w.config())
	w.eventually("it is in doubt", func() bool { return next.status("ci").State == "in_doubt" })
	if s := next.status("ci"); s.Doubt == nil || s.Doubt.Reason != rotation.ReasonInterrupted {
		t.Errorf("the doubt is %+v", s.Doubt)
	}
	if n := len(w.seen("rotate")); n != 1 {
		t.Errorf("%d rotate requests, want one", n)
	}
}

// TestStopBeforeStart releases what New opened.
func TestStopBeforeStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.token("ci", "@weekly", "1h")
	a, err := app.New(app.Options{Config: w.config()})
	if err != nil {
		t.Fatal(err)
	}
	address := a.Addr().String()
	if err := errors.Join(a.Stop(t.Context()), a.Stop(t.Context())); err != nil {
		t.Error(err)
	}
	c := w.config()
	c.Listen = address
	w.start(c)
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
		if _, page := d.get("/"); !strings.Contains(page, "1 sealed secret(s) not yet confirmed") {
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
	w.eventually("the observers are told", func() bool { return !d.status("first").LastSuccess.IsZero() })
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
	good := w.token("good", "@weekly", "1h")
	missing := tokenSpec{Name: "missing", ID: "00000000-0000-4000-8000-00000000dead", Schedule: "@weekly", Grace: "1h"}
	made, _, err := w.sim.Create(cfsim.CreateParams{Name: "disabled", Disabled: true})
	if err != nil {
		t.Fatal(err)
	}
	disabled := tokenSpec{Name: "disabled", ID: made.ID, Schedule: "@weekly", Grace: "1h"}
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
	w.token("ci", "@weekly", "1h")
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
