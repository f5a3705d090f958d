// Package fleet counts what clients see while their secrets are rotated and things go wrong:
// fifty programs that read Vault every few seconds and call an application behind Access
// all the time, once with rotatord as a real process and once with a typical script instead
// of it. Vault is a real one, Cloudflare a simulator in this process.
package fleet

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"rotatord/internal/cloudflare/cfsim"
)

// full runs every scenario at its whole length, as the table in docs/fleet.md shows it.
var full = flag.Bool("full", false, "every scenario at its whole length (eleven minutes), and a table in Markdown")

func TestMain(m *testing.M) {
	flag.Parse()
	// The contestants of a scenario wait for most of the time, so they run at once, and under
	// the same load.
	if err := flag.Set("test.parallel", fmt.Sprint(len(contestants))); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// seconds makes a list of durations.
func seconds(all ...int) (list []time.Duration) {
	for _, s := range all {
		list = append(list, time.Duration(s)*time.Second)
	}
	return list
}

var (
	long = pace{
		reread: 2 * time.Second, grace: 8 * time.Second, periods: seconds(10, 11, 12, 13, 14),
		length: 75 * time.Second, quiet: 25 * time.Second,
	}
	short = pace{
		reread: time.Second, grace: 4 * time.Second, periods: seconds(5, 6, 7, 8, 9),
		length: 20 * time.Second, quiet: 12 * time.Second,
	}
	threeTimes = map[int]int{0: 1, 1: 2, 2: 3}
)

var scenarios = []scenario{
	{name: "nothing goes wrong"},
	{name: "killed at random, every 2 to 4 s", killed: atRandom},
	{name: "killed before the answer is stored", killed: unsealed, strike: threeTimes},
	{name: "the answer is lost", answer: cfsim.KindDrop, strike: threeTimes},
	{name: "500 after it was carried out", answer: cfsim.KindStatus, status: 500, strike: threeTimes},
	{name: "a write to Vault is answered 500", write: refused, strike: threeTimes},
	{name: "Vault is killed at the write, away for 1 s", write: vaultKilled, away: time.Second, strike: threeTimes},
	{name: "Vault is sealed at the write, for 12 s", write: vaultSealed, away: 12 * time.Second, strike: map[int]int{0: 2}},
}

// Which contestant it is.
const (
	single = iota
	pairs
	plainScript
	retryingScript
)

var contestants = []struct {
	name string
	make func(*world) contestant
}{
	single:         {"rotatord, one token", func(w *world) contestant { return &daemon{w: w} }},
	pairs:          {"rotatord, a pair", func(w *world) contestant { return &daemon{w: w, pairs: true} }},
	plainScript:    {"script", func(w *world) contestant { return &script{w: w} }},
	retryingScript: {"script, `curl --retry 3`", func(w *world) contestant { return &script{w: w, retries: "3"} }},
}

// TestFleet runs each contestant through each scenario.
func TestFleet(t *testing.T) {
	p, all := short, []scenario{scenarios[0], scenarios[2]}
	all[1].strike = map[int]int{0: 1, 1: 1}
	if *full {
		p, all = long, scenarios
	}
	var results []row
	for _, s := range all {
		r := row{scenario: s, cells: make([]outcome, len(contestants))}
		t.Run(s.name, func(t *testing.T) {
			for i, c := range contestants {
				t.Run(c.name, func(t *testing.T) {
					t.Parallel()
					w := newWorld(t, p, s, i == pairs)
					w.contestant = c.make(w)
					o := w.run(t)
					w.check(t, i, o)
					r.cells[i] = o
				})
			}
		})
		results = append(results, r)
		if *full {
			fmt.Fprintf(os.Stderr, "%s: done\n", s.name)
		}
	}
	fmt.Print(table(results))
}

// check fails if rotatord breaks a promise, or if the comparison shows nothing.
func (w *world) check(t *testing.T, who int, o outcome) {
	t.Helper()
	s := w.scenario
	if o.struck != len(s.strike) || s.killed == atRandom && o.kills < 5 {
		t.Errorf("%d faults struck, %d were to; %d kills: this proves nothing", o.struck, len(s.strike), o.kills)
	}
	if atLeast := int(w.pace.length/pause) * fleetSize / 10; o.calls < atLeast {
		t.Errorf("only %d calls: this proves little", o.calls)
	}
	if least := len(w.pace.periods); o.rotations < least {
		t.Errorf("only %d rotations, want at least %d", o.rotations, least)
	}
	if s.calm() && (o.refused > 0 || o.lost > 0 || o.alarms > 0) {
		t.Errorf("nothing went wrong, and yet %d calls were refused, %d secrets lost, %d alarms raised", o.refused, o.lost, o.alarms)
	}
	if who == plainScript && len(s.strike) > 0 && o.lost < len(s.strike) {
		t.Errorf("the script lost %d secrets to %d faults: this compares nothing", o.lost, len(s.strike))
	}
	d, ok := w.contestant.(*daemon)
	if !ok {
		return
	}
	switch {
	case s.losesAnswers() && o.lost != len(s.strike):
		t.Errorf("%d secrets were lost, want %d: those whose answer was taken away", o.lost, len(s.strike))
	case !s.losesAnswers() && s.killed != atRandom && o.lost > 0:
		t.Errorf("%d secrets were lost, and every answer arrived", o.lost)
	}
	if d.doubts() < o.lost {
		t.Errorf("%d secrets were lost and only %d times a token was in doubt", o.lost, d.doubts())
	}
	if who == single && s.away > w.pace.grace && d.extensions() == 0 {
		t.Error("Vault was away for longer than the grace, and the old secret was not given more time")
	}
	if o.lockedOut > 0 {
		t.Errorf("%d credentials are locked out at the end", o.lockedOut)
	}
	switch {
	case who == pairs || o.lost == 0:
		if o.refused > 0 {
			t.Errorf("%d of %d calls were refused, for up to %s", o.refused, o.calls, o.longest)
		}
	case o.lostMost == 1:
		// The reissue cuts off the secret that the clients have, because Cloudflare keeps one
		// previous secret and that is the lost one. It ends with the next reading.
		if bound := w.pace.reread + slack; o.longest > bound {
			t.Errorf("a client was refused for %s, longer than %s after the reissue", o.longest, bound)
		}
	}
}

// slack is how long a reissue may take until it is in Vault, on a busy machine and with the
// process killed and started in the middle of it.
const slack = 3 * time.Second

type row struct {
	scenario
	cells []outcome
}

// table is the results in Markdown: an overview, and every figure.
func table(rows []row) string {
	var b strings.Builder
	b.WriteString("\n| |")
	for _, c := range contestants {
		fmt.Fprintf(&b, " %s |", c.name)
	}
	b.WriteString("\n| --- |" + strings.Repeat(" --- |", len(contestants)) + "\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s |", r.name)
		for _, o := range r.cells {
			fmt.Fprintf(&b, " %s |", o)
		}
		b.WriteString("\n")
	}
	b.WriteString("\n| scenario | contestant | calls | refused | refused anyway | longest | rotations | lost | locked out | alarms |\n")
	b.WriteString("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for _, r := range rows {
		for i, o := range r.cells {
			fmt.Fprintf(&b, "| %s | %s | %d | %d | %d | %s | %d | %d | %d | %d |\n", r.name, contestants[i].name,
				o.calls, o.refused, o.stranded, tenths(o.longest), o.rotations, o.lost, o.lockedOut, o.alarms)
		}
	}
	return b.String()
}

// String is the outcome in short.
func (o outcome) String() string {
	if o.refused == 0 && o.lost == 0 {
		return "**0**"
	}
	if o.refused == 0 {
		return fmt.Sprintf("**0**, %d lost", o.lost)
	}
	return fmt.Sprintf("%d (%s), %d lost", o.refused, tenths(o.longest), o.lost)
}

func tenths(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
