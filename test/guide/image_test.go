package guide

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// engine is podman in a machine.
type engine struct {
	*machine
	podman string // the command with its own options
	limits string // options of `podman run` that this machine needs
}

// imageTools are the programs of TestImage. `make image-e2e` installs them, and has the test fail without them.
var imageTools = []string{"podman", "conmon", "crun", "qemu-aarch64-static"}

// TestImage loads the image of a release into podman, and runs it as deploy/docker/Dockerfile says: as a user without rights, with
// no capability and a read-only root, against a simulated Cloudflare and a real Vault.
func TestImage(t *testing.T) {
	for _, program := range imageTools {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("ROTATORD_IMAGE") == "required" {
				t.Fatalf("%s is not installed: run scripts/install-tools.sh image", program)
			}
			t.Skipf("%s is not installed: make image-e2e installs it and runs this test", program)
		}
	}
	m := boot(t)
	if err := buildImage(t.Context(), m.in); err != nil {
		t.Fatal(err)
	}
	// Containers cannot be on the overlay that the machine runs on.
	m.run("", "mkdir -p /guide/containers && ulimit -n")
	e := &engine{machine: m, podman: "podman --root /guide/containers/root --runroot /guide/containers/run --cgroup-manager cgroupfs"}
	want(t, "the engine reads the release's file", m.run("", e.podman+" load --input /guide/image.oci.tar"), `^Loaded image: localhost/rotatord:v0\.0\.1$`)
	e.probe()
	e.insideTheImage(t)
	e.prepareCloudflareAndVault()
	e.rotates(t)
	e.stops(t)
	e.dumps(t)
	e.otherUsers(t)
	e.withoutRoot(t)
	e.otherArchitecture(t)
}

// stored prints what Vault has of the token.
const stored = `curl --silent --fail --header "X-Vault-Token: $(grep -o '"root_token": *"[^"]*' /guide/vault/init.json | cut -d'"' -f4)" http://127.0.0.1:8200/v1/secret/data/access/seeded-0001`

// image is what podman names the image.
const image = "localhost/rotatord:v0.0.1"

// probe finds the options with which a container starts at all. A machine may have no control groups that the engine can use, or
// may not let it raise limits. The test needs neither.
func (e *engine) probe() {
	e.t.Helper()
	var said []string
	for _, limits := range []string{"", "--cgroups disabled --ulimit nofile=1024:1024 --ulimit nproc=1024:1024"} {
		e.limits = limits
		out, err := e.try("", e.container("", "version"))
		if err == nil {
			e.t.Logf("podman run %s: %s", limits, out)
			return
		}
		said = append(said, out)
	}
	e.t.Skipf("the kernel of this machine does not let podman run a container:\n%s", strings.Join(said, "\n"))
}

// container returns the command line that runs one command of the image, as the unit and the manifests do: without any right.
func (e *engine) container(options, command string) string {
	return fmt.Sprintf("%s run --rm %s --network host --read-only --read-only-tmpfs=false --cap-drop all --security-opt no-new-privileges %s %s %s",
		e.podman, e.limits, options, image, command)
}

// insideTheImage runs what needs no configuration, and looks for what must not be there.
func (e *engine) insideTheImage(t *testing.T) {
	t.Helper()
	want(t, "version", e.run("", e.container("", "version")), `^rotatord v0\.0\.1 \(revision 0123abcd, go`)
	if out, err := e.try("", e.container("--entrypoint /bin/sh", "-c true")); err == nil || !strings.Contains(strings.ToLower(out), "no such file") {
		t.Errorf("the image has a shell: %v\n%s", err, out)
	}
	files := e.run("", "cd /guide && mkdir content && id=$("+e.podman+" create --cgroups disabled "+image+") && "+e.podman+" export $id | tar --extract --directory content && "+
		e.podman+" rm $id >/dev/null && cd content && find . -type f -not -path './run/*' -not -path './etc/host*' -not -path './etc/resolv.conf' -not -path './dev/*' | sort")
	if files != "./etc/ssl/certs/ca-certificates.crt\n./usr/local/bin/rotatord\n" {
		t.Errorf("the image has the files\n%s", files)
	}
	// The simulator, a KV server and a daemon in one process, whose directory is below /tmp.
	want(t, "the demo", e.run("", e.container("--tmpfs /tmp", "demo --for 6s --plain")), `0 refused`)
}

