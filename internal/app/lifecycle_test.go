package app_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"rotatord/internal/app"
	"rotatord/internal/event"
	"rotatord/internal/rotation"
	"rotatord/internal/statedir"
)

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
			w.token("ci", seldom, "1h")
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

// TestSecondOnOneDirectory: the second daemon is refused, and the first is not affected.
func TestSecondOnOneDirectory(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a lock")
	}
	t.Parallel()
	w := newWorld(t)
	w.token("ci", seldom, "1h")
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
		t.Errorf("Stop returned (%v) while the rotation was in progress", err)
	default:
	}
	open()
	for range cap(stopped) {
		if err := <-stopped; err != nil {
			t.Errorf("Stop: %v", err)
		}
	}
	if err := d.Stop(context.Background()); err != nil {
		t.Errorf("Stop again: %v", err)
	}
	if !w.delivered(ci) || len(d.events.of("ci", event.ResultSuccess)) != 1 {
		t.Error("the rotation in progress was not finished")
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
	lines := d.logged("rotations were still in progress at the shutdown timeout; they are continued at the next start")
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
	w.token("ci", seldom, "1h")
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
