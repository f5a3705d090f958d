package deploy

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// maxExposure is the worst rating that `systemd-analyze security` may give.
const maxExposure = 1.5

// unit is a parsed unit file: the values of each key, in order.
type unit map[string][]string

func readUnit(t *testing.T) unit {
	t.Helper()
	u := unit{}
	for line := range strings.Lines(readFile(t, "deploy/systemd/rotatord.service")) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "[") {
			continue
		}
		key, value, found := strings.Cut(line, "=")
		if !found {
			t.Fatalf("not a setting: %q", line)
		}
		u[key] = append(u[key], value)
	}
	return u
}

func (u unit) one(t *testing.T, key string) string {
	t.Helper()
	if len(u[key]) != 1 {
		t.Fatalf("%s= is there %d times, want once", key, len(u[key]))
	}
	return u[key][0]
}

func (u unit) duration(t *testing.T, key string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(strings.Replace(u.one(t, key), "min", "m", 1))
	if err != nil {
		t.Fatalf("%s=: %v", key, err)
	}
	return d
}

// writeUnit copies the unit into a directory with the binary's path replaced by that
// of a program that exists, since `verify` looks for it.
func writeUnit(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "rotatord.service")
	content := strings.ReplaceAll(readFile(t, "deploy/systemd/rotatord.service"), "/usr/local/bin/rotatord", self)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSystemdVerify(t *testing.T) {
	analyze := tool(t, "systemd-analyze")
	banner, err := run(t, analyze, "--version")
	if err != nil {
		t.Fatalf("%v\n%s", err, banner)
	}
	found := regexp.MustCompile(`^systemd (\d+)`).FindStringSubmatch(banner)
	if found == nil {
		t.Fatalf("no version in %q", banner)
	}
	version, err := strconv.Atoi(found[1])
	if err != nil {
		t.Fatal(err)
	}
	out, err := run(t, analyze, "verify", "--man=no", writeUnit(t))
	if err != nil {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	// The unit says that older versions ignore these two.
	known := regexp.MustCompile(`Unknown key.* '(RestartSteps|RestartMaxDelaySec)'`)
	for line := range strings.Lines(out) {
		if version < 254 && known.MatchString(line) {
			continue
		}
		t.Errorf("systemd-analyze verify: %s", line)
	}
}

func TestSystemdExposure(t *testing.T) {
	analyze := tool(t, "systemd-analyze")
	out, err := run(t, analyze, "security", "--offline=true", "--no-pager", "--threshold="+strconv.Itoa(maxExposure*10), writeUnit(t))
	if err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
	found := regexp.MustCompile(`Overall exposure level for rotatord\.service: ([0-9.]+)`).FindStringSubmatch(out)
	if found == nil {
		t.Fatalf("no exposure level in\n%s", out)
	}
	exposure, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("exposure %.1f", exposure)
	if exposure > maxExposure {
		t.Errorf("exposure %.1f, want at most %.1f\n%s", exposure, maxExposure, out)
	}
}

func TestSystemdUnit(t *testing.T) {
	u := readUnit(t)
	for key, want := range map[string]string{
		"Type":               "notify",
		"StateDirectory":     "rotatord",
		"StateDirectoryMode": "0700",
		// The group's members reach the socket in it; nobody else may even look.
		"RuntimeDirectory":     "rotatord",
		"RuntimeDirectoryMode": "0750",
		"Restart":              "on-failure",
		// It also fires when the clock was set, and then a rotation may be in progress.
		"WatchdogSignal": "SIGTERM",
		"LimitCORE":      "0",
	} {
		if got := u.one(t, key); got != want {
			t.Errorf("%s=%s, want %s", key, got, want)
		}
	}
	command := strings.Fields(u.one(t, "ExecStart"))
	if timeout, stop := shutdownTimeout(t, command), u.duration(t, "TimeoutStopSec"); stop < timeout+10*time.Second {
		t.Errorf("TimeoutStopSec is %s: too short to finish a rotation, which may take %s", stop, timeout)
	}
	if got := u.duration(t, "WatchdogSec"); got < 30*time.Second {
		t.Errorf("WatchdogSec is %s: a busy host would get the daemon killed", got)
	}
	if families := strings.Fields(u.one(t, "RestrictAddressFamilies")); !slices.Contains(families, "AF_UNIX") {
		t.Errorf("RestrictAddressFamilies=%q has no AF_UNIX: sd_notify cannot work", families)
	}
	if signal := strings.Fields(u.one(t, "ExecReload")); !slices.Equal(signal[1:], []string{"-HUP", "$MAINPID"}) {
		t.Errorf("ExecReload=%q does not send the signal that the daemon reloads at", signal)
	}
	for _, key := range []string{"ExecStart", "ExecReload"} {
		program := strings.Fields(u.one(t, key))[0]
		if exec := strings.Fields(u.one(t, "ExecPaths")); !slices.Contains(exec, program) && !strings.HasPrefix(program, "+") {
			t.Errorf("%s: ExecPaths=%q does not allow %s", key, exec, program)
		}
	}
}

// The configuration in the README must fit the unit that it is for.
func TestSystemdReadme(t *testing.T) {
	u := readUnit(t)
	cfg := parseConfig(t, fencedConfig(t))
	if name, _, _ := strings.Cut(u.one(t, "SetCredential"), ":"); name != "age-identity" {
		t.Errorf("SetCredential=%s: an installation that has its identity in the state directory would not start after an upgrade of the unit", name)
	}

	var credentials []string
	for _, value := range u["LoadCredential"] {
		name, source, found := strings.Cut(value, ":")
		if !found || source != "/etc/rotatord/credentials/"+name {
			t.Errorf("LoadCredential=%s does not come from /etc/rotatord/credentials/%s", value, name)
		}
		credentials = append(credentials, "/run/credentials/rotatord.service/"+name)
		if !strings.Contains(readFile(t, "deploy/systemd/README.md"), source) {
			t.Errorf("the README does not say how to make %s", source)
		}
	}
	files := cfg.files()
	slices.Sort(files)
	slices.Sort(credentials)
	if !slices.Equal(files, credentials) {
		t.Errorf("the configuration reads %q, the unit provides %q", files, credentials)
	}
	if want := "/var/lib/" + u.one(t, "StateDirectory"); cfg.State.Dir != want {
		t.Errorf("state.dir is %s, the unit provides %s", cfg.State.Dir, want)
	}
	if want := "/run/" + u.one(t, "RuntimeDirectory"); filepath.Dir(cfg.AdminSocket) != want {
		t.Errorf("admin_socket is %s, the unit provides %s", cfg.AdminSocket, want)
	}
	host, port := cfg.listen(t)
	if got := u.one(t, "SocketBindAllow"); got != "tcp:"+port {
		t.Errorf("SocketBindAllow=%s, and the configuration listens on %s", got, port)
	}
	if host != "127.0.0.1" {
		t.Errorf("the configuration listens on %s: everybody could read the metrics", host)
	}
}

func fencedConfig(t *testing.T) string {
	t.Helper()
	return systemdBlocks(t)[0]
}

// severalHosts is the configuration of a replica: the section state of the README in place of that of one daemon.
func severalHosts(t *testing.T) string {
	t.Helper()
	blocks := systemdBlocks(t)
	var state strings.Builder
	for line := range strings.Lines(blocks[1]) {
		state.WriteString(strings.TrimPrefix(line, "   "))
	}
	return replaceOnce(t, blocks[0], "state: {dir: /var/lib/rotatord, identity: {file: /run/credentials/rotatord.service/age-identity}}\n", strings.TrimRight(state.String(), " "))
}

func systemdBlocks(t *testing.T) []string {
	t.Helper()
	blocks := fenced(readFile(t, "deploy/systemd/README.md"), "yaml")
	if len(blocks) != 2 {
		t.Fatalf("%d YAML blocks in the README, want the configuration and the section state of several hosts", len(blocks))
	}
	return blocks
}

// TestSystemdSeveralHosts: the configuration of a replica reads what the unit provides, and the commands of the README hand the
// identity to the others.
func TestSystemdSeveralHosts(t *testing.T) {
	script := commandsOf(t, "deploy/systemd/README.md", "Several hosts")
	var provided []string
	for _, credential := range regexp.MustCompile(`(?m)^LoadCredential=([a-z-]+):/etc/rotatord/credentials/([a-z-]+)$`).FindAllStringSubmatch(readFile(t, "deploy/systemd/rotatord.service"), -1) {
		if credential[1] != credential[2] {
			t.Errorf("%q", credential)
		}
		provided = append(provided, "/run/credentials/rotatord.service/"+credential[1])
	}
	files := parseConfig(t, severalHosts(t)).files()
	slices.Sort(files)
	slices.Sort(provided)
	if !slices.Equal(files, provided) {
		t.Errorf("the configuration reads %q, the unit provides %q", files, provided)
	}
	for _, order := range [][]string{
		{"scp -p /etc/rotatord/credentials/age-identity", "rotatord check"},
		{"rotatord status", "disable --now rotatord.service", "rotatord ledger export", "rotatord ledger import", "enable --now rotatord.service"},
	} {
		at := 0
		for _, command := range order {
			i := strings.Index(script[at:], command)
			if i < 0 {
				t.Fatalf("no %q after %q", command, script[:at])
			}
			at += i
		}
	}
}