// prepareCloudflareAndVault follows the top of the Dockerfile up to the start of the container.
func (e *engine) prepareCloudflareAndVault() {
	e.t.Helper()
	e.run("", "install -m 0755 bin/rotatord /usr/local/bin/rotatord && mkdir -p /guide/c /etc/rotatord/credentials")
	e.cloudflareAndVault("cfat_CANARY")
	e.run("", "rotatord identity create --out /etc/rotatord/credentials/age-identity")
	e.run("", filled.Replace("rotatord import --account-id ACCOUNT_ID --api-token-file /etc/rotatord/credentials/cloudflare-api-token "+
		"--vault-address https://VAULT_HOST:8200 --for kubernetes --vault-auth approle --out /guide/c/config.yaml"))
	e.run("", "cp -r /etc/rotatord/credentials /guide/c/ && chown -R 65532 /guide/c/credentials && sed -i 's/time_zone: UTC/time_zone: Pacific\\/Chatham/' /guide/c/config.yaml && "+
		"grep -q Chatham /guide/c/config.yaml")
}

// cloudflareAndVault starts a simulated Cloudflare with one service token and a real Vault, and writes their credentials to where
// the guides have them.
func (m *machine) cloudflareAndVault(apiToken string) {
	m.t.Helper()
	m.run("", "install -m 0755 /guide/vault-command /usr/local/bin/vault && mkdir -p /guide/vault")
	m.run("", "systemd-run --quiet --unit vaultd /guide/vaultd -listen 127.0.0.1:8200 -dir /guide/vault")
	m.run("", "curl --silent --retry 30 --retry-all-errors --fail -o /dev/null http://127.0.0.1:8200/v1/sys/health")
	m.run("", "systemd-run --quiet --unit sim /guide/rotatord/bin/rotatord sim --seed-tokens 1")
	m.run("", "curl --silent --retry 30 --retry-all-errors --fail -o /dev/null http://127.0.0.1:8787/_sim/stats")
	vault := blocks(m.t, "deploy/vault/README.md")
	for _, line := range append([]string{vault["The policy"][1], vault["The policy"][0]}, vault["AppRole"][:4]...) {
		m.run("", filled.Replace(line))
	}
	m.run(apiToken+"\n", "(umask 077; cat > /etc/rotatord/credentials/cloudflare-api-token)")
}

// mounts is the command line at the top of the Dockerfile, but for the network: Cloudflare and Vault are on this machine.
func (e *engine) mounts() string {
	e.t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, "deploy/docker/Dockerfile"))
	if err != nil {
		e.t.Fatal(err)
	}
	found := regexp.MustCompile(`(?s)docker run --detach --name rotatord (.*?) rotatord:v0\.1\.0\n`).FindStringSubmatch(string(text))
	if found == nil {
		e.t.Fatal("the Dockerfile does not say how the image is run")
	}
	options := strings.ReplaceAll(strings.ReplaceAll(found[1], "\\\n#", ""), "--publish 127.0.0.1:9321:9321", "")
	for _, wanted := range []string{"--read-only", "--cap-drop all", "--security-opt no-new-privileges", "--stop-timeout 45", "--tmpfs /run:"} {
		if !strings.Contains(options, wanted) {
			e.t.Fatalf("the Dockerfile runs the image with %s", options)
		}
	}
	return strings.ReplaceAll(options, "$PWD", "/guide/c")
}

// start runs the daemon, with the check of its health as docs/install.md has it for podman.
func (e *engine) start(options string) {
	e.t.Helper()
	e.run("", fmt.Sprintf(`%s run --detach --name rotatord %s --network host --read-only-tmpfs=false --health-cmd '["/usr/local/bin/rotatord","healthcheck"]' --health-interval disable %s %s`,
		e.podman, e.limits, options, image))
	if out, err := e.try("", ready); err != nil {
		e.t.Fatalf("the container is not ready: %s\n%s", out, e.run("", e.podman+" logs rotatord"))
	}
}

// inside runs a command in the running container.
func (e *engine) inside(command string) string {
	e.t.Helper()
	return e.run("", e.podman+" exec rotatord /usr/local/bin/rotatord "+command)
}

