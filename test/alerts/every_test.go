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
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rotatord/test/program"
	"rotatord/test/realvault"
)

var (
	every    = flag.Bool("every", false, "make a daemon fail in every way that has an alert; seven minutes")
	perToken = flag.String("per-token", "full", "metrics.per_token of every daemon")
	page     = flag.String("page", "", "a page whose table is replaced by that of a run of all that was good")
)

// shortTimes has what the mixin makes configurable, so that each alert takes seconds: see deploy/mixin/config.libsonnet.
const shortTimes = `{
	reissueDelayed: '5s', secretPending: '5s', overdue: '10s', throttled: '2s', inventoryStale: '3m', watchPeriods: '1.2', ledgerOld: '30s',
	clockSteppedWindow: '20s', failedRatioWindow: '1m', lateAnswerWindow: '30s', renewalWindow: '90s', restoredWindow: '20s', sinkWritesWindow: '20s',
	slotsMissedWindow: '20s', takeoverWindow: '40s', throttledWindow: '30s',
	restartBridge: '10s', pauseBridge: '10s', tokenKnownFor: '10m', replicaKnownFor: '10m', troubleKeptFor: '10m',
	alerts: {%s},
}`

// held are alerts that must come later than others, because those hold back the others while they fire.
var held = map[string]string{"RotatordCheckFailing": "100s", "RotatordSecretPending": "5s", "RotatordConsumersCutOff": "5s"}

// unprovoked are the alerts that no fault here raises, with the reason. promtool tests them on series that were written.
func unprovoked() map[string]string {
	if clockCanBeSet {
		return nil
	}
	const why = "needs a daemon with a clock of its own, on Linux on amd64"
	return map[string]string{"RotatordClockStepped": why, "RotatordReplicaStandsAside": why}
}

// monitoring is what looks at every place.
type monitoring struct {
	program      string // the daemon
	rules        string
	alertmanager string
	pager        *pager
	server       *prometheus
	targets      string           // a directory that tells Prometheus of daemons
	vault        *realvault.Vault // of the places that leave Vault alone
	starts       chan struct{}    // the places that may start at the same time
	deadline     time.Time
}

// TestEveryAlert makes daemons fail in every way that has an alert. A real Prometheus sees it, and a real Alertmanager
// tells; each alert must name its section of the runbook, fire once, and clear once the failure is mended. Meanwhile
// each query of the dashboard must have had data.
//
// The places are there side by side, because each mostly waits. A place waits for what it has caused, not for a time.
func TestEveryAlert(t *testing.T) {
	if !*every {
		t.Skip("takes seven minutes: run make alerts-e2e")
	}
	begun, shipped := time.Now(), alertNames(t)
	places := chosenPlaces(t)
	checkCovered(t, places, shipped)
	m := &monitoring{program: programUnderTest(t), rules: short(t, shipped, "rules"), pager: &pager{}, targets: t.TempDir(), starts: make(chan struct{}, 3), deadline: begun.Add(*within)}
	m.alertmanager = startAlertmanager(t, m.pager)
	m.server = startPrometheusWith(t, promOptions{rules: m.rules, interval: "1s", alertmanager: m.alertmanager, targets: m.targets})
	m.vault = realvault.Start(t)
	m.vault.MountKV(t, mount, 2, true)
	queries := dashboardQueries(t, short(t, shipped, "dashboard"))
	stop := queries.askAgainAndAgain(m.server)
	ended := t.Run("places", func(t *testing.T) { // ends when all have ended
		for _, p := range places {
			t.Run(p.design.name, func(t *testing.T) { t.Parallel(); p.live(t, m) })
		}
	})
	stop()
	table := everyTable(places)
	progress("%s in all; the table:\n%s", round(time.Since(begun)), table)
	save(t, table)
	if *only != "" {
		return
	}
	for _, query := range queries.empty() {
		t.Errorf("the dashboard's query has never had data: %s", query)
	}
	if *page != "" && ended && !t.Failed() {
		replaceTable(t, absolute(t, *page), fmt.Sprintf("On %s, in %s in all, on %d processors:\n\n%s", begun.UTC().Format(time.DateOnly), round(time.Since(begun)), runtime.NumCPU(), table))
	}
}

func chosenPlaces(t *testing.T) (places []*place) {
	t.Helper()
	wanted := strings.Split(*only, ",")
	for _, d := range designs() {
		if *only == "" || slices.Contains(wanted, d.name) {
			places = append(places, newPlace(d))
		}
	}
	if len(places) == 0 {
		t.Fatalf("-only %s names no place", *only)
	}
	return places
}

// checkCovered fails if an alert is neither raised nor named in unprovoked.
func checkCovered(t *testing.T, places []*place, shipped names) {
	t.Helper()
	missing := shipped.without(unprovoked())
	for _, p := range places {
		for _, f := range p.design.faults {
			for _, name := range f.names() {
				delete(missing, name)
				if !shipped[name] {
					t.Errorf("%s: %s is not an alert", f.what, name)
				}
			}
		}
	}
	if *only == "" && len(missing) > 0 {
		t.Errorf("no fault raises %v, and unprovoked does not say why", slices.Sorted(maps.Keys(missing)))
	}
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

// short renders what the mixin ships, with times of seconds: "rules" or "dashboard". It returns the file.
func short(t *testing.T, alerts names, what string) string {
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
	out := filepath.Join(t.TempDir(), what)
	cmd := exec.Command("go", "run", "-C", "../../tools/mixin", ".", "-config", fmt.Sprintf(shortTimes, changes.String()), "-out", out, what)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("the mixin: %v\n%s", err, text)
	}
	return out
}

const (
	tableBegins = "<!-- the table of make alerts-e2e begins -->\n"
	tableEnds   = "<!-- it ends -->\n"
)

// replaceTable replaces the table of a page.
func replaceTable(t *testing.T, path, table string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(content), tableBegins)
	_, after, ended := strings.Cut(rest, tableEnds)
	if !found || !ended {
		t.Fatalf("%s has no place for the table", path)
	}
	if err := os.WriteFile(path, []byte(before+tableBegins+"\n"+table+"\n"+tableEnds+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
