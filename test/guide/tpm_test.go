package guide

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tpmTools are the programs of TestTPM. `make tpm` installs them, and has the test fail without them.
var tpmTools = []string{"swtpm", "age-plugin-tpm"}

// TestTPM runs the unit with an age identity that is in a TPM: the plugin is the real one, and the TPM is a software TPM behind a device
// file. It looks at what a TPM that is away does to a secret that waits.
func TestTPM(t *testing.T) {
	bin, err := filepath.Abs(filepath.Join(repository, ".tools/bin"))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	for _, program := range tpmTools {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("ROTATORD_TPM") == "required" {
				t.Fatalf("%s is not installed: run scripts/install-tools.sh tpm", program)
			}
			t.Skipf("%s is not installed: make tpm installs it and runs this test", program)
		}
	}
	m := boot(t)
	plugin, err := exec.LookPath("age-plugin-tpm")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", plugin, filepath.Join(m.in, "age-plugin-tpm")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m.run("", "install -m 0755 /guide/age-plugin-tpm /usr/local/bin/ && make install && mkdir -p /guide/tpm")
	m.run("", tpmOn)
	m.run("", "age-plugin-tpm --generate --output /etc/rotatord/credentials/age-identity && chmod 0600 /etc/rotatord/credentials/age-identity && "+
		"grep -q ^AGE-PLUGIN-TPM-1 /etc/rotatord/credentials/age-identity")
	m.cloudflareAndVault("cfat_made-up")
	m.run("", filled.Replace("rotatord import --account-id ACCOUNT_ID --api-token-file /etc/rotatord/credentials/cloudflare-api-token --vault-address https://VAULT_HOST:8200 --out /etc/rotatord/config.yaml"))
	m.run(operatingDropIn(t, plugin), "mkdir -p /etc/systemd/system/rotatord.service.d && cat > /etc/systemd/system/rotatord.service.d/tpm.conf && systemctl daemon-reload")
	want(t, "doctor", m.run("", "rotatord doctor || true"), `^good +state\.identity +the program age-plugin-tpm holds the key`)

	m.run("", "systemctl start rotatord.service && "+ready)
	want(t, "the working key", m.run("", "ls /var/lib/private/rotatord"), `^identity-locked\.age$`)
	if out, err := m.try("", "test ! -e /var/lib/private/rotatord/identity.age && head -c 200 /var/lib/private/rotatord/identity-locked.age | grep -a -e '^-> ' && ! grep -a -q AGE-SECRET-KEY /var/lib/private/rotatord/identity-locked.age"); err != nil {
		t.Errorf("the working key is on the disk as plain text: %v\n%s", err, out)
	} else {
		t.Logf("sealed by the TPM: %s", out)
	}
	m.run("", "rotatord rotate seeded-0001")
	m.run("", "systemctl restart rotatord.service && "+ready) // the TPM opens what it sealed

	// The TPM goes away while a secret waits, and Vault comes back before it: the daemon delivers without the TPM.
	m.leavePending(t)
	m.run("", tpmOff)
	m.run("", vaultOn)
	m.waitFor(t, "the pending secret is delivered without the TPM", pendingMetric+"0' && "+noPending)
	want(t, "how often it was rotated", m.run("", rotated), `^"rotations":\{"[^"]+":2\}`)
	if same := m.run("", sameSecret); strings.TrimSpace(same) != "same" {
		t.Errorf("Vault has another secret than Cloudflare: %s", same)
	}

	// The TPM is away, a secret waits, and the daemon is started again: it says what is missing, and keeps what waits.
	m.leavePending(t)
	sealed := m.run("", pendingFiles)
	before := m.run("", "date +%s")
	if out, err := m.try("", "systemctl restart rotatord.service"); err == nil {
		t.Errorf("it started without the TPM: %s", out)
	}
	journal := m.run("", "journalctl --unit rotatord.service --output cat --no-pager --since @"+strings.TrimSpace(before))
	want(t, "the message", journal, `^rotatord: .*unlocking /var/lib/rotatord/identity-locked\.age: .*/usr/local/bin/age-plugin-tpm of the age identity: `+away)
	want(t, "how it ended", journal, `status=1/FAILURE`)
	if now := m.run("", pendingFiles); now != sealed {
		t.Errorf("what waits has changed: %s, before %s", now, sealed)
	}
	want(t, "recover without the TPM", m.mustFail(t, "rotatord recover --state-dir /var/lib/private/rotatord --reveal seeded-0001 --identity /etc/rotatord/credentials/age-identity"), away)
	m.run("", tpmOn+" && "+vaultOn)
	m.waitFor(t, "the daemon starts by itself when the TPM is back", ready)
	m.waitFor(t, "the pending secret is delivered", pendingMetric+"0' && "+noPending)
	want(t, "how often it was rotated", m.run("", rotated), `^"rotations":\{"[^"]+":3\}`)
	if same := m.run("", sameSecret); strings.TrimSpace(same) != "same" {
		t.Errorf("Vault has another secret than Cloudflare: %s", same)
	}
	// Another TPM does not open what this one sealed.
	m.run("", "systemctl stop rotatord.service && "+tpmOff+" && mv /guide/tpm /guide/tpm-of-before && mkdir /guide/tpm && "+tpmOn)
	want(t, "another TPM", m.mustFail(t, "systemctl start rotatord.service || { journalctl --unit rotatord.service --output cat --no-pager --lines 10; false; }"), `^rotatord: .*unlocking /var/lib/rotatord/identity-locked\.age`)
}

