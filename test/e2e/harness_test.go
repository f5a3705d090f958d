// Package e2e runs the built binary as a process, against a real Vault and the simulator,
// each a process of its own, and looks at them from outside only.
package e2e

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"rotatord/internal/secret"
	"rotatord/test/program"
	"rotatord/test/realvault"
)

const (
	accountID = "023e105f4ecef8ad9ca31a8372d0c353"
	apiToken  = "e2e-api-token"
)

// binary is built once.
var binary = program.Rotatord()

// process is a running program whose output is kept.
type process struct {
	cmd  *exec.Cmd
	out  program.Output
	errs program.Output
	done chan struct{}
}

func start(t *testing.T, args ...string) *process { return startWith(t, nil, args...) }

// startWith starts the binary with more in its environment.
func startWith(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(path, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Env = &p.out, &p.errs, append(os.Environ(), env...)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	t.Cleanup(func() { p.kill(); <-p.done })
	return p
}

func (p *process) kill() { _ = p.cmd.Process.Signal(syscall.SIGKILL) }

// terminate sends SIGTERM and returns the exit code.
func (p *process) terminate(t *testing.T) int {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.done:
	case <-time.After(program.Patience):
		t.Fatalf("did not stop within 2 min of SIGTERM; its log ends with\n%s", program.Tail(p.errs.String()))
	}
	return p.cmd.ProcessState.ExitCode()
}

// world is a Vault, a simulator, and a configuration for both.
type world struct {
	vault  *realvault.Vault
	sim    string // its address
	dir    string
	config string
	names  []string
}

// options of a world.
type options struct {
	tokens   int
	schedule string
	grace    time.Duration
	limit    int // Cloudflare's, in five minutes; 0 for the one that it documents, -1 for none
}

// mount is a secret engine that insists on check-and-set.
const mount = "secret"

