package guide

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"rotatord/test/program"
	"rotatord/test/program/ca"
	"rotatord/test/program/kube"
	"rotatord/test/realvault"
)

// vaultGuide is a real Vault, a real API server and a simulated Cloudflare, for the commands of
// deploy/vault/README.md and the configurations below them.
type vaultGuide struct {
	dir       string // in which the commands run
	binary    string
	vault     *realvault.Vault
	cluster   *kube.Server
	authority *ca.CA
	sim       string // address
	ran       program.Commands
}

// namespaces and service accounts as deploy/kubernetes has them. Vault has one of its own.
const accounts = `apiVersion: v1
kind: Namespace
metadata:
  name: rotatord
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: rotatord
  namespace: rotatord
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: other
  namespace: rotatord
`

func newVaultGuide(t *testing.T) *vaultGuide {
	t.Helper()
	if testing.Short() {
		t.Skip("builds and starts a Vault and an API server")
	}
	binary, err := built()
	if err != nil {
		t.Fatal(err)
	}
	g := &vaultGuide{dir: t.TempDir(), binary: binary, authority: ca.New(t, "guide")}
	g.vault, g.cluster = realvault.StartTLS(t, g.authority), kube.Start(t)
	g.cluster.Apply(t, accounts)

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	deploy, err := filepath.Abs(filepath.Join(repository, "deploy"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(deploy, filepath.Join(g.dir, "deploy")); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"bin", "credentials", "tls"} {
		if err := os.Mkdir(filepath.Join(g.dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	g.write(t, "credentials/cloudflare-api-token", "cfat_made-up")
	for _, role := range []string{"vault", "kubectl"} {
		shim := fmt.Sprintf("#!/bin/sh\n%s=%s exec %s \"$@\"\n", roleEnv, role, self)
		if err := os.WriteFile(filepath.Join(g.dir, "bin", role), []byte(shim), 0o755); err != nil {
			t.Fatal(err)
		}
	}

	var out program.Output
	sim := exec.Command(g.binary, "sim", "--listen", "127.0.0.1:0", "--seed-tokens", "1")
	sim.Stdout = &out
	if err := sim.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sim.Process.Kill(); _ = sim.Wait() })
	address := regexp.MustCompile(`base_url:\s+(\S+)`)
	program.Eventually(t, 10*time.Second, "the simulator's address", func() bool {
		if m := address.FindStringSubmatch(out.String()); m != nil {
			g.sim = m[1]
		}
		return g.sim != ""
	})
	return g
}

func (g *vaultGuide) write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(g.dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// section is what a part of the README has: its blocks of commands, and its configuration.
func (g *vaultGuide) section(t *testing.T, heading string) (commands []string, configuration string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, "deploy/vault/README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, section := range regexp.MustCompile(`(?m)^#+ `).Split(string(text), -1) {
		if title, _, _ := strings.Cut(section, "\n"); title != heading {
			continue
		}
		for _, block := range regexp.MustCompile("(?ms)^```(sh|yaml)\n(.*?)^```").FindAllStringSubmatch(section, -1) {
			if block[1] == "sh" {
				commands = append(commands, block[2])
			} else {
				configuration = block[2]
			}
		}
	}
	if len(commands) == 0 {
		t.Fatalf("deploy/vault/README.md has no commands in %q", heading)
	}
	return commands, configuration
}

// paths are where this test has what the README has elsewhere.
func (g *vaultGuide) paths() *strings.Replacer {
	return strings.NewReplacer("/run/credentials/rotatord.service/", g.dir+"/credentials/", "/etc/rotatord/credentials/", g.dir+"/credentials/",
		"/etc/rotatord/tls/", g.dir+"/tls/", "/var/run/secrets/rotatord/token", g.dir+"/token",
		"https://API_SERVER:6443", g.cluster.URL, "DAEMON_ADDRESS", "127.0.0.1")
}

// run runs commands where an administrator of Vault and of the cluster is logged in.
func (g *vaultGuide) run(t *testing.T, commands string) {
	t.Helper()
	g.ran.Add(commands)
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", g.paths().Replace(commands))
	cmd.Dir = g.dir
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(g.dir, "bin")+":"+os.Getenv("PATH"),
		"VAULT_ADDR="+g.vault.Address, "VAULT_CACERT="+g.vault.CAFile, "VAULT_TOKEN="+g.vault.RootToken,
		"GUIDE_KUBE_URL="+g.cluster.URL, "GUIDE_KUBE_CA="+g.cluster.CAFile, "GUIDE_KUBE_TOKEN="+g.cluster.AdminToken)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s\n%v\n%s", commands, err, out)
	}
	g.cluster.AwaitRights(t) // kubectl may have given some
}

