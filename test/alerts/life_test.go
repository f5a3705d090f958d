package alerts

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"rotatord/test/program"
)

// place is a daemon with what it needs, and its faults.
type place struct {
	*site
	design                  design
	m                       *monitoring
	server                  *prometheus // that sees its daemons
	second                  *process    // another daemon there
	stages                  []*stage
	kept                    map[string]any // what a fault has taken away
	keptVersion             any
	refuses                 atomic.Bool // its receiver of notifications
	cut                     atomic.Bool // the way of its second daemon to Vault
	wayToVault              string
	watchEvery, verifyEvery time.Duration
}

func newPlace(d design) *place {
	p := &place{design: d, watchEvery: time.Minute, verifyEvery: 10 * time.Minute}
	for _, f := range d.faults {
		f.place = p
		for _, name := range f.names() {
			p.stages = append(p.stages, &stage{fault: f, alert: name})
		}
	}
	return p
}

// live is the whole life of a place: all is well, then comes each failure, is mended, and its alerts clear.
func (p *place) live(t *testing.T, m *monitoring) {
	p.m = m
	t.Cleanup(func() {
		for _, s := range p.stages {
			for _, wrong := range s.wrong() {
				t.Error(wrong)
			}
		}
	})
	p.startUp(t)
	for _, f := range p.design.faults {
		if !f.fromStart {
			f.provoked = time.Now()
		}
		progress("%s: %s", p.design.name, f.what)
		f.provoke(t, p)
	}
	left := time.Until(m.deadline)
	p.await(m.deadline.Add(-left/4), p.hasFired)
	for _, f := range p.design.faults {
		progress("%s: mended: %s", p.design.name, f.what)
		f.mended = time.Now()
		f.mend(t, p)
	}
	p.await(m.deadline, p.hasCleared)
}

// await updates the stages until a time, or until done.
func (p *place) await(until time.Time, done func() bool) {
	for time.Now().Before(until) {
		calls := p.m.pager.all()
		for _, s := range p.stages {
			s.update(calls)
		}
		if done() {
			return
		}
		time.Sleep(250 * time.Millisecond)
	}
}

// hasFired reports whether every alert has fired that comes before the failures are mended.
func (p *place) hasFired() bool {
	return !slices.ContainsFunc(p.stages, func(s *stage) bool { return s.fired == 0 && slices.Contains(s.fault.alerts, s.alert) })
}

func (p *place) hasCleared() bool {
	return !slices.ContainsFunc(p.stages, func(s *stage) bool { return s.cleared == 0 })
}

// startUp starts the place, and waits until all is well and Prometheus has seen that.
func (p *place) startUp(t *testing.T) {
	if !p.design.slow { // what takes longest does not wait for others
		p.m.starts <- struct{}{}
	}
	p.site = newSite(t, p.m.program, scenario{name: p.design.name, what: p.design.name, ownVault: p.design.ownVault}, p.m.vault)
	p.configure(t)
	for _, f := range p.design.faults {
		if f.fromStart {
			f.provoked = time.Now()
		}
	}
	p.start(t)
	if p.design.replicas {
		p.begin(t)
	}
	if !p.design.slow {
		<-p.m.starts
	}
	p.tell(t)
	for _, f := range p.design.faults {
		if f.before != nil {
			f.before(t, p)
		}
	}
	if p.design.slow { // its failures take minutes
		return
	}
	daemons := 1
	if p.design.replicas {
		daemons = 2
	}
	program.Eventually(t, 0, "three scrapes and an inventory of "+p.design.name, func() bool {
		time.Sleep(time.Second)
		return p.server.count(fmt.Sprintf(`count_over_time(rotatord_build_info{job=%q}[1m]) >= 3`, p.design.name)) >= daemons &&
			p.server.count(fmt.Sprintf(`rotatord_inventory_success_timestamp_seconds{job=%q}`, p.design.name)) > 0
	})
}

// tell tells Prometheus of the daemons, or starts one that sees these alone.
func (p *place) tell(t *testing.T) {
	if p.design.alone {
		p.server = startPrometheusWith(t, promOptions{rules: p.m.rules, interval: "1s", alertmanager: p.m.alertmanager, world: p.design.name}, p.site)
		return
	}
	p.server = p.m.server
	type group struct {
		Targets []string          `json:"targets"`
		Labels  map[string]string `json:"labels"`
	}
	content, err := json.Marshal([]group{{append([]string{p.listen}, p.others...), map[string]string{"job": p.design.name}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(p.m.targets, p.design.name+".json")
	if err := os.WriteFile(file+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	rename(t, file+".new", file)
}

// start starts the daemon and waits until it is ready.
func (p *place) start(t *testing.T) {
	t.Helper()
	p.launch(t)
	t.Cleanup(func() {
		p.daemon.end(syscall.SIGKILL)
		p.keepLog("", p.daemon)
	})
	program.Eventually(t, 0, "readiness of "+p.design.name, func() bool { return ready(p.listen) })
}

// launch starts the daemon.
func (p *place) launch(t *testing.T) { p.daemon = p.launchWith(t, p.config, p.design.clocks) }

// begin starts another daemon at this place. For replicas it waits until both are ready.
func (p *place) begin(t *testing.T) {
	t.Helper()
	p.second = p.launchWith(t, filepath.Join(p.dir, "second.yaml"), p.design.clocks)
	second := p.second
	t.Cleanup(func() { second.end(syscall.SIGKILL); p.keepLog("-second", second) })
	if p.design.replicas {
		program.Eventually(t, 0, "readiness of both replicas of "+p.design.name, func() bool { return ready(p.listen) && ready(p.others[0]) })
	}
}

func (p *place) launchWith(t *testing.T, config string, ownClock bool) *process {
	t.Helper()
	started, err := launchWith(p.program, ownClock, "run", "--config", config)
	if err != nil {
		t.Fatal(err)
	}
	return started
}

func (p *place) keepLog(suffix string, of *process) {
	if *logs != "" {
		_ = os.WriteFile(filepath.Join(*logs, p.design.name+suffix+".log"), []byte(of.out.String()), 0o600)
	}
}

func (p *place) stop() {
	p.daemon.end(syscall.SIGKILL)
	if p.second != nil {
		p.second.end(syscall.SIGKILL)
	}
}

func nothing(*testing.T, *place) {}
