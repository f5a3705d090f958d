package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestProcessIsHardened looks at the real program as the kernel does. What the two settings do is tested in internal/harden.
func TestProcessIsHardened(t *testing.T) {
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
	for _, c := range []struct {
		arguments []string
		ready     string
	}{
		{[]string{"run", "--config", config}, "rotatord is running"},
		{[]string{"sim", "--listen", "127.0.0.1:0"}, "http://"},
	} {
		t.Run(c.arguments[0], func(t *testing.T) {
			log, err := os.Create(filepath.Join(dir, c.arguments[0]+".log"))
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			// With a umask of 077, go test builds a binary that another user may not run.
			if err := os.Chmod("/proc/self/exe", 0o755); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
			cmd.Args = append([]string{"rotatord"}, c.arguments...)
			cmd.Env = []string{"API_TOKEN=cfat_CANARY"}
			cmd.Stdout, cmd.Stderr = log, log
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: service, Gid: service}}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			defer func() { _, _ = cmd.Process.Kill(), <-ended }()
			for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
				text, err := os.ReadFile(log.Name())
				if err != nil || time.Now().After(end) {
					t.Fatalf("it did not start: %v\n%s", err, text)
				}
				if strings.Contains(string(text), c.ready) {
					break
				}
				select {
				case err := <-ended:
					ended <- err
					t.Fatalf("it ended: %v\n%s", err, text)
				default:
				}
			}
			// The files of a process belong to root exactly where the kernel asks for CAP_SYS_PTRACE.
			info, err := os.Stat(fmt.Sprintf("/proc/%d/environ", cmd.Process.Pid))
			if err != nil {
				t.Fatal(err)
			}
			if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 {
				t.Errorf("the user %d can read the environment and the memory of the process", owner)
			}
			limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", cmd.Process.Pid))
			if err != nil || !strings.Contains(string(limits), "Max core file size        0                    0") {
				t.Errorf("it may write a core file: %v\n%s", err, limits)
			}
		})
	}
}
