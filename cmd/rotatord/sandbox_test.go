package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// This file is the sandbox in which the commands of the documents are run: see blocks_test.go.

// scenes are what a section needs before its blocks, as commands. A section that is not here has a daemon.
var scenes = map[string]string{
	"docs/commands.md#rotatord run":                                   fresh,
	"docs/commands.md#rotatord check":                                 fresh + "sed -e 's/jitter:/jiter:/' -e 's/grace: .*/grace: \"1d\"/' config.yaml > bad.yaml\n",
	"docs/commands.md#rotatord doctor":                                fresh,
	"docs/commands.md#rotatord import":                                fresh + "rm /etc/rotatord/config.yaml\n",
	"docs/commands.md#rotatord plan":                                  fresh,
	"docs/commands.md#rotatord status":                                inDoubt,
	"docs/commands.md#rotatord resolve":                               inDoubt,
	"docs/commands.md#rotatord revoke-previous":                       withDaemon + "rotatord rotate seeded-0001\n",
	"docs/commands.md#rotatord extend-grace":                          withDaemon + "rotatord rotate seeded-0001\n",
	"docs/commands.md#rotatord hook run":                              hooked("true"),
	"docs/commands.md#rotatord hook drop":                             hooked("false"),
	"docs/commands.md#rotatord resume":                                withDaemon + "rotatord pause seeded-0002 --for 48h --reason INC-1234\n",
	"docs/commands.md#rotatord identity remove":                       apart + "cp /etc/rotatord/credentials/age-identity /run/credentials/rotatord.service\n",
	"docs/operating.md#The key apart from what it opens":              apart + "rm /etc/rotatord/credentials/age-identity\nsed -i 's!/run/credentials/rotatord.service!/etc/rotatord/credentials!' /etc/rotatord/config.yaml\n",
	"docs/commands.md#rotatord recover":                               stopped,
	"docs/commands.md#rotatord ledger export":                         withDaemon + "rotatord pause seeded-0002\n" + stop,
	"docs/commands.md#rotatord rbac":                                  fresh + "sed -E 's!vault: .*(seeded-[0-9]+).*!kubernetes: {namespace: ci, name: \\1}}]!' config.yaml > rotatord.yaml\n",
	"docs/operating.md#The daemon is gone and a secret is sealed":     sealed,
	"docs/runbook.md#The daemon is gone and a secret is sealed":       sealed,
	"docs/operating.md#From one daemon to several replicas, and back": withDaemon + replicasConfig + "cp replicas.yaml /etc/rotatord/replicas.yaml\n",
	"docs/runbook.md#RotatordVerifyFailing":                           withDaemon + "rotatord rotate seeded-0001\n" + accessHeader,
	"docs/commands.md#rotatord ledger import":                         withDaemon + "rotatord pause seeded-0002\n" + stop + "rotatord ledger export --config config.yaml > /dev/null 2>&1\n" + replicasConfig,
	"docs/commands.md#rotatord sim":                                   "",
	"docs/commands.md#rotatord drill":                                 fresh,
	"docs/drill.md#The drill":                                         fresh,
	"docs/plan.md#rotatord plan":                                      fresh,
	"docs/simulator.md#The simulator":                                 "",
	"docs/simulator.md#Rehearse with files":                           "",
	"docs/simulator.md#Faults":                                        "",
	"README.md#Try it":                                                "",
}

// hooked is a scene in which a hook of seeded-0001 runs a program after its rotation.
func hooked(program string) string {
	return fresh + "sed -i -E 's!^( *)sinks: .*seeded-0001.*!&\\n\\1after: [{exec: {command: [/bin/" + program + "]}}]!' config.yaml\nstart_daemon\nrotatord rotate seeded-0001 --config config.yaml\n"
}

