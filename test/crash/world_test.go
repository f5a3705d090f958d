package crash

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/statedir"
	"rotatord/test/program"
)

// binary is the daemon with failpoints, built once.
var binary = program.Rotatord("failpoint")

// subject is one token of the configuration.
type subject struct {
	entry
	name string   // also of a created service token, or the start of its name
	ids  []string // one service token, the two of a pair, or none at the start
	path string
}

// request is one request for a secret as Cloudflare saw it, with its own state before and after.
type request struct {
	at            time.Time
	tokenID       string
	creates       bool // it is a create and not a rotate
	before, after cfsim.Token
	issued        secret.Digest // by this request
	answered      bool          // the new secret was written to the wire whole
}

func (r request) carriedOut() bool { return r.creates || r.after.Rotations > r.before.Rotations }

// refusal is a moment at which the application refused what Vault held.
type refusal struct {
	at    time.Time
	token string
	grace time.Duration
}

// world is one daemon with its Cloudflare and its part of Vault.
type world struct {
	t        *testing.T
	server   *server
	dir      string
	sim      *cfsim.Simulator
	simURL   string
	proxy    *proxy
	proxyURL string
	subjects []subject
	logs     []*program.Output // of each incarnation
	lives    []*process
	excused  []string // refusals that were due to the machine
	close    func()

	mu       sync.Mutex
	requests []request
	deletes  []deletion
	accepts  map[secret.Digest]bool // new secrets that the application was tried with, and accepted
	refusing time.Time              // until when it refuses those that are tried
	onRotate func()                 // runs when a request for a secret arrives
	refusals []refusal
	runs     []refusalRun // of refusals
	polls    int

	refusedSince map[string]time.Time // by token
	longestRun   time.Duration        // of refusals after a single lost answer
	wrong        []string             // what a round has found before the oracle is asked
}

// every is the schedule of all tokens.
const every = 4 * time.Second

func newWorld(t *testing.T, s *server, name string, plan plan) *world {
	t.Helper()
	w := &world{t: t, server: s, dir: t.TempDir(), accepts: map[secret.Digest]bool{}, refusedSince: map[string]time.Time{}}
	w.sim = cfsim.New(cfsim.Options{RateLimit: -1, Behaviour: cfsim.Behaviour{FrozenUpdatedAt: plan.frozen}})
	for i, e := range plan.tokens {
		w.subjects = append(w.subjects, w.subject(e, fmt.Sprintf("token-%d", i), name))
	}
	sim := httptest.NewUnstartedServer(http.HandlerFunc(w.serveSim))
	w.proxy = newProxy(s.Address)
	w.proxy.human = w.humanWrite
	vault := httptest.NewUnstartedServer(w.proxy)
	for _, server := range []*httptest.Server{sim, vault} {
		server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		server.Start()
	}
	w.simURL, w.proxyURL = sim.URL, vault.URL
	w.close = func() {
		sim.CloseClientConnections()
		sim.Close()
		vault.CloseClientConnections()
		vault.Close()
	}
	w.prepare(plan)
	return w
}

