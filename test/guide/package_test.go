package guide

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// The two versions that a test upgrades between. Both are built from this tree.
const (
	oldVersion = "v0.0.1"
	newVersion = "v0.0.2"
)

// packager is how one kind of package is installed and removed.
type packager struct {
	program string // must be on this machine
	install string // with the file
	again   string // install, of a version that is installed already
	upgrade string
	remove  string
	purge   string // "": there is no such thing
	list    string // the package's files
	verify  string // prints nothing if all files are as packaged
	listed  string // fails if the package is not installed
	pattern string // of the file
	zsh     string // where the completions for zsh are
}

// Debian's rpm asks for --force-debian, because dpkg knows nothing of what it installs.
var packagers = map[string]packager{
	"deb": {
		program: "dpkg", install: "dpkg --install %s", again: "dpkg --install %s", upgrade: "dpkg --install %s", remove: "dpkg --remove rotatord", purge: "dpkg --purge rotatord",
		list: "dpkg --listfiles rotatord", verify: "dpkg --verify rotatord", pattern: "rotatord_%s_*.deb",
		zsh: "/usr/share/zsh/vendor-completions/_rotatord", listed: "dpkg-query --show --showformat '${db:Status-Status}\\n' rotatord | grep -q ^installed",
	},
	"rpm": {
		program: "rpm", install: "rpm --force-debian --install %s", again: "rpm --force-debian --upgrade --replacepkgs %s", upgrade: "rpm --force-debian --upgrade %s", remove: "rpm --force-debian --erase rotatord",
		list: "rpm --query --list rotatord", verify: "rpm --verify rotatord", pattern: "rotatord-%s-1.*.rpm",
		zsh: "/usr/share/zsh/site-functions/_rotatord", listed: "rpm --query rotatord",
	},
}

// TestPackages installs a package on a machine that never had rotatord, runs the daemon, rotates a secret, upgrades it
// while it runs, removes it, and looks at what is left.
func TestPackages(t *testing.T) {
	work, built := t.TempDir(), t.TempDir()
	// The error is told once, and by this test: a subtest must not end the test above it.
	build := sync.OnceValue(func() bool {
		err := buildPackages(t.Context(), work, built)
		if err != nil {
			t.Errorf("the packages: %v", err)
		}
		return err == nil
	})
	for kind, p := range packagers {
		t.Run(kind, func(t *testing.T) { testPackage(t, p, built, build) })
	}
}

