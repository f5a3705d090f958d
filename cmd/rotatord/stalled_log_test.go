package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fullPipe returns the write end of a pipe that is full and that nothing reads.
func fullPipe(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	raw, err := w.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	// It is not for the poller to say when the pipe is full: a deadline may pass before the first byte is written.
	var full error
	if err := raw.Control(func(fd uintptr) {
		for dots := bytes.Repeat([]byte("."), 1<<16); full == nil; {
			if _, full = syscall.Write(int(fd), dots); full == syscall.EAGAIN && len(dots) > 1 {
				full, dots = nil, dots[:1]
			}
		}
	}); err != nil || full != syscall.EAGAIN {
		t.Fatalf("the pipe is not full: %v, %v", err, full)
	}
	return w
}

// notifications is a socket on which the test hears what the daemon tells systemd.
func notifications(t *testing.T) *net.UnixConn {
	t.Helper()
	dir, err := os.MkdirTemp("", "n") // the name of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// TestStalledLog: standard error is a full pipe that nothing reads. The daemon becomes ready, reloads, and ends at
// SIGTERM as docs/commands.md says.
func TestStalledLog(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it runs the real program")
	}
	dir := t.TempDir()
	address := freePort(t)
	text := fmt.Sprintf(`
listen: %[1]s
state: {dir: %[2]s/state}
log: {level: debug}
accounts: {a: {account_id: 023e105f4ecef8ad9ca31a8372d0c353, api_token: {file: token}, base_url: "http://127.0.0.1:1/client/v4"}}
tokens:
  ci: {id: 5eed0000-0000-4000-8000-000000000001, account: a, grace: 24h, schedule: "0 4 * * 1", sinks: [{file: {path: %[2]s/ci.env}}]}
`, address, dir)
	path := filepath.Join(dir, "config.yaml")
	for name, content := range map[string]string{path: text, filepath.Join(dir, "token"): "made-up"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	heard := notifications(t)
	cmd := &exec.Cmd{
		Path: program, Args: []string{"rotatord", "run", "--config", path, "--shutdown-timeout", "2s"}, Stderr: fullPipe(t),
		Env: append(os.Environ(), "NOTIFY_SOCKET="+heard.LocalAddr().String()),
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })

	if err := heard.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	said := make([]byte, 100)
	if n, err := heard.Read(said); err != nil || string(said[:n]) != "READY=1" {
		t.Fatalf("the daemon is not ready: %q, %v", said[:n], err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(text, "24h", "wrong", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); !strings.Contains(bodyOf(t, "http://"+address+"/metrics"), "\nrotatord_config_last_reload_successful 0\n"); {
		if time.Now().After(end) {
			t.Fatal("the reload did not come to an end")
		}
		time.Sleep(50 * time.Millisecond)
	}
	began := time.Now()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it ended with %v, want exit code 0", err)
		}
		t.Logf("it ended after %s", time.Since(began))
	case <-time.After(patience): // a log that stalls would hold it up for ever
		t.Fatalf("it still runs %s after SIGTERM, with --shutdown-timeout 2s", patience)
	}
}

// TestStalledReader: a configuration with faults ends the daemon with exit code 1, although nothing reads which.
func TestStalledReader(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it runs the real program")
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"testdata/no-such-file.yaml", "run.go"} {
		cmd := &exec.Cmd{Path: program, Args: []string{"rotatord", "run", "--config", file}, Stderr: fullPipe(t)}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		late := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		late.Stop()
		if code := cmd.ProcessState.ExitCode(); code != exitFailed {
			t.Errorf("%s: exit code %d, want %d", file, code, exitFailed)
		}
	}
}

// bodyOf returns what a GET is answered with; empty if it is not.
func bodyOf(t *testing.T, url string) string {
	t.Helper()
	client := &http.Client{Timeout: 5 * time.Second}
	res, err := client.Get(url)
	if err != nil {
		return ""
	}
	defer res.Body.Close()
	var b bytes.Buffer
	_, _ = b.ReadFrom(res.Body)
	return b.String()
}
