//go:build linux

package app_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"rotatord/internal/app"
	"rotatord/internal/status"
)

// TestPagesShowACommand: right after a command the pages, the API and the answer of the socket show what it has changed, however
// young what is kept of the fleet is. After one for all tokens the status page may be a moment late on a busy machine.
func TestPagesShowACommand(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 20 {
		w.token(fmt.Sprintf("token-%02d", i), seldom, "24h")
	}
	c, client := w.withSocket()
	d := w.start(c)
	w.eventually("the fleet is shown", func() bool { _, body := d.get("/"); return strings.Contains(body, "20 tokens: every client") })
	shown := func(of string, paused int) {
		t.Helper()
		chip := fmt.Sprintf("paused or frozen <b>%d</b>", paused)
		right := func() bool { _, body := d.get("/"); return strings.Contains(body, chip) == (paused > 0) }
		if of == "" {
			w.eventually("the page shows it", right)
		} else if !right() {
			t.Errorf("the page must have %d paused tokens", paused)
		}
		_, body := d.get("/tokens/token-07")
		if strings.Contains(body, "<b data-news>paused</b>") != (paused > 0) {
			t.Errorf("the page of the token, with %d paused tokens", paused)
		}
		var one status.Token
		_, body = d.get("/api/v1/tokens/token-07")
		if err := json.Unmarshal([]byte(body), &one); err != nil || (one.Pause != nil) != (paused > 0) {
			t.Errorf("the API has the pause %+v: %v", one.Pause, err)
		}
		o, err := client.Tokens(t.Context())
		if err != nil || len(o.Tokens) != 20 || (o.Tokens[7].Pause != nil) != (paused > 0) {
			t.Errorf("the socket shows it otherwise: %v", err)
		}
	}
	for _, step := range []struct {
		name   string
		resume bool
		paused int
	}{{"token-07", false, 1}, {"token-07", true, 0}, {"", false, 20}, {"", true, 0}} {
		var err error
		if step.resume {
			_, err = client.Resume(t.Context(), step.name)
		} else {
			_, err = client.Pause(t.Context(), step.name, time.Time{}, "")
		}
		if err != nil {
			t.Fatal(err)
		}
		shown(step.name, step.paused)
	}
}

// TestOneTokenIsReadAlone: what it costs to show one token does not depend on how many there are.
func TestOneTokenIsReadAlone(t *testing.T) {
	w := newWorld(t)
	cost, enough := map[int]float64{}, math.Inf(1)
	for _, n := range []int{50, 200} {
		for i := len(w.tokens); i < n; i++ {
			w.token(fmt.Sprintf("token-%03d", i), seldom, "24h")
		}
		d := w.run(w.config())
		w.eventually("it is ready", func() bool { return d.status("token-007").Known })
		show := func() {
			if _, ok := d.Token("token-007"); !ok {
				t.Error("it is not there")
			}
			if got := d.TokensAfter("token-007", 3); len(got) != 3 || got[0].Name != "token-008" {
				t.Errorf("%d tokens after it", len(got))
			}
		}
		cost[n] = app.LeastAllocated(enough, 20, show)
		enough = 2 * cost[50]
		if _, ok := d.Token("token"); ok || len(d.TokensAfter("token-"+fmt.Sprintf("%03d", n-2), 9)) != 1 || len(d.TokensAfter("", n+1)) != n {
			t.Error("other tokens are shown")
		}
		d.stop()
	}
	if cost[200] > enough {
		t.Errorf("showing one of 50 tokens makes %.0f allocations, one of 200 makes %.0f", cost[50], cost[200])
	}
}
