package leader

import (
	"encoding/json"
	"fmt"
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
	"rotatord/internal/statedir"
	"rotatord/test/program"
	"rotatord/test/realvault"
)

// binary is the daemon with failpoints, for sabotage.
var binary = program.Rotatord("failpoint")

const (
	mount  = "secret"
	token  = "token"
	canary = "kept"
	// patience is how long a round may take to come to rest. A new leader is there after two seconds.
	patience = 90 * time.Second
	grace    = time.Minute
)

// world is one daemon, its Cloudflare, its balancer, and a secret in a cluster that outlives it.
type world struct {
	t        *testing.T
	cluster  *realvault.Cluster
	plan     plan
	dir      string
	path     string
	sim      *cfsim.Simulator
	id       string
	balancer *balancer
	log      program.Output
	done     chan struct{}
	daemon   *exec.Cmd

	mu       sync.Mutex
	struck   time.Time // zero: not yet
	returned chan struct{}
	looks    int
	refused  []string
	rested   time.Duration // from the strike to rest
}

// newWorld makes a token that is due, and starts nothing.
func newWorld(t *testing.T, c *realvault.Cluster, p plan, path string) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "leader-") // short, for the path of the socket
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, cluster: c, plan: p, dir: dir, path: "access/" + path, returned: make(chan struct{}), sim: cfsim.New(cfsim.Options{RateLimit: -1})}
	made, value, err := w.sim.Create(cfsim.CreateParams{Name: token})
	if err != nil {
		t.Fatal(err)
	}
	w.id = made.ID
	root := c.Leader(t).Root(t)
	if _, err := root.Logical().Write(mount+"/data/"+w.path, map[string]any{
		"data": map[string]any{"client_id": made.ClientID, "client_secret": value.Reveal(), "canary": canary}, "options": map[string]any{"cas": 0},
	}); err != nil {
		t.Fatal(err)
	}
	w.balancer = &balancer{members: c.Members, down: map[*realvault.Vault]bool{}, reach: w.reach, again: p.sabotage == repeating}
	if p.sticky {
		w.balancer.sticky = c.Leader(t)
	}
	return w
}

// reach strikes the leader at the point of the round, once.
func (w *world) reach(point string) (lost bool) {
	w.mu.Lock()
	strike := point == w.plan.point && w.struck.IsZero()
	if strike {
		w.struck = time.Now()
	}
	w.mu.Unlock()
	if !strike {
		return false
	}
	leader := w.cluster.Leader(w.t)
	if strings.HasPrefix(point, renewal) {
		w.sessions(time.Hour) // no rotation starts on a session that ends soon, and this one is to be good for one
	}
	if point == "write.under way" {
		time.Sleep(w.plan.delay)
	}
	back := func() {}
	switch w.plan.manner {
	case killed, stopped:
		if w.plan.manner == stopped {
			leader.Stop()
		} else {
			leader.Kill()
		}
		w.balancer.setDown(leader, true)
		back = func() {
			leader.Resume(w.t)
			w.balancer.setDown(leader, false)
		}
	case paused:
		leader.Pause()
		back = leader.Continue
	case steppedDown:
		if err := leader.Root(w.t).Sys().StepDown(); err != nil {
			w.t.Error(err)
		}
	}
	time.AfterFunc(w.plan.away, func() { defer close(w.returned); back() })
	return w.plan.manner != steppedDown && strings.HasSuffix(point, ".answered")
}

// prepare writes the state and the configuration of the daemon. A renewal is awaited before the slot is due.
func (w *world) prepare(simURL, vaultURL, roleID, secretID string) {
	w.t.Helper()
	due := time.Duration(0)
	if strings.HasPrefix(w.plan.point, renewal) {
		due = 8 * time.Second
		w.sessions(6 * time.Second)
	}
	for name, content := range map[string]string{"role-id": roleID, "secret-id": secretID, "api-token": "leader"} {
		w.must(os.WriteFile(filepath.Join(w.dir, name), []byte(content), 0o600))
	}
	state, err := statedir.Open(statedir.Options{Dir: filepath.Join(w.dir, "state")})
	w.must(err)
	_, err = state.Ledger.Save(w.t.Context(), rotation.Record{
		Format: rotation.RecordFormat, Token: token, TokenID: w.id, Account: "prod", Anchor: time.Now().UTC().Add(due - time.Hour), MovedCount: 1,
	})
	w.must(err)
	w.must(state.Close())
	w.must(os.WriteFile(w.config(), fmt.Appendf(nil, `listen: 127.0.0.1:0
admin_socket: %[1]s/admin.sock
log: {level: debug}
state: {dir: %[1]s/state}
accounts: {prod: {account_id: %[2]s, api_token: {file: %[1]s/api-token}, base_url: %[3]s, requests_per_5m: 1200}}
vault:
  address: %[4]s
  nodes: [%[5]s]
  timeout: 2s
  auth: {approle: {role_id: {file: %[1]s/role-id}, secret_id: {file: %[1]s/secret-id}}}
tokens:
  %[6]s: {account: prod, id: %[7]s, schedule: "@every 1h", grace: %[8]s, sinks: [{vault: {mount: %[9]s, path: %[10]s}}]}
`, w.dir, cfsim.DefaultAccountID, simURL+cfsim.BasePath, vaultURL, strings.Join(w.cluster.Addresses(), ", "), token, w.id, grace, mount, w.path), 0o600))
}

// sessions sets how long those are that begin, or are renewed, from now on.
func (w *world) sessions(ttl time.Duration) {
	role := map[string]any{"token_policies": "rotatord", "token_no_default_policy": true, "token_ttl": ttl.String(), "token_max_ttl": "2h"}
	if _, err := w.cluster.Leader(w.t).Root(w.t).Logical().Write("auth/approle/role/rotatord", role); err != nil {
		w.t.Error(err)
	}
}

