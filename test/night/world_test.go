// Package night plays the person who is paged at night. For each of many faults it causes the fault in a real daemon with
// a real Vault and a simulated Cloudflare, and then knows nothing but what that person sees: the status page, `rotatord
// status`, the runbook. It types what is written there, literally, in a shell, until the fault is cured. The number of
// steps is counted, and docs/night-drill.md has the table.
package night

import (
	"cmp"
	"encoding/json"
	"flag"
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

	"filippo.io/age"

	"rotatord/internal/durable/disktest"
	"rotatord/test/program"
	"rotatord/test/realvault"
)

const (
	accountID = "023e105f4ecef8ad9ca31a8372d0c353"
	tokenID   = "5eed0000-0000-4000-8000-000000000001"
	mount     = "secret"
	name      = "ci"
	firstKey  = "cfat_the_first_api_token_of_this_drill"
	secondKey = "cfat_the_second_api_token_of_this_drill"
)

var (
	all    = flag.Bool("all", false, "play all faults; 12 minutes")
	update = flag.Bool("update", false, "with -all: write the table of docs/night-drill.md")
)

// vaultRole has this test binary play HashiCorp's command: no package has it, and it cannot be built as a library.
const vaultRole = "ROTATORD_NIGHT_VAULT"

func TestMain(m *testing.M) {
	if os.Getenv(vaultRole) != "" {
		if err := vaultCommand(os.Args[1:], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "Error:", err)
			os.Exit(2)
		}
		return
	}
	flag.Parse()
	_ = flag.Set("test.parallel", "20") // they wait for looks that come once in a minute or more
	os.Exit(m.Run())
}

var binary = program.Rotatord()

// world is a host with a daemon, and what it needs.
type world struct {
	t        *testing.T
	dir      string
	state    string
	bin      string // the directory of programs that the engineer has; of the host where the engineer is
	listen   string
	vault    *realvault.Vault
	sim, url string // the simulator's address, and that of its control
	simCmd   *exec.Cmd
	disk     *disktest.Disk
	made     int // rotations before the fault
}

// newWorld starts a host on which all is well, and rotates the token once.
func newWorld(t *testing.T, f fault) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), listen: program.FreeAddress(t), sim: program.FreeAddress(t), vault: realvault.Start(t)}
	w.url, w.state, w.bin = "http://"+w.listen, filepath.Join(w.dir, "state"), filepath.Join(w.dir, "bin")
	if f.disk {
		w.disk = disktest.New(t, disktest.Ext4, 16<<10)
		w.state = filepath.Join(w.disk.Dir, "state")
	}
	w.vault.MountKV(t, mount, 2, false)
	roleID, secretID := w.vault.AppRole(t, realvault.LeastPolicy(t), "1h", "24h")
	w.write("role-id", roleID)
	w.write("secret-id", secretID)
	w.write("api-token", firstKey)
	w.programs(w.bin, "config.yaml", "")
	w.startSim(firstKey)
	w.write("config.yaml", w.config(f))
	if f.replicas {
		w.second(f)
	}
	if f.prepare != nil {
		f.prepare(w)
	}
	t.Cleanup(func() {
		w.signal("pid", syscall.SIGKILL)
		w.signal("pid-2", syscall.SIGKILL)
		_ = w.simCmd.Process.Kill()
		_ = w.simCmd.Wait()
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(w.dir, "log"))
			t.Logf("the end of the daemon's log:\n%s", program.Tail(string(log)))
		}
	})
	w.shell("systemctl start rotatord.service", "")
	program.Eventually(t, 0, "readiness", func() bool { _, code := w.get("/readyz"); return code == http.StatusOK })
	if out, err := w.shell("rotatord rotate "+name, ""); err != nil {
		t.Fatalf("the first rotation: %v\n%s", err, out)
	}
	w.made = w.rotations()
	return w
}

