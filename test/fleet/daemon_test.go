package fleet

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/test/program"
)

// binary is built once, with the points at which a test may stop it.
var binary = program.Rotatord("failpoint")

// daemon is rotatord, with one service token for each credential or with two.
type daemon struct {
	w     *world
	pairs bool

	armed atomic.Bool // to be killed when the next answer was received and is not sealed

	mu       sync.Mutex
	process  *os.Process
	stopping bool
	url      string
	started  int // how often it was ready
	inDoubt  int
	extended int // the graces of old secrets
	errors   int
	log      strings.Builder

	ended chan struct{}
}

func (d *daemon) config() string {
	w := d.w
	limit := ""
	if w.outages != nil { // up to three requests for each rotation, and those of each start
		limit = "    requests_per_5m: 1200\n"
	}
	var c strings.Builder
	fmt.Fprintf(&c, `listen: 127.0.0.1:0
state: {dir: "%[1]s/state"}
accounts:
  prod:
    account_id: %[2]s
    api_token: {file: "%[1]s/api-token"}
    base_url: %[3]s
%[6]svault:
  address: %[4]s
  auth: {approle: {role_id: {file: "%[1]s/role-id"}, secret_id: {file: "%[1]s/secret-id"}}}
defaults: {account: prod, grace: %[5]s}
tokens:
`, w.dir, cfsim.DefaultAccountID, w.cloudflareURL, w.vaultURL, w.pace.grace, limit)
	for i, name := range w.names {
		id := "id: " + cfsim.SeedTokenID(i+1)
		if d.pairs {
			id = fmt.Sprintf("pair: [%s, %s]", cfsim.SeedTokenID(i+1), cfsim.SeedTokenID(i+1+len(w.names)))
		}
		fmt.Fprintf(&c, "  %s: {%s, schedule: \"@every %s\", sinks: [{vault: {mount: %s, path: %s}}]}\n",
			name, id, w.pace.periods[i], mount, path(name))
	}
	return c.String()
}

func (d *daemon) start(t *testing.T) {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(d.w.dir, "config.yaml")
	if err := os.WriteFile(config, []byte(d.config()), 0o600); err != nil {
		t.Fatal(err)
	}
	d.ended = make(chan struct{})
	go func() {
		defer close(d.ended)
		for {
			if err := d.runOnce(path, config); err != nil {
				t.Error(err)
				return
			}
			time.Sleep(downtime)
			if d.isStopping() {
				return
			}
		}
	}()
	t.Cleanup(func() {
		d.stopNoMore(syscall.SIGKILL)
		<-d.ended
		if t.Failed() {
			t.Logf("what the daemon warned of:\n%s\nthe end of its log:\n%s", warnings(d.text()), tail(d.text()))
		}
	})
}

func (d *daemon) isStopping() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stopping
}

// runOnce runs the daemon until it ends, for whatever reason.
func (d *daemon) runOnce(path, config string) error {
	cmd := exec.Command(path, "run", "--config", config)
	if d.w.scenario.killed == unsealed {
		cmd.Env = append(os.Environ(), "ROTATORD_FAILPOINTS=rotate.after=sleep:200ms")
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	d.mu.Lock()
	if d.stopping {
		d.mu.Unlock()
		return nil
	}
	err = cmd.Start()
	d.process = cmd.Process
	d.mu.Unlock()
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(stderr)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		d.read(lines.Text())
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code > 0 {
		return fmt.Errorf("rotatord ended with exit code %d", code)
	}
	return nil
}

// read takes a line of the log.
func (d *daemon) read(line string) {
	var l struct {
		Level, Msg, Address, Result, Point string
	}
	_ = json.Unmarshal([]byte(line), &l) // what is not JSON is kept as text below
	d.mu.Lock()
	fmt.Fprintln(&d.log, line)
	switch {
	case l.Msg == "rotatord is running":
		d.url = "http://" + l.Address
		d.started++
	case l.Result == "in_doubt":
		d.inDoubt++
		d.errors++
	case l.Level == "ERROR":
		d.errors++
	case strings.HasPrefix(l.Msg, "the old secret's grace was extended"):
		d.extended++
	}
	d.mu.Unlock()
	if l.Msg == "failpoint" && l.Point == "rotate.after" && d.armed.CompareAndSwap(true, false) {
		d.kill()
	}
}

func (d *daemon) text() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.String()
}

func (d *daemon) kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.process != nil {
		_ = d.process.Signal(syscall.SIGKILL)
	}
}

func (d *daemon) answered(int) { d.armed.Store(true) }

func (d *daemon) interruptsWrite(int) bool { return false }

func (d *daemon) stopNoMore(signal os.Signal) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopping = true
	if d.process != nil {
		_ = d.process.Signal(signal)
	}
}

// stop waits until no secret waits for delivery, and sends SIGTERM.
func (d *daemon) stop(t *testing.T) {
	t.Helper()
	program.Eventually(t, 30*time.Second, "a daemon without an undelivered secret", func() bool {
		d.mu.Lock()
		url := d.url
		d.mu.Unlock()
		return strings.Contains(get(url+"/metrics"), "\nrotatord_pending_secrets 0\n")
	})
	d.stopNoMore(syscall.SIGTERM)
	select {
	case <-d.ended:
	case <-time.After(45 * time.Second):
		t.Fatal("the daemon did not stop within 45 s of SIGTERM")
	}
}

func (d *daemon) alarms() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.errors
}

// startCount is how often the daemon was ready.
func (d *daemon) startCount() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.started
}

func (d *daemon) doubts() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.inDoubt
}

func (d *daemon) extensions() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.extended
}

// get returns the body, or nothing if there is no answer.
func get(url string) string {
	res, err := http.Get(url)
	if err != nil {
		return ""
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return string(b)
}

// warnings are the lines of a log that are not mere information.
func warnings(log string) string {
	var b strings.Builder
	for line := range strings.Lines(log) {
		if !strings.Contains(line, `"level":"INFO"`) {
			b.WriteString(line)
		}
	}
	return b.String()
}

func tail(s string) string { return s[max(len(s)-4000, 0):] }
