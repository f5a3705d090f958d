package alerts

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"rotatord/test/program"
	"rotatord/test/realvault"
)

var (
	every    = flag.Bool("every", false, "make a daemon fail in every way that has an alert; 17 minutes")
	perToken = flag.String("per-token", "full", "metrics.per_token of every daemon")
)

// short has what the mixin makes configurable, so that each alert takes seconds: see deploy/mixin/config.libsonnet.
const short = `{
	reissueDelayed: '5s', secretPending: '5s', overdue: '10s', throttled: '2s', inventoryStale: '3m', watchPeriods: '1.2', ledgerOld: '30s',
	clockSteppedWindow: '20s', failedRatioWindow: '1m', lateAnswerWindow: '30s', renewalWindow: '90s', restoredWindow: '20s', sinkWritesWindow: '20s',
	slotsMissedWindow: '20s', takeoverWindow: '20s', throttledWindow: '30s',
	restartBridge: '10s', pauseBridge: '10s', tokenKnownFor: '10m', replicaKnownFor: '10m', troubleKeptFor: '10m',
	alerts: {%s},
}`

// held are alerts that must come later than others, because those hold back the others while they fire.
var held = map[string]string{"RotatordCheckFailing": "75s", "RotatordSecretPending": "5s", "RotatordConsumersCutOff": "5s"}

// unprovoked are the alerts that no fault here raises, with the reason. promtool tests them on series that were written.
var unprovoked = map[string]string{
	"RotatordClaimsTakenOver":    "needs a replica that is stopped twice within a claim, as make replicas does",
	"RotatordCopyPending":        "needs a replica that dies between the answer and its delivery, as make replicas does",
	"RotatordLateAnswer":         "needs a replica that is stopped between request and answer, as make replicas does",
	"RotatordLedgerViewOld":      "needs a replica that is separated from Vault while the other one is not, as make replicas does",
	"RotatordReplicaStandsAside": "needs a replica whose clock is wrong, as the tests in simulated time have it",
	"RotatordRotationOverdue":    "what is late for a reason that the daemon knows gets a new due time",
	"RotatordSecretOvertaken":    "needs another secret in the sink within the moments of a delivery, as the tests of internal/rotation have it",
	"RotatordClockStepped":       "the clock of the machine would have to be set, and every process on it would see that",
}

// stage is one alert on its way.
type stage struct {
	fault   *fault
	alert   string
	fired   time.Duration // after the failure, or after it was mended if the alert comes then
	cleared time.Duration // after the failure was mended
	runbook bool
}

// TestEveryAlert makes daemons fail in every way that has an alert. A real Prometheus sees it, and a real Alertmanager
// tells; each alert must name its section of the runbook, and clear once the failure is mended. Meanwhile
// each query of the dashboard must have had data.
func TestEveryAlert(t *testing.T) {
	if !*every {
		t.Skip("takes 17 minutes: run make alerts-e2e")
	}
	path, shipped := programUnderTest(t), alertNames(t)
	missing := shipped.without(unprovoked)
	places := newPlaces(t, path)
	for _, p := range places {
		for _, f := range p.faults {
			for _, name := range slices.Concat(f.alerts, f.after) {
				delete(missing, name)
				if !shipped[name] {
					t.Errorf("%s: %s is not an alert", f.what, name)
				}
			}
		}
	}
	delete(missing, "RotatordAbsent") // comes last
	if *only == "" && len(missing) > 0 {
		t.Errorf("no fault raises %v, and unprovoked does not say why", slices.Sorted(maps.Keys(missing)))
	}

	p := &pager{}
	alertmanager := startAlertmanager(t, p)
	sites := make([]*site, 0, len(places))
	for _, place := range places {
		for _, f := range place.faults {
			f.provoked = time.Now()
		}
		place.start(t)
		if place.design.replicas {
			place.begin(t, filepath.Join(place.dir, "second.yaml"))
		}
		sites = append(sites, place.site)
	}
	server := startPrometheusWith(t, shortRules(t, shipped), "1s", strconv.Quote(alertmanager), sites...)
	program.Eventually(t, 0, "a scrape of every daemon", func() bool { return server.up() >= len(sites) })
	queries := dashboardQueries(t)
	for _, place := range places {
		for _, f := range place.faults {
			if f.before != nil {
				f.before(t, place)
			}
		}
	}
	time.Sleep(75 * time.Second) // an inventory and a look at each sink, and the counters of before the failures

	var stages []*stage
	for _, place := range places {
		for _, f := range place.faults {
			if f.place = place; !f.fromStart {
				f.provoked = time.Now()
			}
			progress("%s: %s", place.name, f.what)
			f.provoke(t, place)
			for _, name := range slices.Concat(f.alerts, f.after) {
				stages = append(stages, &stage{fault: f, alert: name})
			}
		}
	}
	for deadline := time.Now().Add(*within); time.Now().Before(deadline); time.Sleep(time.Second) {
		update(stages, p.all())
		queries.ask(server)
		open := false
		for _, place := range places {
			if !place.mended && (place.hasFired(stages) || time.Until(deadline) < *within/4) {
				place.mended = true
				for _, f := range place.faults {
					progress("%s: mended: %s", place.name, f.what)
					f.mended = time.Now()
					f.mend(t, place)
				}
			}
			open = open || !place.mended
		}
		if !open && !slices.ContainsFunc(stages, func(s *stage) bool { return s.cleared == 0 }) {
			break
		}
	}
	if *only == "" {
		stages = append(stages, absence(t, places, p)...)
	}
	table := everyTable(stages)
	progress("the table:\n%s", table)
	save(t, table)
	check(t, stages, queries)
}

