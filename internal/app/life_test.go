package app

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	_ "time/tzdata"

	"pgregory.net/rapid"

	"rotatord/internal/racedetector"
	"rotatord/internal/rotation"
)

// life is how one token is configured, and everything that happens to it and to its daemon.
type life struct {
	Expression, Zone      string
	Start                 string // the wall clock at the beginning
	Jitter, Window, Grace time.Duration
	Skip                  bool // missed slots are not made up for
	Freezes               []freezing
	Guard                 bool          // the issuer does not work for a clock that is far from its own
	Slow                  time.Duration // how long each request to Vault and the issuer takes
	Acts                  []act
}

type freezing struct {
	From             time.Duration // since the start
	Expression, Zone string        // again and again, instead of From
	Length           time.Duration
	Skip             bool
}

// act is something that happens after some time.
type act struct {
	After time.Duration
	What  string
	For   time.Duration
}

// calm reports whether nothing happens that could keep a slot from being served at its time.
func (l life) calm() bool {
	for _, a := range l.Acts {
		if a.What != "nothing" {
			return false
		}
	}
	return len(l.Freezes) == 0
}

// settling returns how long it takes until everything is served: the longest wait after a failure, the
// longest spread, and what a clock that was set back may add.
func (l life) settling() time.Duration {
	settling := 35*time.Minute + l.Jitter
	if slices.ContainsFunc(l.Acts, func(a act) bool { return strings.HasSuffix(a.What, "step") || a.What == "right" }) {
		settling += 2 * time.Hour
	}
	return settling
}

// pace is what belongs together: how often a token is due, and how fast things happen to it.
type pace struct {
	gap         time.Duration
	acts        int // at most
	expressions []string
	freezes     []freezing // that repeat
}

var paces = []pace{{
	5 * time.Minute, 10,
	[]string{"@every 3m", "@every 7m30s", "*/5 * * * *", "*/10 * * * *", "7,22,37,52 * * * *", "@every 61s", "2,8,33 * * * *"},
	[]freezing{{Expression: "20 * * * *", Length: 12 * time.Minute}, {Expression: "*/15 * * * *", Length: 6 * time.Minute}},
}, {
	time.Hour, 10,
	[]string{"@every 1h", "0 * * * *", "30 * * * *", "@hourly", "15 */2 * * *", "30 1-3 * * *", "@every 47m", "0,30 0-6 * * *"},
	[]freezing{{Expression: "0 */6 * * *", Length: 90 * time.Minute}, {Expression: "30 2 * * *", Length: 3 * time.Hour}, {Expression: "59 */2 * * *", Length: 2 * time.Minute}},
}, {
	24 * time.Hour, 5,
	[]string{"30 2 * * *", "0 0 * * *", "@daily", "0,30 2 * * *", "@every 24h", "0 4 * * 1", "30 1,2,3 * * *"},
	[]freezing{{Expression: "0 18 * * 5", Length: 60 * time.Hour}, {Expression: "0 2 * * 1-5", Length: 2 * time.Hour}},
}}

// beginnings are moments at which clocks are set, and some at which nothing happens.
var beginnings = map[string][]string{
	"Europe/Berlin":       {"2026-03-28T23:10:00Z", "2026-10-24T22:50:07Z"},
	"America/New_York":    {"2026-03-08T04:30:00Z", "2026-11-01T03:59:00Z"},
	"Australia/Lord_Howe": {"2026-04-04T13:00:00Z", "2026-10-03T13:31:00Z"},
	"America/Sao_Paulo":   {"2018-11-04T01:00:00Z", "2018-02-17T23:30:30Z"},
	"Asia/Kathmandu":      {"2026-05-05T05:05:05Z"},
	"UTC":                 {"2026-11-24T12:00:00Z", "2028-02-28T22:00:00Z"},
}