func newWorld(t *testing.T, o options) *world {
	t.Helper()
	w := &world{vault: realvault.Start(t), dir: t.TempDir()}
	w.vault.MountKV(t, mount, 2, true)
	roleID, secretID := w.vault.AppRole(t, realvault.LeastPolicy(t), "1m", "1h")

	sim := start(t, "sim", "--listen", "127.0.0.1:0", "--seed-tokens", fmt.Sprint(o.tokens), "--api-token", apiToken,
		"--rate-limit", fmt.Sprint(cmp.Or(o.limit, 1200)))
	base := regexp.MustCompile(`base_url:\s+(http://[0-9.:]+)/client/v4`)
	program.Eventually(t, 10*time.Second, "the simulator's address", func() bool {
		if m := base.FindStringSubmatch(sim.out.String()); m != nil {
			w.sim = m[1]
		}
		return w.sim != ""
	})
	for name, content := range map[string]string{"role-id": roleID, "secret-id": secretID, "api-token": apiToken} {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(content+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var c strings.Builder
	fmt.Fprintf(&c, `listen: 127.0.0.1:0
log: {level: debug}
state: {dir: %[1]s/state}
accounts:
  prod:
    account_id: %[2]s
    api_token: {file: %[1]s/api-token}
    base_url: %[3]s/client/v4
    requests_per_5m: 1200
vault:
  address: %[4]s
  auth: {approle: {role_id: {file: %[1]s/role-id}, secret_id: {file: %[1]s/secret-id}}}
defaults: {account: prod, schedule: "%[5]s", grace: %[6]s}
tokens:
`, w.dir, accountID, w.sim, w.vault.Address, o.schedule, o.grace)
	for i := range o.tokens {
		name := fmt.Sprintf("token-%02d", i+1)
		w.names = append(w.names, name)
		fmt.Fprintf(&c, "  %s: {id: %s, sinks: [{vault: {mount: %s, path: access/%s}}]}\n", name, w.tokenID(name), mount, name)
	}
	w.config = filepath.Join(w.dir, "config.yaml")
	if err := os.WriteFile(w.config, []byte(c.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

// tokenID is the simulator's ID of a token: they are numbered.
func (w *world) tokenID(name string) string {
	return "5eed0000-0000-4000-8000-0000000000" + strings.TrimPrefix(name, "token-")
}

// daemon is a running rotatord.
type daemon struct {
	*process
	url string
}

func (w *world) run(t *testing.T, env ...string) *daemon {
	t.Helper()
	d := &daemon{process: startWith(t, env, "run", "--config", w.config)}
	program.Eventually(t, 20*time.Second, "the daemon's address", func() bool {
		for _, l := range d.log(t) {
			if l.Msg == "rotatord is running" {
				d.url = "http://" + l.Address
			}
		}
		select {
		case <-d.done:
			t.Fatalf("the daemon ended:\n%s", d.errs.String())
		default:
		}
		return d.url != ""
	})
	program.Eventually(t, 20*time.Second, "readiness", func() bool { return d.status(t, "/readyz") == http.StatusOK })
	return d
}

// logLine is what the tests read from a log line.
type logLine struct {
	Time       time.Time `json:"time"`
	Level      string    `json:"level"`
	Msg        string    `json:"msg"`
	Address    string    `json:"address"`
	Token      string    `json:"token"`
	RotationID string    `json:"rotation_id"`
	Slot       time.Time `json:"slot"`
	Error      any       `json:"error"`
}

// log returns the lines so far. Every one must be JSON.
func (d *daemon) log(t *testing.T) []logLine {
	t.Helper()
	var lines []logLine
	scanner := bufio.NewScanner(strings.NewReader(d.errs.String()))
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		var l logLine
		if err := json.Unmarshal(scanner.Bytes(), &l); err != nil {
			t.Errorf("a log line is not JSON: %q", scanner.Text())
		}
		lines = append(lines, l)
	}
	return lines
}

func (d *daemon) status(t *testing.T, path string) int {
	t.Helper()
	res, err := http.Get(d.url + path)
	if err != nil {
		return 0
	}
	_ = res.Body.Close()
	return res.StatusCode
}

func get(t *testing.T, url string) string {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// metric is the value of one series, with the labels as the exposition has them; 0 if it
// is absent.
func metric(exposition, series string) (v float64) {
	for line := range strings.Lines(exposition) {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			_, _ = fmt.Sscan(rest, &v)
		}
	}
	return v
}

// sumMetric adds up all series that match.
func sumMetric(exposition, pattern string) (sum float64) {
	re := regexp.MustCompile(`(?m)^` + pattern + ` (\S+)$`)
	for _, m := range re.FindAllStringSubmatch(exposition, -1) {
		var v float64
		_, _ = fmt.Sscan(m[len(m)-1], &v)
		sum += v
	}
	return sum
}

// stats are the simulator's.
type stats struct {
	Requests  map[string]map[string]int `json:"requests"`
	Rotations map[string]int            `json:"rotations"`
	App       map[string]int            `json:"app"`
}

func (s stats) requests(operation string) (n int) {
	for _, count := range s.Requests[operation] {
		n += count
	}
	return n
}

func (s stats) rotations() (n int) {
	for _, count := range s.Rotations {
		n += count
	}
	return n
}

func (w *world) stats(t *testing.T) (s stats) {
	t.Helper()
	if err := json.Unmarshal([]byte(get(t, w.sim+"/_sim/stats")), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// inject arms a fault of the simulator.
func (w *world) inject(t *testing.T, fault string) {
	t.Helper()
	res, err := http.Post(w.sim+"/_sim/faults", "application/json", strings.NewReader(fault))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if res.StatusCode > 299 {
		t.Fatalf("injecting %s: %d %s", fault, res.StatusCode, b)
	}
}

// stored returns the credential that Vault holds for a token, false if none.
func (w *world) stored(t *testing.T, name string) (clientID, clientSecret string, ok bool) {
	t.Helper()
	s, err := w.vault.Root(t).Logical().Read(mount + "/data/access/" + name)
	if err != nil || s == nil {
		return "", "", false
	}
	data, _ := s.Data["data"].(map[string]any)
	clientID, _ = data["client_id"].(string)
	clientSecret, ok = data["client_secret"].(string)
	return clientID, clientSecret, ok
}

// call presents a credential to the application, and returns its status.
func (w *world) call(t *testing.T, name, clientID, clientSecret string) int {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, w.sim+"/app/"+w.tokenID(name), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("CF-Access-Client-Id", clientID)
	req.Header.Set("CF-Access-Client-Secret", clientSecret)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return 0
	}
	_, _ = io.Copy(io.Discard, res.Body) // so that the connection is used again
	_ = res.Body.Close()
	return res.StatusCode
}

// agree checks that Vault holds, for every token, the secret that Cloudflare has as the
// current one.
func (w *world) agree(t *testing.T) {
	t.Helper()
	var tokens []struct {
		ID            string        `json:"id"`
		CurrentDigest secret.Digest `json:"current_digest"`
	}
	if err := json.Unmarshal([]byte(get(t, w.sim+"/_sim/tokens")), &tokens); err != nil {
		t.Fatal(err)
	}
	truth := map[string]secret.Digest{}
	for _, token := range tokens {
		truth[token.ID] = token.CurrentDigest
	}
	for _, name := range w.names {
		_, value, ok := w.stored(t, name)
		if got := secret.New(value).Digest(); !ok || got == "" || got != truth[w.tokenID(name)] {
			t.Errorf("%s: Vault holds %s, Cloudflare %s", name, got, truth[w.tokenID(name)])
		}
	}
}