// prepare stores what consumers use to start with, and a ledger by which a slot is due.
func (w *world) prepare(plan plan) {
	w.t.Helper()
	for file, content := range map[string]string{"role-id": w.server.roleID, "secret-id": w.server.secretID, "api-token": "crash"} {
		if err := os.WriteFile(filepath.Join(w.dir, file), []byte(content), 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	j, err := statedir.Open(statedir.Options{Dir: filepath.Join(w.dir, "state")})
	if err != nil {
		w.t.Fatal(err)
	}
	var c strings.Builder
	fmt.Fprintf(&c, `listen: 127.0.0.1:0
log: {level: debug}
state: {dir: %[1]s/state}
accounts:
  prod: {account_id: %[2]s, api_token: {file: %[1]s/api-token}, base_url: %[3]s, requests_per_5m: 1200}
  edge: {zone_id: %[6]s, api_token: {file: %[1]s/api-token}, base_url: %[3]s, requests_per_5m: 1200}
vault: {address: %[4]s, timeout: 1s, auth: {approle: {role_id: {file: %[1]s/role-id}, secret_id: {file: %[1]s/secret-id}}}}
defaults: {account: prod, schedule: "@every %[5]s", renew_before: 24h}
tokens:
`, w.dir, cfsim.DefaultAccountID, w.simURL+cfsim.BasePath, w.proxyURL, every, zoneID)
	for _, s := range w.subjects {
		fmt.Fprintf(&c, "  %s: {%s, grace: %s, sinks: [{vault: {mount: %s, path: %s}}]}\n", s.name, w.which(s), s.grace, mount, s.path)
		if s.kind.absent() {
			continue
		}
		token, _ := w.sim.Token(s.ids[0])
		w.write(s.path, map[string]any{"client_id": token.ClientID, "client_secret": w.current(s.ids[0]), "canary": canary})
		record := rotation.Record{
			Format: rotation.RecordFormat, Token: s.name, TokenID: s.ids[0], Account: s.account(),
			Anchor: time.Now().UTC().Add(-every), MovedCount: plan.moved,
		}
		if _, err := j.Ledger.Save(w.t.Context(), record); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(w.config(), []byte(c.String()), 0o600); err != nil {
		w.t.Fatal(err)
	}
	if plan.sabotage.between != nil {
		w.copyState("state", "state.before")
	}
}

// canary is what another program keeps beside the credential.
const canary = "kept"

func (w *world) config() string { return filepath.Join(w.dir, "config.yaml") }

func (w *world) current(id string) string {
	all := w.sim.Secrets(id)
	return all[len(all)-1].Value.Reveal()
}

// write puts a new version into Vault, as root.
func (w *world) write(path string, data map[string]any) {
	root := w.server.Root(w.t)
	for range 20 {
		cas := 0
		if s, err := root.Logical().Read(mount + "/data/" + path); err == nil && s != nil {
			metadata, _ := s.Data["metadata"].(map[string]any)
			_, _ = fmt.Sscan(fmt.Sprint(metadata["version"]), &cas)
		}
		if _, err := root.Logical().Write(mount+"/data/"+path, map[string]any{"data": data, "options": map[string]any{"cas": cas}}); err == nil {
			return
		}
	}
	w.t.Errorf("%s could not be written", path)
}

// humanWrite changes a field that is not ours, at the worst moment.
func (w *world) humanWrite(apiPath string) {
	path := strings.TrimPrefix(apiPath, mount+"/data/")
	s, err := w.server.Root(w.t).Logical().Read(mount + "/data/" + path)
	if err != nil || s == nil {
		return
	}
	data, _ := s.Data["data"].(map[string]any)
	data["human"] = fmt.Sprint(time.Now().UnixNano())
	w.write(path, data)
}

// process is one incarnation of the daemon.
type process struct {
	cmd  *exec.Cmd
	log  *program.Output
	done chan struct{}
	died time.Time // once done is closed
}

func (w *world) start(failpoints string) *process {
	w.t.Helper()
	path, err := binary()
	if err != nil {
		w.t.Fatal(err)
	}
	p := &process{cmd: exec.Command(path, "run", "--config", w.config()), log: &program.Output{}, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.Env = append(os.Environ(), "ROTATORD_FAILPOINTS="+failpoints)
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.logs, w.lives = append(w.logs, p.log), append(w.lives, p)
	go func() {
		_ = p.cmd.Wait()
		p.died = time.Now()
		close(p.done)
	}()
	return p
}

// dies waits for the process to end by itself, and reports whether it did.
func (p *process) dies(within time.Duration) bool {
	select {
	case <-p.done:
		return true
	case <-time.After(within):
		return false
	}
}

// fate says how the process ended, and "" if it was by a SIGKILL, as all but the last are to.
func (p *process) fate() string {
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGKILL {
		return ""
	}
	return "the daemon ended by itself: " + p.cmd.ProcessState.String()
}

func (p *process) kill() {
	_ = p.cmd.Process.Signal(syscall.SIGKILL)
	<-p.done
}

// terminate stops the daemon as systemd does.
func (p *process) terminate() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	if !p.dies(40 * time.Second) {
		p.kill()
		return fmt.Errorf("it did not stop within 40 s of SIGTERM")
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("exit code %d", code)
	}
	return nil
}

// tokenStatus is what the tests read of the daemon's own view.
type tokenStatus struct {
	Name        string    `json:"name"`
	State       string    `json:"state"`
	LastSuccess time.Time `json:"last_success"`
	LastError   string    `json:"last_error"`
	Replaced    int       `json:"replaced"`
	Hooks       []struct {
		State string `json:"state"`
	} `json:"hooks"`
}

// status asks a running daemon; nil if it cannot be asked.
func (p *process) status() []tokenStatus {
	address := ""
	for line := range strings.Lines(p.log.String()) {
		var l struct{ Msg, Address string }
		if json.Unmarshal([]byte(line), &l) == nil && l.Msg == "rotatord is running" {
			address = l.Address
		}
	}
	if address == "" {
		return nil
	}
	res, err := http.Get("http://" + address + "/api/v1/tokens")
	if err != nil {
		return nil
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	var all []tokenStatus
	if err != nil || json.Unmarshal(b, &all) != nil {
		return nil
	}
	return all
}

// atRest waits until every token was rotated with success after the start of this process, and
// was once without service tokens that are to be deleted. It
// returns what the others are at if that takes too long.
func (p *process) atRest(since time.Time, within time.Duration) string {
	var waiting string
	tidy := map[string]bool{}
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		all := p.status()
		waiting = ""
		if len(all) == 0 {
			waiting = "the daemon does not answer"
		}
		for _, s := range all {
			rotated := s.State == "idle" && s.LastSuccess.After(since)
			tidy[s.Name] = tidy[s.Name] || rotated && s.Replaced == 0
			if !rotated || !tidy[s.Name] {
				waiting += fmt.Sprintf("%s: %s, last success %s, %d replaced, %s; ", s.Name, s.State, s.LastSuccess.Format(time.TimeOnly), s.Replaced, s.LastError)
			}
		}
		if waiting == "" {
			return ""
		}
	}
	return waiting
}

// poll is a consumer: until stop is called it presents what Vault holds to the application.
func (w *world) poll() (stop func()) {
	ended := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for {
			for _, s := range w.subjects {
				w.consume(s)
			}
			select {
			case <-ended:
				return
			case <-time.After(200 * time.Millisecond):
			}
		}
	})
	return func() {
		close(ended)
		all.Wait()
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, s := range w.subjects { // what is refused to the last
			w.noteRun(s.name, true, time.Now())
		}
	}
}

func (w *world) consume(s subject) {
	id, value, ok := w.stored(s)
	if !ok {
		return // Vault cannot be read: a consumer continues with what it has
	}
	accepted := program.Accepts(w.sim, id, value)
	if !accepted { // it may have been replaced between the two
		if nowID, now, ok := w.stored(s); ok && (nowID != id || now != value) {
			accepted = program.Accepts(w.sim, nowID, now)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.polls++
	w.noteRun(s.name, accepted, time.Now())
	if !accepted {
		w.refusals = append(w.refusals, refusal{time.Now(), s.name, s.grace})
	}
}

func (w *world) stored(s subject) (clientID, value string, ok bool) {
	stored, err := w.server.Root(w.t).Logical().Read(mount + "/data/" + s.path)
	if err != nil || stored == nil {
		return "", "", false
	}
	data, _ := stored.Data["data"].(map[string]any)
	clientID, _ = data["client_id"].(string)
	value, ok = data["client_secret"].(string)
	return clientID, value, ok
}

func digest(value string) secret.Digest { return secret.New(value).Digest() }
