package alerts

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/test/program"
	"rotatord/test/realvault"
)

var (
	full   = flag.Bool("full", false, "provoke every failure and wait for its alert; takes as long as -within at most")
	binary = flag.String("binary", "", "the rotatord to test; default is that of this tree")
	rules  = flag.String("rules", "../../deploy/prometheus/rotatord.rules.yaml", "the rules to test")
	within = flag.Duration("within", 80*time.Minute, "how long to wait for alerts")
	linger = flag.Duration("linger", 20*time.Minute, "how long to look on after the first alert of a scenario")
	only   = flag.String("only", "", "names of scenarios, with commas between; default all")
	out    = flag.String("out", "", "a file that gets the report, written again at each change")
	logs   = flag.String("logs", "", "a directory that gets the log of each daemon")
)

// TestAlerts provokes each failure and fails for each that raises no alert.
func TestAlerts(t *testing.T) {
	if !*full {
		t.Skip("takes more than an hour at worst: run make alerts")
	}
	path, ruleFile := programUnderTest(t), absolute(t, *rules)
	sites := newSites(t, path)
	var apart []*prometheus
	var together []*site
	for _, s := range sites {
		s.start(t)
		if s.alone {
			apart = append(apart, startPrometheus(t, ruleFile, s))
		} else {
			together = append(together, s)
		}
	}
	servers := apart
	if len(together) > 0 {
		servers = append(servers, startPrometheus(t, ruleFile, together...))
	}
	awaitQuiet(t, servers)
	for _, s := range sites {
		s.watch.alerts, s.watch.provoked = map[string]*seen{}, time.Now()
		s.provoke(t, s)
		progress("%s: provoked: %s", s.name, s.what)
	}
	follow(t, servers, sites)
	for _, s := range sites {
		if s.watch.first == nil {
			s.look()
			t.Errorf("%s: no alert within %s", s.what, *within)
		}
	}
	save(t, report(sites, time.Now()))
	progress("the report:\n%s", report(sites, time.Now()))
}

func programUnderTest(t *testing.T) string {
	t.Helper()
	if *binary != "" {
		return absolute(t, *binary)
	}
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	return path
}

func newSites(t *testing.T, path string) (sites []*site) {
	t.Helper()
	shared := realvault.Start(t)
	shared.MountKV(t, mount, 2, true)
	wanted := strings.Split(*only, ",")
	for _, sc := range scenarios {
		if *only == "" || slices.Contains(wanted, sc.name) {
			sites = append(sites, newSite(t, path, sc, shared))
		}
	}
	if len(sites) == 0 {
		t.Fatalf("-only %s names no scenario", *only)
	}
	return sites
}

// awaitQuiet waits until every site was scraped and no alert is pending, for a minute on end.
func awaitQuiet(t *testing.T, servers []*prometheus) {
	t.Helper()
	var quietSince time.Time
	for deadline := time.Now().Add(10 * time.Minute); time.Now().Before(deadline); time.Sleep(time.Second) {
		quiet := true
		var pending []alert
		for _, p := range servers {
			alerts, err := p.alerts()
			quiet = quiet && err == nil && len(alerts) == 0 && p.up() == len(p.sites)
			pending = append(pending, alerts...)
		}
		switch {
		case !quiet:
			quietSince = time.Time{}
			if len(pending) > 0 && time.Until(deadline) < 2*time.Second {
				t.Logf("pending: %v", pending)
			}
		case quietSince.IsZero():
			quietSince = time.Now()
		case time.Since(quietSince) > time.Minute:
			return
		}
	}
	t.Fatal("alerts were still pending ten minutes after the start")
}

// follow looks at the alerts each second, until nothing more can happen.
func follow(t *testing.T, servers []*prometheus, sites []*site) {
	t.Helper()
	written := ""
	for _, p := range servers {
		p.answered = time.Now()
	}
	for deadline := time.Now().Add(*within); time.Now().Before(deadline); time.Sleep(time.Second) {
		now := time.Now()
		for _, p := range servers {
			alerts, err := p.alerts()
			if err != nil { // a loaded machine is slow; what it says later still counts
				if now.Sub(p.answered) > program.Patience {
					t.Errorf("Prometheus has not answered for %s: %v", program.Patience, err)
					return
				}
				continue
			}
			p.answered = now
			for _, s := range p.sites {
				s.observe(t, now, concerning(alerts, s))
			}
		}
		if r := report(sites, time.Time{}); r != written {
			written = r
			save(t, report(sites, now))
		}
		if !slices.ContainsFunc(sites, func(s *site) bool { return !s.finished(now, *linger) }) {
			return
		}
	}
}

func concerning(alerts []alert, s *site) (found []alert) {
	for _, a := range alerts {
		if s.alone || a.concerns(s.name) {
			found = append(found, a)
		}
	}
	return found
}

func save(t *testing.T, report string) {
	if *out == "" {
		return
	}
	if err := os.WriteFile(*out, []byte(report), 0o644); err != nil {
		t.Error(err)
	}
}