// drawLife draws everything before anything runs, so that a failing life can shrink.
func drawLife(t *rapid.T) life {
	pace := paces[rapid.SampledFrom([]int{0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2}).Draw(t, "pace")]
	zone := rapid.SampledFrom([]string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "Asia/Kathmandu"})
	l := life{Expression: rapid.SampledFrom(pace.expressions).Draw(t, "expression"), Zone: zone.Draw(t, "zone")}
	l.Start = rapid.SampledFrom(beginnings[l.Zone]).Draw(t, "start")
	part := func(name string, parts ...int) time.Duration {
		return (pace.gap * time.Duration(rapid.SampledFrom(parts).Draw(t, name)) / 100).Truncate(time.Second)
	}
	l.Jitter = part("jitter", 0, 0, 5, 20, 40)
	l.Window = part("window", 0, 0, 10, 30, 70)
	l.Grace = part("grace", 0, 0, 5, 30, 60, 150)
	// If it is not shorter than the smallest gap, the configuration is refused.
	smallest := parsed(l.Expression, l.Zone).SmallestGap(l.start(), 400)
	for _, span := range []*time.Duration{&l.Jitter, &l.Window, &l.Grace} {
		*span = min(*span, smallest-time.Second)
	}
	l.Skip = rapid.Bool().Draw(t, "skip")
	l.Guard = rapid.SampledFrom([]bool{false, false, false, true}).Draw(t, "guard")
	l.Slow = rapid.SampledFrom([]time.Duration{0, 0, 0, 2 * time.Second}).Draw(t, "slow")
	l.Freezes = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) freezing {
		f := freezing{From: part("from", 0, 90, 100, 210, 777), Length: part("length", 10, 100, 350)}
		if rapid.Bool().Draw(t, "again") {
			f = rapid.SampledFrom(pace.freezes).Draw(t, "freeze")
			f.Zone = zone.Draw(t, "zone")
		}
		f.Skip = rapid.Bool().Draw(t, "skip")
		return f
	}), 0, 2).Draw(t, "freezes")
	l.Acts = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) act { return drawAct(t, pace) }), 0, pace.acts).Draw(t, "acts")
	if rapid.SampledFrom([]bool{false, false, false, false, false, false, false, true}).Draw(t, "calm") {
		l.Freezes = nil
		for i := range l.Acts {
			l.Acts[i].What = "nothing"
		}
	}
	for i, a := range l.Acts {
		// They may have to wait for a rotation, at a mutex, and in a bubble no time passes then.
		if l.Slow > 0 && (strings.HasSuffix(a.What, "step") || a.What == "right" || strings.HasPrefix(a.What, "rotate") || strings.HasSuffix(a.What, "look")) {
			l.Acts[i] = act{After: a.After, What: "nothing"}
		}
	}
	return l
}

// drawAct draws what happens next. The times are such that acts often coincide.
func drawAct(t *rapid.T, p pace) act {
	scaled := func(name string, least, most int) time.Duration {
		parts := time.Duration(rapid.IntRange(least, most).Draw(t, name))
		d := (p.gap * parts / 20).Truncate(time.Minute)
		return d + rapid.SampledFrom([]time.Duration{0, 0, time.Second, 20 * time.Second, 31 * time.Second, 50 * time.Second}).Draw(t, "and")
	}
	a := act{After: scaled("after", 0, 60), What: rapid.SampledFrom([]string{
		"nothing", "restart", "down", "down", "down", "step", "step", "step", "absurd step", "right", "pause", "pause for", "pause all", "pause all for",
		"resume", "resume all", "rotate", "rotate with overrides", "meddle", "meddle and look", "meddle and look", "look", "refused", "not sent", "throttled", "sink", "store", "ledger", "disk",
	}).Draw(t, "what")}
	switch a.What {
	case "down":
		a.For = scaled("for", 0, 400)
	case "pause for", "pause all for", "refused", "not sent", "throttled", "sink", "store", "ledger", "disk":
		a.For = scaled("for", 1, 60)
	case "step":
		a.For = time.Duration(rapid.IntRange(1, 720).Draw(t, "minutes")) * time.Minute
		if p.gap < time.Hour && rapid.Bool().Draw(t, "small") {
			a.For = time.Duration(rapid.IntRange(1, 1200).Draw(t, "seconds")) * time.Second
		}
	case "absurd step":
		a.For = 300 * p.gap * time.Duration(rapid.IntRange(1, 10).Draw(t, "times")) // a day to years
	}
	if strings.HasSuffix(a.What, "step") && rapid.Bool().Draw(t, "back") {
		a.For = -a.For
	}
	return a
}

// live runs a life, and returns what was wrong.
func (w *living) live() []string {
	w.seen, w.paused = make(map[string]int), make(map[string]rotation.Pause)
	w.up()
	w.pass(0)
	first := w.record.Anchor
	for _, a := range w.life.Acts {
		w.pass(a.After)
		w.checkMakingUp()
		w.enrollReloaded()
		w.seen[a.What]++
		w.happen(a)
		w.pass(0)
		if len(w.problems) > 0 {
			break
		}
	}
	// All troubles end, and there is time for everything.
	w.setTrouble("", time.Time{})
	if w.life.Guard {
		w.happen(act{What: "right"})
		w.pass(time.Minute)
	}
	for _, what := range []string{"resume", "resume all"} {
		w.happen(act{What: what})
		w.pass(0)
	}
	w.pass(w.life.settling())
	w.checkMakingUp()
	w.stop()
	w.end(first)
	return w.problems
}

