package alerts

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"rotatord/internal/durable/disktest"
	"rotatord/test/program"
	"rotatord/test/realvault"
)

const (
	accountID = "023e105f4ecef8ad9ca31a8372d0c353"
	apiToken  = "alerts-api-token"
	tokenID   = "5eed0000-0000-4000-8000-000000000001"
	mount     = "secret"
)

// built is the binary of this tree.
var built = program.Rotatord()

// tool finds a program that scripts/install-tools.sh provides.
func tool(t *testing.T, name string) string {
	t.Helper()
	if local, err := filepath.Abs(filepath.Join("../../.tools/bin", name)); err == nil {
		if _, err := os.Stat(local); err == nil {
			return local
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is not installed: run scripts/install-tools.sh", name)
	}
	return path
}

// process is a running program whose output is kept.
type process struct {
	cmd   *exec.Cmd
	clock *ownClock // nil: that of the machine
	done  chan struct{}
	out   program.Output
}

func launch(path string, args ...string) (*process, error) { return launchWith(path, false, args...) }

// launchWith starts a program, with a clock of its own or with that of the machine.
func launchWith(path string, clock bool, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(path, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	var err error
	if clock {
		p.clock, err = startWithClock(p.cmd)
	} else {
		err = p.cmd.Start()
	}
	if err != nil {
		return nil, err
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	return p, nil
}

// end sends a signal and waits until the process is gone.
func (p *process) end(signal os.Signal) {
	_ = p.cmd.Process.Signal(signal)
	<-p.done
}

// site is one scenario's daemon with all that it needs.
type site struct {
	scenario
	program string
	dir     string
	config  string
	listen  string   // of the daemon
	others  []string // more addresses in the same job
	simURL  string
	disk    *disktest.Disk
	vault   *realvault.Vault
	sim     *process
	daemon  *process
	secret  string // the secret_id

	watch watch
}

// state is the state directory.
func (s *site) state() string {
	if s.disk != nil {
		return filepath.Join(s.disk.Dir, "state")
	}
	return filepath.Join(s.dir, "state")
}

// newSite makes the surroundings of a daemon. Where the scenario leaves Vault alone it shares one.
func newSite(t *testing.T, path string, sc scenario, shared *realvault.Vault) *site {
	t.Helper()
	s := &site{scenario: sc, program: path, dir: t.TempDir(), listen: freeAddress(t), vault: shared}
	if sc.disk != "" {
		s.disk = disktest.New(t, sc.disk, 16<<10)
	}
	if sc.ownVault {
		s.vault = realvault.Start(t)
		s.vault.MountKV(t, mount, 2, true)
	}
	roleID, secretID := s.vault.AppRole(t, realvault.LeastPolicy(t), "1h", "24h")
	s.secret = secretID
	root := s.vault.Root(t).Logical()
	// As deploy/vault/README.md has it.
	role := map[string]any{"token_policies": "rotatord", "token_no_default_policy": true, "token_period": "1h", "token_ttl": 0, "token_max_ttl": 0}
	if _, err := root.Write("auth/approle/role/rotatord", role); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"role-id": roleID, "secret-id": secretID, "api-token": apiToken} {
		s.write(t, name, content)
	}
	var err error
	if s.sim, err = launch(path, "sim", "--listen", "127.0.0.1:0", "--seed-tokens", "1", "--api-token", apiToken); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.sim.end(syscall.SIGKILL) })
	base := regexp.MustCompile(`base_url:\s+(http://[0-9.:]+)/client/v4`)
	program.Eventually(t, 0, "the simulator's address", func() bool {
		if m := base.FindStringSubmatch(s.sim.out.String()); m != nil {
			s.simURL = m[1]
		}
		return s.simURL != ""
	})
	s.config = s.write(t, "config.yaml", s.yaml())
	return s
}

func (s *site) yaml() string {
	schedule, grace := "@every 720h", "24h"
	if s.schedule != "" {
		schedule, grace = s.schedule, "1h"
	}
	return fmt.Sprintf(`listen: %[1]s
admin_socket: %[2]s/run/admin.sock
state: {dir: %[3]s}
accounts:
  %[4]s:
    account_id: %[5]s
    api_token: {file: %[2]s/api-token}
    base_url: %[6]s/client/v4
vault:
  address: %[7]s
  auth: {approle: {role_id: {file: %[2]s/role-id}, secret_id: {file: %[2]s/secret-id}}}
defaults: {account: %[4]s, schedule: "%[10]s", grace: %[11]s}
tokens:
  %[4]s: {id: %[8]s, sinks: [{vault: {mount: %[9]s, path: access/%[4]s}}]}
`, s.listen, s.dir, s.state(), s.name, accountID, s.simURL, s.vault.Address, tokenID, mount, schedule, grace)
}

func (s *site) write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(content+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// start starts the daemon and waits until it is ready.
func (s *site) start(t *testing.T) {
	t.Helper()
	s.launch(t)
	t.Cleanup(func() {
		s.daemon.end(syscall.SIGKILL)
		if *logs != "" {
			_ = os.WriteFile(filepath.Join(*logs, s.name+".log"), []byte(s.daemon.out.String()), 0o600)
		}
	})
	program.Eventually(t, 0, "readiness of "+s.name, func() bool { return ready(s.listen) })
}

func ready(listen string) bool {
	code, _ := get("http://" + listen + "/readyz")
	return code == http.StatusOK
}

func (s *site) launch(t *testing.T) {
	t.Helper()
	var err error
	if s.daemon, err = launch(s.program, "run", "--config", s.config); err != nil {
		t.Fatal(err)
	}
}

// supervise starts the daemon again whenever it has ended, as systemd does.
func (s *site) supervise(ctx context.Context, t *testing.T) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.daemon.done:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(5 * time.Second):
			s.launch(t)
		}
	}
}

// rotatord runs one of the commands that talk to the daemon.
func (s *site) rotatord(args ...string) string { return s.rotatordWith(s.config, args...) }

func (s *site) rotatordWith(config string, args ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, s.program, append(args, "--config", config)...).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%s(%v)", out, err)
	}
	return string(out)
}

// control changes something at the simulator, or asks it. It returns the answer.
func (s *site) control(t *testing.T, method, path, body string) string {
	t.Helper()
	req, err := http.NewRequest(method, s.simURL+"/_sim/"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if res.StatusCode > 299 {
		t.Fatalf("%s %s of the simulator: %d %s", method, path, res.StatusCode, b)
	}
	return string(b)
}

// freeAddress returns an address that stays the same over restarts. Its port lies below those
// that the kernel gives to outgoing connections.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 200 {
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(10000)))
		if err == nil {
			_ = listener.Close()
			return listener.Addr().String()
		}
	}
	t.Fatal("no free port between 20000 and 30000 was found")
	return ""
}
