package replicas

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	seed    = flag.Uint64("seed", 1, "of the faults")
	minutes = flag.Float64("minutes", 0, "how long faults happen; 0: a short run")
	tokens  = flag.Int("tokens", 0, "how many tokens; 0: 300, or 40 in a short run")
	period  = flag.Duration("period", 30*time.Second, "of the schedules of tokens without a grace, in a long run")
	grace   = flag.Duration("grace", time.Minute, "of three tokens in five, in a long run; their schedules have 1.5 times that")
	only    = flag.String("only", "", "only faults with this in their name")
	logs    = flag.String("logs", "", "a directory that gets the logs of the replicas")
)

// TestReplicas is `make replicas SEED=S MINUTES=M TOKENS=N`.
func TestReplicas(t *testing.T) {
	t.Parallel() // it mostly waits
	o := play(t, "")
	t.Log(o.summary())
	if *logs != "" {
		_ = os.WriteFile(filepath.Join(*logs, "violations"), []byte(strings.Join(o.wrong, "\n")), 0o600)
	}
	for _, wrong := range o.wrong[:min(len(o.wrong), 30)] {
		t.Error(wrong)
	}
}

// TestSabotage leaves the checks of holds out. An oracle that finds nothing wrong here would prove nothing in TestReplicas.
func TestSabotage(t *testing.T) {
	if testing.Short() || *minutes == 0 {
		t.Skip("make replicas runs it")
	}
	o := play(t, "hold=off")
	t.Log(o.summary())
	found := o.wrong[len(o.w.wrong):] // by the oracle, and not that the run has left it no time to rest
	if len(found) == 0 {
		t.Error("nothing was found wrong although holds were not checked: the oracle proves nothing")
	}
	for _, wrong := range found[:min(len(found), 10)] {
		t.Log(wrong)
	}
}

// play lets replicas work while faults happen.
func play(t *testing.T, failpoints string) *report {
	if _, err := binary(); err != nil {
		t.Fatal(err)
	}
	s := settings{replicas: 3, tokens: 40, claim: 5 * time.Second, period: 10 * time.Second, grace: 10 * time.Second, seed: *seed, failpoints: failpoints}
	length, gap, short := 14*time.Second, 2500*time.Millisecond, true
	if *minutes > 0 {
		s.tokens, s.period, s.grace = 300, *period, *grace
		length, gap, short = time.Duration(*minutes*float64(time.Minute)), 8*time.Second, false
	}
	if *tokens > 0 {
		s.tokens = *tokens
	}
	began := time.Now()
	w := newWorld(t, s)
	if *logs != "" {
		defer w.keepLogs(*logs) // also if a replica does not get ready
	}
	w.startAll()
	t.Logf("seed %d: %d replicas are ready with %d tokens after %s", s.seed, s.replicas, s.tokens, time.Since(began).Round(100*time.Millisecond))
	stop, stopWatch := w.consume(4, 40*time.Millisecond), w.outages.watch(w)
	w.disturb(length, gap, *only)
	mended := time.Now()
	t.Logf("%s all is mended", mended.Format(clock))
	if failpoints == "" { // else what is wrong was seen by now
		w.comeToRest(mended, !short, short, 3*s.grace+3*time.Minute)
	}
	stop()
	stopWatch()
	for _, r := range w.replicas {
		if err := r.terminate(); err != nil {
			w.say("%v", err)
		}
	}
	o := w.judge()
	o.unwritable = w.outages.between(began, time.Now())
	t.Logf("at rest %s after the last fault", time.Since(mended).Round(time.Second))
	return o
}

// summary is one line for each subject.
func (o *report) summary() string {
	w := o.w
	var b strings.Builder
	sent := len(w.requests)
	fmt.Fprintf(&b, "seed %d: %d rotations by %d rotate requests (%d carried out, %d answers lost), %d secrets not delivered; %d doubts, %d takeovers, %d late answers; %d looks, %d refused; %d violations",
		w.seed, o.rotations, sent, o.carriedOut, w.tally.lostAnswers, o.undelivered, o.doubts, o.takeovers, o.late, w.looks, len(w.refusals), len(o.wrong))
	for _, title := range []struct {
		name string
		of   map[string]int
	}{{"faults", w.tally.faults}, {"unavoidable", o.excused}} {
		fmt.Fprintf(&b, "\n  %s:", title.name)
		for _, k := range slices.Sorted(maps.Keys(title.of)) {
			fmt.Fprintf(&b, " %s %d;", k, title.of[k])
		}
	}
	fmt.Fprintf(&b, "\n  %d requests to Vault, of which %d saved a record; Vault could not be written for %s in all", w.vaultRequests(), len(w.saves), o.unwritable.Round(time.Second))
	return b.String()
}