func (w *living) happen(a act) {
	ctx := context.Background()
	name := "ci"
	if strings.Contains(a.What, "all") {
		name = rotation.AllTokens
	}
	switch a.What {
	case "nothing":
	case "restart", "down":
		w.stop()
		time.Sleep(a.For)
		if a.For > 0 {
			w.expectMakingUp()
		}
		w.up()
	case "step", "absurd step":
		w.makesUp = nil
		w.set(w.right + w.wrongBy() + a.For)
	case "right":
		w.makesUp = nil
		w.set(w.right)
	case "pause", "pause all", "pause for", "pause all for":
		p := rotation.Pause{Since: w.wall()}
		if a.For > 0 {
			p.Until = w.wall().Add(a.For)
		}
		w.paused[name] = p
		must(w.engine.rotator.Pause(ctx, name, p))
		w.engine.replan(name)
	case "resume", "resume all":
		delete(w.paused, name)
		_, err := w.engine.rotator.Resume(ctx, name)
		must(err)
		w.engine.replan(name)
	case "meddle":
		w.meddle()
	case "meddle and look":
		w.meddle()
		w.look(ctx)
	case "look":
		w.look(ctx)
	case "rotate", "rotate with overrides":
		w.rotateNow(ctx, a.What == "rotate with overrides")
	default:
		w.setTrouble(a.What, time.Now().Add(a.For))
	}
}

// rotateNow is an operator who rotates.
func (w *living) rotateNow(ctx context.Context, override bool) {
	r, now := w.record, w.wall()
	held := r.Step != rotation.StepIdle
	if !override {
		held = held || w.isPaused() || w.isFrozen(now, false) || r.Last != nil && now.Before(r.Last.GraceEndsAt)
	}
	_, err := w.engine.rotateNow(ctx, "ci", rotation.Overrides{Freeze: override, Pause: override, Grace: override}, "ops")
	w.pass(0)
	if refused := errors.Is(err, rotation.ErrNotRotated); refused != held && !w.is("ledger") && !w.is("disk") {
		w.wrong("an operator's rotation: %v", err)
	}
	w.seen[fmt.Sprintf("rotated by an operator: %t", err == nil)]++
}

// meddle is another writer, who puts the secret before the current one back, or nothing.
func (w *living) meddle() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.issued == 0 {
		return // nothing was written yet
	}
	w.stored = rotation.Credential{}
	if w.issued%2 == 0 {
		w.stored = rotation.Credential{ClientID: "life.access", ClientSecret: livingSecret(w.issued - 1)}
	}
	w.mended = false
}

// look is the watch of sinks, which is sure of what it has seen, and restores. A second sink has a copy.
func (w *living) look(ctx context.Context) {
	seen, ok := w.engine.view("ci")
	if !ok || seen.active > 0 {
		return
	}
	w.mu.Lock()
	stored := livingSink{w}.state()
	w.mu.Unlock()
	record, err := w.engine.rotator.RecordLook(ctx, seen.token, rotation.Look{Sink: livingSink{w}.Name(), Before: seen.record, Stored: stored})
	if err != nil {
		return // the ledger is not there
	}
	w.engine.planNewer("ci", record)
	if rotation.WantsRestore(seen.token, record) {
		err := w.engine.restore(ctx, "ci")
		w.seen[fmt.Sprintf("restored: %t", err == nil && w.mended)]++
	}
}

// lifeChecks is how many lives TestLives runs, unless -rapid.checks says otherwise.
var lifeChecks = "2000"

