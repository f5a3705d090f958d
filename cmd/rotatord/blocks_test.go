package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// This file runs the command blocks of the documents: those in sh, and those with lines that begin with a prompt.
// A block is run here, in a sandbox with the simulator of Cloudflare, a KV server and this program; or a test of a guide
// runs it; or it is marked with a comment before it, which says why it is only an illustration:
//
//	<!-- illustration: it needs a cluster -->

// ranElsewhere are the documents and sections whose blocks a test in another module runs. That test fails if it leaves
// one out that is not marked.
var ranElsewhere = map[string]string{
	"deploy/kubernetes/README.md":          "test/deploy",
	"deploy/helm/rotatord/README.md":       "test/deploy",
	"deploy/systemd/README.md":             "test/guide",
	"deploy/vault/README.md":               "test/guide",
	"docs/simulator.md#Rehearse the setup": "test/guide",
	"README.md#A first setup":              "test/guide", // the same lines as in the guide to systemd
}

// block is a block of commands in a document.
type block struct {
	path, section string
	line          int
	console       bool // with prompts and output
	text          string
	illustration  string // why it is not run; empty if it is
}

var marked = regexp.MustCompile(`^ *<!-- illustration: (.*) -->$`)

// blocksOf returns the blocks of commands of a document.
func blocksOf(t *testing.T, path string) (all []block) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("../..", path))
	if err != nil {
		t.Fatal(err)
	}
	section, mark := "", ""
	lines := strings.Split(string(content), "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		indent := line[:len(line)-len(strings.TrimLeft(line, " "))]
		switch kind, fenced := strings.CutPrefix(strings.TrimSpace(line), "```"); {
		case fenced:
			b := block{path: path, section: section, line: i + 1, illustration: mark}
			var text strings.Builder
			for i++; i < len(lines) && strings.TrimSpace(lines[i]) != "```"; i++ {
				text.WriteString(strings.TrimPrefix(lines[i], indent) + "\n")
			}
			b.text = text.String()
			b.console = kind == "console" || kind == "" && regexp.MustCompile(`(?m)^\$ `).MatchString(b.text)
			if b.console && b.illustration == "" && !strings.Contains("\n"+b.text, "\n$ ") {
				t.Errorf("%s:%d: no line begins with the prompt $, so nothing is run", path, b.line)
			}
			if b.console || kind == "sh" {
				all = append(all, b)
			}
			mark = ""
		case strings.HasPrefix(line, "#"):
			section, mark = strings.TrimLeft(line, "# "), ""
		case marked.MatchString(line):
			if mark = marked.FindStringSubmatch(line)[1]; len(strings.Fields(mark)) < 3 {
				t.Errorf("%s:%d: the mark does not say why", path, i+1)
			}
		case strings.TrimSpace(line) != "":
			if mark != "" {
				t.Errorf("%s:%d: the mark above is not before a block", path, i+1)
			}
			mark = ""
		}
	}
	return all
}

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
	"docs/commands.md#rotatord resume":                                withDaemon + "rotatord pause seeded-0002 --for 48h --reason INC-1234\n",
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
	replicasConfig = "sed 's!^state:.*!state: {dir: /var/lib/rotatord, shared: {vault: {mount: secret, prefix: rotatord}}}!; /^  dir: /d' config.yaml > replicas.yaml\n"
	accessHeader   = "curl --silent --fail --header 'X-Vault-Token: root' http://127.0.0.1:8200/v1/secret/data/access/seeded-0001 |\n" +
		"sed -n 's/.*\"client_id\": *\"\\([^\"]*\\)\".*\"client_secret\": *\"\\([^\"]*\\)\".*/CF-Access-Client-Id: \\1\\nCF-Access-Client-Secret: \\2/p' > access-header\ntest -s access-header\n"
)