// doctor returns what `rotatord doctor --login` says with a configuration of the README.
func (g *vaultGuide) doctor(t *testing.T, vault string) string {
	t.Helper()
	rest, found := strings.CutPrefix(g.paths().Replace(vault), "vault:\n")
	if !found {
		t.Fatalf("the README has the configuration %q", vault)
	}
	caFile := fmt.Sprintf("ca_file: %q", g.vault.CAFile)
	if strings.Contains(rest, "tls: {") {
		rest = strings.Replace(rest, "tls: {", "tls: {"+caFile+", ", 1)
	} else {
		rest = "  tls: {" + caFile + "}\n" + rest
	}
	g.write(t, "config.yaml", fmt.Sprintf(`listen: 127.0.0.1:0
state: {dir: %[1]s/state}
accounts: {main: {account_id: 023e105f4ecef8ad9ca31a8372d0c353, api_token: {file: %[1]s/credentials/cloudflare-api-token}, base_url: %[2]s}}
tokens: {a: {account: main, id: 5eed0000-0000-4000-8000-000000000001, schedule: "@weekly", sinks: [{vault: {mount: secret, path: access/a}}]}}
vault:
  address: %[3]s
`, g.dir, g.sim, g.vault.Address)+rest)
	out, _ := exec.Command(g.binary, "doctor", "--login", "--config", filepath.Join(g.dir, "config.yaml")).CombinedOutput()
	return string(out)
}

const vaultIsGood = `^good +vault +1 of 1 path\(s\) can be read, created and updated, and no more$`

// TestVaultGuide runs the commands of deploy/vault/README.md, method by method, against a real Vault and a real
// API server, and has doctor log in with the configuration that is printed below them. Then the same with what the
// role must refuse.
func TestVaultGuide(t *testing.T) {
	g := newVaultGuide(t)
	policy, _ := g.section(t, "The policy")
	g.run(t, policy[0])
	g.run(t, policy[1])
	several, _ := g.section(t, "Several replicas")
	g.run(t, several[0])

	// With the optional right to read the role, doctor says that each is bound as it should be.
	roles := regexp.MustCompile(`(?s)# (path "auth/\+/role/rotatord".*?)# \}`).FindStringSubmatch(realvault.LeastPolicy(t))
	if roles == nil {
		t.Fatal("the policy has no stanza for roles")
	}
	if err := g.vault.Root(t).Sys().PutPolicy("rotatord", realvault.LeastPolicy(t)+strings.ReplaceAll(roles[1], "\n# ", "\n")+"}\n"); err != nil {
		t.Fatal(err)
	}

	t.Run("AppRole", func(t *testing.T) {
		commands, configuration := g.section(t, "AppRole")
		g.run(t, commands[0])
		out := g.doctor(t, configuration)
		want(t, "doctor", out, vaultIsGood)
		want(t, "doctor on the role", out, `^good +vault\.auth +the role auth/approle/role/rotatord is bound to this daemon`)
		g.run(t, commands[1]) // bound to an address, for secret IDs that are made from now on
		lines := strings.Split(strings.TrimSpace(commands[0]), "\n")
		g.run(t, lines[len(lines)-1])
		want(t, "doctor from the address of the role", g.doctor(t, configuration), vaultIsGood)
		g.run(t, strings.ReplaceAll(commands[1], "DAEMON_ADDRESS", "192.0.2.1"))
		want(t, "doctor from another address", g.doctor(t, configuration), `^bad +vault `)
		g.run(t, commands[1])
	})

	t.Run("wrapped", func(t *testing.T) {
		commands, _ := g.section(t, "AppRole with a wrapped secret ID")
		g.run(t, commands[0])
		token, err := os.ReadFile(filepath.Join(g.dir, "credentials/vault-secret-id"))
		if err != nil {
			t.Fatal(err)
		}
		var unwrapped *api.Secret
		if unwrapped, err = g.vault.Root(t).Logical().Unwrap(string(token)); err != nil || unwrapped.Data["secret_id"] == "" {
			t.Errorf("the file does not have a wrapped secret ID: %v", err)
		}
	})

	t.Run("Kubernetes", func(t *testing.T) {
		commands, configuration := g.section(t, "Kubernetes")
		elsewhere, role := commands[1], commands[2] // a Vault in the cluster needs a pod to run in
		g.run(t, elsewhere)
		g.run(t, role)
		g.write(t, "token", g.cluster.Token(t, "rotatord", "rotatord", time.Hour, "vault"))
		out := g.doctor(t, configuration)
		want(t, "doctor", out, vaultIsGood)
		want(t, "doctor on the role", out, `^good +vault\.auth +the role auth/kubernetes/role/rotatord is bound to this daemon$`)
		g.refuses(t, configuration)

		// As the README warns: without a reviewer's token, the daemon's own would have to be one for the API server.
		g.run(t, "vault write auth/kubernetes/config kubernetes_host=https://API_SERVER:6443 kubernetes_ca_cert=@"+g.cluster.CAFile+" token_reviewer_jwt= disable_local_ca_jwt=true")
		g.write(t, "token", g.cluster.Token(t, "rotatord", "rotatord", time.Hour, "vault"))
		want(t, "doctor without token_reviewer_jwt", g.doctor(t, configuration), `^bad +vault .*permission denied`)
	})

	t.Run("JWT", func(t *testing.T) {
		commands, configuration := g.section(t, "JWT")
		offline, role := commands[1], commands[2] // the other one needs a public issuer
		g.write(t, "sa.pub", g.cluster.PublicKeyPEM)
		g.run(t, offline)
		g.run(t, role)
		g.write(t, "token", g.cluster.Token(t, "rotatord", "rotatord", time.Hour, "vault"))
		out := g.doctor(t, configuration)
		want(t, "doctor", out, vaultIsGood)
		want(t, "doctor on the role", out, `^good +vault\.auth +the role auth/jwt/role/rotatord is bound to this daemon$`)
		g.refuses(t, configuration)
	})

	t.Run("TLS certificate", func(t *testing.T) {
		commands, configuration := g.section(t, "TLS certificate")
		g.write(t, "ca.pem", g.authority.PEM())
		g.run(t, commands[0])
		for name, pattern := range map[string]string{"rotatord": vaultIsGood, "other": `^bad +vault `} {
			pair := g.authority.Client(t, name, time.Hour)
			for from, to := range map[string]string{pair.CertFile: "tls/tls.crt", pair.KeyFile: "tls/tls.key"} {
				content, err := os.ReadFile(from)
				if err != nil {
					t.Fatal(err)
				}
				g.write(t, to, string(content))
			}
			want(t, "doctor with the certificate of "+name, g.doctor(t, configuration), pattern)
		}
	})
	program.AllRun(t, repository, "deploy/vault/README.md", g.ran)
}