func check(t *testing.T, stages []*stage, queries *queries) {
	for _, s := range stages {
		switch {
		case s.fired == 0:
			t.Errorf("%s did not fire: %s", s.alert, s.fault.what)
		case s.cleared == 0:
			t.Errorf("%s did not clear: %s", s.alert, s.fault.what)
		case !s.runbook:
			t.Errorf("%s does not name its section of the runbook", s.alert)
		}
	}
	if *only == "" {
		for _, query := range queries.empty() {
			t.Errorf("the dashboard's query has never had data: %s", query)
		}
	}
}

// absence ends every daemon, and starts one again.
func absence(t *testing.T, places []*place, p *pager) []*stage {
	f := &fault{what: "every daemon is down", alerts: []string{"RotatordAbsent"}, place: places[0], provoked: time.Now()}
	stages := []*stage{{fault: f, alert: "RotatordAbsent"}}
	for _, place := range places {
		place.stop()
	}
	wait := func(done func() bool) {
		for deadline := time.Now().Add(program.Patience); time.Now().Before(deadline) && !done(); time.Sleep(time.Second) {
			update(stages, p.all())
		}
	}
	wait(func() bool { return stages[0].fired != 0 })
	f.mended = time.Now()
	places[0].launch(t)
	wait(func() bool { return stages[0].cleared != 0 })
	return stages
}

// update takes over what the pager has received.
func update(stages []*stage, calls []call) {
	sections := runbookSections()
	for _, s := range stages {
		f := s.fault
		for _, c := range calls {
			if c.Labels["alertname"] != s.alert || !f.concerns(c.Labels) || c.at.Before(f.provoked) {
				continue
			}
			switch {
			case c.Status == "firing" && s.fired == 0:
				since := f.provoked
				if slices.Contains(f.after, s.alert) {
					since = f.mended
				}
				s.fired = c.at.Sub(since)
				_, section, _ := strings.Cut(c.Annotations["runbook_url"], "#")
				s.runbook = section == strings.ToLower(s.alert) && sections[section]
				progress("%s: %s (%s) fires after %s: %s", f.place.name, s.alert, c.Labels["severity"], round(s.fired), c.Annotations["summary"])
			case c.Status == "resolved" && s.fired != 0 && s.cleared == 0 && !f.mended.IsZero() && c.at.After(f.mended):
				s.cleared = c.at.Sub(f.mended)
			case c.Status == "resolved" && s.fired != 0 && s.cleared == 0 && f.passing:
				s.cleared = c.at.Sub(f.provoked) - s.fired
			}
		}
	}
}