// What a scene consists of. The sandbox has the functions.
const (
	fresh      = "world\n"
	withDaemon = fresh + "start_daemon\n"
	stop       = "stop_daemon\n"
	stopped    = withDaemon + stop
	inDoubt    = withDaemon + "rotatord rotate --all --account main --revoke-now > /dev/null\n" +
		"curl --silent --fail --output /dev/null --json '{\"operation\": \"rotate\", \"kind\": \"drop\", \"when\": \"after\", \"count\": 1}' http://127.0.0.1:8787/_sim/faults\n" +
		"rotatord rotate seeded-0003 --override-grace > /dev/null 2>&1 || true\n"
	// Vault goes away while Cloudflare rotates, and then the daemon is killed.
	sealed = withDaemon + "curl --silent --fail --output /dev/null --json '{\"operation\": \"rotate\", \"kind\": \"delay\", \"delay\": \"3s\", \"count\": 1}' http://127.0.0.1:8787/_sim/faults\n" +
		"rotatord rotate seeded-0001 > /dev/null 2>&1 < /dev/null &\n" +
		"until curl --silent http://127.0.0.1:8787/_sim/faults | grep -q -E '^(null|\\[\\])$'; do sleep 0.02; done\n" +
		"kill -KILL $(cat vault.pid)\nuntil grep -q 'waits to be delivered' run.log; do sleep 0.02; done\nkill -KILL $(cat run.pid)\n"
	// The configuration names a place for the identity, and the daemon has one in its state directory still.
	apart = withDaemon + "mkdir -p /run/credentials/rotatord.service\nrotatord identity copy --out /etc/rotatord/credentials/age-identity > /dev/null 2>&1\n" +
		"sed 's!^state:.*!state: {dir: /var/lib/rotatord, identity: {file: /run/credentials/rotatord.service/age-identity}}!; /^  dir: /d' config.yaml > apart.yaml\n" +
		"cp apart.yaml /etc/rotatord/config.yaml\n"
	replicasConfig = "sed 's!^state:.*!state: {dir: /var/lib/rotatord, shared: {vault: {mount: secret, prefix: rotatord}}}!; /^  dir: /d' config.yaml > replicas.yaml\n"
	accessHeader   = "curl --silent --fail --header 'X-Vault-Token: root' http://127.0.0.1:8200/v1/secret/data/access/seeded-0001 |\n" +
		"sed -n 's/.*\"client_id\": *\"\\([^\"]*\\)\".*\"client_secret\": *\"\\([^\"]*\\)\".*/CF-Access-Client-Id: \\1\\nCF-Access-Client-Secret: \\2/p' > access-header\ntest -s access-header\n"
)

// library are the functions of the sandbox. serve runs a program that does not end by itself until it says that it is up.
// new_log makes the log of a program before the program starts in the background: only the background opens it otherwise,
// which may be later than the first look. It is a new file, else what an earlier program says could be taken for what this one says.
const library = `
new_log() {
  rm -f "$1"
  : > "$1"
}
world() {
  mkdir -p etc/rotatord/credentials
  new_log sim.log
  setsid rotatord sim --seed-tokens 3 > sim.log 2>&1 < /dev/null &
  until grep -q base_url sim.log; do sleep 0.02; done
  echo cfat_made-up > /etc/rotatord/credentials/cloudflare-api-token
  echo made-up > /etc/rotatord/credentials/vault-role-id
  echo made-up > /etc/rotatord/credentials/vault-secret-id
  chmod 600 /etc/rotatord/credentials/*
  echo 'Authorization: Bearer cfat_made-up' > cloudflare-header
  rotatord import --for here --account main --account-id 023e105f4ecef8ad9ca31a8372d0c353 --api-token-file /etc/rotatord/credentials/cloudflare-api-token \
    --base-url http://127.0.0.1:8787/client/v4 --vault-address http://127.0.0.1:8200 --state-dir /var/lib/rotatord --listen 127.0.0.1:9321 \
    --schedule "$SCHEDULE" --out config.yaml 2> /dev/null
  sed -i 's!^admin_socket: .*!admin_socket: /run/rotatord/admin.sock!' config.yaml
  cp config.yaml /etc/rotatord/config.yaml
  cp config.yaml /etc/rotatord/rotatord.yaml
}
start_daemon() {
  new_log run.log
  setsid rotatord run --config config.yaml > run.log 2>&1 < /dev/null &
  echo $! > run.pid
  until grep -q 'rotatord is running' run.log; do sleep 0.02; done
  curl --silent --retry 100 --retry-delay 0 --retry-all-errors --fail --output /dev/null http://127.0.0.1:9321/readyz
}
stop_daemon() {
  kill -TERM "$(cat run.pid)"
  while kill -0 "$(cat run.pid)" 2> /dev/null; do sleep 0.02; done
}
serve() {
  new_log serve.log
  setsid "$@" > serve.log 2>&1 < /dev/null &
  local pid=$!
  until grep -q -e base_url -e 'rotatord is running' serve.log || ! kill -0 $pid 2> /dev/null; do sleep 0.02; done
  kill -TERM $pid
  local code=0
  wait $pid || code=$?
  cat serve.log
  return $code
}
`

// sandbox is a directory with what the documents have elsewhere.
type sandbox struct {
	t        *testing.T
	dir      string
	paths    *strings.Replacer // from the documents to here
	back     *strings.Replacer // and back
	schedule string
}

