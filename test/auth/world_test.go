package auth

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/rotation"
	"rotatord/internal/statedir"
	"rotatord/test/program"
	"rotatord/test/program/ca"
	"rotatord/test/program/kube"
	"rotatord/test/realvault"
)

var binary = program.Rotatord()

const mount = "secret"

// world is a Vault, a Cloudflare and a daemon for one method.
type world struct {
	t       *testing.T
	vault   *realvault.Vault
	ca      *ca.CA
	cluster *kube.Server
	dir     string
	sim     *cfsim.Simulator
	simURL  string
	log     *program.Output
	daemon  *exec.Cmd
	done    chan struct{}
	agent   *agent
	address string // of vault, for the daemon
}

func newWorld(t *testing.T, authority *ca.CA, cluster *kube.Server) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "auth-") // short, for the path of a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w := &world{t: t, vault: realvault.StartTLS(t, authority), ca: authority, cluster: cluster, dir: dir, sim: cfsim.New(cfsim.Options{RateLimit: -1})}
	w.vault.MountKV(t, mount, 2, true)
	if err := w.vault.Root(t).Sys().PutPolicy("rotatord", realvault.LeastPolicy(t)); err != nil {
		t.Fatal(err)
	}
	sim := httptest.NewServer(w.sim)
	t.Cleanup(sim.Close)
	w.simURL, w.address = sim.URL, w.vault.Address
	w.file("api-token", "auth")
	return w
}

// file writes a file as good programs do: it is renamed into place.
func (w *world) file(name, content string) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	w.must(os.WriteFile(path+".new", []byte(content), 0o600))
	w.must(os.Rename(path+".new", path))
	return path
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// write writes to Vault as its administrator.
func (w *world) write(path string, data map[string]any) map[string]any {
	w.t.Helper()
	s, err := w.vault.Root(w.t).Logical().Write(path, data)
	w.must(err)
	if s == nil {
		return nil
	}
	return s.Data
}

// token makes a service token and returns its entry in the configuration.
func (w *world) token(name, schedule string) string {
	w.t.Helper()
	made, _, err := w.sim.Create(cfsim.CreateParams{Name: name})
	w.must(err)
	return fmt.Sprintf("  %s: {account: prod, id: %s, schedule: %q, grace: 1s, sinks: [{vault: {mount: %s, path: access/%s}}]}\n", name, made.ID, schedule, mount, name)
}

// configure writes the configuration.
func (w *world) configure(auth, tls string, tokens ...string) {
	w.t.Helper()
	w.file("config.yaml", fmt.Sprintf(`listen: 127.0.0.1:0
log: {level: debug}
state: {dir: %[1]s/state}
accounts: {prod: {account_id: %[2]s, api_token: {file: %[1]s/api-token}, base_url: %[3]s, requests_per_5m: 1200}}
vault: {address: %[4]q, timeout: 5s, %[5]s auth: {%[6]s}}
tokens:
%[7]s`, w.dir, cfsim.DefaultAccountID, w.simURL+cfsim.BasePath, w.address, tls, auth, strings.Join(tokens, "")))
}

func (w *world) start() {
	w.t.Helper()
	path, err := binary()
	w.must(err)
	w.daemon, w.log, w.done = exec.Command(path, "run", "--config", filepath.Join(w.dir, "config.yaml")), &program.Output{}, make(chan struct{})
	w.daemon.Stdout, w.daemon.Stderr = w.log, w.log
	w.must(w.daemon.Start())
	daemon, done := w.daemon, w.done
	go func() { _ = daemon.Wait(); close(done) }()
	w.t.Cleanup(func() { _ = daemon.Process.Kill(); <-done })
}

func (w *world) stop() {
	w.t.Helper()
	_ = w.daemon.Process.Signal(syscall.SIGTERM)
	select {
	case <-w.done:
	case <-time.After(program.Patience):
		w.fatal("the daemon did not stop")
	}
}

func (w *world) fatal(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s; the daemon's log ends with\n%s", fmt.Sprintf(format, args...), program.Tail(w.log.String()))
}

// eventually waits, and returns how long.
func (w *world) eventually(what string, condition func() bool) time.Duration {
	w.t.Helper()
	for began := time.Now(); time.Since(began) < program.Patience; time.Sleep(50 * time.Millisecond) {
		if condition() {
			return time.Since(began)
		}
		select {
		case <-w.done:
			w.fatal("waiting for %s, the daemon ended", what)
		default:
		}
	}
	w.fatal("it did not come about: %s", what)
	return 0
}

// rotates waits for a rotation that ends after now, and returns how long.
func (w *world) rotates(name string) time.Duration {
	w.t.Helper()
	before := w.rotated(name)
	return w.eventually("a rotation of "+name, func() bool { return w.rotated(name) > before })
}

func (w *world) rotated(name string) (n int) {
	for line := range strings.Lines(w.log.String()) {
		var l struct{ Msg, Token string }
		if json.Unmarshal([]byte(line), &l) == nil && l.Msg == "rotated" && l.Token == name {
			n++
		}
	}
	return n
}

// count returns how many lines of the daemon's log match.
func (w *world) count(pattern string) int {
	return len(regexp.MustCompile("(?m)^.*"+pattern+".*$").FindAllString(w.log.String(), -1))
}

// revoke ends every session that Vault has, but the administrator's.
func (w *world) revoke() {
	w.t.Helper()
	root := w.vault.Root(w.t)
	list, err := root.Logical().List("auth/token/accessors")
	w.must(err)
	keys, _ := list.Data["keys"].([]any)
	for _, key := range keys {
		accessor, _ := key.(string)
		found, err := root.Auth().Token().LookupAccessor(accessor)
		if err != nil {
			continue // it ended
		}
		if path, _ := found.Data["path"].(string); path != "auth/token/root" && found.Data["display_name"] != "reviewer" {
			_ = root.Auth().Token().RevokeAccessor(accessor) // it may have ended
		}
	}
}

// due makes a slot of a token that is not in the ledger due now.
func (w *world) due(name, id string) {
	w.t.Helper()
	state, err := statedir.Open(statedir.Options{Dir: filepath.Join(w.dir, "state")})
	w.must(err)
	_, err = state.Ledger.Save(w.t.Context(), rotation.Record{Format: rotation.RecordFormat, Token: name, TokenID: id, Account: "prod", Anchor: time.Now().UTC().Add(-time.Hour), MovedCount: 1})
	w.must(err)
	w.must(state.Close())
}
