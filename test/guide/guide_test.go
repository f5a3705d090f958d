// Package guide follows the guides of this repository as a newcomer would: each command as it is
// printed there, on a machine that has never had rotatord, with a systemd of its own.
package guide

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/test/program"
	"rotatord/test/realvault"
)

// patience bounds the wait for something that is to happen.
const patience = time.Minute

const repository = "../.."

// built is the binary as `make build` makes it.
var built = program.Rotatord()

// machine is a systemd in namespaces of its own.
type machine struct {
	t   *testing.T
	pid string // of its first process, as this machine sees it
	in  string // what it has below /guide
}

//go:embed boot.sh
var bootScript string

// boot starts it, with the repository's files and the built binary below /guide. The test is skipped
// where this machine cannot do that.
func boot(t *testing.T) *machine {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a systemd")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, for namespaces and mounts")
	}
	for _, program := range []string{"unshare", "nsenter", "pivot_root", "/lib/systemd/systemd", "systemctl", "journalctl", "curl", "make"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	dir := t.TempDir()
	prepare(t, filepath.Join(dir, "in"))
	script := filepath.Join(dir, "boot.sh")
	if err := os.WriteFile(script, []byte(bootScript), 0o700); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", script, dir)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, in: filepath.Join(dir, "in")}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	t.Cleanup(func() {
		if m.pid != "" {
			_ = exec.Command("kill", "-KILL", m.pid).Run() // its end is that of all its processes
		}
		select {
		case <-done:
		case <-time.After(patience):
			_ = cmd.Process.Kill()
			<-done
		}
		removeControlGroup(t, cmd.Process.Pid)
	})
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
		if m.pid = strings.TrimSpace(string(children)); m.pid != "" && !strings.Contains(m.pid, " ") {
			if state, _ := m.try("", "systemctl is-system-running"); strings.HasPrefix(state, "running") || strings.HasPrefix(state, "degraded") {
				break
			}
		}
		select {
		case <-done:
			t.Skipf("this machine cannot run a systemd in namespaces of its own:\n%s", log.String())
		default:
		}
		if time.Now().After(end) {
			t.Skipf("the systemd in namespaces of its own did not come up:\n%s", log.String())
		}
	}
	m.run("", roleEnv+"=loopback /guide/tool")
	return m
}

// prepare puts together what the machine has below /guide.
func prepare(t *testing.T, in string) {
	t.Helper()
	repo := filepath.Join(in, "rotatord")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(repo, 0o755); err != nil {
		t.Fatal(err)
	}
	rotatord, err := built()
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{
		{"mkdir", filepath.Join(repo, "bin")},
		{"cp", rotatord, filepath.Join(repo, "bin", "rotatord")},
		{"cp", "-r", filepath.Join(repository, "Makefile"), filepath.Join(repository, "deploy"), repo},
		{"cp", self, filepath.Join(in, "tool")},
		{"cp", realvault.Binary(t), filepath.Join(in, "vaultd")},
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", command, err, out)
		}
	}
	const shim = "#!/bin/sh\n" + roleEnv + "=vault exec /guide/tool \"$@\"\n"
	if err := os.WriteFile(filepath.Join(in, "vault-command"), []byte(shim), 0o755); err != nil {
		t.Fatal(err)
	}
}

// removeControlGroup removes the control groups of boot.sh, when their processes are gone.
func removeControlGroup(t *testing.T, pid int) {
	script := fmt.Sprintf(`mount -t cgroup2 cgroup2 %[1]s && find %[1]s/rotatord-guide-%[2]d -depth -type d -exec rmdir {} +`, t.TempDir(), pid)
	if out, err := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", script).CombinedOutput(); err != nil {
		t.Logf("a control group is left: %v\n%s", err, out)
	}
}

// try runs a command line in the machine as root, in the root of the repository.
func (m *machine) try(stdin, line string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", "--target", m.pid, "--all", "--", "env", "-i", "HOME=/root", "LC_ALL=C.UTF-8", "SYSTEMD_PAGER=cat", "SYSTEMD_COLORS=0",
		"VAULT_ADDR=http://127.0.0.1:8200", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "bash", "-c", "cd /guide/rotatord && "+line)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// run is try for what has to succeed.
func (m *machine) run(stdin, line string) string {
	m.t.Helper()
	out, err := m.try(stdin, line)
	m.t.Logf("# %s\n%s", line, out)
	if err != nil {
		journal, _ := m.try("", "systemctl status --no-pager rotatord.service; journalctl --no-pager --lines 40")
		m.t.Fatalf("%s: %v\n%s\nthe journal ends with\n%s", line, err, out, journal)
	}
	return out
}