// rotates rotates a secret in the container, and looks at the process and its files from outside.
func (e *engine) rotates(t *testing.T) {
	t.Helper()
	want(t, "check", e.run("", e.container("--volume /guide/c/config.yaml:/etc/rotatord/config.yaml:ro --volume /guide/c/credentials:/etc/rotatord/credentials:ro", "check")), `: good: 1 token`)
	e.start(e.mounts())
	e.inside("rotate seeded-0001")
	want(t, "the rotation", e.run("", rotated), `^"rotations":\{"[^"]+":1\}`)
	want(t, "what Vault has", e.run("", stored), `"client_id":"[0-9a-f]+\.access"`)
	want(t, "the plan, in the zone of the configuration", e.inside("plan"), `\+1[23]:?45`)
	e.run("", e.podman+" healthcheck run rotatord")
	want(t, "the volume", e.run("", `stat --format '%u:%g %a' "$(`+e.podman+` volume inspect --format '{{.Mountpoint}}' rotatord-state)"`), `^65532:65532 700$`)

	pid := strings.TrimSpace(e.run("", e.podman+" inspect --format '{{.State.Pid}}' rotatord"))
	status := e.run("", "cat /proc/"+pid+"/status")
	for _, line := range []string{`Uid:\t65532\t65532\t65532\t65532`, `Gid:\t65532\t65532\t65532\t65532`, `CapEff:\t0+`, `CapBnd:\t0+`, `NoNewPrivs:\t1`, `Seccomp:\t2`} {
		want(t, "the process", status, "^"+line+"$")
	}
	want(t, "the limits", e.run("", "cat /proc/"+pid+"/limits"), `^Max core file size +0 +0 `)
	want(t, "who may read its memory", e.run("", "stat --format '%u %n' /proc/"+pid+"/environ /proc/"+pid+"/mem"), `^0 /proc/\d+/environ\n0 /proc/\d+/mem$`)
	if out, err := e.try("", "setpriv --reuid=65532 --regid=65532 --clear-groups cat /proc/"+pid+"/environ"); err == nil {
		t.Errorf("the same user reads the environment of the container's process:\n%s", out)
	}
}

// stops ends the container by SIGTERM, and starts it again on the same volume.
func (e *engine) stops(t *testing.T) {
	t.Helper()
	before := e.run("", rotated)
	e.run("", e.podman+" stop rotatord")
	want(t, "how it ended", e.run("", e.podman+" inspect --format '{{.State.ExitCode}} {{.State.OOMKilled}}' rotatord"), `^0 false$`)
	want(t, "its last words", e.run("", e.podman+" logs rotatord"), `"msg":"stopped"`)
	e.run("", e.podman+" start rotatord && "+ready)
	if after := e.run("", rotated); after != before {
		t.Errorf("the second start rotated, or lost the ledger: %s, before %s", after, before)
	}
}

// dumps ends the container as an operator does who looks for a hang, and reads all that it wrote in its life.
func (e *engine) dumps(t *testing.T) {
	t.Helper()
	e.run("", e.podman+" kill --signal QUIT rotatord && "+e.podman+" wait rotatord")
	said := e.run("", e.podman+" logs rotatord 2>&1")
	want(t, "the dump", said, `^goroutine \d+ `)
	secrets := e.run("", "awk 1 /guide/c/credentials/* && "+stored+` | grep -o '"client_secret":"[^"]*' | cut -d'"' -f4`)
	looked := 0
	for secret := range strings.FieldsSeq(secrets) {
		if len(secret) < 10 || strings.HasPrefix(secret, "age1") || strings.HasPrefix(secret, "20") { // comments of the identity
			continue
		}
		looked++
		if strings.Contains(said, secret) {
			t.Errorf("the container has written %.8s...", secret)
		}
	}
	if looked != 5 { // API token, identity, role ID, secret ID, and the rotated secret
		t.Errorf("%d secrets were looked for", looked)
	}
	e.run("", e.podman+" rm rotatord")
}

// otherUsers runs the image as another user, whom no volume of the first belongs to.
func (e *engine) otherUsers(t *testing.T) {
	t.Helper()
	out, err := e.try("", e.container("--user 1234:1234 "+e.mounts(), ""))
	if err == nil || !strings.Contains(out, "permission denied") {
		t.Errorf("with a volume of another user: %v\n%s", err, out)
	}
	e.run("", "cp -r /guide/c /guide/d && install -d -m 0700 -o 1234 /guide/d/state && chown -R 1234 /guide/d/credentials")
	e.start("--user 1234:1234 " + strings.ReplaceAll(strings.ReplaceAll(e.mounts(), "/guide/c", "/guide/d"), "rotatord-state:", "/guide/d/state:"))
	want(t, "status", e.inside("status --all"), `seeded-0001`)
	e.run("", e.podman+" rm --force --time 30 rotatord")
}