// freePort returns an address at which nothing listens now. Its port is below those that the system gives to outgoing
// connections, so that none of them takes it while a program of a document is started again.
func freePort(t *testing.T) string {
	t.Helper()
	for range 1000 {
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 12000+rand.IntN(20000)))
		if err == nil {
			defer listener.Close()
			return listener.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

func newSandbox(t *testing.T) *sandbox {
	t.Helper()
	dir, err := os.MkdirTemp("", "rb") // short: a socket has a path of at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	s := &sandbox{t: t, dir: dir}
	for _, d := range []string{"bin", "real", "etc/rotatord/credentials", "var/lib", "var/www", "run/rotatord", "usr/local/share/bash-completion/completions", "root"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	self, err := filepath.Abs(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"real/rotatord", "bin/fakevault"} {
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	vault := exec.Command(filepath.Join(dir, "bin", "fakevault"), "1h")
	out, err := vault.StdoutPipe()
	if err == nil {
		err = vault.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	said := make([]byte, 200)
	n, err := out.Read(said)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = vault.Process.Kill()
		_ = vault.Wait()
		s.end()
		_ = os.RemoveAll(dir)
	})
	places := []string{"127.0.0.1:9321", freePort(t), "127.0.0.1:8787", freePort(t), "http://127.0.0.1:8200", strings.TrimSpace(string(said[:n]))}
	for _, place := range []string{"/etc/rotatord", "/var/lib/rotatord", "/var/www", "/run/rotatord", "/usr/local/share", "/root"} {
		places = append(places, place, dir+place)
	}
	back := make([]string, len(places))
	for i := 0; i < len(places); i += 2 {
		back[i], back[i+1] = places[i+1], places[i]
	}
	s.paths, s.back = strings.NewReplacer(places...), strings.NewReplacer(append(back, dir+"/", "")...)
	if err := os.WriteFile(filepath.Join(dir, "bin/rotatord"), []byte(strings.ReplaceAll(s.paths.Replace(wrapper), "REAL", filepath.Join(dir, "real/rotatord"))), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, script := range others {
		if err := os.WriteFile(filepath.Join(dir, "bin", name), []byte("#!/bin/bash\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "vault.pid"), fmt.Append(nil, vault.Process.Pid), 0o600); err != nil {
		t.Fatal(err)
	}
	// Two days from now, so that no slot comes while the test runs.
	s.schedule = fmt.Sprintf("0 4 * * %d", int(time.Now().UTC().AddDate(0, 0, 2).Weekday()))
	return s
}

// end ends what was started here.
func (s *sandbox) end() {
	all, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, cwd := range all {
		var pid int
		if at, err := os.Readlink(cwd); err != nil || at != s.dir {
			continue
		} else if _, err := fmt.Sscanf(cwd, "/proc/%d/cwd", &pid); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// run runs a script, and returns what it prints, as a document would have it.
func (s *sandbox) run(script string) (string, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", s.paths.Replace(library+script))
	cmd.Dir = s.dir
	cmd.Env = append(environment(), "PATH="+filepath.Join(s.dir, "bin")+":"+os.Getenv("PATH"), "SCHEDULE="+s.schedule, "LC_ALL=C.UTF-8", "HOME="+s.dir,
		"ACCOUNT_ID=023e105f4ecef8ad9ca31a8372d0c353", "TOKEN_ID=5eed0000-0000-4000-8000-000000000001", s.paths.Replace("VERIFY_URL=http://127.0.0.1:8787/app/"))
	path := filepath.Join(s.dir, "output") // and not a pipe, which a program in the background would keep open
	out, err := os.Create(path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	said, readErr := os.ReadFile(path)
	return s.back.Replace(string(said)), errors.Join(err, readErr)
}

// wrapper is a program that gives rotatord the addresses and the configuration of the sandbox, where a document relies on
// the defaults.
const wrapper = `#!/bin/bash
case "$1" in
sim) shift; exec REAL sim --listen 127.0.0.1:8787 "$@" ;;
import) shift; exec REAL import --base-url http://127.0.0.1:8787/client/v4 "$@" ;;
esac
case " $* " in
*" --config "* | *" -c "* | *" --state-dir "* | *" --help "* | " rules "* | " version "* | " completion "* | " demo "* | " docs "* | *" --list "*) exec REAL "$@" ;;
*) exec REAL "$@" --config /etc/rotatord/config.yaml ;;
esac
`

// others are programs that act on something that is not here. They do as much of that as the sandbox has, and refuse all
// else, so that no test acts on the machine or the cluster of a developer.
var others = map[string]string{
	"systemctl": `case "$1 ${2%.service}" in
"stop rotatord") kill -TERM "$(cat run.pid)"; while kill -0 "$(cat run.pid)" 2> /dev/null; do sleep 0.02; done ;;
"reload rotatord") kill -HUP "$(cat run.pid)" ;;
*) exit 1 ;;
esac`,
	"journalctl": `[ "$1 $2" = "--unit rotatord.service" ] && cat run.log`,
	"kubectl": `all=" $* "
case "$all" in
*" exec deployment/rotatord -- /usr/local/bin/rotatord "*) exec rotatord ${all#* /usr/local/bin/rotatord } ;;
*" logs deployment/rotatord "*) cat run.log ;;
*" apply -f - ") grep -q '^kind: Role$' ;;
*) exit 1 ;;
esac`,
	"vault": `[ "$1 $2 $3" = "kv patch -mount=secret" ] && [ -s "${5#*=@}" ]`,
	"git":   "exit 1", "gpg": "exit 1", "docker": "exit 1", "helm": "exit 1", "ssh": "exit 1", "scp": "exit 1",
}
