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
)

// contestant rotates the secrets of a world.
type contestant interface {
	start(t *testing.T)
	// kill sends SIGKILL to all that runs now. What is a daemon is started again after
	// downtime.
	kill()
	// answered is called in the scenario that kills between the answer of Cloudflare and
	// the next step, before an answer leaves that must not be survived.
	answered()
	// interruptsWrite is asked before a write is passed on to Vault. A contestant that has
	// no other step between the answer and the write is killed there.
	interruptsWrite(credential int) bool
	// stop lets it finish what it is doing.
	stop(t *testing.T)
	// alarms are the times that it said that something went wrong.
	alarms() int
}

// downtime is how long a killed contestant stays away.
const downtime = 500 * time.Millisecond

// binary is built once, with the points at which a test may stop it.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "rotatord-fleet-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "rotatord")
	cmd := exec.Command("go", "build", "-trimpath", "-tags", "failpoint", "-o", path, "./cmd/rotatord")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building rotatord: %w\n%s", err, out)
	}
	return path, nil
})

// daemon is rotatord, with one service token for each credential or with two.
type daemon struct {
	w     *world
	pairs bool

	armed atomic.Bool // to be killed when the next answer was received and is not sealed

	mu       sync.Mutex
	process  *os.Process
	stopping bool
	url      string
	inDoubt  int
	errors   int
	log      strings.Builder

	ended chan struct{}
}

func (d *daemon) config() string {
	w := d.w
	var c strings.Builder
	fmt.Fprintf(&c, `listen: 127.0.0.1:0
state: {dir: "%[1]s/state"}
accounts:
  prod:
    account_id: %[2]s
    api_token: {file: "%[1]s/api-token"}
    base_url: %[3]s
vault:
  address: %[4]s
  auth: {approle: {role_id: {file: "%[1]s/role-id"}, secret_id: {file: "%[1]s/secret-id"}}}
defaults: {account: prod, grace: %[5]s}
tokens:
`, w.dir, cfsim.DefaultAccountID, w.cloudflareURL, w.vaultURL, w.pace.grace)
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
	program, err := binary()
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
			if err := d.runOnce(program, config); err != nil {
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
			t.Logf("the end of the daemon's log:\n%s", tail(d.text()))
		}
	})
}

func (d *daemon) isStopping() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stopping
}

// runOnce runs the daemon until it ends, for whatever reason.
func (d *daemon) runOnce(program, config string) error {
	cmd := exec.Command(program, "run", "--config", config)
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
	_ = json.Unmarshal([]byte(line), &l) // what is no JSON is kept as text below
	d.mu.Lock()
	fmt.Fprintln(&d.log, line)
	switch {
	case l.Msg == "rotatord is running":
		d.url = "http://" + l.Address
	case l.Result == "in_doubt":
		d.inDoubt++
		d.errors++
	case l.Level == "ERROR":
		d.errors++
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

func (d *daemon) answered() { d.armed.Store(true) }

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
	eventually(t, 30*time.Second, "a daemon with no secret in hand", func() bool {
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

func (d *daemon) doubts() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.inDoubt
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

func tail(s string) string { return s[max(len(s)-4000, 0):] }

// script is script/rotate.sh under a cron that outlives it: one entry for each credential,
// at the same times as the daemon's schedules.
type script struct {
	w       *world
	retries string

	mu      sync.Mutex
	running map[int]*exec.Cmd
	away    time.Time // nothing is started before
	failed  int
	armed   bool

	quit chan struct{}
	all  sync.WaitGroup
}

func (s *script) start(t *testing.T) {
	t.Helper()
	s.running, s.quit = map[int]*exec.Cmd{}, make(chan struct{})
	for i := range s.w.names {
		s.all.Go(func() {
			ticker := time.NewTicker(s.w.pace.periods[i])
			defer ticker.Stop()
			for {
				select {
				case <-s.quit:
					return
				case <-ticker.C:
				}
				s.runOnce(t, i)
			}
		})
	}
	t.Cleanup(func() { s.kill(); s.stop(t) })
}

func (s *script) runOnce(t *testing.T, i int) {
	w := s.w
	cmd := exec.Command("script/rotate.sh", cfsim.SeedTokenID(i+1), path(w.names[i]), fmt.Sprint(int(w.pace.grace.Seconds())))
	cmd.Env = append(os.Environ(), "RETRIES="+s.retries, "CF_API="+w.cloudflareURL, "CF_API_TOKEN="+apiToken,
		"CF_ACCOUNT_ID="+cfsim.DefaultAccountID, "VAULT_ADDR="+w.vaultURL, "VAULT_TOKEN="+w.vault.RootToken)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	s.mu.Lock()
	if time.Now().Before(s.away) {
		s.mu.Unlock()
		return
	}
	err := cmd.Start()
	s.running[i] = cmd
	s.mu.Unlock()
	if err != nil {
		t.Error(err)
		return
	}
	err = cmd.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, i)
	if err != nil && cmd.ProcessState.ExitCode() > 0 { // who was killed says nothing
		s.failed++
	}
}

func (s *script) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, cmd := range s.running {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	s.away = time.Now().Add(downtime)
}

func (s *script) answered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed = true
}

// interruptsWrite kills the script in the place where it has the answer in a variable and
// nowhere else: as its write arrives, and before that is passed on.
func (s *script) interruptsWrite(credential int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	cmd := s.running[credential]
	if !s.armed || cmd == nil {
		return false
	}
	s.armed = false
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	return true
}

func (s *script) stop(*testing.T) {
	s.mu.Lock()
	select {
	case <-s.quit:
	default:
		close(s.quit)
	}
	s.mu.Unlock()
	s.all.Wait()
}

func (s *script) alarms() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}