// blocks are the command lines of a guide's shell blocks, by their heading.
func blocks(t *testing.T, path string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, path))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for _, section := range regexp.MustCompile(`(?m)^#+ `).Split(string(text), -1) {
		heading, _, _ := strings.Cut(section, "\n")
		for _, block := range regexp.MustCompile("(?ms)^ *```sh\n(.*?)^ *```").FindAllStringSubmatch(section, -1) {
			joined := strings.ReplaceAll(block[1], "\\\n", " ")
			for line := range strings.Lines(joined) {
				all[heading] = append(all[heading], strings.TrimSpace(line))
			}
		}
	}
	return all
}

// want checks that a text matches.
func want(t *testing.T, what, text, pattern string) {
	t.Helper()
	if !regexp.MustCompile("(?m)" + pattern).MatchString(text) {
		t.Errorf("%s: no match for %s in:\n%s", what, pattern, text)
	}
}

// filled puts into a command line what the guide leaves to the reader. What import writes has no slot while a test runs, whatever day it is.
var filled = strings.NewReplacer(
	"ACCOUNT_ID", "023e105f4ecef8ad9ca31a8372d0c353", "https://VAULT_HOST:8200", "http://127.0.0.1:8200",
	"rotatord import ", fmt.Sprintf("rotatord import --base-url http://127.0.0.1:8787/client/v4 --schedule '0 4 * * %d' ", (time.Now().UTC().Weekday()+3)%7), "ALICE", "alice", "ci-deploy", "seeded-0001",
)

// TestSystemdGuide: each command of the systemd guide and of the Vault guide that it leads to.
func TestSystemdGuide(t *testing.T) {
	m := boot(t)
	systemd, vault := blocks(t, "deploy/systemd/README.md"), blocks(t, "deploy/vault/README.md")
	m.run("", "install -m 0755 /guide/vault-command /usr/local/bin/vault && mkdir /guide/vault && useradd alice")
	m.run("", "systemd-run --quiet --unit vaultd /guide/vaultd -listen 127.0.0.1:8200 -dir /guide/vault")
	m.run("", "curl --silent --retry 30 --retry-all-errors --fail -o /dev/null http://127.0.0.1:8200/v1/sys/health")

	var ran program.Commands
	follow := func(lines []string) (all string) {
		t.Helper()
		for _, line := range lines {
			ran.Add(line)
			all += m.run("cfat_made-up\n", filled.Replace(line))
		}
		return all
	}
	if lines := systemd["Install"]; len(lines) < 6 || lines[0] != "make build" || lines[1] != "make install" {
		t.Fatalf("the guide installs by %q", lines)
	}
	ran.Add("make build") // was done before
	m.run("", "mkdir /guide/release && cp bin/rotatord deploy/systemd/rotatord.service /guide/release")
	for _, line := range systemd["Install"][2:] { // from the files of a release
		ran.Add(line)
		m.run("", "cd /guide/release && "+line)
	}
	follow([]string{"make install"})
	follow(systemd["Credentials"])
	// The KV mount comes after the policy there, for those who have none, and binding to addresses after AppRole.
	policy, approle := vault["The policy"], vault["AppRole"]
	if len(policy) != 2 || !strings.HasPrefix(policy[1], "vault secrets enable ") || len(approle) != 5 || !strings.Contains(approle[4], "DAEMON_ADDRESS") {
		t.Fatalf("the guide to Vault has %q and %q", policy, approle)
	}
	follow([]string{policy[1], policy[0]})
	follow(approle[:4])
	rehearse(m, append([]string{policy[0]}, approle[:4]...))

	m.run("", "systemd-run --quiet --unit sim /guide/rotatord/bin/rotatord sim --seed-tokens 3")
	m.run("", "curl --silent --retry 30 --retry-all-errors --fail -o /dev/null http://127.0.0.1:8787/_sim/stats")
	out := follow(systemd["Configuration"])
	want(t, "import", out, `^3 service token\(s\) written, 0 already configured$`)
	want(t, "check", out, `^/etc/rotatord/config\.yaml: good: 3 token\(s\), 1 account\(s\)$`)
	want(t, "plan", out, `^seeded-0003 +\S+ .* \+10m `)
	want(t, "doctor before the first start, of which the guide promises three warnings", out, `^0 bad, 3 warning\(s\), `)
	want(t, "doctor --login", m.run("", "rotatord doctor --login"), `^good +vault +3 of 3 path\(s\) can be read, created and updated, and no more$`)

	out = follow(systemd["Start"])
	want(t, "readyz", out, `^ok$`)
	want(t, "status", out, `^nothing is wrong with 3 tokens; next: seeded-000\d in `)
	want(t, "doctor beside the daemon, as root", m.run("", "rotatord doctor"), `^0 bad, `)

	unitRating(t, m)
	out = follow(slices.DeleteFunc(slices.Clone(systemd["Act on the running daemon"]), func(line string) bool {
		if !strings.HasPrefix(line, "rotatord resolve ") {
			return false
		}
		ran.Add(line)
		refused, err := m.try("", filled.Replace(line))
		want(t, "resolve", refused, `^rotatord: seeded-0001 is not in doubt: its state is idle$`)
		return err != nil
	}))
	want(t, "rotate", out, `^seeded-0001 was rotated$`)
	want(t, "the audit log", out, `"verb":"pause","token":"seeded-0001","uid":0,"user":"root"`)
	want(t, "an operator who is not root", m.run("", "setpriv --reuid=alice --regid=alice --init-groups rotatord status --all"), `^seeded-0001 `)

	change := systemd["Change the configuration, or a secret"]
	shown := slices.IndexFunc(change, func(line string) bool { return strings.HasPrefix(line, "journalctl ") })
	if shown < 0 {
		t.Fatalf("the guide changes the configuration by %q", change)
	}
	follow(change[:shown])
	m.waitFor(t, "the configuration is reloaded", "journalctl --unit rotatord.service --grep 'the configuration was reloaded'") // a reload does not wait
	follow(change[shown:])
	missingIdentity(t, m)

	follow(systemd["Back up, move, remove"])
	if out, err := m.try("", "test -e /usr/local/bin/rotatord -o -e /etc/systemd/system/rotatord.service"); err == nil {
		t.Errorf("something is left:\n%s", out)
	}
	m.run("", "test -f /etc/rotatord/config.yaml -a -d /var/lib/rotatord/pending") // what must be kept
	program.AllRun(t, repository, "deploy/systemd/README.md", ran)
}