// TestLives runs thousands of random lives of a token in the daemon's own engine. Whatever the schedule, its
// jitter and window, freezes and pauses, downtimes, a wall clock that is set, and failures that end: each
// slot is served at most once, and exactly once unless skip, a freeze or a pause says otherwise. A failing
// life is made as small as possible, and kept in testdata/rapid to be run again.
func TestLives(t *testing.T) {
	if testing.Short() || racedetector.On {
		lifeChecks = "25"
	}
	checks := flag.Lookup("rapid.checks")
	all := checks.Value.String() == checks.DefValue && lifeChecks == "2000"
	if checks.Value.String() == checks.DefValue {
		if err := checks.Value.Set(lifeChecks); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		l := drawLife(rt)
		var problems []string
		var w *living
		synctest.Test(t, func(*testing.T) {
			w = newLiving(l)
			problems = w.live()
		})
		for what, n := range w.seen {
			seen[what] += n
		}
		if len(problems) > 0 {
			rt.Fatalf("%s\n%+v", strings.Join(problems, "\n"), l)
		}
	})
	for _, what := range []string{
		"calm slots", "claimed schedule", "claimed catch_up", "claimed retry", "claimed manual", "given up", "passed over", "healed",
		"made up for after the window", "made up for after a downtime: true", "made up for after a downtime: false",
		"restored: true", "restored: false", "rotated by an operator: false",
		"failed/refused", "failed/not_carried_out", "failed/throttled", "failed/store", "skipped/preflight", "skipped/claim",
	} {
		if seen[what] == 0 && all && !t.Failed() {
			t.Errorf("%s did not happen once: the lives prove less than they seem to", what)
		}
	}
	t.Logf("%v", seen)
}

// TestLivesThatWentWrong repeats lives in which TestLives once found a fault.
func TestLivesThatWentWrong(t *testing.T) {
	hourly := []freezing{{Expression: "59 * * * *", Zone: "UTC", Length: 2 * time.Minute, Skip: true}}
	for name, l := range map[string]life{
		"every slot is passed over": {Expression: "0 * * * *", Freezes: hourly},
		"one is passed over while others are made up for": {
			Expression: "@every 1h", Freezes: []freezing{{Expression: "0 */6 * * *", Zone: "UTC", Length: 90 * time.Minute, Skip: true}},
			Acts: []act{{After: time.Hour, What: "down", For: 17*time.Hour + 55*time.Minute}},
		},
		"one is passed over while the disk is full": {
			Expression: "@every 20m", Freezes: []freezing{{From: 30 * time.Minute, Length: 20 * time.Minute, Skip: true}},
			Acts: []act{{After: 39 * time.Minute, What: "disk", For: 10 * time.Minute}, {After: 15 * time.Minute, What: "nothing"}},
		},
		"one is given up while the disk is full": {
			Expression: "@every 1h", Window: 6 * time.Minute, Skip: true,
			Acts: []act{{What: "disk", For: 69 * time.Minute}, {After: 70 * time.Minute, What: "nothing"}},
		},
		"a freeze begins while the disk is full": {
			Expression: "*/5 * * * *", Freezes: []freezing{{From: 301 * time.Second, Length: time.Hour}},
			Acts: []act{{After: 4 * time.Minute, What: "disk", For: 20 * time.Minute}},
		},
		"a clock that was years ahead": {
			Expression: "@every 3m", Acts: []act{
				{After: time.Minute, What: "absurd step", For: 400 * time.Hour}, {After: 20 * time.Minute, What: "right"}, {After: time.Hour, What: "nothing"},
			},
		},
		"a clock that was days back": {
			Expression: "@every 3m", Acts: []act{{After: 3 * time.Minute, What: "absurd step", For: -48 * time.Hour}, {After: 31 * time.Second, What: "right"}},
		},
		"a clock that was days back while the disk was full": {
			Expression: "@every 3m", Acts: []act{
				{What: "absurd step", For: -50 * time.Hour}, {What: "disk", For: time.Minute}, {After: 31 * time.Second, What: "resume"},
			},
		},
		"a clock that goes back by days while the disk is full, and a resume": {
			Expression: "@every 3m", Grace: 15 * time.Second, Acts: []act{
				{What: "down", For: 2 * time.Minute}, {After: time.Minute, What: "disk", For: 31 * time.Second}, {What: "absurd step", For: -50 * time.Hour},
				{After: 31 * time.Second, What: "nothing"},
			},
		},
		"a restart in the last moment of a window": {
			Expression: "@every 3m", Window: 90 * time.Second, Skip: true, Acts: []act{{After: time.Minute, What: "down", For: 210 * time.Second}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			l.Zone, l.Start = "UTC", "2026-11-24T12:00:00Z"
			synctest.Test(t, func(t *testing.T) {
				if problems := newLiving(l).live(); len(problems) > 0 {
					t.Errorf("%s\n%+v", strings.Join(problems, "\n"), l)
				}
			})
		})
	}
}