func (w *world) config(f fault) string {
	shared := ""
	if f.replicas {
		shared = fmt.Sprintf(", identity: {file: %s/identity}, shared: {vault: {mount: %s, prefix: rotatord}, claim: 20s, replica: one}", w.dir, mount)
	}
	grace, schedule := cmp.Or(f.grace, "1h"), cmp.Or(f.schedule, "@every 720h")
	return fmt.Sprintf(`listen: %[1]s
admin_socket: %[2]s/admin.sock
state: {dir: %[3]s%[13]s}
accounts:
  prod: {account_id: %[4]s, api_token: {file: %[2]s/api-token}, base_url: http://%[5]s/client/v4, inventory_every: 1m}
vault:
  address: %[6]s
  auth: {approle: {role_id: {file: %[2]s/role-id}, secret_id: {file: %[2]s/secret-id}}}
  watch_every: 1m
defaults: {account: prod, schedule: "%[12]s", grace: %[7]s}
tokens:
  %[8]s: {id: %[9]s, sinks: [{vault: {mount: %[10]s, path: access/%[8]s}}]%[11]s}
`, w.listen, w.dir, w.state, accountID, w.sim, w.vault.Address, grace, name, tokenID, mount, strings.ReplaceAll(f.token, "$DIR", w.dir), schedule, shared) +
		strings.ReplaceAll(f.more, "$DIR", w.dir)
}

