// Package realvault runs HashiCorp's own Vault core as a process for tests: start, stop,
// kill, seal and unseal, on one address throughout.
package realvault

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/vault/api"

	"rotatord/test/program"
)

// Vault is one server with its storage.
type Vault struct {
	Address   string
	RootToken string
	unsealKey string
	binary    string
	dir       string
	cmd       *exec.Cmd
	root      *api.Client
}

// binary is built once for each test process.
var binary = program.Build("vaultd", "rotatord/test/vaultd", nil)

// Binary returns the path of the built server.
func Binary(t testing.TB) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Start makes a new Vault and waits until it is unsealed. It ends with the test.
func Start(t testing.TB) *Vault {
	t.Helper()
	path := Binary(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0") // to find a port that stays the same
	if err != nil {
		t.Fatal(err)
	}
	v := &Vault{Address: "http://" + listener.Addr().String(), binary: path, dir: t.TempDir()}
	_ = listener.Close()
	v.Resume(t)
	b, err := os.ReadFile(filepath.Join(v.dir, "init.json"))
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
	if v.root, err = api.NewClient(&api.Config{Address: v.Address}); err != nil {
		t.Fatal(err)
	}
	v.root.SetToken(v.RootToken)
	t.Cleanup(func() { v.Kill() })
	return v
}

// Resume starts the process on its storage, and waits until it is unsealed.
func (v *Vault) Resume(t testing.TB) {
	t.Helper()
	v.cmd = exec.Command(v.binary, "-dir", v.dir, "-listen", strings.TrimPrefix(v.Address, "http://"))
	v.cmd.Stderr = os.Stderr
	out, err := v.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready "+v.Address+"\n" {
		v.Kill()
		t.Fatalf("vaultd did not get ready: %q, %v", line, err)
	}
}

// Kill ends the process at once.
func (v *Vault) Kill() {
	if v.cmd != nil {
		_ = v.cmd.Process.Signal(syscall.SIGKILL)
		_ = v.cmd.Wait()
		v.cmd = nil
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
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "rotatord").Output()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "deploy", "vault", "rotatord-policy.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
