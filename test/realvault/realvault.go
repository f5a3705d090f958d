// Package realvault runs HashiCorp's own Vault core as a process for tests: start, stop, kill, pause, seal and
// unseal, on one address throughout; with or without TLS, alone or as a cluster on Raft storage.
package realvault

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"rotatord/test/program"
	"rotatord/test/program/ca"
)

// Vault is one server with its storage.
type Vault struct {
	Address   string // URL
	CAFile    string // of the certificate of Address; empty without TLS
	RootToken string
	unsealKey string
	args      []string
	initFile  string
	mu        sync.Mutex
	cmd       *exec.Cmd      // nil if it does not run
	log       program.Output // of all its lives
	root      *api.Client
}

// binary is built once for each test process.
var binary = program.Build("vaultd", "./test/vaultd")

// Binary returns the path of the built server.
func Binary(t testing.TB) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Start makes a new Vault without TLS and waits until it is unsealed. It ends with the test.
func Start(t testing.TB) *Vault {
	t.Helper()
	v := prepare(t, "http")
	v.begin(t)
	return v
}

// StartTLS makes a new Vault whose certificate the authority signs. It asks a client for a certificate, as the
// auth method cert needs it, and lets in who has none.
func StartTLS(t testing.TB, authority *ca.CA) *Vault {
	t.Helper()
	v := prepareTLS(t, authority)
	v.begin(t)
	return v
}

// StartMutualTLS makes a new Vault as [StartTLS] does, which refuses a connection without a certificate that the
// authority signed. [Vault.Root] has one.
func StartMutualTLS(t testing.TB, authority *ca.CA) *Vault {
	t.Helper()
	v := prepareTLS(t, authority, "-tls-client-ca", authority.File)
	v.begin(t)
	return v
}

func prepareTLS(t testing.TB, authority *ca.CA, args ...string) *Vault {
	t.Helper()
	pair := authority.Server(t)
	v := prepare(t, "https", append(args, "-tls-cert", pair.CertFile, "-tls-key", pair.KeyFile)...)
	v.CAFile = authority.File
	admin := authority.Client(t, "admin", 24*time.Hour)
	v.connect(t, &api.TLSConfig{CACert: authority.File, ClientCert: admin.CertFile, ClientKey: admin.KeyFile})
	return v
}

// prepare chooses an address and a directory for a server.
func prepare(t testing.TB, scheme string, args ...string) *Vault {
	t.Helper()
	listen, dir := program.FreeAddress(t), t.TempDir()
	v := &Vault{Address: scheme + "://" + listen, initFile: filepath.Join(dir, "init.json")}
	v.args = append([]string{"-listen", listen, "-dir", dir}, args...)
	if scheme == "http" {
		v.connect(t, nil)
	}
	return v
}

// connect makes the client of [Vault.Root].
func (v *Vault) connect(t testing.TB, tls *api.TLSConfig) {
	t.Helper()
	config := api.DefaultConfig()
	config.Address = v.Address
	err := config.Error
	if err == nil && tls != nil {
		err = config.ConfigureTLS(tls)
	}
	if err == nil {
		v.root, err = api.NewClient(config)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// begin starts a server for the first time, and ends it with the test.
func (v *Vault) begin(t testing.TB) {
	t.Helper()
	t.Cleanup(func() {
		v.Kill()
		if t.Failed() {
			t.Logf("the end of the log of %s:\n%s", v.Address, program.Tail(v.log.String()))
		}
	})
	v.Resume(t)
	b, err := os.ReadFile(v.initFile)
	if err != nil {
		t.Fatal(err)
	}
	var secrets struct {
		UnsealKey string `json:"unseal_key"`
		RootToken string `json:"root_token"`
	}
	if err := json.Unmarshal(b, &secrets); err != nil {
		t.Fatal(err)
	}
	v.RootToken, v.unsealKey = secrets.RootToken, secrets.UnsealKey
	v.root.SetToken(v.RootToken)
}

// Resume starts the process on its storage, and waits until it is unsealed.
func (v *Vault) Resume(t testing.TB) {
	t.Helper()
	cmd := exec.Command(Binary(t), v.args...)
	cmd.Stderr = &v.log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	v.mu.Lock()
	v.cmd = cmd
	v.mu.Unlock()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready "+v.Address+"\n" {
		v.Kill()
		t.Fatalf("vaultd did not get ready: %q, %v", line, err)
	}
}

// Kill ends the process at once.
func (v *Vault) Kill() { v.end(syscall.SIGKILL) }

// Stop ends the process in order: the leader of a cluster gives the lead away.
func (v *Vault) Stop() { v.end(syscall.SIGTERM) }

func (v *Vault) end(signal syscall.Signal) {
	v.mu.Lock()
	cmd := v.cmd
	v.cmd = nil
	v.mu.Unlock()
	if cmd != nil {
		_ = cmd.Process.Signal(signal)
		_ = cmd.Wait()
	}
}

// InitFile is the file with the unseal key and the root token.
func (v *Vault) InitFile() string { return v.initFile }

// Running reports whether the process was started and not ended.
func (v *Vault) Running() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.cmd != nil
}