const (
	// tpmOn starts the TPM and its device, tpmOff takes both away.
	tpmOn = `systemd-run --quiet --unit swtpm swtpm socket --tpm2 --tpmstate dir=/guide/tpm --server type=unixio,path=/run/swtpm.sock --ctrl type=unixio,path=/run/swtpm.ctrl --flags not-need-init,startup-clear && ` +
		`for i in $(seq 1200); do [[ -S /run/swtpm.sock ]] && break; sleep 0.1; done && ` +
		`systemd-run --quiet --unit tpmdevice --setenv ` + roleEnv + `=tpm /guide/tool /run/swtpm.sock /dev/tpmrm0 && ` +
		`for i in $(seq 1200); do [[ -e /dev/tpmrm0 ]] && break; sleep 0.1; done; test -e /dev/tpmrm0`
	tpmOff   = `systemctl stop tpmdevice.service swtpm.service && test ! -e /dev/tpmrm0`
	vaultOff = `systemctl stop vaultd.service`
	vaultOn  = `systemctl is-active --quiet vaultd.service || systemd-run --quiet --unit vaultd /guide/vaultd -listen 127.0.0.1:8200 -dir /guide/vault; ` +
		`curl --silent --retry 30 --retry-all-errors --fail -o /dev/null http://127.0.0.1:8200/v1/sys/health`
	pendingFiles  = `find /var/lib/private/rotatord/pending -type f -printf '%f %s\n' | sort`
	pendingMetric = `curl --silent --fail http://127.0.0.1:9321/metrics | grep -qx 'rotatord_pending_secrets `
	// away is what the plugin says without a TPM.
	away      = `it ended before it answered, and wrote: .*/dev/tpmrm0: no such file or directory`
	noPending = `[[ -z $(find /var/lib/private/rotatord/pending -type f) ]]`
	// sameSecret asks an application behind Access whether it takes the secret that Vault has.
	sameSecret = `body=$(` + stored + `); id=$(grep -o '"client_id":"[^"]*' <<<"$body" | cut -d'"' -f4); secret=$(grep -o '"client_secret":"[^"]*' <<<"$body" | cut -d'"' -f4); ` +
		`code=$(curl --silent -o /dev/null -w '%{http_code}' -H "CF-Access-Client-Id: $id" -H "CF-Access-Client-Secret: $secret" http://127.0.0.1:8787/app/); [[ $code == 200 ]] && echo same || echo "$code"`
)

// leavePending rotates while Vault ends between the request and its answer, so that the secret waits on the disk.
func (m *machine) leavePending(t *testing.T) {
	t.Helper()
	m.run("", `curl --silent --fail -X POST -d '{"operation":"rotate","kind":"delay","when":"before","delay":"4s"}' http://127.0.0.1:8787/_sim/faults`)
	m.run("", "systemd-run --quiet --collect --unit ordered --property Type=oneshot --no-block rotatord rotate seeded-0001 --override-grace && "+
		`until curl --silent http://127.0.0.1:8787/_sim/faults | grep -q -E '^(null|\[\])$'; do sleep 0.02; done && `+vaultOff)
	m.waitFor(t, "a secret waits", pendingMetric+"1'")
}

// waitFor repeats a command line until it succeeds.
func (m *machine) waitFor(t *testing.T, what, line string) {
	t.Helper()
	for end := time.Now().Add(2 * patience); ; time.Sleep(200 * time.Millisecond) {
		out, err := m.try("", line)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			journal, _ := m.try("", "journalctl --no-pager --lines 40")
			t.Fatalf("did not come about: %s: %s\n%s", what, out, journal)
		}
	}
}