// second starts another replica, on another host.
func (w *world) second(f fault) {
	w.t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err == nil {
		err = w.vault.Root(w.t).Sys().PutPolicy("rotatord", realvault.LeastPolicy(w.t)+realvault.ReplicasPolicy(w.t))
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.write("identity", identity.String())
	w.write("second.yaml", strings.NewReplacer(w.listen, program.FreeAddress(w.t), "admin.sock", "admin-2.sock", "dir: "+w.state, "dir: "+w.state+"-2", "replica: one", "replica: two").Replace(w.config(f)))
	w.programs(w.bin+"-2", "second.yaml", "-2")
	if out, err := exec.Command(filepath.Join(w.bin+"-2", "systemctl"), "start", "rotatord.service").CombinedOutput(); err != nil {
		w.t.Fatalf("the second replica: %v\n%s", err, out)
	}
}

func (w *world) write(file, content string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, file), []byte(content+"\n"), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// edit replaces a text in the configuration.
func (w *world) edit(from, to string) {
	w.t.Helper()
	path := filepath.Join(w.dir, "config.yaml")
	b, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(b), from) {
		w.t.Fatalf("the configuration has no %q: %v", from, err)
	}
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(b), from, to)), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// programs makes what the engineer can call: rotatord with the configuration where it looks for it by itself, vault, and as
// much of systemctl as runs one service.
func (w *world) programs(bin, config, suffix string) {
	w.t.Helper()
	real, err := binary()
	if err != nil {
		w.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := os.Mkdir(bin, 0o700); err != nil {
		w.t.Fatal(err)
	}
	for program, text := range map[string]string{
		"rotatord": `case "$1" in docs|recover|version) exec REAL "$@";; *) exec REAL "$@" --config CONFIG;; esac`,
		"vault":    vaultRole + `=DIR exec SELF "$@"`,
		"systemctl": `running() { [ -e PID ] && [ "$(readlink /proc/$(cat PID)/exe)" = REAL ]; }
up() { grep -c '"rotatord is running"' LOG; }
start() { running && return; : >>LOG; was=$(up); setsid REAL run --config CONFIG >>LOG 2>&1 </dev/null & echo $! >PID; until [ "$(up)" -gt "$was" ] || ! kill -0 $! 2>/dev/null; do sleep 0.02; done; running || { echo 'Job for rotatord.service failed.' >&2; return 1; }; }
stop() { running || return 0; kill -TERM "$(cat PID)"; while running; do sleep 0.1; done; }
case "$1" in
start) start;; stop) stop;; restart) stop; start;;
reload) running && kill -HUP "$(cat PID)";;
status) running && echo 'Active: active (running)' || echo 'Active: failed'; tail -n 10 LOG;;
*) exit 2;;
esac`,
	} {
		text = strings.NewReplacer("REAL", real, "SELF", self, "DIR", w.dir, "CONFIG", filepath.Join(w.dir, config), "PID", filepath.Join(w.dir, "pid"+suffix), "LOG", filepath.Join(w.dir, "log"+suffix)).Replace(text)
		if err := os.WriteFile(filepath.Join(bin, program), []byte("#!/bin/bash\n"+text+"\n"), 0o700); err != nil {
			w.t.Fatal(err)
		}
	}
}

// shell runs a command as it is typed.
func (w *world) shell(command, input string) (string, error) {
	cmd := exec.CommandContext(w.t.Context(), "bash", "-c", command)
	cmd.Env = append(os.Environ(), "PATH="+w.bin+":"+os.Getenv("PATH"), "VAULT_ADDR="+w.vault.Address, "VAULT_TOKEN="+w.vault.RootToken, "NO_COLOR=1")
	cmd.Stdin, cmd.WaitDelay = strings.NewReader(input), 5*time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// signal sends a signal that ends the daemon whose id is in that file, if it runs, and waits for the end.
func (w *world) signal(file string, s syscall.Signal) {
	var pid int
	b, _ := os.ReadFile(filepath.Join(w.dir, file))
	_, _ = fmt.Sscan(string(b), &pid)
	real, _ := binary()
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && exe == real {
		_ = syscall.Kill(pid, s)
		program.Eventually(w.t, 0, "the end of the daemon", func() bool {
			_, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
			return err != nil
		})
	}
}

// startSim starts Cloudflare, which accepts one API token.
func (w *world) startSim(key string) {
	w.t.Helper()
	real, err := binary()
	if err != nil {
		w.t.Fatal(err)
	}
	if w.simCmd != nil {
		_ = w.simCmd.Process.Signal(syscall.SIGTERM)
		_ = w.simCmd.Wait()
	}
	w.simCmd = exec.Command(real, "sim", "--listen", w.sim, "--seed-tokens", "1", "--api-token", key, "--rate-limit", "-1", "--state", filepath.Join(w.dir, "sim.json"))
	if err := w.simCmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	program.Eventually(w.t, 0, "the simulator", func() bool {
		res, err := http.Get("http://" + w.sim + "/_sim/stats")
		if err == nil {
			_ = res.Body.Close()
		}
		return err == nil
	})
}

// control asks the simulator's control, and decodes the answer into v unless that is nil.
func (w *world) control(method, path, body string, v any) {
	w.t.Helper()
	req, err := http.NewRequest(method, "http://"+w.sim+"/_sim/"+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if res.StatusCode > 299 {
		w.t.Fatalf("%s %s: %d %s", method, path, res.StatusCode, b)
	}
	if v != nil {
		if err := json.Unmarshal(b, v); err != nil {
			w.t.Fatal(err)
		}
	}
}

// rotations counts the rotations of the token that the API was asked for.
func (w *world) rotations() (n int) {
	w.t.Helper()
	var stats struct {
		Rotations map[string]int `json:"rotations"`
	}
	w.control("GET", "stats", "", &stats)
	for _, count := range stats.Rotations {
		n += count
	}
	return n
}

// stored returns the credential that Vault holds.
func (w *world) stored() (clientID, clientSecret string) {
	s, err := w.vault.Root(w.t).Logical().Read(mount + "/data/access/" + name)
	if err != nil || s == nil {
		return "", ""
	}
	data, _ := s.Data["data"].(map[string]any)
	clientID, _ = data["client_id"].(string)
	clientSecret, _ = data["client_secret"].(string)
	return clientID, clientSecret
}

// admitted reports whether an application lets a consumer in that has read its secret from Vault.
func (w *world) admitted() bool {
	id, value := w.stored()
	req, err := http.NewRequest(http.MethodGet, "http://"+w.sim+"/app/", nil)
	if err != nil {
		return false
	}
	req.Header.Set("CF-Access-Client-Id", id)
	req.Header.Set("CF-Access-Client-Secret", value)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	return id != "" && res.StatusCode == http.StatusOK
}

// get returns a page of the daemon; the code is 0 if it does not answer.
func (w *world) get(path string) (body string, code int) {
	client := http.Client{Timeout: 10 * time.Second}
	res, err := client.Get(w.url + path)
	if err != nil {
		return err.Error(), 0
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return string(b), res.StatusCode
}

var quiet = regexp.MustCompile(`(?m)^nothing is wrong with `)

// cured reports whether page and status are quiet and the consumer is let in.
func (w *world) cured() error {
	body, code := w.get("/")
	switch {
	case code != http.StatusOK:
		return fmt.Errorf("the page answers %d", code)
	case !strings.Contains(body, "Nothing is wrong"):
		return fmt.Errorf("the page is not quiet: %+v", cardsOf(body))
	}
	if out, err := w.shell("rotatord status", ""); err != nil || !quiet.MatchString(out) {
		return fmt.Errorf("rotatord status is not quiet: %w\n%s", err, out)
	}
	if !w.admitted() {
		return fmt.Errorf("the consumer is not let in with what Vault holds")
	}
	return nil
}

// signalOnly sends a signal and does not wait for the end.
func (w *world) signalOnly(s syscall.Signal) {
	var pid int
	b, _ := os.ReadFile(filepath.Join(w.dir, "pid"))
	if _, err := fmt.Sscan(string(b), &pid); err != nil {
		w.t.Fatal(err)
	}
	_ = syscall.Kill(pid, s)
}