// PID returns the id of the process; 0 if it does not run.
func (v *Vault) PID() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.cmd == nil {
		return 0
	}
	return v.cmd.Process.Pid
}

// Pause stops the process as a hanging machine does: the kernel accepts connections, and nothing answers.
func (v *Vault) Pause() { v.signal(syscall.SIGSTOP) }

// Continue ends [Vault.Pause].
func (v *Vault) Continue() { v.signal(syscall.SIGCONT) }

func (v *Vault) signal(signal syscall.Signal) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.cmd != nil {
		_ = v.cmd.Process.Signal(signal)
	}
}

// Root returns a client that may do everything.
func (v *Vault) Root(t testing.TB) *api.Client {
	t.Helper()
	return v.root
}

// Seal seals the running server.
func (v *Vault) Seal(t testing.TB) {
	t.Helper()
	if err := v.Root(t).Sys().Seal(); err != nil {
		t.Fatal(err)
	}
}

// Unseal unseals it.
func (v *Vault) Unseal(t testing.TB) {
	t.Helper()
	if status, err := v.Root(t).Sys().Unseal(v.unsealKey); err != nil || status.Sealed {
		t.Fatalf("unsealing: %+v, %v", status, err)
	}
}

// MountKV mounts a KV secrets engine and waits until it can be used: a new one of version 2
// refuses requests while it is being upgraded.
func (v *Vault) MountKV(t testing.TB, path string, version int, casRequired bool) {
	t.Helper()
	root := v.Root(t)
	err := root.Sys().Mount(path, &api.MountInput{Type: "kv", Options: map[string]string{"version": fmt.Sprint(version)}})
	if err != nil {
		t.Fatal(err)
	}
	if version == 2 {
		if _, err := root.Logical().Write(path+"/config", map[string]any{"cas_required": casRequired}); err != nil {
			t.Fatal(err)
		}
	}
}

// AppRole writes a policy and a role that has it and nothing else, and returns the role ID
// and a secret ID. ttl and maxTTL are of its tokens.
func (v *Vault) AppRole(t testing.TB, policy, ttl, maxTTL string) (roleID, secretID string) {
	t.Helper()
	root := v.Root(t)
	if err := root.Sys().PutPolicy("rotatord", policy); err != nil {
		t.Fatal(err)
	}
	if err := root.Sys().EnableAuthWithOptions("approle", &api.EnableAuthOptions{Type: "approle"}); err != nil &&
		!strings.Contains(err.Error(), "path is already in use") {
		t.Fatal(err)
	}
	write := func(path string, data map[string]any) {
		if _, err := root.Logical().Write(path, data); err != nil {
			t.Fatal(err)
		}
	}
	write("auth/approle/role/rotatord", map[string]any{
		"token_policies": "rotatord", "token_no_default_policy": true, "token_ttl": ttl, "token_max_ttl": maxTTL,
	})
	role, err := root.Logical().Read("auth/approle/role/rotatord/role-id")
	if err != nil {
		t.Fatal(err)
	}
	secret, err := root.Logical().Write("auth/approle/role/rotatord/secret-id", nil)
	if err != nil {
		t.Fatal(err)
	}
	return role.Data["role_id"].(string), secret.Data["secret_id"].(string)
}

// LeastPolicy is the policy that is shipped.
func LeastPolicy(t testing.TB) string {
	t.Helper()
	return program.ReadFile(t, "deploy/vault/rotatord-policy.hcl")
}

// ReplicasPolicy is the policy that is shipped for several replicas, beside [LeastPolicy].
func ReplicasPolicy(t testing.TB) string {
	t.Helper()
	return program.ReadFile(t, "deploy/vault/rotatord-replicas-policy.hcl")
}