// library are the functions of the sandbox. serve runs a program that does not end by itself until it says that it is up.
const library = `
world() {
  mkdir -p etc/rotatord/credentials
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
  setsid "$@" > serve.log 2>&1 < /dev/null &
  local pid=$!
  for i in $(seq 500); do
    if grep -q -e base_url -e 'rotatord is running' serve.log || ! kill -0 $pid 2> /dev/null; then break; fi
    sleep 0.02
  done
  kill -TERM $pid
  wait $pid
  cat serve.log
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

// freePort returns an address at which nothing listens now.
func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
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
*" --config "* | *" -c "* | *" --state-dir "* | *" --help "* | " rules "* | " version "* | " completion "* | " demo "* | *" --list "*) exec REAL "$@" ;;
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

// filledIn is what a reader puts into a command, or what would take too long.
var filledIn = strings.NewReplacer(
	"go run ./cmd/rotatord demo", "rotatord demo --for 2s", "--for 12s", "--for 2s", "make test", "make --dry-run --directory REPOSITORY test > /dev/null",
	"ci-deploy", "seeded-0001", "ALICE", "alice", "--state-dir DIR ", "--state-dir /var/lib/rotatord ", "curl --silent ", "curl --silent --fail ",
	"https://api.cloudflare.com/", "http://127.0.0.1:8787/",
)

// script returns the commands of a block in sh, as the sandbox runs them.
func (s *sandbox) script(text string) string {
	repository, err := filepath.Abs("../..")
	if err != nil {
		s.t.Fatal(err)
	}
	var b strings.Builder
	for line := range strings.Lines(strings.ReplaceAll(filledIn.Replace(text), "\\\n", " ")) {
		bare, _, _ := strings.Cut(line, " #")
		if bare = strings.TrimSpace(bare); regexp.MustCompile(`^rotatord (sim|run)\b`).MatchString(bare) && !strings.HasSuffix(bare, "&") {
			line = "serve " + line // it does not end by itself
		}
		b.WriteString(strings.ReplaceAll(line, "REPOSITORY", repository))
	}
	return b.String()
}

// unstable is what differs from run to run in an output, and what stands for it in a comparison.
var unstable = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`0 4 \* \* \d`), "SCHEDULE"},
	{regexp.MustCompile(`sha256:[A-Za-z0-9_-]+`), "DIGEST"},
	{regexp.MustCompile(`\b[A-Z2-7]{26}\b`), "ROTATION"},
	{regexp.MustCompile(`\b[0-9a-f]{32}\.access`), "CLIENT"},
	{regexp.MustCompile(`go1\.[0-9.]+`), "GO"},
	{regexp.MustCompile(`\d{8}T\d{6}\.\d{3}Z`), "TIME"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z| UTC| \+\d\d:\d\d)?`), "TIME"},
	{regexp.MustCompile(`\b\d\d-\d\d \d\d:\d\d\b`), "TIME"},
	{regexp.MustCompile(`\b\d\d:\d\d:\d\d\b`), "TIME"},
	{regexp.MustCompile(`\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun) TIME`), "TIME"},
	{regexp.MustCompile(`(in )?\b\d+ (d|h|min|s)\b( \d+ (min|s)\b)?( ago)?`), "DISTANCE"},
	{regexp.MustCompile(`(\(|, |   )now\b`), "${1}DISTANCE"},
	{regexp.MustCompile(`cfast_\S+`), "SECRET"},
	{regexp.MustCompile(`\b\d+[hm][0-9hms]*s\b`), "DURATION"},
	{regexp.MustCompile(`next: seeded-\d+`), "next: TOKEN"},
	{regexp.MustCompile(`\b11\d\d of the 1200`), "11xx of the 1200"},
	{regexp.MustCompile(`\b\w+ by root\b`), "by root"},
	{regexp.MustCompile(`\bby [a-z_][a-z0-9_-]*, until`), "by USER, until"},
}

// stable returns the lines of an output without what differs from run to run.
func stable(text string) (lines []string) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		for _, u := range unstable {
			line = u.pattern.ReplaceAllString(line, u.with)
		}
		if line = strings.Join(strings.Fields(line), " "); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// matches reports whether an output is what a document shows. A line of three dots stands for any lines. The lines of a
// table may have another order, because the offsets of the tokens depend on the slot.
func matches(want, got []string) bool {
	if !slices.Contains(want, "...") {
		return slices.Equal(want, got) || slices.Equal(slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(got))) ||
			strings.Join(want, " ") == strings.Join(got, " ") // a paragraph is broken elsewhere
	}
	return begins(want, got)
}

func begins(want, got []string) bool {
	switch {
	case len(want) == 0:
		return len(got) == 0
	case want[0] == "...":
		return begins(want[1:], got) || len(got) > 0 && begins(want, got[1:])
	}
	return len(got) > 0 && want[0] == got[0] && begins(want[1:], got[1:])
}

