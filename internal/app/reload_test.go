package app_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/rotation"
)

// frozen is the defaults line of a configuration in which no rotation may begin now.
func frozen() string {
	now := time.Now().UTC()
	return fmt.Sprintf("defaults: {account: sim, freezes: {now: {from: %s, to: %s}}}", now.Add(-time.Hour).Format(time.RFC3339), now.Add(48*time.Hour).Format(time.RFC3339))
}

// TestReloadDuringARotation reloads a daemon while a rotation hangs at Cloudflare: new settings apply at
// once, and a change that would drop that rotation is refused.
func TestReloadDuringARotation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.due("hangs", "1m")
	w.token("other", "@every 2h", "1m")
	gone := w.token("gone", seldom, "1m")
	open := w.gate("rotate")
	d := w.start(w.config())
	w.eventually("a rotation is in progress", func() bool { return len(w.seen("rotate")) == 1 })

	all := w.tokens
	w.tokens = all[1:]
	w.token("never-came", seldom, "1m")
	if err := d.Reload(t.Context(), w.config()); err == nil || !strings.Contains(err.Error(), "tokens.hangs: a rotation is in progress (intent)") {
		t.Errorf("without the token that is rotated: %v", err)
	}
	d.wantMetric("rotatord_config_last_reload_successful", 0)
	if n := len(d.Tokens()); n != 3 {
		t.Errorf("after a reload that was refused there are %d tokens", n)
	}
	if _, body := d.get("/metrics"); strings.Contains(body, "never-came") {
		t.Error("after a reload that was refused the metrics tell of its token")
	}

	w.tokens = all[:2:2]
	came := w.token("came", "@every 3h", "1m")
	if err := d.Reload(t.Context(), w.config(frozen())); err != nil {
		t.Fatal(err)
	}
	d.wantMetric("rotatord_config_last_reload_successful", 1)
	w.eventually("the freeze holds for the others", func() bool {
		return d.status("other").Freeze == "now" && d.status("came").Freeze == "now"
	})
	if code, _ := d.get("/api/v1/tokens/" + gone.Name); code != http.StatusNotFound {
		t.Errorf("the token that was removed: %d", code)
	}
	if _, err := d.Rotate(t.Context(), came.Name, rotation.Overrides{}, "ops"); !errors.Is(err, rotation.ErrNotRotated) || !strings.Contains(err.Error(), "the freeze now lasts until") {
		t.Errorf("a rotation in the freeze: %v", err)
	}
	open()
	w.eventually("the rotation in progress is finished", func() bool { return len(d.events.of("hangs", event.ResultSuccess)) == 1 })
	w.eventually("and is frozen then", func() bool { return d.status("hangs").Freeze == "now" })
	if n := len(w.seen("rotate")); n != 1 {
		t.Errorf("%d rotate requests", n)
	}

	restart := w.config()
	restart.Listen = "127.0.0.1:1"
	if err := d.Reload(t.Context(), restart); err == nil || !strings.Contains(err.Error(), "a change of listen asks for a restart") {
		t.Errorf("with another address: %v", err)
	}
}

// mostActive is how many rotations of one account may be in progress at once.
const mostActive = 32

// TestReloadOfAWaitingToken removes a token that is due and waits for its turn: it must not begin any more.
func TestReloadOfAWaitingToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range mostActive + 1 {
		w.due(fmt.Sprintf("t%02d", i), "1m")
	}
	open := w.gate("rotate")
	d := w.start(w.config())
	w.eventually("as many as may be are active", func() bool { return len(w.seen("rotate")) == mostActive })
	waiting := -1
	for i, spec := range w.tokens {
		if d.status(spec.Name).State == "idle" {
			waiting = i
		}
	}
	all := w.tokens
	w.tokens = append(append([]tokenSpec(nil), all[:waiting]...), all[waiting+1:]...)
	if err := d.Reload(t.Context(), w.config()); err != nil {
		t.Fatal(err)
	}
	open()
	for _, spec := range w.tokens {
		w.eventually(spec.Name+" is rotated", func() bool { return len(d.events.of(spec.Name, event.ResultSuccess)) == 1 })
	}
	d.stop() // all workers have ended
	if n := w.sim.Stats().Rotations[all[waiting].ID]; n != 0 {
		t.Errorf("%s was removed and then rotated", all[waiting].Name)
	}
}