// withoutRoot runs the daemon by the engine of a user, whose container's users are subordinate ones of his.
func (e *engine) withoutRoot(t *testing.T) {
	t.Helper()
	e.run("", "useradd alice && install -d -o alice /guide/alice && chmod a+rX /guide /guide/image.oci.tar && cp -r /guide/c/config.yaml /guide/c/credentials /guide/alice/ && chown -R alice: /guide/alice")
	alice := engine{machine: e.machine, limits: e.limits, podman: "cd /guide/alice && setpriv --reuid=alice --regid=alice --init-groups env HOME=/guide/alice XDG_RUNTIME_DIR=/guide/alice/run podman --cgroup-manager cgroupfs"}
	e.run("", "install -d -m 0700 -o alice /guide/alice/run")
	if out, err := e.try("", alice.podman+" unshare true"); err != nil {
		t.Logf("not tried without root: this machine gives a user no user namespace: %s", out)
		return
	}
	e.run("", alice.podman+" load --quiet --input /guide/image.oci.tar")
	e.run("", alice.podman+" unshare chown -R 65532 /guide/alice/credentials")
	alice.start(strings.ReplaceAll(e.mounts(), "/guide/c", "/guide/alice"))
	want(t, "status", alice.inside("status --all"), `seeded-0001`)
	pid := strings.TrimSpace(e.run("", alice.podman+" inspect --format '{{.State.Pid}}' rotatord"))
	uid := strings.TrimSpace(e.run("", "awk '/^Uid:/ {print $2}' /proc/"+pid+"/status"))
	if uid == "0" || uid == "65532" {
		t.Errorf("the container of a user runs as %s of the machine", uid)
	}
	e.run("", alice.podman+" stop rotatord")
	want(t, "how it ended", e.run("", alice.podman+" inspect --format '{{.State.ExitCode}}' rotatord"), `^0$`)
}

// otherArchitecture runs the image of arm64 by an emulator. An image for another machine could be broken, and no test on this machine would show it.
func (e *engine) otherArchitecture(t *testing.T) {
	t.Helper()
	e.run("", e.podman+" rmi --force "+image+" && "+e.podman+" pull --quiet --arch arm64 oci-archive:/guide/image.oci.tar")
	want(t, "the architecture", e.run("", e.podman+" images --quiet --no-trunc | xargs "+e.podman+" inspect --format '{{.Architecture}}'"), `^arm64$`)
	e.run("", "cd /guide && mkdir arm64 && id=$("+e.podman+" create --cgroups disabled $("+e.podman+" images --quiet)) && "+e.podman+" export $id | tar --extract --directory arm64")
	const emulated = "env --unset VAULT_ADDR qemu-aarch64-static /guide/arm64/usr/local/bin/rotatord "
	want(t, "version", e.run("", emulated+"version"), `^rotatord v0\.0\.1 \(revision 0123abcd, go`)
	want(t, "check", e.run("", emulated+"check --config /guide/c/config.yaml"), `: good: 1 token`)
	want(t, "the demo", e.run("", emulated+"demo --for 8s --plain"), `0 refused`)
}

// buildImage writes the image of both architectures to a directory, with the program of the release.
func buildImage(ctx context.Context, out string) error {
	repo, err := filepath.Abs(repository)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "bash", "-euc", `work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
		for arch in amd64 arm64; do
			CGO_ENABLED=0 GOARCH=$arch go build -trimpath -ldflags "-s -w -X main.version=v0.0.1 -X main.revision=0123abcd" -o "$work/$arch" ./cmd/rotatord
		done
		(cd tools/release && go build -o "$work/image" ./image)
		"$work/image" -version v0.0.1 -revision 0123abcd -created 1700000000 -out "$1/image.oci.tar" amd64="$work/amd64" arm64="$work/arm64"`, "bash", out)
	cmd.Dir = repo
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("the image: %w\n%s", err, text)
	}
	return nil
}