// TestOptionalStanzas: each stanza of the policy that is marked OPTIONAL, without its comment signs, is accepted by
// Vault and gives what it says, and without it the policy does not.
func TestOptionalStanzas(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and starts a Vault")
	}
	v, policy := realvault.Start(t), realvault.LeastPolicy(t)
	root := v.Root(t)
	capabilities := func(policy, path string) []string {
		t.Helper()
		if err := root.Sys().PutPolicy("tried", policy); err != nil {
			t.Fatalf("%v in\n%s", err, policy)
		}
		made, err := root.Auth().Token().Create(&api.TokenCreateRequest{Policies: []string{"tried"}, NoDefaultPolicy: true})
		if err != nil {
			t.Fatal(err)
		}
		all, err := root.Sys().Capabilities(made.Auth.ClientToken, path)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(all)
		return all
	}
	stanzas := regexp.MustCompile(`(?ms)^# OPTIONAL.*?(# path "([^"]+)" \{.*?^# \}\n)`).FindAllStringSubmatch(policy, -1)
	want := [][]string{{"read"}, {"patch"}, {"read"}, {"create", "read", "update"}}
	if len(stanzas) != len(want) {
		t.Fatalf("%d optional stanzas", len(stanzas))
	}
	for i, s := range stanzas {
		path := strings.NewReplacer("*", "a", "+", "jwt").Replace(s[2])
		with := policy + regexp.MustCompile(`(?m)^# `).ReplaceAllString(s[1], "")
		if got := capabilities(policy, path); !slices.Equal(got, []string{"deny"}) {
			t.Errorf("%s: the policy gives %q already", path, got)
		}
		if got := capabilities(with, path); !slices.Equal(got, want[i]) {
			t.Errorf("%s: %q, want %q", path, got, want[i])
		}
	}
}

// refuses has doctor log in with tokens of the cluster that the role must not accept.
func (g *vaultGuide) refuses(t *testing.T, configuration string) {
	t.Helper()
	for what, token := range map[string]string{
		"of another service account": g.cluster.Token(t, "rotatord", "other", time.Hour, "vault"),
		"for another audience":       g.cluster.Token(t, "rotatord", "rotatord", time.Hour, "consul"),
		"for the API server":         g.cluster.Token(t, "rotatord", "rotatord", time.Hour),
	} {
		g.write(t, "token", token)
		want(t, "doctor with a token "+what, g.doctor(t, configuration), `^bad +vault `)
	}
}
