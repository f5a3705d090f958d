package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rotatord/internal/racedetector"
)

// TestProcessIsHardened looks at the real program as the kernel does, for each kind of command. What the two settings do is tested in internal/harden.
func TestProcessIsHardened(t *testing.T) {
	if racedetector.On {
		t.Skip("it takes too long with the race detector, and runs without")
	}
	if os.Geteuid() != 0 {
		t.Skip("only a process of another user than root shows whether it can be read")
	}
	const service = 65533
	dir := t.TempDir()
	for at := dir; at != os.TempDir() && at != "/"; at = filepath.Dir(at) {
		if err := os.Chmod(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(dir, "config.yaml")
	text := fmt.Sprintf(`listen: 127.0.0.1:0
state: {dir: %[1]s/own/state}
accounts: {prod: {account_id: 023e105f4ecef8ad9ca31a8372d0c353, base_url: "http://127.0.0.1:1", api_token: {env: API_TOKEN}}}
tokens: {ci: {account: prod, id: f174e90a-fafe-4643-bbbc-4a0ed4fc8415, schedule: "@yearly", sinks: [{file: {path: %[1]s/own/ci.env}}]}}
`, dir)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(dir, "own")
	if err := os.Mkdir(own, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{own, config} { // whatever the umask is
		if err := os.Chown(path, service, service); err != nil {
			t.Fatal(err)
		}
	}
	token := filepath.Join(own, "token")
	if err := os.WriteFile(token, []byte("cfat_CANARY"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, arguments := range map[string][]string{
		"run":             {"run", "--config", config},
		"drill":           {"drill", "--config", config},
		"demo":            {"demo", "--plain"},
		"sim":             {"sim", "--listen", "127.0.0.1:0"},
		"check":           {"check", "--config", config},
		"doctor":          {"doctor", "--config", config},
		"plan":            {"plan", "--config", config},
		"identity create": {"identity", "create", "--out", filepath.Join(own, "age-identity")},
		"identity show":   {"identity", "show", "--config", config},
		"recover":         {"recover", "--state-dir", filepath.Join(own, "state")},
		"rotate":          {"rotate", "ci", "--config", config},
		"healthcheck":     {"healthcheck", "--config", config},
		"import": {"import", "--for", "here", "--account-id", "023e105f4ecef8ad9ca31a8372d0c353", "--api-token-file", token,
			"--base-url", "http://127.0.0.1:1", "--out", filepath.Join(own, "imported.yaml")},
	} {
		t.Run(name, func(t *testing.T) {
			// The process cannot end before it was looked at: there is no room for its first word.
			out := fullPipe(t)
			// With a umask of 077, go test builds a binary that another user may not run.
			if err := os.Chmod("/proc/self/exe", 0o755); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
			cmd.Args = append([]string{"rotatord"}, arguments...)
			cmd.Env = []string{"API_TOKEN=cfat_CANARY", "HOME=" + own, "TMPDIR=" + own}
			cmd.Stdout, cmd.Stderr = out, out
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: service, Gid: service}}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _, _ = cmd.Process.Kill(), cmd.Wait() }()
			for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
				err := hardened(cmd.Process.Pid)
				if err == nil {
					break
				}
				if time.Now().After(end) {
					t.Fatal(err)
				}
			}
			peek := exec.CommandContext(t.Context(), "/proc/self/exe")
			peek.Args = []string{"peekprocess", fmt.Sprint(cmd.Process.Pid)}
			peek.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: service, Gid: service}}
			if seen, err := peek.CombinedOutput(); err != nil || len(seen) > 0 {
				t.Errorf("the same user can use %s, %v", seen, err)
			}
		})
	}
}

// hardened returns what of the protection a process lacks, as the kernel shows it.
func hardened(pid int) error {
	// The files of a process belong to root exactly where the kernel asks for CAP_SYS_PTRACE.
	info, err := os.Stat(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return err
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 {
		return fmt.Errorf("the user %d can read the environment and the memory of the process", owner)
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil || !strings.Contains(string(limits), "Max core file size        0                    0") {
		return fmt.Errorf("it may write a core file: %w\n%s", err, limits)
	}
	return nil
}

// peekProcess prints what of another process it can use.
func peekProcess() {
	pid, err := strconv.Atoi(os.Args[1])
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for _, name := range []string{"environ", "mem", "maps"} {
		if f, err := os.Open(fmt.Sprintf("/proc/%d/%s", pid, name)); err == nil {
			if _, err := f.Read(make([]byte, 1)); err == nil || name == "mem" {
				fmt.Println(name)
			}
			_ = f.Close()
		}
	}
	if _, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)); err == nil {
		fmt.Println("fd")
	}
	if err := unix.PtraceSeize(pid); err == nil {
		fmt.Println("ptrace")
	}
}

// TestDumpHasNoSecret ends the daemon by the signal that has Go print all goroutines, with the most that GOTRACEBACK can say, while
// credentials are in its memory and its environment.
func TestDumpHasNoSecret(t *testing.T) {
	asked := make(chan string, 10)
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- r.Header.Get("Authorization")
		<-r.Context().Done()
	}))
	defer silent.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yaml")
	text := fmt.Sprintf(`listen: 127.0.0.1:0
state: {dir: %[1]s/state}
accounts: {prod: {account_id: 023e105f4ecef8ad9ca31a8372d0c353, base_url: %[2]q, api_token: {env: API_TOKEN}}}
tokens: {ci: {account: prod, id: f174e90a-fafe-4643-bbbc-4a0ed4fc8415, schedule: "@yearly", sinks: [{file: {path: %[1]s/ci.env}}]}}
`, dir, silent.URL)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Args = []string{"rotatord", "run", "--config", config}
	cmd.Dir = dir
	cmd.Env = []string{"API_TOKEN=cfat_CANARY", "GOTRACEBACK=crash"}
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	select {
	case header := <-asked: // the credential is in use
		if !strings.Contains(header, "CANARY") {
			t.Fatalf("the request has %q", header)
		}
	case <-time.After(patience):
		t.Fatal("it has asked nothing")
	}
	if err := cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it ends by a signal
	dump := said.String()
	if !strings.Contains(dump, "SIGQUIT: quit") || strings.Count(dump, "\ngoroutine ") < 10 {
		t.Fatalf("no dump of the goroutines:\n%s", dump)
	}
	if strings.Contains(dump, "CANARY") || strings.Contains(dump, hex.EncodeToString([]byte("CANARY"))) {
		t.Errorf("the dump has the API token:\n%s", dump)
	}
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.CoreDump() {
		t.Error("a core was written")
	}
	identity, err := os.ReadFile(filepath.Join(dir, "state", "identity.age"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(identity)) {
		if strings.HasPrefix(line, "AGE-SECRET-KEY-") && strings.Contains(dump, strings.TrimSpace(line)) {
			t.Error("the dump has the age identity")
		}
	}
}