func everyTable(stages []*stage) string {
	var b strings.Builder
	b.WriteString("| alert | how it was made to fire | fired after | cleared after |\n| --- | --- | --- | --- |\n")
	slices.SortStableFunc(stages, func(a, b *stage) int { return strings.Compare(a.alert, b.alert) })
	show := func(d time.Duration) string {
		if d == 0 {
			return "never"
		}
		return d.Round(time.Second).String()
	}
	for _, s := range stages {
		what := s.fault.what
		if slices.Contains(s.fault.after, s.alert) {
			what += ", then mended"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", s.alert, what, show(s.fired), show(s.cleared))
	}
	for _, name := range slices.Sorted(maps.Keys(unprovoked)) {
		fmt.Fprintf(&b, "| %s | not here: %s | | |\n", name, unprovoked[name])
	}
	return b.String()
}

type names map[string]bool

func (n names) without(others map[string]string) names {
	left := maps.Clone(n)
	for name := range others {
		delete(left, name)
	}
	return left
}

func alertNames(t *testing.T) names {
	t.Helper()
	found := names{}
	for _, m := range regexp.MustCompile(`(?m)^ +- alert: (\w+)$`).FindAllStringSubmatch(program.ReadFile(t, "deploy/prometheus/rotatord.rules.yaml"), -1) {
		found[m[1]] = true
	}
	if len(found) < 50 {
		t.Fatalf("%d alerts were found", len(found))
	}
	return found
}

var runbookSections = sync.OnceValue(func() map[string]bool {
	sections := map[string]bool{}
	content, _ := os.ReadFile("../../docs/runbook.md") // none: no alert names a section of it
	for _, m := range regexp.MustCompile(`(?m)^## (\w+)$`).FindAllStringSubmatch(string(content), -1) {
		sections[strings.ToLower(m[1])] = true
	}
	return sections
})

// shortRules renders the mixin with times of seconds.
func shortRules(t *testing.T, alerts names) string {
	t.Helper()
	var changes strings.Builder
	shipped := program.ReadFile(t, "deploy/prometheus/rotatord.rules.yaml")
	for name := range alerts {
		_, after, _ := strings.Cut(shipped, "- alert: "+name+"\n")
		own, _, _ := strings.Cut(after, "- alert: ")
		if strings.Contains(own, "\n        for: ") {
			fmt.Fprintf(&changes, "%s: {'for': '%s'}, ", name, cmp.Or(held[name], "2s"))
		}
	}
	out := filepath.Join(t.TempDir(), "rules.yaml")
	cmd := exec.Command("go", "run", "-C", "../../tools/mixin", ".", "-config", fmt.Sprintf(short, changes.String()), "-out", out, "rules")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("the mixin: %v\n%s", err, text)
	}
	return out
}

// fault is one way to fail.
type fault struct {
	what      string
	token     string   // empty: all of the place
	alerts    []string // that fire while it lasts
	after     []string // that fire once it is mended
	passing   bool     // it may end by itself
	fromStart bool     // it is there since the daemon started
	// before is done while all is well, a while before the failure. It may be nil.
	before, provoke, mend func(t *testing.T, p *place)

	place            *place
	provoked, mended time.Time
}

func (f *fault) concerns(labels map[string]string) bool {
	job, account, token := labels["job"], labels["account"], labels["token"]
	if job != "" && job != f.place.name || job == "" && account != "" && account != f.place.name {
		return false
	}
	return token == "" || f.token == "" || token == f.token
}

// place is a daemon with what it needs, and its faults.
type place struct {
	*site
	faults  []*fault
	mended  bool
	second  *process // another daemon there
	design  design
	tokens  []tokenOf
	kept    any         // what a fault has taken away
	refuses atomic.Bool // its receiver of notifications
}

func (p *place) hasFired(stages []*stage) bool {
	return !slices.ContainsFunc(stages, func(s *stage) bool {
		return s.fault.place == p && s.fired == 0 && slices.Contains(s.fault.alerts, s.alert)
	})
}

func (p *place) stop() {
	p.daemon.end(syscall.SIGKILL)
	if p.second != nil {
		p.second.end(syscall.SIGKILL)
	}
}

func nothing(*testing.T, *place) {}

func newPlaces(t *testing.T, path string) (places []*place) {
	t.Helper()
	shared := realvault.Start(t)
	shared.MountKV(t, mount, 2, true)
	wanted := strings.Split(*only, ",")
	for _, d := range designs() {
		if *only != "" && !slices.Contains(wanted, d.name) {
			continue
		}
		s := newSite(t, path, scenario{name: d.name, what: d.name, ownVault: d.ownVault}, shared)
		p := &place{site: s, faults: d.faults}
		p.configure(t, d)
		places = append(places, p)
	}
	if len(places) == 0 {
		t.Fatalf("-only %s names no place", *only)
	}
	return places
}