// mustFail returns what a command line that fails has written.
func (m *machine) mustFail(t *testing.T, line string) string {
	t.Helper()
	out, err := m.try("", line)
	if err == nil {
		t.Errorf("%s succeeded: %s", line, out)
	}
	return out
}

// operatingDropIn returns the drop-in for a TPM as docs/operating.md has it, for this program.
func operatingDropIn(t *testing.T, plugin string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, "docs/operating.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(text), "  ```ini\n")
	block, _, end := strings.Cut(after, "  ```\n")
	if !found || !end || !strings.Contains(block, "DeviceAllow=/dev/tpmrm0 rw") {
		t.Fatalf("docs/operating.md has no drop-in for a TPM: %q", block)
	}
	program, err := elf.Open(plugin)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	if libraries, err := program.ImportedLibraries(); err != nil || len(libraries) > 0 {
		const dynamic = "ExecPaths=/usr/local/bin/age-plugin-tpm /usr/lib /usr/lib64"
		if !strings.Contains(string(text), "`"+dynamic+"`") {
			t.Fatal("docs/operating.md does not say what a plugin needs that is not static")
		}
		block = strings.Replace(block, "ExecPaths=/usr/local/bin/age-plugin-tpm", dynamic, 1)
	}
	return strings.ReplaceAll(strings.TrimPrefix(block, "  "), "\n  ", "\n")
}

// tpmDevice is a device file of a TPM whose other end is a socket: the kernel here has no driver for TPMs, and the plugin opens a device. The file
// is the slave of a terminal without any handling of lines. As the kernel's resource manager does, it gives up the objects of a program that closed
// the file. It goes away with the TPM.
func tpmDevice(socket, path string) error {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer master.Close()
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		return err
	}
	name := "/dev/pts/" + strconv.Itoa(number)
	if err := rawTerminal(name); err != nil {
		return err
	}
	if group, err := exec.Command("getent", "group", "tss").Output(); err == nil {
		id, err := strconv.Atoi(strings.Split(string(group), ":")[2])
		if err != nil {
			return err
		}
		if err := errors.Join(os.Chown(name, 0, id), os.Chmod(name, 0o660)); err != nil {
			return err
		}
	}
	if err := os.Symlink(name, path); err != nil {
		return err
	}
	defer os.Remove(path)
	stop := make(chan os.Signal, 1)
	notifyEnd(stop)
	go func() {
		<-stop
		_ = os.Remove(path)
		os.Exit(0)
	}()
	buffer, open := make([]byte, 4096), false
	for {
		n, err := master.Read(buffer)
		switch {
		case errors.Is(err, unix.EIO): // no program has it open
			if open {
				forget(socket)
			}
			open = false
			time.Sleep(5 * time.Millisecond)
			continue
		case err != nil:
			return err
		}
		open = true
		answer, err := tpmCommand(socket, buffer[:n])
		if err != nil {
			return fmt.Errorf("the TPM is away: %w", err)
		}
		if _, err := master.Write(answer); err != nil {
			return err
		}
	}
}

func rawTerminal(name string) error {
	slave, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer slave.Close()
	t, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		return err
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return unix.IoctlSetTermios(int(slave.Fd()), unix.TCSETS, t)
}

// tpmCommand sends one command to the TPM and returns its answer.
func tpmCommand(socket string, command []byte) ([]byte, error) {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write(command); err != nil {
		return nil, err
	}
	answer := make([]byte, 4096)
	if _, err := io.ReadFull(c, answer[:10]); err != nil {
		return nil, err
	}
	size := int(answer[2])<<24 | int(answer[3])<<16 | int(answer[4])<<8 | int(answer[5])
	if size < 10 || size > len(answer) {
		return nil, fmt.Errorf("an answer of %d bytes", size)
	}
	_, err = io.ReadFull(c, answer[10:size])
	return answer[:size], err
}

// forget flushes all transient objects and sessions. A handle that is free is an error of the TPM, which changes nothing.
func forget(socket string) {
	for _, kind := range []byte{0x80, 0x02, 0x03} {
		for i := range byte(3) {
			_, _ = tpmCommand(socket, []byte{0x80, 0x01, 0, 0, 0, 14, 0, 0, 0x01, 0x65, kind, 0, 0, i})
		}
	}
}