func testPackage(t *testing.T, p packager, built string, build func() bool) {
	if _, err := exec.LookPath(p.program); err != nil && os.Getenv("ROTATORD_REQUIRE_TOOLS") == "" {
		t.Skipf("%s is not installed", p.program)
	}
	m := boot(t)
	if !build() {
		t.Fatal("the packages were not built")
	}
	if out, err := exec.Command("cp", "-r", built, filepath.Join(m.in, "packages")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	files := map[string]string{}
	for _, version := range []string{oldVersion, newVersion} {
		found, err := filepath.Glob(filepath.Join(built, fmt.Sprintf(p.pattern, strings.TrimPrefix(version, "v"))))
		if err != nil || len(found) != 1 {
			t.Fatalf("packages of %s: %q, %v", version, found, err)
		}
		files[version] = "/guide/packages/" + filepath.Base(found[0])
	}
	if p.program == "rpm" { // no rpm of a distribution is there for it to depend on
		m.run("", "rpm --force-debian --install /guide/packages/ca-certificates-*.rpm")
	}

	if p.program == "rpm" {
		otherRoot(t, m, files)
	}
	out := m.run("", fmt.Sprintf(p.install, files[oldVersion]))
	want(t, "the first installation", out, `what to do next is in /usr/share/doc/rotatord/README\.md`)
	if out, err := m.try("", "systemctl is-enabled rotatord.service"); err == nil {
		t.Errorf("the unit is enabled before there is a configuration: %s", out)
	}
	installedFiles(t, m, p)

	// The steps of the README that the package installs, against a simulated Cloudflare and a real Vault.
	m.run("", "install -m 0755 /guide/vault-command /usr/local/bin/vault && mkdir /guide/vault")
	m.run("", "systemd-run --quiet --unit vaultd /guide/vaultd -listen 127.0.0.1:8200 -dir /guide/vault")
	m.run("", "curl --silent --retry 30 --retry-all-errors --fail -o /dev/null http://127.0.0.1:8200/v1/sys/health")
	m.run("", "systemd-run --quiet --unit sim /guide/rotatord/bin/rotatord sim --seed-tokens 1")
	m.run("", "curl --silent --retry 30 --retry-all-errors --fail -o /dev/null http://127.0.0.1:8787/_sim/stats")
	lines, vault := blocks(t, "deploy/packages/INSTALLED.md")["What the package installed, and what comes next"], blocks(t, "deploy/vault/README.md")
	if len(lines) != 8 || !strings.HasPrefix(lines[2], "rotatord import ") {
		t.Fatalf("the package's README has %q", lines)
	}
	follow := func(lines ...string) {
		t.Helper()
		for _, line := range lines {
			m.run("cfat_made-up\n", filled.Replace(line))
		}
	}
	follow(lines[:2]...)
	follow(vault["The policy"][1], vault["The policy"][0])
	follow(vault["AppRole"][:4]...)
	follow(lines[2:]...)
	m.run("", ready)
	want(t, "status", m.run("", "rotatord status --all"), `seeded-0001`)
	m.run("", "rotatord rotate seeded-0001")
	want(t, "the owner of the state", m.run("", "stat --format %U /var/lib/private/rotatord"), `^rotatord$`)
	rotations := m.run("", rotated)
	want(t, "the rotation", rotations, `^"rotations":\{"[^"]+":1\}\nrotatord_token_last_success_timestamp_seconds\{.*\} 1\.\d+e\+09$`)

	// A change of the example is the administrator's: an upgrade must keep it.
	m.run("", "echo '# mine' >> /etc/rotatord/config.example.yaml")
	m.run("", fmt.Sprintf(p.upgrade, files[newVersion]))
	m.run("", ready)
	want(t, "the version that runs", m.run("", "curl --silent --fail http://127.0.0.1:9321/metrics | grep ^rotatord_build_info"), `version="`+newVersion+`"`)
	if after := m.run("", rotated); after != rotations {
		t.Errorf("the upgrade rotated, or lost the ledger: %s, before %s", after, rotations)
	}
	m.run("", "tail -n 1 /etc/rotatord/config.example.yaml | grep -qx '# mine' && systemctl is-enabled rotatord.service")

	// A version that refuses the configuration must not end the one that works.
	m.run("", "cp -a /etc/rotatord/config.yaml /root/ && echo 'unknown: key' >> /etc/rotatord/config.yaml")
	pid := m.run("", mainPID)
	out = m.run("", fmt.Sprintf(p.again, files[newVersion]))
	want(t, "an upgrade with a configuration that is refused", out, `does not accept /etc/rotatord/config\.yaml\. The old version is still running`)
	if now := m.run("", mainPID); now != pid {
		t.Errorf("the process %s was replaced by %s", pid, now)
	}
	m.run("", "cp -a /root/config.yaml /etc/rotatord/")

	// The removal stops the daemon, and keeps what cannot be had again.
	m.run("", "touch /var/lib/private/rotatord/pending/undelivered")
	out = m.run("", p.remove)
	want(t, "the removal", out, `WARNING: /var/lib/private/rotatord/pending has client secrets that were not delivered`)
	want(t, "the removal", out, `do not remove them: there are client secrets in /var/lib/private/rotatord/pending `)
	if strings.Contains(out, "rm -rf") {
		t.Errorf("the removal shows how to lose an undelivered secret:\n%s", out)
	}
	left := "test ! -e /usr/bin/rotatord && test ! -e /usr/lib/systemd/system/rotatord.service && ! systemctl --quiet is-active rotatord.service && " +
		"test ! -L /etc/systemd/system/multi-user.target.wants/rotatord.service && test -e /var/lib/private/rotatord/pending/undelivered && " +
		"test -f /etc/rotatord/config.yaml && test -f /etc/rotatord/credentials/cloudflare-api-token"
	m.run("", left)
	if p.purge != "" {
		m.run("", p.purge)
		m.run("", left+" && test ! -e /etc/rotatord/config.example.yaml")
	}

	// Installed again, it continues: the ledger is the one from before.
	m.run("", "rm /var/lib/private/rotatord/pending/undelivered")
	m.run("", fmt.Sprintf(p.install, files[newVersion]))
	m.run("", "systemctl enable --now rotatord.service && "+ready)
	if after := m.run("", rotated); after != rotations {
		t.Errorf("the second installation rotated, or lost the ledger: %s, before %s", after, rotations)
	}
	want(t, "the last removal", m.run("", p.remove), `are kept\.\n.*to remove them for good: rm -rf `)
	if out, err := m.try("", p.listed); err == nil {
		t.Errorf("the package is still listed: %s", out)
	}
}

const (
	ready   = "curl --silent --show-error --retry 30 --retry-delay 1 --retry-all-errors --fail http://127.0.0.1:9321/readyz"
	mainPID = "systemctl show --property MainPID --value rotatord.service"
	// rotated says how often each service token was rotated, and when the ledger says that it was.
	rotated = `curl --silent --fail http://127.0.0.1:8787/_sim/stats | grep -o '"rotations":{[^}]*}' && ` +
		`curl --silent --fail http://127.0.0.1:9321/metrics | grep ^rotatord_token_last_success_timestamp_seconds`
)

// buildPackages writes the packages of both versions into the directory out, and an rpm that provides what they depend on.
func buildPackages(ctx context.Context, work, out string) error {
	repo, err := filepath.Abs(repository)
	if err != nil {
		return err
	}
	command := func(dir, line string, args ...string) {
		if err != nil {
			return
		}
		cmd := exec.CommandContext(ctx, "bash", append([]string{"-euc", line, "bash"}, args...)...)
		cmd.Dir = dir
		if out, failed := cmd.CombinedOutput(); failed != nil {
			err = fmt.Errorf("%s: %w\n%s", line, failed, out)
		}
	}
	command(filepath.Join(repo, "tools/release"), `go build -o "$1/" github.com/goreleaser/nfpm/v2/cmd/nfpm ./licenses`, work)
	command(repo, `CGO_ENABLED=0 go build -tags man -o "$1/commands" ./cmd/rotatord`, work)
	for _, version := range []string{oldVersion, newVersion} {
		command(repo, `CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$2" -o "$1/rotatord" ./cmd/rotatord
			SOURCE_DATE_EPOCH=$(date +%s) TOOLS=$1 COMMANDS=$1/commands scripts/package.sh "$2" "$(go env GOARCH)" "$1/rotatord" "$3"`, work, version, out)
	}
	command(work, `printf 'name: ca-certificates\narch: all\nversion: 1.0.0\nmaintainer: test <test@localhost>\ndescription: a stub\n' >stub.yaml
		./nfpm package --config stub.yaml --packager rpm --target "$1/"`, out)
	return err
}

// installedFiles checks what a user finds: the unit, the completions, the man pages, and modes.
func installedFiles(t *testing.T, m *machine, p packager) {
	t.Helper()
	list := m.run("", p.list)
	for _, path := range []string{
		"/usr/bin/rotatord", "/usr/lib/systemd/system/rotatord.service", "/usr/lib/sysusers.d/rotatord.conf", "/etc/rotatord/config.example.yaml",
		"/usr/share/bash-completion/completions/rotatord", "/usr/share/fish/vendor_completions.d/rotatord.fish", p.zsh,
		"/usr/share/doc/rotatord/THIRD-PARTY-LICENSES.txt", "/usr/share/doc/rotatord/README.md", "/usr/share/doc/rotatord/examples/vault/rotatord-policy.hcl",
		"/usr/share/doc/rotatord/examples/prometheus/rotatord.rules.yaml", "/usr/share/doc/rotatord/examples/grafana/rotatord.json",
	} {
		want(t, "the package", list, "^"+path+"$")
	}
	if out := m.run("", p.verify); strings.TrimSpace(out) != "" {
		t.Errorf("files are not as packaged:\n%s", out)
	}
	want(t, "the user", m.run("", "getent passwd rotatord"), `^rotatord:.*:/var/lib/rotatord:\S*nologin$`)
	want(t, "the modes", m.run("", "stat --format '%a %U %n' /etc/rotatord /etc/rotatord/credentials /usr/bin/rotatord"),
		`^755 root /etc/rotatord\n700 root /etc/rotatord/credentials\n755 root /usr/bin/rotatord$`)
	want(t, "the unit", m.run("", "systemctl cat rotatord.service"), `^ExecStart=/usr/bin/rotatord run `)
	want(t, "the unit", m.run("", "systemctl cat rotatord.service"), `^Documentation=man:rotatord\(1\) man:rotatord\.yaml\(5\)$`)
	completionsLoad(t, m, p)
	// Every command has its page.
	_, commands, _ := strings.Cut(m.run("", "rotatord help"), "Commands:\n")
	for line := range strings.Lines(commands) {
		command, short, found := strings.Cut(strings.TrimSpace(line), " ")
		if found && strings.HasPrefix(line, "  ") && command != "help" && !strings.HasPrefix(command, "-") && strings.TrimSpace(short) != "" {
			m.run("", "test -s /usr/share/man/man1/rotatord-"+command+".1.gz")
		}
	}
	if _, err := exec.LookPath("mandoc"); err == nil {
		want(t, "man", m.run("", "mandoc -Tutf8 /usr/share/man/man1/rotatord-rotate.1.gz | col -b"), `rotatord rotate`)
	}
}

// completionsLoad has each shell that is here load the completions from where the package put them, and complete a command with it.
func completionsLoad(t *testing.T, m *machine, p packager) {
	t.Helper()
	for shell, script := range map[string]string{
		// What bash-completion does at the first TAB. Its own function is not there: the package does not depend on it.
		"bash": `. /usr/share/bash-completion/completions/rotatord
			_get_comp_words_by_ref() { cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=("${COMP_WORDS[@]}") cword=$COMP_CWORD; }
			COMP_WORDS=(rotatord revoke) COMP_CWORD=1 COMP_LINE='rotatord revoke' COMP_POINT=15 COMP_TYPE=9
			$(complete -p rotatord | sed 's/.*-F \([^ ]*\) .*/\1/')
			printf '%s\n' "${COMPREPLY[@]}"`,
		// compinit finds the file by its first line, and compadd is where the words arrive.
		"zsh": `fpath=(` + filepath.Dir(p.zsh) + ` $fpath); autoload -U compinit; compinit -u -D; [[ $_comps[rotatord] == _rotatord ]] || exit 1
			autoload +X _rotatord; words=(rotatord revoke) CURRENT=2
			_describe() { print -l -- $completions; }
			_rotatord`,
		"fish": `complete -C 'rotatord revoke'`,
	} {
		if _, err := exec.LookPath(shell); err != nil {
			if os.Getenv("ROTATORD_REQUIRE_TOOLS") == "1" {
				t.Errorf("%s is not installed: run scripts/install-tools.sh", shell)
			}
			continue
		}
		want(t, "the completions of "+shell, m.run(script, shell), `^revoke-previous`)
	}
}

// otherRoot installs, upgrades and removes the rpm in another root directory, as one does who builds an image of a machine: its scripts run
// there, no systemd does, and this machine must not notice.
func otherRoot(t *testing.T, m *machine, files map[string]string) {
	t.Helper()
	const rpm = "rpm --force-debian --root /guide/layer/root "
	m.run("", `mkdir /guide/layer && mount -t tmpfs tmpfs /guide/layer && cd /guide/layer && mkdir -p upper work root/{etc,var/lib,usr,tmp,dev} && mount -t overlay -o lowerdir=/usr,upperdir=upper,workdir=work overlay root/usr &&
		for d in bin sbin lib lib64; do ln -s usr/$d root/$d; done && mknod -m 0666 root/dev/null c 1 3 && : > root/etc/passwd && : > root/etc/group && mkdir root/packages && cp /guide/packages/*.rpm root/packages`)
	in := func(version string) string {
		return strings.Replace(files[version], "/guide/packages/", "/guide/layer/root/packages/", 1)
	}
	m.run("", rpm+"--install /guide/layer/root/packages/ca-certificates-*.rpm")
	out := m.run("", rpm+"--install "+in(oldVersion))
	want(t, "the installation in another root", out, `what to do next is in /usr/share/doc/rotatord/README\.md`)
	if out := m.run("", rpm+"--verify rotatord"); strings.TrimSpace(out) != "" {
		t.Errorf("files are not as packaged:\n%s", out)
	}
	want(t, "the user in the other root", m.run("", "cat /guide/layer/root/etc/passwd"), `^rotatord:`)
	if out, err := m.try("", "getent passwd rotatord || ls -d /etc/rotatord /usr/bin/rotatord"); err == nil {
		t.Errorf("this machine has got it: %s", out)
	}
	m.run("", "echo '# mine' >> /guide/layer/root/etc/rotatord/config.example.yaml && mkdir -p /guide/layer/root/var/lib/rotatord/pending && touch /guide/layer/root/var/lib/rotatord/pending/undelivered")
	m.run("", rpm+"--upgrade "+in(newVersion))
	want(t, "the version after the upgrade", m.run("", rpm+"--query rotatord"), `^rotatord-0\.0\.2-1\.`)
	// Only the file that was changed differs, and rpm knows that it is a configuration.
	want(t, "what differs after the upgrade", m.mustFail(t, rpm+"--verify rotatord"), `^\A\S+ +c /etc/rotatord/config\.example\.yaml\n\z`)
	want(t, "documents can be left out", m.run("", rpm+"--query --docfiles rotatord"), `^/usr/share/man/man5/rotatord\.yaml\.5\.gz$`)
	out = m.run("", rpm+"--erase rotatord")
	want(t, "the removal", out, `do not remove them: there are client secrets in /var/lib/rotatord/pending `)
	m.run("", "test -e /guide/layer/root/var/lib/rotatord/pending/undelivered && test ! -e /guide/layer/upper/bin/rotatord && umount /guide/layer/root/usr /guide/layer")
}
