package admission

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
)

// explaining is an issuer with a budget that says what holds its requests up.
type explaining struct{ *limitedIssuer }

func (e explaining) DelayReason(rotation.Urgency) (string, time.Time) {
	if e.mu.Lock(); time.Now().Before(e.until) {
		defer e.mu.Unlock()
		return "Cloudflare asked to be left alone: 429", e.until
	}
	e.mu.Unlock()
	return "", time.Time{}
}

// TestWaitsAreExplained: the status of a waiting token says what it waits for. The log says once that
// rotations wait for the limit, and once that they no longer do.
func TestWaitsAreExplained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		logged := event.NewLog(slog.New(slog.NewTextHandler(&log, nil)))
		tell := func(d event.Detail) { logged.Handle(event.New(time.Now(), "", event.Daemon, d)) }
		until := time.Now().Add(5 * time.Minute)
		q := &asking{Turns: NewTurns(time.Now, new(Total), "prod", tell)}
		q.LimitBy(explaining{&limitedIssuer{requests: 1000, until: until}})
		slot := Turn{Urgency: rotation.UrgencySlot}
		want := func(what string, end time.Time) {
			t.Helper()
			if got, gotEnd := q.WaitsFor(slot, "prod"); got != what || !gotEnd.Equal(end) {
				t.Errorf("it waits for %q until %s, want %q until %s", got, gotEnd, what, end)
			}
		}
		for i := range maxActive + 3 {
			q.ask(i, slot)
		}
		time.Sleep(tellDelayAfter - time.Second)
		if log.Len() > 0 {
			t.Errorf("the log says too early %s", log.String())
		}
		want("Cloudflare's request limit (Cloudflare asked to be left alone: 429)", until)
		time.Sleep(10 * time.Minute)
		if n := len(q.got()); n != maxActive {
			t.Fatalf("%d active", n)
		}
		want(fmt.Sprintf("its turn: %d rotations of account prod are in progress", maxActive), time.Time{})
		for range maxActive + 3 {
			q.end()
			q.got()
		}
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		begins := fmt.Sprintf(`msg="rotations of the account wait for Cloudflare's request limit" account=prod waiting=%d reason="Cloudflare asked to be left alone: 429" until=%s`,
			maxActive+3, until.UTC().Format(time.RFC3339))
		if len(lines) != 2 || !strings.Contains(lines[0], begins) || !strings.Contains(lines[1], "no longer wait for Cloudflare's request limit") {
			t.Errorf("the log says\n%s", log.String())
		}
	})
}
