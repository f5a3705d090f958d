package replicas

import (
	"encoding/json"
	"errors"
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
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/test/program"
)

// binary is the daemon with failpoints, for sabotage.
var binary = program.Rotatord("failpoint")

// vaults is how many members the cluster has.
const vaults = 3

// replica is one daemon with its disk, and the ways that it has.
type replica struct {
	w    *world
	name string
	dir  string // its state and admin socket

	vaults     [vaults]link
	anyVault   link // what is slow or lossy with all of them
	cloudflare link
	vaultURL   string
	simURL     string

	vaultRequests atomic.Int64

	mu      sync.Mutex
	process *process   // nil if it does not run
	lives   []*process // all
	armed   time.Duration
}

// process is one life of a replica.
type process struct {
	replica *replica
	cmd     *exec.Cmd
	log     *program.Output
	started time.Time
	done    chan struct{}

	mu      sync.Mutex
	address string // of its API; empty before it serves
	died    time.Time
	emptied bool // its disk, after its death
	killed  bool // by SIGKILL
}

func (r *replica) current() *process {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.process
}

// last returns the life that runs, or that ran last; nil before the first.
func (r *replica) last() *process {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.lives) == 0 {
		return nil
	}
	return r.lives[len(r.lives)-1]
}

func (r *replica) all() []*process {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*process(nil), r.lives...)
}

func (r *replica) configPath() string { return filepath.Join(r.dir, "config.yaml") }
func (r *replica) stateDir() string   { return filepath.Join(r.dir, "state") }

// configure writes the configuration. All replicas have the same, but for the ways.
func (r *replica) configure() error {
	w, c := r.w, strings.Builder{}
	shared := ""
	if w.claim > 0 {
		shared = fmt.Sprintf(", shared: {vault: {mount: %s, prefix: %s}, claim: %s, replica: %s}", mount, prefix, w.claim, r.name)
	}
	fmt.Fprintf(&c, `listen: 127.0.0.1:0
admin_socket: %[1]s/admin.sock
log: {level: %[6]s}
state: {dir: %[1]s/state, identity: {file: %[2]s/identity}%[3]s}
vault: {address: %[4]s, timeout: %[5]s, auth: {approle: {role_id: {file: %[2]s/role-id}, secret_id: {file: %[2]s/secret-id}}}}
accounts:
`, r.dir, w.dir, shared, r.vaultURL, w.vaultTimeout, w.logLevel())
	for n := range w.accounts {
		fmt.Fprintf(&c, "  %[1]s: {account_id: %[2]s, api_token: {file: %[3]s/api-token-%[1]s}, base_url: %[4]s, requests_per_5m: 1200}\n", accountName(n), accountID(n), w.dir, r.simURL+cfsim.BasePath)
	}
	c.WriteString("tokens:\n")
	for _, s := range w.subjects {
		id := "id: " + s.ids[0]
		if s.pair {
			id = fmt.Sprintf("pair: [%s]", strings.Join(s.ids, ", "))
		}
		fmt.Fprintf(&c, "  %s: {account: %s, %s, schedule: %q, grace: %s, sinks: [{vault: {mount: %s, path: %s}}]}\n",
			s.name, accountName(s.account), id, s.schedule, s.grace, mount, s.path)
	}
	return os.WriteFile(r.configPath(), []byte(c.String()), 0o600)
}

// logLevel is debug where the oracle reads the log.
func (w *world) logLevel() string {
	if w.plain {
		return "info"
	}
	return "debug"
}

// start starts the replica. It must not run.
func (r *replica) start() error {
	path, err := binary()
	if err != nil {
		return err
	}
	p := &process{replica: r, cmd: exec.Command(path, "run", "--config", r.configPath()), log: &program.Output{}, started: time.Now(), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.Env = append(os.Environ(), "ROTATORD_FAILPOINTS="+r.w.failpoints)
	if err := p.cmd.Start(); err != nil {
		return err
	}
	r.mu.Lock()
	r.process, r.lives = p, append(r.lives, p)
	r.mu.Unlock()
	go func() {
		_ = p.cmd.Wait()
		p.mu.Lock()
		p.died = time.Now()
		p.mu.Unlock()
		r.mu.Lock()
		if r.process == p {
			r.process = nil
		}
		r.mu.Unlock()
		close(p.done)
	}()
	return nil
}

// kill ends the replica with SIGKILL.
func (r *replica) kill() {
	p := r.current()
	if p == nil {
		return
	}
	p.mu.Lock()
	p.killed = true
	p.mu.Unlock()
	_ = p.cmd.Process.Signal(syscall.SIGKILL)
	<-p.done
}

// empty removes all that is on the disk. The replica must not run.
func (r *replica) empty() error {
	for _, p := range r.all() {
		p.mu.Lock()
		p.emptied = true
		p.mu.Unlock()
	}
	return os.RemoveAll(r.stateDir())
}

// terminate stops the replica as systemd does.
func (r *replica) terminate() error {
	p := r.current()
	if p == nil {
		return nil
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(90 * time.Second):
		r.kill()
		return fmt.Errorf("%s did not stop within 90 s of SIGTERM", r.name)
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("%s stopped with exit code %d after SIGTERM", r.name, code)
	}
	return nil
}

// suspended stops the replica for so long.
func (r *replica) suspended(d time.Duration) {
	p := r.current()
	if p == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGSTOP)
	time.Sleep(d)
	_ = p.cmd.Process.Signal(syscall.SIGCONT)
}

// api returns the address at which the replica serves; empty if it does not.
func (r *replica) api() string {
	p := r.current()
	if p == nil {
		return ""
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.address == "" {
		for line := range strings.Lines(p.log.String()) {
			var l struct{ Msg, Address string }
			if strings.Contains(line, "rotatord is running") && json.Unmarshal([]byte(line), &l) == nil {
				p.address = l.Address
			}
		}
	}
	return p.address
}

// shown is what the test reads of a replica's view of a token.
type shown struct {
	Name        string    `json:"name"`
	State       string    `json:"state"`
	TokenID     string    `json:"token_id"`
	Next        time.Time `json:"next"`
	LastSuccess time.Time `json:"last_success"`
	LastError   string    `json:"last_error"`
	Failures    int       `json:"consecutive_failures"`
	ReissueOwed time.Time `json:"reissue_owed_since"`
	Pause       *struct{} `json:"pause"`
}

var client = &http.Client{Timeout: 5 * time.Second}

// get asks the API of the replica.
func (r *replica) get(path string, into any) error {
	address := r.api()
	if address == "" {
		return errors.New(r.name + " does not serve")
	}
	response, err := client.Get("http://" + address + path)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %d: %s", r.name, response.StatusCode, b)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(b, into)
}

func (r *replica) tokens() (all []shown, err error) {
	err = r.get("/api/v1/tokens", &all)
	return all, err
}

// ready reports whether the replica is ready.
func (r *replica) ready() bool { return r.get("/readyz", nil) == nil }

// command runs the program with the socket of the replica.
func (r *replica) command(args ...string) (string, error) {
	path, err := binary()
	if err != nil {
		return "", err
	}
	out, err := exec.Command(path, append(args, "--config", r.configPath())...).CombinedOutput()
	return string(out), err
}