// TestMatches: the comparison can fail.
func TestMatches(t *testing.T) {
	for _, test := range []struct {
		want, got string
		same      bool
	}{
		{"a in 3 h 5 min\n", "a in 2 d\n", true},
		{"a 2026-11-28 19:36:06 UTC (now)\n", "a 2027-01-01 00:00:00 UTC (1 s ago)\n", true},
		{"a\nb\n", "b\na\n", true},
		{"a\nb\n", "a\nc\n", false},
		{"a\nb\n", "a\n", false},
		{"a\n...\nb\n", "a\nx\ny\nb\n", true},
		{"a\n...\nb\n", "a\nx\ny\n", false},
		{"a\n...\n", "b\n", false},
		{"a\n...\nb\n", "a\n", false},
		{"a\n...\nb\n...\n", "a\nx\nb\ny\n", true},
		{"a\n...\nb\n...\n", "a\nx\ny\n", false},
	} {
		if same := matches(stable(test.want), stable(test.got)); same != test.same {
			t.Errorf("%q and %q: %v", test.want, test.got, same)
		}
	}
}

// console runs the commands of a block with prompts, and compares what they print. With -update it returns the block as
// it would have to be.
func (s *sandbox) console(b block) string {
	s.t.Helper()
	var shown strings.Builder
	parts := regexp.MustCompile(`(?m)^\$ `).Split(b.text, -1)
	shown.WriteString(parts[0])
	for _, part := range parts[1:] {
		command, want, _ := strings.Cut(part, "\n")
		got, err := s.run(s.script(command))
		if exit := (*exec.ExitError)(nil); err != nil && !asExit(err, &exit) {
			s.t.Fatalf("%s:%d: %s: %v\n%s", b.path, b.line, command, err, got)
		}
		keep := want
		if !matches(stable(filledIn.Replace(want)), stable(got)) {
			if !*update {
				s.t.Errorf("%s:%d: %s\nprints\n%s\nand the document has\n%s", b.path, b.line, command, got, want)
			}
			keep = regexp.MustCompile(`cfast_\S+`).ReplaceAllString(got, "cfast_…")
		}
		if *update && slices.Contains(stable(want), "...") {
			keep = want // shortened by hand
		}
		shown.WriteString("$ " + command + "\n" + keep)
	}
	return shown.String()
}

func asExit(err error, exit **exec.ExitError) bool {
	e, ok := errors.AsType[*exec.ExitError](err)
	*exit = e
	return ok
}

// TestBlocks runs each block of commands of the documents that is not marked as an illustration.
func TestBlocks(t *testing.T) {
	for _, program := range []string{"bash", "curl", "setsid", "make"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	ran, illustrations, elsewhere := 0, 0, 0
	for _, glob := range documents {
		paths, err := filepath.Glob(filepath.Join("../..", glob))
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s matches nothing: %v", glob, err)
		}
		for _, path := range paths {
			path = strings.TrimPrefix(filepath.ToSlash(path), "../../")
			var sections []string
			bySection := map[string][]block{}
			for _, b := range blocksOf(t, path) {
				switch {
				case b.illustration != "":
					illustrations++
				case ranElsewhere[path] != "" || ranElsewhere[path+"#"+b.section] != "":
					elsewhere++
				default:
					ran++
					if bySection[b.section] == nil {
						sections = append(sections, b.section)
					}
					bySection[b.section] = append(bySection[b.section], b)
				}
			}
			for _, section := range sections {
				if testing.Short() {
					continue
				}
				t.Run(path+"#"+section, func(t *testing.T) { runSection(t, path, section, bySection[section]) })
			}
		}
	}
	t.Logf("%d blocks are run here, %d by tests of guides, and %d are marked as illustrations", ran, elsewhere, illustrations)
	if ran < 20 {
		t.Errorf("only %d blocks are run", ran)
	}
}

// runSection runs the blocks of a section one after the other, in a sandbox of their own.
func runSection(t *testing.T, path, section string, blocks []block) {
	s := newSandbox(t)
	scene, known := scenes[path+"#"+section]
	if !known {
		scene = withDaemon
	}
	if out, err := s.run(scene); err != nil {
		t.Fatalf("what comes before the section: %v\n%s", err, out)
	}
	for _, b := range blocks {
		if b.console {
			if shown := s.console(b); *update && shown != b.text {
				rewrite(t, b, shown)
			}
			continue
		}
		if out, err := s.run(s.script(b.text)); err != nil {
			t.Errorf("%s:%d: %v\n%s\nprints\n%s", b.path, b.line, err, b.text, out)
		}
	}
}

// rewrite puts another text in the place of a block.
func rewrite(t *testing.T, b block, text string) {
	t.Helper()
	path := filepath.Join("../..", b.path)
	content, err := os.ReadFile(path)
	if err != nil || strings.Count(string(content), b.text) != 1 {
		t.Fatalf("%s:%d: the block cannot be written again: %v", b.path, b.line, err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(content), b.text, text, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}