func (w *world) config() string { return filepath.Join(w.dir, "config.yaml") }

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// serveSim is Cloudflare, with the points before and after it answers a rotate request.
func (w *world) serveSim(rw http.ResponseWriter, r *http.Request) {
	rotates := strings.HasSuffix(r.URL.Path, "/rotate")
	if rotates {
		w.reach("rotate.arrives")
	}
	answer := httptest.NewRecorder()
	w.sim.ServeHTTP(answer, r)
	if rotates {
		w.reach("rotate.answered") // Cloudflare's answer is never lost here
	}
	for name, values := range answer.Header() {
		rw.Header()[name] = values
	}
	rw.WriteHeader(answer.Code)
	_, _ = rw.Write(answer.Body.Bytes())
}

func (w *world) start() {
	w.t.Helper()
	path, err := binary()
	w.must(err)
	w.daemon, w.done = exec.Command(path, "run", "--config", w.config()), make(chan struct{})
	w.daemon.Stdout, w.daemon.Stderr = &w.log, &w.log
	w.daemon.Env = os.Environ()
	if w.plan.sabotage == trusting {
		w.daemon.Env = append(w.daemon.Env, "ROTATORD_FAILPOINTS=read_back=off")
	}
	w.must(w.daemon.Start())
	go func() { _ = w.daemon.Wait(); close(w.done) }()
}

// play runs one round and returns what is wrong.
func (w *world) play(roleID, secretID string) (wrong []string) {
	quiet := slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	sim, vault := httptest.NewUnstartedServer(http.HandlerFunc(w.serveSim)), httptest.NewUnstartedServer(w.balancer)
	for _, server := range []*httptest.Server{sim, vault} {
		server.Config.ErrorLog = quiet
		server.Start()
		defer server.Close()
		defer server.CloseClientConnections()
	}
	w.prepare(sim.URL, vault.URL, roleID, secretID)
	stop := w.consume()
	w.start()
	defer func() { _ = w.daemon.Process.Kill(); <-w.done }()
	if !w.rests(1) {
		wrong = append(wrong, "it did not come to rest after the strike")
	}
	w.mu.Lock()
	struck := !w.struck.IsZero()
	w.rested = time.Since(w.struck)
	w.mu.Unlock()
	if struck {
		<-w.returned
	} else {
		wrong = append(wrong, "the point was not reached")
	}
	w.cluster.Heal(w.t)
	if len(wrong) == 0 {
		wrong = append(wrong, w.order()...)
	}
	_ = w.daemon.Process.Signal(syscall.SIGTERM)
	select {
	case <-w.done:
		if code := w.daemon.ProcessState.ExitCode(); code != 0 {
			wrong = append(wrong, fmt.Sprintf("exit code %d", code))
		}
	case <-time.After(patience):
		wrong = append(wrong, "it did not stop")
	}
	stop()
	w.balancer.calls.Wait()
	return append(wrong, w.violations()...)
}

// order rotates again, as an operator does.
func (w *world) order() (wrong []string) {
	path, err := binary()
	w.must(err)
	if out, err := exec.Command(path, "rotate", token, "--override-grace", "--config", w.config()).CombinedOutput(); err != nil {
		return []string{fmt.Sprintf("the order was refused: %v\n%s", err, out)}
	}
	if !w.rests(2) {
		return []string{"it did not come to rest after the order"}
	}
	return nil
}

// rests waits until so many rotations are finished, and the token is idle.
func (w *world) rests(rotations int) bool {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		finished := 0
		address := ""
		for line := range strings.Lines(w.log.String()) {
			var l struct{ Msg, Address string }
			_ = json.Unmarshal([]byte(line), &l)
			switch l.Msg {
			case "rotated":
				finished++
			case "rotatord is running":
				address = l.Address
			}
		}
		if finished >= rotations && idle(address) {
			return true
		}
	}
	return false
}

func idle(address string) bool {
	response, err := http.Get("http://" + address + "/api/v1/tokens")
	if err != nil {
		return false
	}
	defer response.Body.Close()
	var all []struct{ State string }
	return json.NewDecoder(response.Body).Decode(&all) == nil && len(all) == 1 && all[0].State == "idle"
}

// consume is a client of the application: until stop is called it presents what Vault holds.
func (w *world) consume() (stop func()) {
	ended := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for n := 0; ; n++ {
			id, value, ok := w.stored(w.cluster.Members[n%len(w.cluster.Members)])
			if ok && !program.Accepts(w.sim, id, value) {
				w.mu.Lock()
				w.refused = append(w.refused, time.Now().Format(time.TimeOnly))
				w.mu.Unlock()
			}
			w.mu.Lock()
			if ok {
				w.looks++
			}
			w.mu.Unlock()
			select {
			case <-ended:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	return func() { close(ended); all.Wait() }
}

// stored reads through one member, which may be away: then the consumer goes on with what it has.
func (w *world) stored(v *realvault.Vault) (clientID, value string, ok bool) {
	client, err := v.Root(w.t).Clone()
	if err != nil {
		return "", "", false
	}
	client.SetClientTimeout(time.Second)
	client.SetMaxRetries(0)
	client.SetToken(v.RootToken)
	s, err := client.Logical().Read(mount + "/data/" + w.path)
	if err != nil || s == nil {
		return "", "", false
	}
	data, _ := s.Data["data"].(map[string]any)
	clientID, _ = data["client_id"].(string)
	value, ok = data["client_secret"].(string)
	return clientID, value, ok
}