// rehearse follows the commands of docs/simulator.md, in a directory of its own and as a user who is not
// root. vault are the commands that make the AppRole and its credentials.
func rehearse(m *machine, vault []string) {
	m.t.Helper()
	lines := blocks(m.t, "docs/simulator.md")["Rehearse the setup"]
	i := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, "rotatord import ") })
	if i < 0 {
		m.t.Fatalf("docs/simulator.md rehearses by %q", lines)
	}
	var script strings.Builder
	script.WriteString("set -e; cd /home/alice; export HOME=/home/alice\n" + strings.Join(lines[:i], "\n") + "\n")
	for _, line := range vault {
		if strings.Contains(line, "> /etc/rotatord/credentials/") {
			script.WriteString(strings.ReplaceAll(line, "/etc/rotatord/credentials/", "credentials/") + "\n")
		}
	}
	script.WriteString(strings.Join(lines[i:], "\n") + "\nkill %1 %2; wait\n")
	m.run("", "install -d -o alice -g alice /home/alice && chmod -R a+rX /guide/vault")
	out := m.run(script.String(), "setpriv --reuid=alice --regid=alice --init-groups bash -s")
	want(m.t, "the rehearsal", out, `^config\.yaml: good: 3 token\(s\), 1 account\(s\)$`)
	want(m.t, "the rehearsal", out, `^0 bad, 3 warning\(s\), `)
	want(m.t, "the rehearsal", out, `^ok$`)
	want(m.t, "the rehearsal", out, `^nothing is wrong with 3 tokens; next: seeded-000\d in `)
}

// TestReadmeSaysTheSame: the README's first setup is the systemd guide in short, so what is tried there
// holds here.
func TestReadmeSaysTheSame(t *testing.T) {
	var guide []string
	for _, lines := range blocks(t, "deploy/systemd/README.md") {
		guide = append(guide, lines...)
	}
	lines := blocks(t, "README.md")["A first setup"]
	if len(lines) < 10 {
		t.Fatalf("the README sets up by %q", lines)
	}
	for _, line := range lines {
		if !slices.ContainsFunc(guide, func(l string) bool { return slices.Equal(strings.Fields(l), strings.Fields(line)) }) {
			t.Errorf("the systemd guide has no %s", line)
		}
	}
}
