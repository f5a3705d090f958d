package replicas

import (
	"encoding/json"
	"fmt"
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

	"filippo.io/age"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/test/program"
	"rotatord/test/realvault"
)

// hookRun is how long the run of a hook may take, in the eyes of another replica: its timeout and a minute.
const hookRun = time.Second + time.Minute

// told is what a receiver got.
type told struct {
	at                          time.Time
	delivery, attempt, rotation string
}

// hookReplicas are replicas with one token, whose hook is a webhook.
type hookReplicas struct {
	t    *testing.T
	path string // of the binary
	dir  string

	mu   sync.Mutex
	told []told
}

func newHookReplicas(t *testing.T, vault *realvault.Vault, prefix string) *hookReplicas {
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "hooks-") // short, for the paths of the sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w := &hookReplicas{t: t, path: path, dir: dir}
	api := httptest.NewServer(cfsim.New(cfsim.Options{RateLimit: -1, SeedTokens: 1}))
	t.Cleanup(api.Close)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var n struct {
			Tokens []struct {
				Rotation string `json:"rotation_id"`
			} `json:"tokens"`
		}
		if err := json.NewDecoder(r.Body).Decode(&n); err != nil || len(n.Tokens) != 1 {
			t.Errorf("%+v, %v", n, err)
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.told = append(w.told, told{at: time.Now(), delivery: r.Header.Get("X-Rotatord-Delivery"), attempt: r.Header.Get("X-Rotatord-Attempt"), rotation: n.Tokens[0].Rotation})
	}))
	t.Cleanup(receiver.Close)
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"api-token": "replicas", "key": "key", "identity": identity.String() + "\n", "vault-token": vault.Root(t).Token()}
	for _, name := range []string{"a", "b"} {
		files[name+".yaml"] = fmt.Sprintf(`
listen: 127.0.0.1:0
admin_socket: %[1]s/%[2]s.sock
state: {dir: %[1]s/%[2]s, identity: {file: %[1]s/identity}, shared: {vault: {mount: secret, prefix: %[3]s}, claim: 5s, replica: %[2]s}}
vault: {address: %[4]s, timeout: 1s, auth: {token: {file: %[1]s/vault-token}}}
accounts: {sim: {account_id: 023e105f4ecef8ad9ca31a8372d0c353, api_token: {file: %[1]s/api-token}, base_url: %[5]s}}
tokens:
  ci:
    account: sim
    id: %[6]s
    schedule: "@every 720h"
    grace: 1h
    sinks: [{vault: {mount: secret, path: access/%[3]s}}]
    after: [{webhook: {url: %[7]q, secret: {file: %[1]s/key}, timeout: 1s}}]
`, w.dir, name, prefix, vault.Address, api.URL+cfsim.BasePath, cfsim.SeedTokenID(1), receiver.URL)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// all returns what the receiver got, the first one first.
func (w *hookReplicas) all() []told {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]told(nil), w.told...)
}

// start starts a replica. It is killed at the end of the test.
func (w *hookReplicas) start(name, failpoints string) (*exec.Cmd, *program.Output) {
	w.t.Helper()
	cmd, log := exec.Command(w.path, "run", "--config", filepath.Join(w.dir, name+".yaml")), &program.Output{}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "ROTATORD_FAILPOINTS="+failpoints)
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if w.t.Failed() {
			w.t.Logf("the log of %s:\n%s", name, program.Tail(log.String()))
		}
	})
	return cmd, log
}

// rotate rotates the token by a replica, as soon as that can. The replica may be killed before it answers.
func (w *hookReplicas) rotate(name string) {
	w.t.Helper()
	var out []byte
	program.Eventually(w.t, time.Minute, "a rotation by "+name, func() bool {
		var err error
		out, err = exec.Command(w.path, "rotate", "ci", "--override-grace", "--config", filepath.Join(w.dir, name+".yaml")).CombinedOutput()
		return err == nil || strings.Contains(string(out), "EOF")
	})
}

// TestHookIsTakenOver: a replica is killed when its webhook was answered. Another one takes over after the timeout of the hook
// and a minute, not earlier, and the receiver sees the same delivery again, as attempt 2.
func TestHookIsTakenOver(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for more than a minute")
	}
	vault := hookVault(t)
	t.Run("killed", func(t *testing.T) {
		t.Parallel()
		w := newHookReplicas(t, vault, "killed")
		a, _ := w.start("a", "hook.effect.after=kill")
		w.rotate("a")
		_ = a.Wait()
		began := time.Now()
		w.start("b", "")
		program.Eventually(t, 2*time.Minute, "another replica takes over", func() bool { return len(w.all()) == 2 })
		all := w.all()
		if all[0].delivery != all[1].delivery || all[0].attempt != "1" || all[1].attempt != "2" {
			t.Errorf("the receiver got %+v", all)
		}
		if waited := all[1].at.Sub(all[0].at); waited < hookRun {
			t.Errorf("it was taken over after %s", waited)
		}
		t.Logf("taken over %s after the kill", time.Since(began).Round(time.Second))
	})
	// A newer rotation does not overtake the run for the older one, which may go on.
	t.Run("a newer rotation", func(t *testing.T) {
		t.Parallel()
		w := newHookReplicas(t, vault, "newer")
		a, _ := w.start("a", "hook.effect.after=kill")
		w.rotate("a")
		_ = a.Wait()
		w.start("b", "")
		w.rotate("b")
		program.Eventually(t, 2*time.Minute, "the hook runs for the newer rotation", func() bool { return len(w.all()) == 2 })
		all := w.all()
		if all[0].rotation == all[1].rotation || all[1].attempt != "1" || all[1].at.Sub(all[0].at) < hookRun {
			t.Errorf("the receiver got %+v", all)
		}
	})
	// A replica that is stopped between its note and its request, and goes on after another one has run the hook, sends nothing.
	// Without its last check it would send attempt 1 after attempt 2.
	for name, test := range map[string]struct{ failpoints, want string }{
		"stopped": {want: "2"}, "stopped, and the last check is left out": {",hook.start=off", "2 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failpoints, want := test.failpoints, test.want
			w := newHookReplicas(t, vault, fmt.Sprintf("stopped-%d", len(failpoints)))
			a, log := w.start("a", "hook.begin.after=sleep:3s"+failpoints)
			w.rotate("a")
			program.Eventually(t, time.Minute, "the hook is noted to run", func() bool { return strings.Contains(log.String(), "hook.begin.after") })
			if err := a.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			w.start("b", "")
			program.Eventually(t, 2*time.Minute, "another replica takes over", func() bool { return len(w.all()) == 1 })
			if err := a.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			time.Sleep(8 * time.Second) // the time after which it would send
			var attempts []string
			for _, one := range w.all() {
				attempts = append(attempts, one.attempt)
			}
			if got := strings.Join(attempts, " "); got != want {
				t.Errorf("the receiver got the attempts %s, want %s", got, want)
			}
		})
	}
}

// hookVault is a Vault in which every prefix is free.
func hookVault(t *testing.T) *realvault.Vault {
	vault := realvault.Start(t)
	vault.MountKV(t, "secret", 2, false)
	return vault
}
